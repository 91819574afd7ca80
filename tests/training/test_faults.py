"""Bad input to a whole run: one line that names the culprit, and nothing damaged."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from flowad_jax.errors import UserError
from flowad_jax.training.loop import train
from tests.conftest import write_image

ROOT = Path(__file__).parents[2]


def refuse(config, path, match):
    with pytest.raises(UserError, match=match) as refused:
        train(config, path)
    assert "\n" not in str(refused.value)


def cut(part):
    broken = part / "train" / "good" / "3.png"
    broken.write_bytes(broken.read_bytes()[:200])


def empty(part):
    shutil.rmtree(part / "train" / "good")
    (part / "train" / "good").mkdir()


def other_mask(part):
    mask = Image.fromarray(np.zeros((9, 9), np.uint8))
    mask.save(part / "ground_truth" / "spot" / "1_mask.png")


DAMAGE = {
    "truncated image": (cut, r"3\.png"),
    "empty category": (empty, "good"),
    "mask of another size": (other_mask, r"1_mask\.png.*9"),
    "image without its mask": (
        lambda part: (part / "ground_truth" / "spot" / "2_mask.png").unlink(),
        r"2\.png",
    ),
    "misspelt category": (lambda part: part.rename(part.parent / "prat"), "prat"),
    "missing folder": (lambda part: shutil.rmtree(part.parent), "images"),
}


@pytest.mark.parametrize(("damage", "match"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_data_set_is_named(tiny_config, image_root, tmp_path, damage, match):
    damage(image_root / "part")
    refuse(tiny_config, tmp_path / "run", match)


@pytest.mark.whole
def test_what_is_missing_or_odd_but_good_enough_trains(tiny_config, image_root, tmp_path):
    """No masks, three images of mixed sizes and modes, fewer than a batch."""
    shutil.rmtree(image_root / "part" / "ground_truth")
    good = image_root / "part" / "train" / "good"
    for index in range(3, 6):
        (good / f"{index}.png").unlink()
    write_image(good / "1.png", 1, size=(64, 20))
    Image.fromarray(np.full((30, 30, 4), 90, np.uint8), "RGBA").save(good / "2.png")
    tiny_config.train.batch_size = 32
    results = train(tiny_config, tmp_path / "run")
    assert results["data"]["train"]["images"] == 3
    assert '"pixel_auroc": null' in (tmp_path / "run" / "results.json").read_text()
    assert results["undefined"]["pixel_auroc"] == "the test set has no masks"
    assert "pixel_auroc" not in results["columns"]["oracle"]


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("encoder.name", "resnet.resnet81", "did you mean 'resnet.resnet18'"),
        ("encoder.name", "resnett.resnet18", "did you mean 'resnet.resnet18'"),
        ("encoder.weights", "nowhere.pth", r"nowhere\.pth"),
        ("encoder.weights", "embedded", "efficientnet_lite_tiny"),
        ("encoder.padding", "mirror", "mirror"),
        ("encoder.compute", "bf16", r"encoder\.compute='bf16': .*'bfloat16'"),
        ("method.name", "cflov", "did you mean 'cflow'"),
        ("method.objective", "nil", "did you mean 'nll'"),
        ("method.condition", 6, "condition=6"),
        ("method.fibre_steps", -1, r"method\.fibre_steps=-1: must be 1 or more"),
        ("data.name", "foldre", "did you mean 'folder'"),
        ("data.name", "textures", "Textures has no category 'part'"),
        ("data.norm", "imagenet", "data.norm"),
        ("data.drop_last", True, "drop_last"),
        ("train.adam_idle", "skipp", "did you mean 'skip'"),
        ("train.epochs", 0, "train.epochs=0"),
        ("train.batch_size", -1, "train.batch_size=-1"),
        ("train.clip_norm", -1.0, r"train\.clip_norm=-1\.0: must be 0"),
        ("cache.place", "gpu", r"cache\.place='gpu': choices are auto, device"),
        ("cache.place", "host", r"cache\.place='host'.*\(data\.rotation_degrees=5\.0\): turn that"),
        ("cache.dtype", "bfloat61", r"cache\.dtype='bfloat61': did you mean 'bfloat16'"),
        ("cache.memory_mb", -1, r"cache\.memory_mb=-1"),
        ("eval.scoring", "paper", "method cflow has calibrated and transductive"),
        ("eval.scoring", "per_image", r"eval\.scoring='per_image'"),
    ],
)
def test_wrong_values_are_named(tiny_config, tmp_path, key, value, match):
    section, name = key.split(".")
    tiny_config.train.batch_size = 7  # of six images: nothing is left without the last batch
    tiny_config[section][name] = value
    refuse(tiny_config, tmp_path / "run", match)
    assert not (tmp_path / "run").exists()


def test_weights_of_another_architecture(tiny_config, tmp_path):
    save_file({"conv.weight": np.zeros((3, 3), np.float32)}, tmp_path / "other.safetensors")
    tiny_config.encoder.weights = str(tmp_path / "other.safetensors")
    refuse(tiny_config, tmp_path / "run", r"other\.safetensors")


def test_workdir_below_a_file(tiny_config, tmp_path):
    (tmp_path / "file").write_text("precious")
    refuse(tiny_config, tmp_path / "file" / "run", "cannot write .*run")
    assert (tmp_path / "file").read_text() == "precious"


# Runs train.py and presses Ctrl-C after the first epoch.
STOP_AFTER_ONE_EPOCH = """
import runpy, signal, sys
from flowad_jax.training import run
log_epoch = run.TrainingRun.log_epoch
def stop(self):
    signal.raise_signal(signal.SIGINT)
    return log_epoch(self)
run.TrainingRun.log_epoch = stop
sys.argv[0] = "train.py"
runpy.run_path("train.py", run_name="__main__")
"""
TINY = (
    "--config=configs/cflow_folder.py",
    "--config.data.category=part",
    "--config.data.image_size=32",
    "--config.encoder.name=efficientnet_lite.efficientnet_lite_tiny",
    "--config.encoder.weights=random",
    "--config.method.blocks=1",
    "--config.method.condition=4",
    "--config.train.epochs=3",
    "--config.train.checkpoint_every=1",
    "--config.eval.report_images=0",
)


@pytest.mark.whole
def test_full_disk_keeps_the_last_checkpoint(image_root, tmp_path):
    """A limit on file sizes makes the operating system refuse to write, as a full disk does."""
    path = tmp_path / "run"
    arguments = [*TINY, f"--workdir={path}", f"--config.data.root={image_root}"]
    stopped = python("-c", STOP_AFTER_ONE_EPOCH, *arguments)
    assert stopped.returncode == 130, stopped.stderr
    assert "the same command resumes" in stopped.stderr
    assert {p.name for p in (path / "checkpoints").iterdir()} == {"1", "2"}
    limit = ("bash", "-c", 'ulimit -f 4; exec "$@"', "bash")
    full = python("train.py", *arguments, before=limit)
    assert full.returncode == 1
    assert "Traceback" not in full.stderr
    last = full.stderr.strip().splitlines()[-1]
    assert "cannot write" in last
    assert "step 2 is kept" in last
    done = python("train.py", *arguments)
    assert done.returncode == 0, done.stderr
    assert "resuming at epoch 1, batch 1" in done.stderr


def python(*arguments, before=()):
    """Runs a script of the repository as a user would."""
    command = [*before, sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


TRAIN = ("train.py", "--config=configs/quickstart.py", "--workdir=unused")


@pytest.mark.whole
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((*TRAIN, "--config.train.epochs=many"), 2, "invalid literal for int"),
        ((*TRAIN, "--config.data.category=gras"), 1, "did you mean 'grass'?"),
        ((*TRAIN, "extra"), 2, "unexpected argument 'extra'"),
        ((*TRAIN, "--workdri=x"), 2, "workdri"),
        (("eval.py",), 2, "error: missing --workdir; see --help"),
        (("eval.py", f"--workdir={ROOT / 'tests'}"), 1, "is not a workdir"),
    ],
)
def test_scripts_answer_in_one_line(arguments, code, message):
    done = python(*arguments)
    assert done.returncode == code, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert "Traceback" not in done.stderr


@pytest.mark.whole
@pytest.mark.parametrize("name", ["train", "eval", "predict", "convert"])
def test_help_teaches(name):
    script = "convert_torch_weights.py" if name == "convert" else f"{name}.py"
    for words in ([script], ["-m", "flowad_jax", name]):
        done = python(*words, "--help")
        assert done.returncode == 0
        assert f"flowad {name} --" in done.stdout
