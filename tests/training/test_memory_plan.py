"""What is certain in the plan is exact, what is estimated is near, what does not fit is told."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from flowad_jax.errors import UserError
from flowad_jax.features import memory
from flowad_jax.parallel import Devices
from flowad_jax.training import memory_plan, state, system
from flowad_jax.training.step import make_train_step
from flowad_jax.types import Batch
from tests.training.test_layouts import tiny


def built(method="cflow", **train):
    config = tiny(method, "textures", "", "brick")
    config.train.update(train)
    return system.build(config)


def size(tree):
    return sum(x.nbytes for x in jax.tree.leaves(tree) if not jax.dtypes.issubdtype(
        x.dtype, jax.dtypes.prng_key))  # fmt: skip


@pytest.mark.parametrize("method", ["cflow", "ssnf"])
def test_what_is_there_all_the_time_is_exact(method):
    parts = built(method)
    fresh = state.fresh(parts)
    plan = memory_plan.make(parts)
    assert plan.always["encoder"] == size(parts.encoder.variables)
    assert plan.always["flows"] == size((fresh.params, fresh.constants))
    assert plan.always["optimizer"] == size(fresh.opt_state)
    assert plan.always["gradients"] == size(fresh.params)
    rows = 2 * (2 if method == "ssnf" else 1)
    assert plan.batch["images"] == rows * 32 * 32 * 3 * 4


def test_what_a_step_takes_is_near_to_what_the_compiler_says():
    parts = built(batch_size=16)
    plan = memory_plan.make(parts)
    maps, image = memory_plan._inputs(parts, 16)
    rows, side, *_ = image.shape
    shapes = (((rows, side, side), bool), ((rows,), np.int32), ((rows,), np.float32))
    batch = Batch(None, *(jax.ShapeDtypeStruct(*shape) for shape in shapes))
    step = make_train_step(parts.method, parts.optimizer, parts.schedule)
    compiled = step.lower(state.fresh(parts), maps, batch).compile()
    work = plan.batch["gradient steps"] + plan.batch["saved for a gradient"]
    said = compiled.memory_analysis().temp_size_in_bytes
    assert 0.4 < (work + plan.always["gradients"]) / said < 2.5


def test_more_images_take_more_and_the_largest_batch_fits(monkeypatch):
    monkeypatch.setattr(memory, "host", lambda: 40 * 2**20)
    small, large = (memory_plan.make(built(batch_size=n)) for n in (2, 8))
    assert small.always == large.always
    assert sum(large.batch.values()) > 2 * sum(small.batch.values())
    limit = large.largest_batch
    per_image = sum(large.batch.values()) / 8
    fixed = sum(large.always.values())
    assert fixed + limit * per_image <= 40 * 2**20 < fixed + (limit + 1) * per_image


def test_the_table_names_everything(monkeypatch, caplog):
    monkeypatch.setattr(memory, "host", lambda: 2**30)
    plan = memory_plan.make(built())
    lines = list(plan.lines())
    assert len(lines) == len(plan.always) + len(plan.batch) + 1
    assert lines[0].endswith("encoder")
    assert f"1.0 GiB free, room for batches of {plan.largest_batch} images" in lines[-1]


def test_a_stack_needs_as_much_as_its_members(monkeypatch):
    """All but the encoder, of which there is one; several devices share the members."""
    monkeypatch.setattr(memory, "host", lambda: 2**30)
    parts = built()
    one, six = (memory_plan.make(parts, members) for members in (1, 6))
    assert six.always == {k: (6 if k != "encoder" else 1) * v for k, v in one.always.items()}
    assert six.batch == {k: 6 * v for k, v in one.batch.items()}
    assert any("a batch of 2 images for each of 6 detectors" in line for line in six.lines())
    shared = memory_plan.make(parts, 6, Devices(Mesh(np.array([None] * 3), ("data",))))
    assert shared.total < six.total / 2
    monkeypatch.setattr(memory, "host", lambda: 2**10)
    with pytest.raises(UserError, match=r"list fewer than 6 detectors in train\.stack, lower"):
        memory_plan.show(memory_plan.make(parts, 6))


def test_what_has_no_room_is_told_with_a_remedy(monkeypatch):
    system = built()
    monkeypatch.setattr(memory, "host", lambda: 2**10)
    plan = memory_plan.make(system)
    with pytest.raises(
        UserError, match=r"needs .* and more, but 1\.0 KiB are free on the device: lower"
    ):
        memory_plan.show(plan)


def test_an_estimate_without_room_only_warns(monkeypatch):
    warned = []
    system = built(batch_size=8)
    plan = memory_plan.make(system)
    certain = sum(plan.always.values()) + plan.batch["images"] + plan.batch["feature maps"]
    monkeypatch.setattr(memory, "host", lambda: certain + 1)
    monkeypatch.setattr(memory_plan.log, "warning", lambda text, *_: warned.append(text))
    memory_plan.show(memory_plan.make(system))
    assert len(warned) == 1
    assert "may be more than there is room for: " in warned[0]


def test_a_refusal_of_the_device_is_one_line():
    plan = memory_plan.make(built(batch_size=8))
    refusal = "RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.\nmore"
    with (
        pytest.raises(UserError, match=r"no memory left .*allocating 1 bytes\.\): set train") as e,
        memory_plan.told(plan),
    ):
        raise jax.errors.JaxRuntimeError(refusal)
    assert "\n" not in str(e.value)
    with pytest.raises(jax.errors.JaxRuntimeError), memory_plan.told(plan):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")
