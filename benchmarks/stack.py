"""Detectors per hour: trained in stacks of several, and one after the other.

    python -m benchmarks.stack --config=configs/cflow_magnetic_tile.py --members=2,4
    python -m benchmarks.stack --config=configs/papers/cflow_mvtec_wide_resnet50_2.py --members=4,15

Times whole training steps, from images in the host's memory to the new state, of one detector and
of stacks; a stack's step is one for each of its members. Images are noise, weights random: the
time does not depend on them. From it follow the detectors that an hour trains with `--images`
images each for the epochs of the recipe, evaluation and compilation aside. The forms are those of
`make_stack_step`: "at once" is what accelerators get, "in turn" what processors get.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from benchmarks import _common
from benchmarks.performance.jax_side import batch_of
from benchmarks.performance.jobs import Arrays, arrays
from flowad_jax.detector.model import DetectorModel, build_model
from flowad_jax.training import schedules
from flowad_jax.training.optimizer import fresh_state, make_optimizer
from flowad_jax.training.step import make_stack_step, make_train_step
from flowad_jax.types import Tree

FORMS = ("at once", "in turn")
Step = Callable[[Any], Any]  # state -> state


def single(model: DetectorModel, given: Arrays) -> Step:
    """A training step of one detector."""
    train = model.config.train
    rate = schedules.constant(train.learning_rate, 1, 1)
    step = make_train_step(model.method, make_optimizer(train), rate, train.clip_norm)
    return lambda before: step(before, batch_of(model, given))[0]


def stacked(model: DetectorModel, given: Arrays, members: int, form: str) -> Step:
    """A training step of so many detectors, with one pass of the encoder."""
    train = model.config.train
    rates = [schedules.constant(train.learning_rate, 1, 1)] * members
    parts = (model.method, make_optimizer(train), rates, train.clip_norm)
    step = make_stack_step(*parts, at_once=form == "at once")
    repeated = Arrays(*(np.concatenate([x] * members) for x in given))
    active = np.ones(members, bool)

    def one_step(before: Tree) -> Tree:
        batch = batch_of(model, repeated)
        batches = jax.tree.map(lambda x: x.reshape(members, -1, *x.shape[1:]), batch)
        return step(before, batches, active)[0]

    return one_step


def seconds(step: Step, before: Tree, budget: float) -> float:
    """Median of a step's seconds, after one that compiles, within about a budget."""
    before = jax.block_until_ready(step(before))
    times: list[float] = []
    while len(times) < 3 or sum(times) < budget:
        started = time.perf_counter()
        before = jax.block_until_ready(step(before))
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds per step of one detector, and of every size and form of stack."""
    config = _common.recipe(options.config)
    config.encoder.weights = "random"
    model = build_model(config)
    given = arrays(config, "train", model.method.batch_kind)
    sizes = [int(number) for number in options.members.split(",")]
    forms = options.forms.split(",")
    found: dict[str, Any] = {"single": seconds(single(model, given), fresh(model), options.seconds)}
    for form, members in tqdm([(f, m) for f in forms for m in sizes], unit="stack", disable=None):
        states = jax.tree.map(lambda *x: jnp.stack(x), *[fresh(model) for _ in range(members)])
        step = stacked(model, given, members, form)
        found[f"{members} {form}"] = seconds(step, states, options.seconds)
    return found


def fresh(model: DetectorModel) -> Any:
    """A new state, because a step gives the old one's memory away."""
    return jax.tree.map(jnp.array, fresh_state(model))


def table(found: dict[str, float], per_detector: int) -> str:
    """Markdown: seconds of a step, detectors per hour, and the gain over single runs."""
    lines = [
        "| trained together | a step of all | detectors per hour | gain |",
        "|---|---:|---:|---:|",
    ]
    for name, value in found.items():
        members = 1 if name == "single" else int(name.split()[0])
        hourly = 3600 * members / (value * per_detector)
        gain = found["single"] * members / value
        lines.append(f"| {name} | {1000 * value:.0f} ms | {hourly:.3g} | {gain:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Measures, prints the table and writes the JSON."""
    options = parse()
    config = _common.recipe(options.config)
    batches = math.ceil(options.images / config.train.batch_size)
    print(f"{jax.devices()[0].device_kind}: {config.method.name}, {config.encoder.name},", end=" ")
    print(
        f"{config.data.image_size} px, {batches} batches of {config.train.batch_size} images,",
        end=" ",
    )
    print(f"{config.train.epochs} epochs", flush=True)
    found = measure(options)
    print(table(found, batches * config.train.epochs))
    if options.output:
        _common.write(options.output, options=vars(options), seconds=found)


def parse() -> argparse.Namespace:
    """Command-line options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="configs/cflow_magnetic_tile.py", help="recipe")
    parser.add_argument("--members", default="2,4", help="sizes of stacks")
    parser.add_argument("--forms", default=",".join(FORMS), help="of a stack's step")
    parser.add_argument("--images", type=int, default=240, help="training images per detector")
    parser.add_argument("--seconds", type=float, default=5.0, help="of timed steps, each")
    parser.add_argument("--output", help="JSON file with everything measured")
    return parser.parse_args()


if __name__ == "__main__":
    main()
