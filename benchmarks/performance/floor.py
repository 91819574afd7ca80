"""The least work of a training step and of an inference, and what the device can do at most.

    python -m benchmarks.performance.floor --recipes=configs/msflow_magnetic_tile.py

Operations are those of all matrix products and convolutions in our programs; everything else is
taken to cost nothing. Bytes are the fewest that have to pass through the device's memory:

    encoder     its weights once per batch, the images in, the maps out
    step        parameters and both moments of Adam read and written, gradients written and read,
                the rows of the minibatch read
    inference   the flows' parameters once, the maps in, the likelihood maps out

The device's rates are measured: bytes per second of a large copy, read and written, and operations
per second of a large matrix product at the precision that is asked for. A job takes no less than
the larger of operations / rate and bytes / bandwidth.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from ml_collections import config_dict

from benchmarks.performance.operations import operations

COPY_BYTES = {"cpu": 2**28, "gpu": 2**30}
MATRIX_SIDE = {"cpu": 2048, "gpu": 8192}


def least(config: config_dict.ConfigDict) -> dict[str, dict[str, int]]:
    """Operations and bytes of the jobs of a recipe; computes nothing but random weights."""
    import jax

    from flowad_jax.detector.model import build_model
    from flowad_jax.training import schedules
    from flowad_jax.training.optimizer import make_optimizer, state_shapes
    from flowad_jax.training.step import make_step

    model, train = build_model(config), config.train
    before = state_shapes(model)
    variables = {"params": before.params, "buffers": before.buffers}
    schedule = schedules.constant(train.learning_rate, 1, 1)
    one = make_step(model.method, make_optimizer(train), schedule, train.clip_norm)
    encode = _encoding(model)
    images = train.batch_size * (2 if model.method.batch_kind == "pairs" else 1)
    seen, work = encode(images)
    batch = _batch(seen, images, model.image_size)
    found = {
        "train": {
            "operations": work["operations"] + operations(jax.make_jaxpr(one)(before, batch)),
            "bytes": work["bytes"] + _step_bytes(model, variables, batch),
        }
    }
    for job, count in (("infer", config.eval.batch_size), ("infer one", 1)):
        seen, work = encode(count)
        program = jax.make_jaxpr(model.method.log_probs)(variables, seen)
        moved = _bytes(before.params) + _bytes(seen) + _bytes(program.out_avals)
        found[job] = {
            "operations": work["operations"] + operations(program),
            "bytes": work["bytes"] + moved,
        }
    return found


def _encoding(model: Any) -> Callable[[int], tuple[Any, dict[str, int]]]:
    """A function from a number of images to their batch and the encoder's work."""
    import jax

    def encode(images: int) -> tuple[Any, dict[str, int]]:
        shape = (images, *model.image_size, 3)
        given = model.encoder.variables, jax.ShapeDtypeStruct(shape, np.float32)
        program = jax.make_jaxpr(model.encode)(*given)
        moved = _bytes(given) + _bytes(program.out_avals)
        seen = jax.eval_shape(model.encode, *given)
        return seen, {"operations": operations(program), "bytes": moved}

    return encode


def _batch(seen: Any, images: int, size: tuple[int, int]) -> Any:
    import jax

    return seen._replace(
        mask=jax.ShapeDtypeStruct((images, *size), bool),
        label=jax.ShapeDtypeStruct((images,), np.int32),
        weight=jax.ShapeDtypeStruct((images,), np.float32),
    )


def _step_bytes(model: Any, variables: Any, batch: Any) -> int:
    """Bytes of all gradient steps of an image batch."""
    import jax

    total = 0
    params = variables["params"]

    def phases(buffers: Any, batch: Any) -> None:
        nonlocal total
        for phase in model.method.phases(buffers, batch, jax.random.key(0)):
            steps = phase.active.shape[0]
            trained = _bytes({group: params[group] for group in phase.param_groups})
            total += 8 * steps * trained + _bytes(phase.minibatches)

    jax.eval_shape(phases, variables["buffers"], batch)
    return total


def _bytes(tree: Any) -> int:
    import jax

    leaves = [x for x in jax.tree.leaves(tree) if not jax.dtypes.issubdtype(x.dtype, _key_type())]
    return sum(math.prod(x.shape) * np.dtype(x.dtype).itemsize for x in leaves)


def _key_type() -> Any:
    import jax

    return jax.dtypes.prng_key


def ceilings(repeats: int = 5) -> dict[str, float]:
    """Bytes per second of a copy, and operations per second of a product, as jax is set now."""
    import jax
    import jax.numpy as jnp

    kind = "cpu" if jax.default_backend() == "cpu" else "gpu"
    # In place: memory that is new to the process costs a CPU more than the copy.
    copy = jax.jit(lambda x: x + 1.0, donate_argnums=0)
    copied = _median(copy, lambda x: (x,), jnp.ones(COPY_BYTES[kind] // 4, jnp.float32), repeats)
    side = MATRIX_SIDE[kind]
    a, b = (jax.random.normal(jax.random.key(i), (side, side), jnp.float32) for i in (0, 1))
    multiplied = _median(jax.jit(jnp.matmul), lambda _: (a, b), None, repeats)
    return {
        "bytes_per_s": 2 * COPY_BYTES[kind] / copied,
        "operations_per_s": 2 * side**3 / multiplied,
    }


def _median(
    function: Callable[..., Any], given: Callable[[Any], tuple], last: Any, repeats: int
) -> float:
    """Seconds of a call that is given what follows from the last result."""
    import jax

    times = []
    for _ in range(repeats + 1):  # the first one compiles
        start = time.perf_counter()
        last = jax.block_until_ready(function(*given(last)))
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def seconds(work: dict[str, int], rates: dict[str, float]) -> dict[str, float]:
    """The floor of a job, with both of its terms."""
    terms = {
        "operations_s": work["operations"] / rates["operations_per_s"],
        "bytes_s": work["bytes"] / rates["bytes_per_s"],
    }
    return {**work, **terms, "floor_s": max(terms.values())}


def main() -> None:
    """Prints the floors of recipes as JSON."""
    from benchmarks.performance.workers import recipe

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipes", default="configs/msflow_magnetic_tile.py", help="comma list")
    options = parser.parse_args()
    rates = ceilings()
    found = {path: least(recipe(path, [])) for path in options.recipes.split(",")}
    floors = {p: {job: seconds(w, rates) for job, w in jobs.items()} for p, jobs in found.items()}
    print(json.dumps({"rates": rates, "floors": floors}, indent=2))


if __name__ == "__main__":
    main()
