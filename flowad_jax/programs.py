"""Compiled programs are kept on disk, so that the next run of the same shapes need not compile."""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path

import jax

VARIABLE = "JAX_COMPILATION_CACHE_DIR"


def keep() -> None:
    """Tells jax where to keep programs that took a second to compile, and more.

    The folder is the user's cache folder, unless jax's own variable names another; set to nothing
    it keeps none. There is one per kind of processor, because a home may be shared between
    machines and a program for one may not run on another.
    """
    if VARIABLE in os.environ:
        return
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = cache / "flowad_jax" / f"programs-{_processor()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # no home, or one that cannot be written
        return
    if os.access(folder, os.W_OK):
        jax.config.update("jax_compilation_cache_dir", str(folder))


def _processor() -> str:
    """A name for what this processor can do."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        able = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        able = platform.processor()
    return hashlib.sha256(f"{platform.machine()} {able}".encode()).hexdigest()[:12]
