"""What the sides of the performance benchmark do, each in a process of its own.

All start at images in the host's memory, as a loader leaves them:

    train      a whole training step: images to the device, the frozen encoder, then all gradient
               steps that the method makes of the batch
    infer      images to likelihood maps in the host's memory, `eval.batch_size` of them
    infer one  the same for a single image

Speed needs no data: images are noise, weights random. Importing this costs no framework.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import config_dict

JOBS = ("train", "infer", "infer one")
EXPORTED = ("onnxruntime", "openvino")  # sides that cannot train
Job = Callable[[], Any]


class Given(NamedTuple):
    """What a side is told beside the recipe.

    Attributes:
      taps: indices of the encoder's feature maps.
      channels: of those maps.
      batch_kind: what a training batch holds, see `flowad_jax.types.Method`.
      precision: ``"float32"`` or ``"tf32"``.
      freia: version of FrEIA's blocks, see `peers.freia`.
      compile_mode: of ``torch.compile``.
    """

    taps: tuple[int, ...]
    channels: tuple[int, ...]
    batch_kind: str
    precision: str
    freia: str
    compile_mode: str


class Arrays(NamedTuple):
    """An image batch on the host: (B, S, S, 3) float32, (B, S, S) bool, (B,) int32."""

    image: np.ndarray
    mask: np.ndarray
    label: np.ndarray


def arrays(config: config_dict.ConfigDict, job: str, batch_kind: str) -> Arrays:
    """Noise for a job; half of a batch that is no batch of normal images alone is synthetic."""
    rows = config.eval.batch_size if job == "infer" else 1
    if job == "train":
        rows = config.train.batch_size * (2 if batch_kind == "pairs" else 1)
    side = config.data.image_size
    image = np.random.default_rng(0).standard_normal((rows, side, side, 3), np.float32)
    label, mask = np.zeros(rows, np.int32), np.zeros((rows, side, side), bool)
    if job == "train" and batch_kind != "normal":
        label[(rows + 1) // 2 :] = 1
        mask[label == 1, side // 4 : side // 2, side // 4 : side // 2] = True
    return Arrays(image, mask, label)


def forget_peak() -> None:
    """Lets the host's peak of this process start again from what it holds now (Linux)."""
    with contextlib.suppress(OSError):  # where it is forbidden, the peak is that of the process
        Path("/proc/self/clear_refs").write_text("5")


def host_peak_bytes() -> int:
    """Largest resident set of this process since `forget_peak` (Linux)."""
    # Not ru_maxrss: a new process starts with the peak of the one that started it.
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


class HostSide:
    """What all sides have in common that compute on the CPU and wait for the result.

    Attributes:
      device: its kind.
      forgets: whether the peak of memory can start again.
    """

    device, forgets = "cpu", True

    def start(self, job: str) -> None:
        """Forgets the largest use of memory."""
        forget_peak()

    def wait(self, result: Any) -> None:
        """There is nothing to wait for."""

    def peak_bytes(self) -> int:
        """Largest use of memory since `start`."""
        return host_peak_bytes()
