"""Images that arrive while predict.py looks: a clock made of steps instead of seconds."""

import json
import os
import signal

import pytest

from flowad_jax.errors import UserError
from flowad_jax.serving import command, reading, watch
from tests.serving.test_predict import CARD, Bright, lines, picture, snapshot, summary, use


@pytest.fixture
def scene(tmp_path, monkeypatch):
    """Runs a watch during which one step happens between two looks; a signal ends it."""
    (tmp_path / "in").mkdir()
    use(monkeypatch, Bright())

    def play(*steps, ending=signal.SIGTERM, **settings):
        waiting = iter(steps)

        def wait(seconds, stopped):
            if stopped():
                return
            step = next(waiting, None)
            if step is None:
                signal.raise_signal(ending)
            else:
                step()

        monkeypatch.setattr(watch, "wait", wait)
        job = command.Job(
            "run", [str(tmp_path / "in")], str(tmp_path / "out"), watch=True, **settings
        )
        return command.run(job)

    return play


def nothing():
    pass


def names(tmp_path):
    return [os.path.relpath(line["path"], tmp_path / "in") for line in lines(tmp_path)]


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_images_are_judged_as_they_arrive(tmp_path, scene, ending):
    picture(tmp_path / "in" / "0.png")
    judged = []
    code = scene(
        nothing,
        lambda: picture(tmp_path / "in" / "a" / "1.png", spot=True),
        lambda: judged.append(names(tmp_path)),
        nothing,
        lambda: judged.append(names(tmp_path)),
        ending=ending,
        fail_on_anomaly=True,
    )
    assert code == command.ANOMALOUS
    assert judged == [["0.png"], ["0.png", "a/1.png"]]
    assert summary(tmp_path)["finished"]


def test_a_growing_file_is_left_alone(tmp_path, scene):
    target = tmp_path / "in" / "slow.png"
    whole = picture(tmp_path / "whole.png", spot=True).read_bytes()
    parts = [lambda n=n: target.write_bytes(whole[:n]) for n in (0, 20, 50, len(whole))]
    assert scene(*parts, nothing, nothing) == 0
    (line,) = lines(tmp_path)
    assert line["anomalous"]


def test_a_file_written_anew_is_judged_anew(tmp_path, scene):
    target = picture(tmp_path / "in" / "latest.png")

    def replace():
        picture(target, spot=True)
        os.utime(target, ns=(0, 12345))  # another time, however coarse the clock is

    assert scene(nothing, nothing, replace, nothing, nothing) == 0
    assert [line["anomalous"] for line in lines(tmp_path)] == [False, True]
    assert len({line["overlay"] for line in lines(tmp_path)}) == 1


def test_a_file_that_vanishes_is_forgotten(tmp_path, scene, monkeypatch, capsys):
    for name in "ab":
        picture(tmp_path / "in" / f"{name}.png")
    read = reading.read_image

    def take_away(path, white):
        if path.name == "a.png":
            path.unlink()
        return read(path, white)

    monkeypatch.setattr(reading, "read_image", take_away)
    assert scene(nothing, nothing, nothing) == 0
    assert names(tmp_path) == ["b.png"]
    assert capsys.readouterr().err == ""


def test_a_folder_that_vanishes_may_come_back(tmp_path, scene):
    away = tmp_path / "away"
    picture(tmp_path / "in" / "a.png")
    code = scene(
        nothing,
        lambda: (tmp_path / "in").rename(away),
        nothing,
        lambda: picture(away / "b.png") and away.rename(tmp_path / "in"),
        nothing,
        nothing,
    )
    assert code == 0
    assert names(tmp_path) == ["a.png", "b.png"]


def test_a_broken_file_shows_in_the_exit_code(tmp_path, scene):
    (tmp_path / "in" / "a.png").write_text("no image")
    assert scene(nothing, nothing, nothing) == 1
    assert "error" in lines(tmp_path)[0]


def test_a_second_watch_goes_on(tmp_path, scene):
    picture(tmp_path / "in" / "a.png", spot=True)
    scene(nothing, nothing)
    with (tmp_path / "out" / "predictions.jsonl").open("a") as file:
        file.write('{"path": "cut off')
    before = lines_of(tmp_path, 1)
    picture(tmp_path / "in" / "b.png")
    assert scene(nothing, nothing, fail_on_anomaly=True) == 0  # of those that are new
    assert names(tmp_path) == ["a.png", "b.png"]
    assert lines_of(tmp_path, 1) == before
    assert summary(tmp_path)["images"] == 2
    assert (tmp_path / "out" / "predictions.csv").read_text().count("\n") == 3
    assert (tmp_path / "out" / before[0]["heatmap"]).exists()


def lines_of(tmp_path, count):
    text = (tmp_path / "out" / "predictions.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()[:count]]


def test_lines_of_two_detectors_do_not_mix(tmp_path, scene, monkeypatch):
    picture(tmp_path / "in" / "a.png")
    scene(nothing, nothing)
    before = snapshot(tmp_path)
    use(monkeypatch, Bright({**CARD, "pixel": 0.6}))
    with pytest.raises(UserError, match="another detector"):
        scene(nothing)
    assert snapshot(tmp_path) == before


def test_only_folders_can_be_watched(tmp_path, scene):
    (tmp_path / "in").rmdir()
    with pytest.raises(UserError, match="no folder"):
        scene(nothing)


def test_waiting_ends_at_once_when_stopped():
    asked = []
    watch.wait(60, lambda: asked.append(1) or len(asked) > 1)
    assert len(asked) == 2
