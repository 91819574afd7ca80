"""Settings for the whole test run and small data sets that several tests share."""

import atexit
import os
import shutil
import tempfile

import numpy as np
import pytest
from PIL import Image

from configs.base import base

# Before jax is imported. Many tests compile the same small programs, also in processes of their
# own: one cache for the whole run, gone afterwards.
CACHE = tempfile.mkdtemp(prefix="flowad_jax_tests_")
atexit.register(shutil.rmtree, CACHE, ignore_errors=True)
os.environ["JAX_PLATFORMS"] = "cpu"
# They run once and on little: what LLVM would gain in them, it takes many times to find out.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
os.environ["JAX_COMPILATION_CACHE_DIR"] = CACHE
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


def write_image(path, seed, size=(40, 36), defect=False):
    """A grey photograph-like image; a defect is a bright square."""
    rng = np.random.default_rng(seed)
    pixels = rng.normal(110, 12, size).clip(0, 255).astype(np.uint8)
    if defect:
        pixels[10:20, 8:20] = 250
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def image_root(tmp_path):
    """A category `part` in the layout of MVTec AD: 6 train, 3 good and 3 defective test images."""
    category = tmp_path / "images" / "part"
    for index in range(6):
        write_image(category / "train" / "good" / f"{index}.png", index)
    for index in range(3):
        write_image(category / "test" / "good" / f"{index}.png", 100 + index)
        write_image(category / "test" / "spot" / f"{index}.png", 200 + index, defect=True)
        mask = np.zeros((40, 36), np.uint8)
        mask[10:20, 8:20] = 255
        (category / "ground_truth" / "spot").mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(category / "ground_truth" / "spot" / f"{index}_mask.png")
    return tmp_path / "images"


@pytest.fixture
def tiny_config(image_root):
    """A complete run that takes seconds."""
    return tiny_run(image_root)


def tiny_run(image_root):
    """Its recipe: two scales of a small random encoder."""
    config = base("cflow", "folder")
    with config.unlocked():
        config.encoder.taps = (1, 2)
    config.data.root = str(image_root)
    config.data.category = "part"
    config.data.image_size = 32
    config.data.holdout = 0.0
    config.data.workers = 0
    config.encoder.name = "efficientnet_lite.efficientnet_lite_tiny"
    config.encoder.weights = "random"
    config.method.blocks = 1
    config.method.condition = 4
    config.method.fibre_size = 16
    config.train.epochs = 3
    config.train.batch_size = 4
    config.train.eval_every = 2
    config.train.checkpoint_every = 1
    config.train.plan_memory = False
    config.eval.pictures_per_kind = 1
    config.eval.report_images = 0
    return config
