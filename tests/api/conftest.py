"""A detector that was fitted in Python, one of the shared run, and images of all kinds."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import flowad_jax

U8 = np.zeros((8, 6, 3), np.uint8)
TINY = {
    **{"encoder": "efficientnet_lite.efficientnet_lite_tiny=random", "image_size": 32},
    **{"strides": (4, 8), "blocks": (1, 1), "condition": 4, "warmup_meta_epochs": 0, "epochs": 1},
    **{"train__batch_size": 4, "eval__batch_size": 4, "holdout": 0.3, "pictures_per_kind": 0},
}


def photographs(count=10, seed=0):
    """Images as cameras and programs have them, of several sizes and kinds."""
    rng = np.random.default_rng(seed)
    grey = [rng.normal(110, 12, (40, 36)).clip(0, 255).astype(np.uint8) for _ in range(count)]
    kinds = [
        lambda image: image,
        lambda image: np.stack([image] * 3, axis=-1)[:, :30],
        lambda image: np.stack([image] * 4, axis=-1),
        lambda image: image.astype(np.uint16) * 257,
        lambda image: image[..., None] / np.float32(255),
        lambda image: jnp.asarray(image),
        Image.fromarray,
    ]
    return [kinds[index % len(kinds)](image) for index, image in enumerate(grey)]


@pytest.fixture(scope="session", name="fitted")
def _fitted(tmp_path_factory):
    path = tmp_path_factory.mktemp("fitted") / "run"
    return flowad_jax.fit(iter(photographs()), workdir=path, false_alarm_rate=0.25, **TINY)


@pytest.fixture(scope="session", name="detector")
def _detector(tiny_run):
    return flowad_jax.load(tiny_run[0] / "run")


@pytest.fixture(scope="session", name="files")
def _files(tiny_run):
    """The test images of the run, normal ones first."""
    test = tiny_run[0] / "images" / "test"
    return [test / kind / f"{i}.png" for kind in ("good", "spot") for i in range(3)]
