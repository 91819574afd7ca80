"""What ``data.root`` may name: one folder, or files, patterns and several folders."""

from __future__ import annotations

import contextlib
import glob
import os
from pathlib import Path


def is_several(root: str | Path) -> bool:
    """Whether a root names files, patterns or several folders, instead of one folder."""
    path = Path(root).expanduser()
    if path.is_dir():
        return False
    return glob.has_magic(str(root)) or "," in str(root) or path.is_file()


def anchor(root: str | Path) -> Path:
    """Returns the folder that files below a root are named from, so that all may be moved."""
    if not is_several(root):
        return Path(root).expanduser()
    fixed = []
    for part in filter(None, str(root).split(",")):
        path = Path(part).expanduser()
        while glob.has_magic(str(path)) or (not path.is_dir() and path != path.parent):
            path = path.parent
        fixed.append(path)
    with contextlib.suppress(ValueError):  # some are relative, others absolute
        return Path(os.path.commonpath(fixed))
    return Path()
