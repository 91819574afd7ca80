"""The doctor names each problem and its remedy, and changes nothing."""

import json
import re
import shutil
import sys
from importlib import metadata
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from flowad_jax.data.findings import examples
from flowad_jax.doctor import machine
from flowad_jax.doctor.__main__ import main
from flowad_jax.doctor.findings import Section
from flowad_jax.errors import UserError
from flowad_jax.features import memory
from flowad_jax.training import state, workdir
from flowad_jax.training.checkpoint import Checkpoints, Position
from flowad_jax.training.logging import MetricsLog
from flowad_jax.training.model import build_model
from flowad_jax.weights import store
from tests.conftest import write_image
from tests.data import layouts

pytestmark = pytest.mark.whole


def snapshot(folder):
    """Names, times and contents of everything below a folder."""
    files = sorted(folder.rglob("*"))
    return [(f, f.lstat().st_mtime_ns, f.read_bytes() if f.is_file() else b"") for f in files]


@pytest.fixture
def ask(capsys):
    """Runs the doctor; returns its exit code and what it said."""

    def run(*words):
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in words])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return stop.value.code, out + err

    return run


# --- a data folder ---


@pytest.fixture
def part(tmp_path):
    """A category without a fault: 20 images to train on, 5 good and 5 defective ones to test."""
    part = tmp_path / "images" / "part"
    for index in range(20):
        write_image(part / "train" / "good" / f"{index:02d}.png", index)
    for index in range(5):
        write_image(part / "test" / "good" / f"{index}.png", 100 + index)
        write_image(part / "test" / "spot" / f"{index}.png", 200 + index, defect=True)
        write_mask(part, index)
    return part


def write_mask(part, index, size=(40, 36), value=255):
    mask = np.zeros(size, np.uint8)
    mask[10:20, 8:20] = value
    (part / "ground_truth" / "spot").mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(part / "ground_truth" / "spot" / f"{index}_mask.png")


def test_a_sound_folder_is_counted_and_left_alone(ask, part):
    before = snapshot(part)
    code, text = ask(f"--data={part.parent}")
    assert code == 0, text
    for line in ("20 good", "5 good, 5 spot", "5 of 5 anomalous", "all 36 x 40", "30 grey"):
        assert line in text
    assert "nothing is wrong" in text
    assert snapshot(part) == before


def remove_mask(part):
    (part / "ground_truth" / "spot" / "3_mask.png").unlink()


def misname_masks(part):
    for file in (part / "ground_truth" / "spot").iterdir():
        file.rename(file.with_stem(f"label_{file.stem}"))


def shrink_masks(part):
    for index in (1, 2):
        write_mask(part, index, size=(20, 36))


def blacken_masks(part):
    for index in range(5):
        write_mask(part, index, value=0)


def invert_mask(part):
    file = part / "ground_truth" / "spot" / "1_mask.png"
    with Image.open(file) as mask:
        mask.point(lambda value: 255 - value).save(file)


def blur_mask(part):
    with Image.open(part / "ground_truth" / "spot" / "1_mask.png") as mask:
        mask.save(part / "ground_truth" / "spot" / "1_mask.jpg", quality=80)
    (part / "ground_truth" / "spot" / "1_mask.png").unlink()


def leave_photograph(part):
    (part / "train" / "good" / "07.heic").write_bytes(b"")


def break_link(part):
    (part / "test" / "good" / "9.png").symlink_to(part / "gone.png")


def break_mask(part):
    (part / "ground_truth" / "spot" / "2_mask.png").write_bytes(b"broken")


def break_image(part):
    (part / "train" / "good" / "07.png").write_bytes(b"broken")


def cut_image(part):
    file = part / "test" / "good" / "1.png"
    file.write_bytes(file.read_bytes()[:400])


def add_colours(part):
    file = part / "test" / "spot" / "0.png"
    with Image.open(file) as image:
        image.convert("RGBA").save(file)


def add_deep_image(part):
    pixels = np.full((40, 36), 30000, np.uint16)
    Image.fromarray(pixels).save(part / "train" / "good" / "99.png")


def leak(part):
    with Image.open(part / "train" / "good" / "04.png") as image:
        image.save(part / "test" / "good" / "leaked.bmp")  # the same pixels in another file


def repeat(part):
    good = part / "train" / "good"
    shutil.copy(good / "01.png", good / "02.png")


def dispute(part):
    shutil.copy(part / "test" / "spot" / "1.png", part / "test" / "good" / "1.png")


def shrink_image(part):
    write_image(part / "test" / "good" / "thumb.png", 7, size=(40, 31))


def thin_training(part):
    for index in range(3, 20):
        (part / "train" / "good" / f"{index:02d}.png").unlink()


def thin_test(part):
    (part / "test" / "good" / "0.png").unlink()


def drop_anomalies(part):
    shutil.rmtree(part / "test" / "spot")
    shutil.rmtree(part / "ground_truth")


def drop_training(part):
    shutil.rmtree(part / "train" / "good")


@pytest.mark.parametrize(
    ("spoil", "what", "remedy"),
    [
        (remove_mask, "without a mask (1 of 5): {part}/test/spot/3.png", "add ground_truth"),
        (misname_masks, "anomalous images without a mask (5 of 5)", "data.options.masks to 'none'"),
        (shrink_masks, "masks of another size than their image (2)", "size of the image"),
        (blacken_masks, "all masks are black", "--set=mask_threshold=0"),
        (invert_mask, "1 of 5 masks mark nearly the whole image or all of its border", "invert"),
        (
            blur_mask,
            "1 of 5 masks hold many grey values and are split above 127",
            "black and white",
        ),
        (leave_photograph, "images or masks: 1 ({part}/train/good/07.heic)", "convert them to PNG"),
        (break_link, "images or masks: 1 ({part}/test/good/9.png)", "repair their links"),
        (break_mask, "cannot read '{part}/ground_truth/spot/2_mask.png'", "replace or remove"),
        (break_image, "cannot read '{part}/train/good/07.png'", "replace or remove"),
        (cut_image, "cannot read '{part}/test/good/1.png'", "replace or remove"),
        (add_colours, "2 modes are mixed", "convert all with one tool"),
        (add_deep_image, "16 bit as {part}/train/good/99.png", "convert all with one tool"),
        (leak, "04.png = {part}/test/good/leaked.bmp", "remove them from train"),
        (repeat, "in train more than once (1): {part}/train/good/01.png", "keep one of each"),
        (dispute, "tested both as good and as anomalous", "decide which"),
        (shrink_image, "a side of less than 32 pixels (1)", "higher resolution"),
        (thin_training, "images to train on: only 3", "add normal images"),
        (thin_test, "good test images: only 4, so metrics will be noise", "5 or more"),
        (drop_anomalies, "only 0, so metrics will be undefined", "add some"),
        (drop_training, "no training images in '{part}/train/good'", "put the normal images there"),
    ],
)
def test_each_problem_of_a_folder(ask, part, spoil, what, remedy):
    spoil(part)
    before = snapshot(part)
    code, text = ask(f"--data={part.parent}", "--category=part")
    assert code == 1, text
    assert what.format(part=part) in text
    lines = text.splitlines()
    found = next(i for i, line in enumerate(lines) if what.format(part=part) in line)
    assert lines[found].startswith("  ! ")
    assert lines[found + 1].startswith("    -> ")
    assert remedy in lines[found + 1]
    assert lines[-1] == "1 problem found", text
    assert snapshot(part) == before


def test_defects_that_vanish_at_the_size_of_the_network(ask, part):
    speck = np.zeros((40, 36), np.uint8)
    speck[4, 4] = 255
    Image.fromarray(speck).save(part / "ground_truth" / "spot" / "1_mask.png")
    assert ask(f"--data={part.parent}")[0] == 0  # 256 px: every pixel is there several times
    code, text = ask(f"--data={part.parent}", "--image_size=32")
    assert code == 1
    named = f"({part}/test/spot/1.png)"
    assert f"at 32 px nothing is left of the masks of 1 of 5 anomalous images {named}" in text
    assert f"at 32 px nothing is left of 1 of 5 separate defect regions {named}" in text
    assert "-> raise data.image_size" in text
    code, text = ask(f"--data={part.parent}", "--image_size=0")
    assert code == 2
    assert "--image_size=0: must be 1 or more" in text


def test_images_of_unknown_label_need_no_mask(ask, part):
    rows = ["image,split,label,mask"]
    for split in ("train", "test"):
        rows += [f"{f.relative_to(part)},{split},good," for f in (part / split / "good").iterdir()]
    for index in range(5):
        mask = f"ground_truth/spot/{index}_mask.png"
        rows.append(f"test/spot/{index}.png,test,spot,{mask}")
    write_image(part / "odd.png", 999)
    rows.append("odd.png,test,unknown,")
    (part / "dataset.csv").write_text("\n".join(rows))
    code, text = ask(f"--data={part}", "--name=csv")
    assert code == 0, text
    assert "5 good, 5 spot, 1 unknown" in text


def test_several_problems_are_found_at_once(ask, part):
    for spoil in (remove_mask, break_image, repeat, shrink_masks):
        spoil(part)
    code, text = ask(f"--data={part}")
    assert code == 1
    assert "4 problems found" in text


def test_options_and_categories(ask, part):
    for split in ("train", "test"):
        (part / split / "good").rename(part / split / "ok")
    shutil.copytree(part, part.parent / "other")
    remove_mask(part)
    code, text = ask(f"--data={part.parent}", "--set=normal=ok", "--set=masks=none")
    assert code == 0, text
    assert "category 'other'" in text
    assert "category 'part'" in text


def test_masks_of_another_layout(ask, tmp_path):
    for index in range(30):
        write_image(tmp_path / "MT_Free" / "Imgs" / f"{index:02d}.jpg", index)
    for index in range(6):
        write_image(tmp_path / "MT_Break" / "Imgs" / f"{index}.jpg", 50 + index)
    for index in range(5):
        write_image(tmp_path / "MT_Break" / "Imgs" / f"{index}.png", 50, defect=True)
    code, text = ask(f"--data={tmp_path}", "--name=magnetic_tile")
    assert code == 1
    assert "without a mask (1 of 6)" in text
    assert "MT_Break/Imgs/5.jpg" in text


@pytest.mark.parametrize("name", layouts.ALL)
def test_masks_are_found_wherever_a_layout_has_them(ask, tmp_path, name):
    write, category = layouts.ALL[name]
    write(tmp_path)
    _, text = ask(f"--data={tmp_path}", f"--name={name}", f"--category={category}")
    (line,) = (line for line in text.splitlines() if line.strip().startswith("masks"))
    number, of = re.search(r"(\d+) of (\d+) anomalous images", line).groups()
    assert number == of != "0"


def test_images_that_are_no_files(ask):
    code, text = ask("--data=unused", "--name=textures", "--category=grass")
    assert code == 0, text
    assert "40 of 40 anomalous images" in text


# --- a workdir ---


@pytest.fixture
def run(tmp_path, tiny_config):
    """The folder of a finished run, without its training."""
    path = workdir.claim(tmp_path / "run", tiny_config)
    model = build_model(tiny_config)
    trained = state.fresh(model)._replace(step=np.int32(3))
    meta = {"encoder_sha256": model.encoder.source["sha256"]}
    Checkpoints(path).save(trained, Position(3, 0), meta)
    log = MetricsLog(path, 0)
    log.write("train", 3, 3, {"loss": 0.5})
    log.close()
    results = {"columns": {"last": {"image_auroc": 0.9, "pixel_ap": None, "epoch": 3}}}
    (path / "results.json").write_text(json.dumps(results))
    return path


def change_config(run, key, value):
    config = json.loads((run / "config.json").read_text())
    *sections, name = key.split(".")
    section = config
    for word in sections:
        section = section[word]
    section[name] = value
    (run / "config.json").write_text(json.dumps(config))


def test_a_sound_run(ask, run):
    before = snapshot(run)
    code, text = ask(f"--workdir={run}")
    assert code == 0, text
    for line in ("cflow on folder part", "steps 3", "3 of 3 epochs", "auroc 90.00 %", "builds"):
        assert line in text
    assert snapshot(run) == before


def stop_early(run):
    change_config(run, "train.epochs", 9)


def drop_checkpoints(run):
    shutil.rmtree(run / "checkpoints")


def damage_checkpoint(run):
    (run / "checkpoints" / "3" / "meta" / "metadata").write_text("{")


def gut_checkpoint(run):
    shutil.rmtree(run / "checkpoints" / "3" / "state")


def leave_checkpoint(run):
    (run / "checkpoints" / "4.orbax-checkpoint-tmp-1").mkdir()


def leave_features(run):
    folder = run / "features" / ".unfinished-abc"
    folder.mkdir(parents=True)
    (folder / "map0.bin").write_bytes(bytes(3 * 2**20))


def cut_metrics(run):
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "tra')


def drop_results(run):
    (run / "results.json").unlink()


def damage_results(run):
    (run / "results.json").write_text("[]")


def damage_config(run):
    (run / "config.json").write_text("{")


def empty_config(run):
    (run / "config.json").write_text("{}")


def strange_config(run):
    (run / "config.json").write_text("[1]")


def older_config(run):
    config = json.loads((run / "config.json").read_text())
    del config["data"]["norm"]
    (run / "config.json").write_text(json.dumps(config))


def lose_weights(run):
    change_config(run, "encoder.weights", "gone.safetensors")


def lose_images(run):
    change_config(run, "data.root", "gone")


def change_weights(run):
    change_config(run, "seed", 5)  # random weights follow from it


def unknown_method(run):
    change_config(run, "method.name", "cflwo")


@pytest.mark.parametrize(
    ("spoil", "what", "remedy"),
    [
        (stop_early, "not finished: epoch 3 of 9", "goes on where it stopped"),
        (drop_checkpoints, "no complete checkpoint", "goes on where it stopped"),
        (damage_checkpoint, "checkpoints/3 is damaged", "checkpoints/3 to go back"),
        (gut_checkpoint, "checkpoints/3 is damaged", "checkpoints/3 to go back"),
        (leave_checkpoint, "4.orbax-checkpoint-tmp-1 was left unfinished", "delete it"),
        (leave_features, ".unfinished-abc was left unfinished and takes 3.0 MiB", "delete it"),
        (cut_metrics, "metrics.jsonl: line 2 of 2", "remove that line"),
        (drop_results, "has no results.json", "python eval.py --workdir="),
        (damage_results, "results.json cannot be read", "python eval.py --workdir="),
        (damage_config, "config.json cannot be read", "damaged"),
        (empty_config, "config.json has no ", "train anew"),
        (strange_config, "config.json cannot be read (it is [1], but must be a table)", "damaged"),
        (older_config, "config.json has no data.norm", "train anew"),
        (lose_weights, "'gone.safetensors' are not where", "put them there"),
        (lose_images, "data.root 'gone' does not exist", ""),
        (change_weights, "weights are others than those of the run", "put the old weights back"),
        (unknown_method, "unknown name 'cflwo'", "did you mean 'cflow'?"),
    ],
)
def test_each_problem_of_a_run(ask, run, spoil, what, remedy):
    spoil(run)
    before = snapshot(run)
    code, text = ask(f"--workdir={run}")
    assert code == 1, text
    lines = text.splitlines()
    found = next((i for i, line in enumerate(lines) if what in line), None)
    assert found is not None, text
    assert lines[found].startswith("  ! ")
    assert lines[found + 1].startswith("    -> ")
    assert remedy in lines[found + 1]
    assert lines[-1] == "1 problem found", text
    assert snapshot(run) == before


def test_missing_weights_and_images_are_found_together(ask, run):
    lose_weights(run)
    lose_images(run)
    assert "2 problems found" in ask(f"--workdir={run}")[1]


def test_features_on_disk_are_measured(ask, run):
    (run / "features" / "0123").mkdir(parents=True)
    (run / "features" / "0123" / "map0.bin").write_bytes(bytes(2**20))
    code, text = ask(f"--workdir={run}")
    assert code == 0, text
    assert "1.0 MiB in" in text


def test_a_folder_that_is_no_workdir(ask, tmp_path):
    code, text = ask(f"--workdir={tmp_path / 'nothing'}")
    assert code == 1
    assert "is not a workdir" in text
    assert not list(tmp_path.iterdir())


# --- the installation ---


def test_the_installation(ask):
    code, text = ask()
    assert code == 0, text
    for word in ("python", "jax", "distrax", "opencv-python-headless", "cpu:0", "checksum right"):
        assert word in text


def test_a_package_that_is_missing_or_broken(ask, monkeypatch):
    found = metadata.version

    def version(name):
        if name == "tqdm":
            raise metadata.PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setitem(sys.modules, "optax", None)  # importing it fails
    code, text = ask()
    assert code == 1
    assert "tqdm is not installed" in text
    assert "optax cannot be imported" in text


def test_what_a_machine_lacks(ask, monkeypatch):
    monkeypatch.setattr(memory, "host", lambda: 2**29)
    monkeypatch.setattr(store, "embedded", lambda name: None)
    monkeypatch.setattr(machine.shutil, "which", lambda name: "a path")
    monkeypatch.delenv("JAX_PLATFORMS")
    code, text = ask()
    assert code == 1
    assert "only 512.0 MiB of memory are free" in text
    assert "weights of efficientnet_lite.efficientnet_lite0 are not installed" in text
    assert "NVIDIA GPU that jax does not use" in text


def test_memory_of_an_accelerator_is_shown():
    stats = {"bytes_limit": 8 * 2**30, "bytes_in_use": 2**30}
    device = SimpleNamespace(memory_stats=lambda: stats)
    assert machine._free(device) == ", 7.0 GiB of 8.0 GiB free"


def test_data_cannot_be_looked_at_without_a_package(ask, monkeypatch):
    monkeypatch.setitem(sys.modules, "flowad_jax.doctor.data", None)
    monkeypatch.delattr("flowad_jax.doctor.data", raising=False)
    code, text = ask("--data=x")
    assert code == 1
    assert "run 'python -m flowad_jax.doctor' without flags" in text


# --- the command ---


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dta=x"], "--dta=x"),
        (["--category=x"], "--category needs --data=FOLDER"),
        (["--data=x", "--name=fodler"], "did you mean 'folder'?"),
        (["--data=x", "--set=normal"], "--set=OPTION=VALUE"),
        (["--data=x", "--set=normel=ok"], "did you mean 'normal'?"),
        (["--data=x", "--set=white=bright"], "must be like 65535"),
    ],
)
def test_wrong_usage_is_one_line(ask, words, message):
    code, text = ask(*words)
    assert code == 2
    assert message in text
    assert text.count("\n") == 1


def test_help_teaches(ask):
    code, text = ask("--help")
    assert code == 0
    assert "--name=magnetic_tile" in text
    assert "Exit code" in text


def test_a_refusal_is_split_into_problem_and_remedy():
    section = Section("")
    section.refused(UserError("cannot read 'a: b.png': it is damaged; replace it"))
    section.refused(UserError("cannot read 'a: b.png': it is damaged; replace it"))
    section.refused(UserError("without a remedy"))
    assert section.problems[0] == ("cannot read 'a: b.png': it is damaged", "replace it")
    assert section.problems[1][0] == "without a remedy"
    assert len(section.problems) == 2


def test_examples_are_few():
    assert examples("ab") == "a, b"
    assert examples("abcd") == "a, b and 2 more"
