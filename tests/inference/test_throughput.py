"""The benchmark of inference measures what it says, on a run that takes moments."""

import json
import sys

import numpy as np
import pytest

from benchmarks import throughput
from flowad_jax.data.images import read_image
from flowad_jax.errors import UserError

pytestmark = pytest.mark.whole


def command(monkeypatch, **flags):
    words = [f"--{name}={value}" for name, value in flags.items()]
    monkeypatch.setattr(sys, "argv", ["throughput", *words])
    throughput.main()


def test_figures_are_complete_and_agree(run, tmp_path, monkeypatch, capsys):
    output = tmp_path / "new" / "throughput.json"
    workdir = run[0] / "run"
    command(monkeypatch, workdir=workdir, batch_sizes="4,1", seconds=0.2, output=output)
    found = json.loads(output.read_text())
    assert found["versions"]["jax"]
    assert (found["method"], found["image_size"], found["backend"]) == ("cflow", [32, 32], "cpu")
    assert found["decisions"]
    assert found["images"] == {"count": 6, "formats": [".png"], "mean_megapixels": 40 * 36 / 1e6}
    assert [row["batch_size"] for row in found["rows"]] == [1, 4]
    printed = capsys.readouterr().out.splitlines()
    for row in found["rows"]:
        assert row["compile_seconds"] > 0
        assert row["peak_bytes"]["compiling"] > 2**25
        assert row["peak_bytes"]["running"] > 2**25
        assert list(row["clocks"]) == ["model", "processing", "files"]
        for name, clock in row["clocks"].items():
            assert clock["batches"] >= throughput.LEAST
            assert 0 < clock["p50_seconds"] <= clock["p99_seconds"] < 60
            # The mean lies between p50 / 2 (half of the batches may take no time) and p99.
            mean = row["batch_size"] / clock["images_per_second"]
            assert clock["p50_seconds"] / 2 <= mean <= clock["p99_seconds"] * 1.001
            title = f"| {row['batch_size']} | {throughput.TITLES[name]} | "
            line = next(line for line in printed if line.startswith(title))
            assert line.endswith(f"| {clock['batches']} |")


def test_every_batch_is_judged_whole(run, files, monkeypatch):
    """The clocks go through all images in order, in full batches of what they were given."""
    detector = throughput.load(run[0] / "run")
    arrays = [read_image(path) for path in files]
    given = []
    monkeypatch.setattr(detector, "batch_size", 4)
    monkeypatch.setattr(detector, "predict", given.append)
    todo = throughput.jobs(detector, files, arrays)
    todo["files"](0)
    todo["files"](1)
    assert given == [files[:4], [*files[4:], *files[:2]]]
    todo["processing"](1)
    assert [id(array) for array in given[2]] == [id(arrays[i]) for i in (4, 5, 0, 1)]


def test_images_without_files_become_files(run, tmp_path, monkeypatch):
    """As those of the built-in textures; nothing of them is lost."""
    source = throughput.own_images(run[0] / "run")
    expected = [source[index].image for index in (0, 2, 5)]
    source.paths = [f"nowhere/{path}" for path in source.paths]
    monkeypatch.setattr(throughput, "own_images", lambda workdir: source)
    paths = throughput.image_files(run[0] / "run", (), 3, tmp_path)
    assert [path.parent for path in paths] == [tmp_path] * 3
    for path, image in zip(paths, expected, strict=True):
        np.testing.assert_array_equal(read_image(path), image)


def test_inputs_are_thinned_evenly(run, files, tmp_path):
    folder = files[0].parents[1]
    found = throughput.image_files(run[0] / "run", [str(folder)], 3, tmp_path)
    assert found == [files[0], files[2], files[5]]
    with pytest.raises(UserError, match="matches no image"):
        throughput.image_files(run[0] / "run", [str(tmp_path)], 3, tmp_path)


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        ({"workdir": "nowhere"}, 1, "nowhere"),
        ({"workdir": "x", "batch_sizes": "1,0"}, 2, "--batch_sizes"),
        ({"workdir": "x", "images": "0"}, 2, "--images"),
    ],
)
def test_faults_are_one_line(flags, code, message, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        command(monkeypatch, **flags)
    assert stop.value.code == code
    last = capsys.readouterr().err.splitlines()[-1]
    assert "error:" in last
    assert message in last
