"""The plan says what programs work on, to the byte, and what does not fit, with a remedy."""

import dataclasses
import functools
import re

import jax
import numpy as np
import pytest

from flowad_jax import memory
from flowad_jax.errors import UserError
from flowad_jax.parallel import Devices
from flowad_jax.training import experiment, memory_plan
from flowad_jax.training.memory_plan import MemoryPlan
from flowad_jax.training.optimizer import fresh_state
from flowad_jax.training.step import make_stack_step, make_train_step
from tests.training.test_layouts import tiny

MIB = 2**20
PLAN = MemoryPlan(
    always={"encoder": 10 * MIB, "flows": 6 * MIB, "optimizer": 12 * MIB},
    batch={"images": MIB, "feature maps": MIB, "encoder at work": 2 * MIB, "gradient steps": MIB},
    batch_size=8,
    devices=1,
    free=40 * MIB,
)


@pytest.fixture(scope="module", autouse=True)
def _room():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(memory, "host", lambda: 2**40)
        yield


@functools.cache
def planned(method="cflow", stack=0):
    """A recipe's parts, its step and its plan, of so many detectors if stacked."""
    parts = experiment.build(tiny(method, "textures", "", "brick"))
    common = (parts.method, parts.optimizer)
    if stack:
        step = make_stack_step(*common, [parts.schedule] * stack, parts.config.train.clip_norm)
        return parts, step, memory_plan.make(parts, step, stack, Devices())
    step = make_train_step(*common, parts.schedule, parts.config.train.clip_norm)
    return parts, step, memory_plan.make(parts, step)


def size(tree):
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("method", ["cflow", "ssnf"])
def test_what_programs_work_on_is_exact_and_the_rest_is_the_compilers(method):
    parts, step, plan = planned(method)
    fresh = fresh_state(parts)
    assert plan.always == {
        "encoder": size(parts.encoder.variables),
        "flows": size((fresh.params, fresh.buffers)),
        "optimizer": size(fresh.opt_state),
    }
    assert plan.free == 2**40
    rows = 2 * (2 if method == "ssnf" else 1)
    assert plan.batch["images"] == rows * 32 * 32 * 3 * 4
    batch = next(parts.features.train.epoch(0))
    assert plan.batch["feature maps"] == size(batch.maps)
    said = step.lower(fresh, batch).compile().memory_analysis().temp_size_in_bytes
    assert plan.batch["gradient steps"] == said > 0
    assert plan.batch["encoder at work"] > 0


def test_the_programs_of_the_plan_are_those_of_the_run(caplog):
    parts, step, _ = planned.__wrapped__()  # which no test has compiled before
    batch = next(parts.features.train.epoch(0))
    fresh = fresh_state(parts)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        step(fresh, batch)
        parts.encode(parts.encoder.variables, np.zeros((2, 32, 32, 3), np.float32))
    assert "jit(step)" not in caplog.text
    assert "jit(encode)" not in caplog.text


def test_a_stack_needs_as_much_as_its_runs():
    """All but the encoder, of which there is one."""
    (*_, one), (*_, three) = planned("cflow"), planned(stack=3)
    assert three.always == {k: (3 if k != "encoder" else 1) * v for k, v in one.always.items()}
    for name in ("images", "feature maps"):
        assert three.batch[name] == 3 * one.batch[name]
    assert three.batch["gradient steps"] > one.batch["gradient steps"]
    assert any("a batch of 2 images for each of 3 detectors" in line for line in three.lines())
    small = dataclasses.replace(three, free=2**10)
    with pytest.raises(UserError, match=r"list fewer than 3 detectors in train\.stack, lower"):
        small.show()


def test_the_table_names_everything_and_the_largest_batch_that_fits():
    *lines, last = PLAN.lines()
    assert [line.split("B  ")[1] for line in lines] == [
        *("encoder", "flows", "optimizer"),
        *(f"{name}, a batch of 8 images" for name in PLAN.batch),
    ]
    assert PLAN.largest_batch == 19  # 28 MiB are always there; 5 MiB take 8 images
    assert last.endswith("33.0 MiB  in all; 40.0 MiB free, room for batches of 19 images")
    assert list(dataclasses.replace(PLAN, free=0).lines())[-1].endswith("free: unknown")
    four = dataclasses.replace(PLAN, devices=4)
    assert four.largest_batch == 16  # a multiple of the devices
    assert "images on 4 devices" in list(four.lines())[-2]


@pytest.mark.parametrize(
    ("free", "said"),
    [
        (1, r"the run needs 30\.0 MiB and more, but 1\.0 MiB are free on the device: lower data\."),
        (31, r"may be more than there is room for: set train\.batch_size to 4, lower data\."),
        (33, ""),
    ],
)
def test_what_has_no_room_is_told_with_a_remedy(free, said, caplog):
    plan = dataclasses.replace(PLAN, free=free * MIB)
    if free == 1:
        with pytest.raises(UserError, match=said):
            plan.show()
        return
    plan.show()
    assert ("encoder" in caplog.text) == bool(said)  # the table only where it helps
    assert re.search(said, caplog.text)


FULL = "RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.\nmore"


@pytest.mark.parametrize(
    ("plan", "refusal", "kind", "said"),
    [
        (PLAN, FULL, UserError, r"^no memory left .*allocating 1 bytes\.\): set train.*\Z"),
        (None, FULL, UserError, r"set eval\.batch_size to less\Z"),
        (PLAN, "INTERNAL: more", jax.errors.JaxRuntimeError, "^INTERNAL: more$"),
    ],
)
def test_a_refusal_of_the_device_is_one_line(plan, refusal, kind, said):
    with pytest.raises(kind, match=said), memory_plan.explain_out_of_memory(plan):
        raise jax.errors.JaxRuntimeError(refusal)
