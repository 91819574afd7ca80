"""JAX compilation cache and matmul precision."""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path

import jax

from flowad_jax.lookup import check_choice

VARIABLE, FOLDER = "JAX_COMPILATION_CACHE_DIR", "jax_compilation_cache_dir"
# Names of jax for products of float32 numbers. Its own default rounds them to TF32 on recent GPUs
# and to bfloat16 on TPUs, which would break orthogonality.
PRECISIONS = {"float32": "highest", "tf32": "tensorfloat32", "default": None}


def enable_compilation_cache() -> None:
    """Keeps compiled programs on disk, so that the next run of the same shapes need not compile.

    They lie in the user's cache folder, unless jax was told another by its own variable or by its
    configuration; the variable set to nothing keeps none. There is one folder per kind of
    processor, because a home may be shared between machines and a program for one may not run on
    another.
    """
    if VARIABLE in os.environ or getattr(jax.config, FOLDER, None):
        return
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = cache / "flowad_jax" / f"programs-{_processor()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # no home, or one that cannot be written
        return
    if os.access(folder, os.W_OK):
        jax.config.update(FOLDER, str(folder))


def set_matmul_precision(precision: str) -> None:
    """Sets how accelerators multiply float32 numbers from now on; processors always do it in full.

    Args:
      precision: ``"float32"``; ``"tf32"``, 10 bits behind the point or about as many; or
        ``"default"``, as the device or ``JAX_DEFAULT_MATMUL_PRECISION`` has it.

    Raises:
      UserError: another one.
    """
    check_choice("precision", precision, PRECISIONS)
    if jax.default_backend() != "cpu" and precision != "default":
        jax.config.update("jax_default_matmul_precision", PRECISIONS[precision])


def _processor() -> str:
    """A name for what this processor can do."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        able = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        able = platform.processor()
    return hashlib.sha256(f"{platform.machine()} {able}".encode()).hexdigest()[:12]
