"""Bad input to a whole run: one line that names the culprit, and nothing damaged."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flowad_jax.errors import UserError
from flowad_jax.training.loop import train
from tests.conftest import write_image

pytestmark = pytest.mark.whole

ROOT = Path(__file__).parents[2]
# Runs train.py and presses Ctrl-C after the first epoch.
STOP_AFTER_ONE_EPOCH = """
import runpy, signal, sys
from flowad_jax.training import run
after_epoch = run.Run._after_epoch
def stop(self):
    signal.raise_signal(signal.SIGINT)
    return after_epoch(self)
run.Run._after_epoch = stop
sys.argv[0] = "train.py"
runpy.run_path("train.py", run_name="__main__")
"""


def refuse(config, path, match):
    with pytest.raises(UserError, match=match) as refused:
        train(config, path)
    assert "\n" not in str(refused.value)


def test_missing_folder(tiny_config, tmp_path):
    tiny_config.data.root = str(tmp_path / "nowhere")
    refuse(tiny_config, tmp_path / "run", "nowhere")
    assert not (tmp_path / "run").exists()


def test_misspelt_category(tiny_config, tmp_path):
    tiny_config.data.category = "prat"
    refuse(tiny_config, tmp_path / "run", "part")


def test_empty_category(tiny_config, image_root, tmp_path):
    shutil.rmtree(image_root / "part" / "train" / "good")
    (image_root / "part" / "train" / "good").mkdir()
    refuse(tiny_config, tmp_path / "run", "good")


def test_truncated_image(tiny_config, image_root, tmp_path):
    broken = image_root / "part" / "train" / "good" / "3.png"
    broken.write_bytes(broken.read_bytes()[:200])
    refuse(tiny_config, tmp_path / "run", r"3\.png")


def test_mask_of_another_size(tiny_config, image_root, tmp_path):
    mask = image_root / "part" / "ground_truth" / "spot" / "1_mask.png"
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(mask)
    refuse(tiny_config, tmp_path / "run", r"1_mask\.png.*9")


def test_image_without_its_mask(tiny_config, image_root, tmp_path):
    (image_root / "part" / "ground_truth" / "spot" / "2_mask.png").unlink()
    refuse(tiny_config, tmp_path / "run", r"2\.png")


def test_no_masks_at_all_leaves_pixel_metrics_undefined(tiny_config, image_root, tmp_path):
    shutil.rmtree(image_root / "part" / "ground_truth")
    results = train(tiny_config, tmp_path / "run")
    text = (tmp_path / "run" / "results.json").read_text()
    assert '"pixel_auroc": null' in text
    assert results["undefined"]["pixel_auroc"] == "the test set has no masks"
    assert "pixel_auroc" not in results["columns"]["oracle"]


def test_three_images_of_mixed_sizes_and_modes_train(tiny_config, image_root, tmp_path, caplog):
    good = image_root / "part" / "train" / "good"
    for index in range(3, 6):
        (good / f"{index}.png").unlink()
    write_image(good / "1.png", 1, size=(64, 20))
    Image.fromarray(np.full((30, 30, 4), 90, np.uint8), "RGBA").save(good / "2.png")
    tiny_config.train.batch_size = 32
    assert train(tiny_config, tmp_path / "run")["data"]["train"]["images"] == 3


def test_drop_last_without_a_full_batch(tiny_config, tmp_path):
    tiny_config.train.batch_size = 7
    tiny_config.data.drop_last = True
    refuse(tiny_config, tmp_path / "run", "drop_last")


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
        ("method.fibre_steps", -1, r"method\.fibre_steps=-1: must be 0 \(as published\)"),
        ("data.name", "foldre", "did you mean 'folder'"),
        ("data.norm", "imagenet", "data.norm"),
        ("train.adam_idle", "skipp", "did you mean 'skip'"),
        ("train.epochs", 0, "train.epochs=0"),
        ("train.batch_size", -1, "train.batch_size=-1"),
        ("train.clip_norm", -1.0, r"train\.clip_norm=-1\.0: must be 0"),
        ("cache.place", "gpu", r"cache\.place='gpu': choices are auto, device"),
        (
            "cache.place",
            "host",
            r"cache\.place='host'.*\(data\.rotation_degrees=5\.0\): turn that off or",
        ),
        ("cache.dtype", "bfloat61", r"cache\.dtype='bfloat61': did you mean 'bfloat16'"),
        ("cache.memory_mb", -1, r"cache\.memory_mb=-1"),
        ("eval.scoring", "paper", "method cflow has calibrated and transductive"),
        ("eval.scoring", "per_image", r"eval\.scoring='per_image'"),
    ],
)
def test_wrong_values_are_named(tiny_config, tmp_path, key, value, match):
    section, name = key.split(".")
    tiny_config[section][name] = value
    refuse(tiny_config, tmp_path / "run", match)


def test_options_of_another_data_set(tiny_config, tmp_path):
    tiny_config.data.name = "textures"
    refuse(tiny_config, tmp_path / "run", r"data\.options: .*unexpected keyword")


def test_weights_of_another_architecture(tiny_config, tmp_path):
    from safetensors.numpy import save_file

    save_file({"conv.weight": np.zeros((3, 3), np.float32)}, tmp_path / "other.safetensors")
    tiny_config.encoder.weights = str(tmp_path / "other.safetensors")
    refuse(tiny_config, tmp_path / "run", r"other\.safetensors")


def test_workdir_below_a_file(tiny_config, tmp_path):
    (tmp_path / "file").write_text("precious")
    refuse(tiny_config, tmp_path / "file" / "run", "cannot write .*run")
    assert (tmp_path / "file").read_text() == "precious"


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


def test_full_disk_keeps_the_last_checkpoint(image_root, tmp_path):
    """A limit on file sizes makes the operating system refuse to write, as a full disk does."""
    path = tmp_path / "run"
    command = [sys.executable, "-c", STOP_AFTER_ONE_EPOCH, *TINY]
    command += [f"--workdir={path}", f"--config.data.root={image_root}"]
    stopped = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert stopped.returncode == 130, stopped.stderr
    assert "the same command resumes" in stopped.stderr
    assert {p.name for p in (path / "checkpoints").iterdir()} == {"1", "2"}

    command[1:3] = ["train.py"]
    limited = ["bash", "-c", 'ulimit -f 4; exec "$@"', "bash", *command]
    full = subprocess.run(limited, cwd=ROOT, capture_output=True, text=True, check=False)
    assert full.returncode == 1
    assert "Traceback" not in full.stderr
    last = full.stderr.strip().splitlines()[-1]
    assert "cannot write" in last
    assert "step 2 is kept" in last
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "resuming at epoch 1, batch 1" in done.stderr


def test_a_damaged_checkpoint_is_named(tiny_config, tmp_path):
    path = tmp_path / "run"
    tiny_config.train.epochs = 1
    train(tiny_config, path)
    step = next(p for p in (path / "checkpoints").iterdir())
    for file in step.rglob("*"):
        if file.is_file() and file.stat().st_size > 2000:
            file.write_bytes(b"\0" * 100)
    with pytest.raises(UserError, match=r"checkpoint \d+ in .* cannot be restored") as damaged:
        train(tiny_config, path)
    assert "\n" not in str(damaged.value)


def script(name, *arguments):
    """Runs a script of the repository as a user would."""
    return subprocess.run(
        [sys.executable, name, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--config.train.epohcs=2",), 2, "--config.train.epohcs: did you mean 'train.epochs'?"),
        (("--config.train.epochs=many",), 2, "invalid literal for int"),
        (("--config.data.category=gras",), 1, "did you mean 'grass'?"),
        (("extra",), 2, "unexpected argument 'extra'"),
        (("--workdri=x",), 2, "workdri"),
    ],
)
def test_train_answers_in_one_line(tmp_path, arguments, code, message):
    common = ["--config=configs/quickstart.py", f"--workdir={tmp_path / 'run'}"]
    done = script("train.py", *common, *arguments)
    assert done.returncode == code, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert "Traceback" not in done.stderr


def test_missing_recipe_and_missing_flags():
    done = script("train.py", "--config=configs/quikstart.py", "--workdir=unused")
    assert done.returncode == 2
    assert "did you mean 'configs/quickstart.py'?" in done.stderr
    done = script("eval.py")
    assert done.returncode == 2
    assert done.stderr.strip() == "error: missing --workdir; see --help"


def test_eval_of_a_folder_that_is_no_workdir(tmp_path):
    done = script("eval.py", f"--workdir={tmp_path}")
    assert done.returncode == 1
    assert "is not a workdir" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["train.py", "eval.py", "convert_torch_weights.py"])
def test_help_teaches(name):
    done = script(name, "--help")
    assert done.returncode == 0
    assert f"python {name} --" in done.stdout
