"""``python -m featkit_cli`` is ``featkit``."""

from featkit_cli.main import main

main()
