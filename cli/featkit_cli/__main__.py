"""``python -m featkit_cli`` is ``featkit``."""

from featkit_cli.start import main

main()
