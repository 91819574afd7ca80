"""What happens to files while predict.py watches, as schedules: one line for each state of each."""

import json
import os
import shutil
import signal

import pytest

from flowad_jax.errors import UserError
from flowad_jax.inference import job, predictor, watch
from tests.inference.stub import CARD, Bright, lines, picture, snapshot, summary, use
from tests.inference.watched_folder import (
    PATIENCE,
    World,
    junk,
    kill,
    move,
    nothing,
    part,
    remove,
    replace,
    touch,
    wait,
    write,
)  # fmt: skip


@pytest.fixture(name="world")
def _world(tmp_path, monkeypatch):
    return World(tmp_path, monkeypatch)


QUARTERS = [(part("a.bmp", n / 4, (n + 1) / 4), nothing, nothing, nothing) for n in range(4)]
BROKEN = [*[nothing] * 3, wait(2 * PATIENCE), nothing]
# Steps, and the lines that come of them.
SCHEDULES = {
    "arrivals": ([write("a.png"), nothing, write("b.png", spot=True)], "a.png good,b.png bad"),
    "growing": ([part("a.bmp", n / 4, (n + 1) / 4) for n in range(4)], "a.bmp bad"),
    "half, a long pause, the rest": (
        [part("a.bmp", 0, 0.5), *[nothing] * 7, part("a.bmp", 0.5, 1)],
        "a.bmp bad",
    ),
    "in quarters with pauses": ([step for quarter in QUARTERS for step in quarter], "a.bmp bad"),
    "half, killed, the rest": (
        [part("a.bmp", 0, 0.5), *[nothing] * 3, kill, nothing, part("a.bmp", 0.5, 1)],
        "a.bmp bad",
    ),
    "half, and never the rest": (
        [part("a.bmp", 0, 0.5), nothing, nothing, wait(PATIENCE), nothing, nothing, kill, nothing],
        "a.bmp unreadable",
    ),
    "junk, three starts": (
        [junk("a.png"), write("b.png"), *BROKEN, kill, *BROKEN, kill, *BROKEN],
        "b.png good,a.png unreadable",
    ),
    "junk becomes an image": (
        [junk("a.png"), nothing, nothing, wait(2 * PATIENCE), nothing, write("a.png")],
        "a.png unreadable,a.png good",
    ),
    "same time, another size": (
        [write("a.bmp"), nothing, nothing, replace("a.bmp", (30, 40))],
        "a.bmp good,a.bmp bad",
    ),
    "same time, same size": (
        [write("a.bmp"), nothing, nothing, replace("a.bmp", (20, 30))],
        "a.bmp good,a.bmp bad",
    ),
    "same time, another size, while nobody looks": (
        [write("a.bmp"), nothing, nothing, nothing, kill, replace("a.bmp", (30, 40))],
        "a.bmp good,a.bmp bad",
    ),
    "another time": ([write("a.png"), nothing, nothing, touch("a.png")], "a.png good,a.png good"),
    "gone and back": (
        [write("a.png"), nothing, nothing, remove("a.png"), nothing, write("a.png", spot=True)],
        "a.png good,a.png bad",
    ),
    "gone before it was read": ([write("a.png"), remove("a.png"), write("b.png")], "b.png good"),
    "a folder that goes and comes back": (
        [write("a.png"), nothing, move("in", "away"), nothing, move("away", "in"), write("b.png")],
        "a.png good,b.png good",
    ),
    "killed at every look": (
        [write("a.png"), kill, nothing, kill, nothing, nothing, kill, write("b.png"), kill, kill],
        "a.png good,b.png good",
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_each_state_of_a_file_has_one_line(tmp_path, world, name, capsys):
    steps, wanted = SCHEDULES[name]
    while kill in steps:
        first, steps = steps[: steps.index(kill) + 1], steps[steps.index(kill) + 1 :]
        assert world.watch(*first, save=("map",)) is None
    world.watch(*steps, save=("map",))
    found = wanted.split(",")
    assert world.found() == found
    about = summary(tmp_path)
    assert (about["images"], about["unreadable"]) == (len(found), wanted.count("unreadable"))
    assert capsys.readouterr().err.count("error: ") == wanted.count("unreadable")
    before = lines(tmp_path)
    drawn = {(line["path"], line["map"]) for line in before if "error" not in line}
    assert len(drawn) == len(dict(drawn)), "a file keeps the names of its pictures"
    assert world.watch(save=("map",)) == 0
    assert lines(tmp_path) == before, "nothing is new"


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_images_are_judged_as_they_arrive(tmp_path, world, ending, capsys):
    world.ending, judged = ending, []
    note = lambda world: judged.append(world.found())  # noqa: E731
    picture(tmp_path / "in" / "0.png")
    code = world.watch(
        nothing, write("a/1.png", spot=True), note, nothing, note, fail_on_anomaly=True
    )
    assert code == job.ANOMALOUS
    assert judged == [["0.png good"], ["0.png good", "1.png bad"]]
    good, bad, *_ = capsys.readouterr().out.splitlines()
    assert good == f"{tmp_path}/in/0.png: normal, score 0.1569, p 1"
    assert bad == f"{tmp_path}/in/a/1.png: anomalous, score 0.9804, p 0.1"
    assert summary(tmp_path)["finished"]


def test_a_file_that_vanishes_while_it_is_read_is_forgotten(tmp_path, world, monkeypatch, capsys):
    for name in "ab":
        picture(tmp_path / "in" / f"{name}.png")
    read = predictor.image_files.read_image

    def take_away(path, white):
        if path.name == "a.png":
            path.unlink()
        return read(path, white)

    monkeypatch.setattr(predictor.image_files, "read_image", take_away)
    assert world.watch() == 0
    assert world.found() == ["b.png good"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("tile", [False, True])
def test_a_file_that_changes_while_it_is_read_is_read_again(tmp_path, world, monkeypatch, tile):
    path, pending = picture(tmp_path / "in" / "a.png"), [write("a.png", spot=True)]

    class Slow(Bright):
        def decide(self, image):
            change()
            return super().decide(image)

    def change():
        if pending:
            pending.pop()(world)
            os.utime(path, ns=(0, 77))

    read = predictor.image_files.read_image
    if tile:
        use(monkeypatch, Slow())
    else:
        monkeypatch.setattr(predictor.image_files, "read_image", lambda *a: (read(*a), change())[0])
    world.watch(tile=tile)
    assert world.found() == ["a.png bad"]


def test_a_second_watch_goes_on(tmp_path, world):
    picture(tmp_path / "in" / "a.png", spot=True)
    assert world.watch(save=("heatmap",), fail_on_anomaly=True) == job.ANOMALOUS
    before = lines(tmp_path)
    with (tmp_path / "out" / "predictions.jsonl").open("a") as file:
        file.write('{"path": "cut off')
    picture(tmp_path / "in" / "b.png")
    assert world.watch(save=("heatmap",), fail_on_anomaly=True) == 0  # of those that are new
    assert world.found() == ["a.png bad", "b.png good"]
    assert lines(tmp_path)[:1] == before
    assert summary(tmp_path)["images"] == 2
    assert (tmp_path / "out" / "predictions.csv").read_text().count("\n") == 3
    assert (tmp_path / "out" / before[0]["heatmap"]).exists()


def test_lines_of_two_detectors_do_not_mix(tmp_path, world, monkeypatch):
    picture(tmp_path / "in" / "a.png")
    world.watch()
    before = snapshot(tmp_path)
    use(monkeypatch, Bright({**CARD, "pixel": 0.6}))
    with pytest.raises(UserError, match="another detector"):
        world.watch()
    assert snapshot(tmp_path) == before


def test_another_spelling_of_the_workdir_is_the_same_detector(tmp_path, world, monkeypatch):
    picture(tmp_path / "in" / "a.png")
    monkeypatch.chdir(tmp_path)
    world.watch()
    shutil.copytree(tmp_path / "in", tmp_path / "run")
    (tmp_path / "same").symlink_to("run")
    assert world.watch(workdir="same/") == 0
    assert world.found() == ["a.png good"]


def test_only_folders_can_be_watched(tmp_path, world):
    (tmp_path / "in").rmdir()
    with pytest.raises(UserError, match="no folder"):
        world.watch()


def test_a_folder_is_the_same_however_it_is_spelled(tmp_path, world, monkeypatch):
    for name in ("a.png", "sub/b.png"):
        picture(tmp_path / "in" / name)
    (tmp_path / "link").symlink_to("in")
    monkeypatch.chdir(tmp_path)
    world.watch()
    before = lines(tmp_path)
    assert len(before) == 2
    spellings = ("in", "in/", "./in", "link", "../" + tmp_path.name + "/in", "in,link,in/sub")
    for spelling in (*spellings, f"{tmp_path}/in//", str(tmp_path / "link" / "sub" / "..")):
        world.inputs = [spelling]
        assert world.watch(kill) is None
        assert world.watch() == 0
        assert lines(tmp_path) == before, spelling


def test_two_links_in_a_folder_are_two_images(tmp_path, world):
    picture(tmp_path / "store.png")
    for name in ("a.png", "b.png"):
        (tmp_path / "in" / name).symlink_to(tmp_path / "store.png")
    other = picture(tmp_path / "other.png", spot=True)

    def retarget(world):
        (tmp_path / "in" / "b.png").unlink()
        (tmp_path / "in" / "b.png").symlink_to(other)

    world.watch(nothing, nothing, retarget)
    assert world.found() == ["a.png good", "b.png good", "b.png bad"]


def test_an_output_reached_by_a_link_is_no_input(tmp_path, world):
    picture(tmp_path / "in" / "a.png")
    (tmp_path / "link").symlink_to("in")
    world.inputs, world.output = [str(tmp_path / "link")], tmp_path / "in" / "out"
    for _ in range(2):
        assert world.watch(save=("heatmap",)) == 0
    assert world.found() == ["a.png good"]


def test_lines_of_version_01_are_gone_on_with(tmp_path, world):
    for name in "abc":
        picture(tmp_path / "in" / f"{name}.png")
    junk("d.png")(world)
    world.watch()
    new = ("resolved", "size", "inode")
    old = [{k: v for k, v in line.items() if k not in new} for line in lines(tmp_path)]
    del old[3]["modified"]  # that of an unreadable file was not kept
    file = tmp_path / "out" / "predictions.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in old))
    touch("b.png")(world)
    for _ in range(2):
        world.watch(nothing, nothing, wait(2 * PATIENCE))
        assert lines(tmp_path)[:4] == old
        assert world.found()[4:] == ["b.png good", "d.png unreadable"]


def test_unreadable_files_are_tried_more_and_more_rarely(world, monkeypatch):
    junk("a.png")(world)
    times, size_of = [], predictor.image_files.image_size
    monkeypatch.setattr(
        predictor.image_files, "image_size", lambda path: times.append(world.now) or size_of(path)
    )
    assert world.watch(*[nothing] * 80) == job.FAULTY
    assert [now - times[0] for now in times] == [0, 1, 2, 4, 8, 16, 32, PATIENCE]
    assert world.found() == ["a.png unreadable"]


def test_patience_is_a_setting(world):
    junk("a.png")(world)
    said = []
    world.watch(nothing, lambda world: said.extend(world.found()), patience=0.0)
    assert said == ["a.png unreadable"]


def test_waiting_ends_at_once_when_stopped():
    asked = []
    watch.wait(60, lambda: asked.append(1) or len(asked) > 1)
    assert len(asked) == 2
