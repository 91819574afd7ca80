"""Tensors computed by the reference implementations, and a reader for them."""

from pathlib import Path

import numpy as np


def load(name: str) -> dict[str, np.ndarray]:
    """Arrays of one golden file."""
    with np.load(Path(__file__).with_name(f"{name}.npz")) as stored:
        return dict(stored)


def state_dict(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The reference's state dict within a golden file."""
    return {key[3:]: value for key, value in arrays.items() if key.startswith("sd/")}
