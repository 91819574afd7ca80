"""The programs behind the docs' comparison with PyTorch: what is counted, kept and shown."""

import argparse
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from benchmarks.performance import contest as performance_contest
from benchmarks.performance import floor
from benchmarks.performance import table as performance_table
from benchmarks.performance.jobs import EXPORTED, Given, arrays
from benchmarks.performance.operations import operations
from benchmarks.performance.workers import Worker, build_side, recipe
from flowad_jax.errors import UserError

RECIPE = "configs/ssnf_magnetic_tile.py"


def counted(function, *shapes):
    given = (jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes)
    return operations(jax.make_jaxpr(function)(*given))


def test_a_dense_layer():
    layer = (5, 7), (7, 11)
    assert counted(jnp.matmul, *layer) == 2 * 5 * 7 * 11
    assert counted(jax.jit(lambda x, w: jax.nn.relu(x @ w)), *layer) == 2 * 5 * 7 * 11
    both = jax.grad(lambda w, x: jnp.sum((x @ w) ** 2))
    assert counted(both, (7, 11), (5, 7)) == 2 * 2 * 5 * 7 * 11


def test_a_convolution_counts_what_lies_in_the_image():
    def conv(x, kernel, **options):
        layout = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, kernel, dimension_numbers=layout, **options)

    def valid(x, kernel):
        return conv(x, kernel, window_strides=(1, 1), padding="VALID")

    def same(x, kernel):
        return conv(x, kernel, window_strides=(1, 1), padding="SAME")

    def grouped(x, kernel):
        return conv(x, kernel, window_strides=(1, 1), padding="VALID", feature_group_count=4)

    def spread(x, kernel):
        pads = ((2, 2), (2, 2))
        return conv(x, kernel, window_strides=(1, 1), padding=pads, lhs_dilation=(2, 2))

    image = (2, 6, 6, 8)
    assert counted(valid, image, (3, 3, 8, 5)) == 2 * (2 * 4 * 4 * 5) * 9 * 8
    assert counted(same, image, (3, 3, 8, 5)) == 2 * (2 * 5 * 8) * (6 * 3 - 2) ** 2
    assert counted(grouped, image, (3, 3, 2, 8)) == 2 * (2 * 4 * 4 * 8) * 9 * 2
    # Every pixel meets every tap once.
    assert counted(spread, image, (3, 3, 8, 5)) == 2 * (2 * 5 * 8) * (6 * 3) ** 2


def test_the_gradients_of_a_convolution_cost_as_much_as_it_does():
    def loss(kernel, x):
        layout = ("NHWC", "HWIO", "NHWC")
        y = lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=layout)
        return jnp.sum(y**2)

    shapes = (3, 3, 8, 5), (2, 9, 9, 8)
    once = counted(loss, *shapes)
    assert counted(jax.grad(loss), *shapes) == 2 * once
    assert counted(jax.grad(loss, argnums=(0, 1)), *shapes) == 3 * once


def test_loops_branches_and_what_is_computed_again():
    def loop(x, w):
        return lax.scan(lambda c, _: (jax.checkpoint(jnp.matmul)(c, w), None), x, length=6)[0]

    def branch(x, w):
        return lax.cond(jnp.sum(x) > 0, lambda x: x @ w @ w, lambda x: x @ w, x)

    def platform(x, w):
        return lax.platform_dependent(
            x, cpu=lambda x: x @ w @ w, cuda=lambda x: x + 1, default=lambda x: x @ w
        )

    once = 2 * 3 * 4 * 4
    assert counted(loop, (3, 4), (4, 4)) == 6 * once
    assert counted(branch, (3, 4), (4, 4)) == 2 * once
    assert counted(platform, (3, 4), (4, 4)) == once


def test_the_floor_is_the_larger_term():
    rates = {"operations_per_s": 10.0, "bytes_per_s": 100.0}
    found = floor.seconds({"operations": 50, "bytes": 200}, rates)
    assert (found["operations_s"], found["bytes_s"], found["floor_s"]) == (5.0, 2.0, 5.0)


def test_the_least_work_of_a_recipe_adds_up():
    small = ["data.image_size=64", "train.batch_size=2", "eval.batch_size=3", "method.blocks=1"]
    work = floor.least(recipe("configs/ssnf_magnetic_tile.py", small))
    assert list(work) == ["train", "infer", "infer one"]
    for kind in ("operations", "bytes"):
        assert 0 < work["infer one"][kind] < work["infer"][kind] < work["train"][kind]
    assert work["infer"]["operations"] == pytest.approx(3 * work["infer one"]["operations"])
    more = floor.least(recipe("configs/ssnf_magnetic_tile.py", [*small, "train.batch_size=4"]))
    assert more["train"]["operations"] == pytest.approx(2 * work["train"]["operations"])


def test_settings_reach_the_recipe():
    config = recipe(RECIPE, ["train.batch_size=3", "encoder.name=resnet.resnet18"])
    assert (config.train.batch_size, config.encoder.name) == (3, "resnet.resnet18")
    assert config.encoder.weights == "random"


@pytest.mark.parametrize("setting", ["train.batchsize=3", "train.batch_size=many"])
def test_a_setting_that_does_not_fit_is_named(setting):
    with pytest.raises(UserError, match=f"--set={setting}") as caught:
        recipe(RECIPE, [setting])
    assert len(str(caught.value)) < 250


def test_batches_hold_what_the_method_learns_from():
    config = recipe(RECIPE, ["train.batch_size=3", "eval.batch_size=5", "data.image_size=32"])
    pairs = arrays(config, "train", "pairs")
    assert pairs.image.shape == (6, 32, 32, 3)
    assert pairs.label.tolist() == [0, 0, 0, 1, 1, 1]
    assert pairs.mask.any((1, 2)).tolist() == [False] * 3 + [True] * 3
    assert arrays(config, "train", "mixture").label.tolist() == [0, 0, 1]
    assert not arrays(config, "train", "normal").mask.any()
    assert [len(arrays(config, job, "pairs").image) for job in ("infer", "infer one")] == [5, 1]


def side(seconds):
    return {
        job: {"median_s": seconds * share, "times_s": [], "peak_bytes": 2**20}
        for job, share in (("train", 1.0), ("infer", 0.5), ("infer one", 0.1))
    }


def measured(**changes):
    floors = {job: {"floor_s": 0.25} for job in ("train", "infer", "infer one")}
    entry = {
        "recipe": RECIPE,
        "method": "ssnf",
        "encoder": "resnet.resnet18",
        "image_size": 64,
        "images": {"train": 4, "infer": 8, "infer one": 1},
        "sides": {"jax": side(1.0), "torch": side(1.5), "torch compile": side(0.8)},
        "floor": floors,
    }
    head = {"title": "", "device": "A device", "precision": "tf32", "command": "python -m x"}
    return {**head, "versions": {"jax": "1"}, "peers": {}, "recipes": [entry | changes]}


def test_the_table_divides_their_seconds_by_ours():
    row = performance_table.table(measured()).splitlines()[2]
    assert row == (
        "| SSNF, `resnet18`, 64 px, 4 / 8 | 4.0 | **1.50** | **0.80** | 16.0 | **1.50** | **0.80** "
        "| 100.0 | **1.50** | **0.80** | 1 / 1 / 1 | 4.0 / 2.0 |"
    )


def test_exported_sides_have_a_table_of_their_own():
    sides = {"jax": side(1.0), "torch": side(1.5), "openvino": side(0.5)}
    tables = performance_table.table(measured(sides=sides)).split("\n\n")
    assert "| SSNF, `resnet18`, 64 px, 4 / 8 | 4.0 | **1.50** | - |" in tables[0]
    rows = tables[1].splitlines()[2:]
    assert rows == [
        "| SSNF, `resnet18`, 64 px, 8 | jax | 16.0 | **1.50** | - | **1.00** "
        "| 100.0 | **1.50** | - | **1.00** |",
        "| SSNF, `resnet18`, 64 px, 8 | onnxruntime |" + " - |" * 8,
        "| SSNF, `resnet18`, 64 px, 8 | openvino | 32.0 | **3.00** | - | **2.00** "
        "| 50.0 | **3.00** | - | **2.00** |",
    ]
    for jobs in sides.values():
        del jobs["train"]
    assert performance_table.table(measured(sides=sides)) == tables[1]


@pytest.mark.parametrize(
    ("side", "jobs"),
    [
        ("jax", ["train", "infer one"]),
        ("torch compile", ["infer one"]),
        ("openvino", ["infer one"]),
        ("torch", ["train", "infer one"]),
    ],
)
def test_sides_do_what_is_asked_and_what_they_can(side, jobs):
    options = argparse.Namespace(
        sides="", jobs="train,infer one", compile_jobs="infer,infer one", cores=1, limit=1.0
    )
    images = {"train": 4, "infer": 8, "infer one": 1}
    contest = performance_contest.Contest({"images": images}, {}, options)
    assert list(contest._jobs(side)) == jobs


@pytest.mark.parametrize("backend", EXPORTED)
def test_exported_sides_give_our_maps(backend):
    for name in ("onnx", backend):
        pytest.importorskip(name)
    from benchmarks.performance.jax_side import JaxSide
    from benchmarks.performance.onnx_side import OnnxSide

    words = ["encoder.name=resnet.resnet_tiny", "encoder.strides=(8,)", "method.blocks=1"]
    sizes = ["data.image_size=32", "eval.batch_size=3"]
    config = recipe("configs/cflow_magnetic_tile.py", [*words, *sizes])
    given = Given((0,), (8,), "normal", "float32", "0.2", "default")
    side = OnnxSide(config, given, backend)
    expected = JaxSide(config, given).prepare("infer")()
    found = side.prepare("infer")()
    assert [len(x) for x in side.prepare("infer one")().values()] == [1]
    for ours, theirs in zip(expected, found.values(), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-5)
    assert (side.device, side.peak_bytes() > 0) == ("cpu", True)


def test_sides_that_failed_leave_a_dash_and_a_reason():
    broken = {**side(1.0), "train": {"error": "RuntimeError: broke"}}
    found = measured(sides={"jax": broken, "torch": side(1.5)}, floor={})
    text = performance_table.section(found)
    assert "| - | - | - | 16.0 | **1.50** | - |" in text
    assert "SSNF, jax, train: RuntimeError: broke." in text


def test_turns_are_merged_until_one_fails():
    found = {}
    turn = {"times_s": [1.0], "calls_per_time": 2, "peak_bytes": 5}
    performance_contest.merge(found, turn)
    performance_contest.merge(found, turn | {"peak_bytes": 3})
    assert (found["times_s"], found["peak_bytes"]) == ([1.0, 1.0], 5)
    performance_contest.merge(found, {"error": "broke"})
    assert found["error"] == "broke"


def test_a_side_that_fails_answers_everything_with_its_reason():
    given = Given((0,), (8,), "normal", "float32", "0.2", "default")
    worker = Worker(partial(build_side, "nobody", RECIPE, [], given), cores=1, limit=60.0)
    assert worker.ready()["error"] == "LookupError: no side 'nobody'"
    assert worker.ask("warm", "train") == {"error": "LookupError: no side 'nobody'"}
    worker.close()


@pytest.mark.parametrize("text", ["no json", "[]", "{}"])
def test_a_foreign_file_is_named(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=r"a\.json: is no file of"):
        performance_table.read(tmp_path)


def test_files_become_sections_in_the_readme(tmp_path):
    for name in ("b", "a"):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(measured() | {"title": name.upper()}))
    text = performance_table.text(performance_table.read(tmp_path))
    assert text.index("A: A device") < text.index("B: A device")
    begin, end = performance_table.BEGIN, performance_table.END
    page = performance_table.filled(f"x\n{begin}\nold\n{end}\ny", text)
    assert page.startswith(f"x\n{begin}\n")
    assert "old" not in page
    assert page.endswith(f"{end}\ny")
    assert performance_table.filled(page, text) == page
    with pytest.raises(UserError, match="performance"):
        performance_table.filled("x", text)
