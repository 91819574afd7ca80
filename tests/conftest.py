"""Settings for the whole test run and small data sets that several tests share."""

import atexit
import os
import shutil
import tempfile

import numpy as np
import pytest
from PIL import Image

from flowad_jax.recipes.base import base

# Before jax is imported. Many tests compile the same small programs, also in processes of their
# own: one cache for the whole run, gone afterwards. Several runs share one that they are given.
CACHE = os.environ.get("FLOWAD_JAX_TEST_CACHE", "")
if not CACHE:
    CACHE = os.environ["FLOWAD_JAX_TEST_CACHE"] = tempfile.mkdtemp(prefix="flowad_jax_tests_")
    atexit.register(shutil.rmtree, CACHE, ignore_errors=True)
os.environ["JAX_PLATFORMS"] = "cpu"
# They run once and on little: what LLVM would gain in them, it takes many times to find out.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
os.environ["JAX_COMPILATION_CACHE_DIR"] = CACHE
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


LONG = (
    *("test_devices.py", "test_laws.py", "test_tutorials.py", "test_faults.py", "test_stack.py"),
    "test_predict_kills.py",
)


def pytest_collection_modifyitems(items):
    """Begins with the files that take longest, so that all processes end together."""
    items.sort(key=lambda item: item.path.name not in LONG)


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
    return write_category(tmp_path / "images")


def write_category(root):
    """Writes the same below ``root``."""
    category = root / "part"
    for index in range(6):
        write_image(category / "train" / "good" / f"{index}.png", index)
    for index in range(3):
        write_image(category / "test" / "good" / f"{index}.png", 100 + index)
        write_image(category / "test" / "spot" / f"{index}.png", 200 + index, defect=True)
        mask = np.zeros((40, 36), np.uint8)
        mask[10:20, 8:20] = 255
        (category / "ground_truth" / "spot").mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(category / "ground_truth" / "spot" / f"{index}_mask.png")
    return root


@pytest.fixture
def tiny_config(image_root):
    """A complete run that takes seconds."""
    return tiny_recipe(image_root)


def tiny_recipe(root, method="cflow", category="part"):
    """The recipe of a method for images below ``root``, with the smallest encoder."""
    config = base(method, "folder")
    config.data.root, config.data.category, config.data.image_size = str(root), category, 32
    config.data.holdout, config.data.workers = 0.0, 0
    config.encoder.name = "efficientnet_lite.efficientnet_lite_tiny"
    config.encoder.weights, config.encoder.strides = "random", (8,)
    if method in ("cflow", "sanflow"):
        config.method.blocks, config.method.condition = 1, 4
    if method == "cflow":
        config.encoder.strides, config.method.fibre_size = (4, 8), 16
    if method == "msflow":
        config.encoder.strides, config.method.blocks = (4, 8), (1, 1)
        config.method.condition, config.train.schedule.warmup_meta_epochs = 4, 0
    if method == "ssnf":
        config.method.update({"blocks": 1, "hidden": 4, "heads": 2})
        config.method.update({"negative_cap": 100.0, "cap_dimensions": 1})
    config.train.epochs, config.train.batch_size = 3, 4
    config.train.eval_every, config.train.checkpoint_every = 2, 1
    config.eval.pictures_per_kind, config.eval.report_images = 1, 0
    return config


def shared_recipe(root):
    """The recipe of `tiny_run`: four epochs of two batches."""
    config = tiny_recipe(root / "images", category=None)
    config.data.holdout, config.train.epochs, config.train.learning_rate = 0.34, 4, 1e-2
    config.eval.pictures_per_kind, config.eval.batch_size = 0, 7
    config.eval.false_alarm_rate = 0.3
    return config


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """The folder of ``images`` and of a finished ``run`` that no test changes, and its results.

    Of its twelve normal images four were held out.
    """
    from flowad_jax.training.loop import train

    root = tmp_path_factory.mktemp("shared")
    for index in range(12):
        write_image(root / "images" / "train" / "good" / f"{index}.png", index)
    for index in range(3):
        write_image(root / "images" / "test" / "good" / f"{index}.png", 100 + index)
        write_image(root / "images" / "test" / "spot" / f"{index}.png", 200 + index, defect=True)
    return root, train(shared_recipe(root), root / "run")
