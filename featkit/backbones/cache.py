"""Where what was downloaded or computed once is kept."""

from __future__ import annotations

import os
from pathlib import Path

from featkit.spec import given_path


def cache_folder() -> Path:
    """Return the folder that downloads and digests are kept in.

    Returns:
        ``$FEATKIT_CACHE``, else ``$XDG_CACHE_HOME/featkit``, else ``~/.cache/featkit``.
    """
    if chosen := os.environ.get("FEATKIT_CACHE"):
        return given_path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "featkit"
