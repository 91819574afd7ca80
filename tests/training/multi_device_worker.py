"""Trains small runs and stores how they end: run in processes that see other devices.

python -m tests.training.multi_device_worker OUTPUT METHODS [ADDRESS HOSTS NUMBER]
"""

import sys
from pathlib import Path

import jax
import numpy as np

from flowad_jax import parallel
from flowad_jax.detector import state
from flowad_jax.training import experiment
from flowad_jax.training.loop import train
from tests.training.test_layouts import tiny


def config_of(method):
    """12 images in batches of 8: the last one is padded; one test image of each kind."""
    config = tiny(method, "textures", "", "brick")
    config.data.options.update(
        {"train_images": 13, "good_images": 4, "images_per_kind": 1, "tile": 64}
    )
    config.train.batch_size = 8
    config.train.epochs = 2
    config.train.eval_every = 1
    config.eval.batch_size = 8
    config.eval.report_images, config.eval.pictures_per_kind = 0, 0
    return config


def end(method, path):
    """All parameters and metrics at the end of a run, by name."""
    config = config_of(method)
    found = train(config, path)
    built = experiment.build(config)
    trained, *_ = state.of_workdir(built, path, built.devices)
    leaves = jax.tree_util.tree_leaves_with_path((trained.params, trained.buffers))
    arrays = {f"{method}{jax.tree_util.keystr(k)}": parallel.gather(v) for k, v in leaves}
    metrics = {f"{method}/{k}": v for k, v in found["columns"]["last"].items()}
    return arrays | metrics


def main(output, methods, address=None, hosts=None, number=None):
    """Runs all methods and writes what they end with."""
    if address:
        parallel.initialise(address, int(hosts), int(number))
    folder = Path(output)
    ends = {}
    for method in methods.split(","):
        ends |= end(method, folder / method)
    if parallel.is_first():
        np.savez(folder / "ends.npz", devices=jax.device_count(), **ends)


if __name__ == "__main__":
    main(*sys.argv[1:])
