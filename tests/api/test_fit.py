"""flowad_jax.fit: images of any kind in, a detector out."""

import gc
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import flowad_jax
from flowad_jax.api import fit as fitting
from flowad_jax.api import keywords
from flowad_jax.data import kept_images
from flowad_jax.data.images import read_image
from flowad_jax.data.pixels import to_pixels
from flowad_jax.errors import UserError
from flowad_jax.interrupt import Interrupted
from flowad_jax.recipes.base import base
from tests.api.conftest import TINY, U8, photographs
from tests.conftest import write_image


def test_jax_is_imported_when_it_is_needed():
    code = "import sys, flowad_jax; print('jax' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"
    assert flowad_jax.fit is fitting.fit
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        flowad_jax.fitt  # noqa: B018


@pytest.mark.whole
def test_a_detector_of_images_in_memory_judges_and_says_what_it_is(fitted):
    assert repr(fitted) == (
        "Detector(msflow, efficientnet_lite.efficientnet_lite_tiny, 32 px, "
        "threshold for at most 25 % false alarms: a promise by 3 held-out images)"
    )
    assert (fitted.workdir / "report.html").is_file()
    kept = sorted((fitted.workdir / "training_images").iterdir())
    for file, image in zip(kept, photographs(), strict=True):
        np.testing.assert_array_equal(read_image(file), to_pixels(image))
    spot = np.full((40, 36), 110, np.uint8)
    spot[10:20, 8:20] = 250
    normal, defective = fitted.predict([photographs(1, seed=5)[0], spot])
    assert defective.score > normal.score
    assert isinstance(defective.anomalous, bool)


@pytest.mark.whole
def test_the_same_call_again_gives_the_same_detector_and_another_is_refused(fitted, tmp_path):
    again = flowad_jax.fit(photographs(), workdir=fitted.workdir, false_alarm_rate=0.25, **TINY)
    image = photographs(1, seed=5)[0]
    assert again.predict(image).score == fitted.predict(image).score
    for other in (photographs(seed=1), photographs(9)):
        with pytest.raises(UserError, match="holds other images, see '0000"):
            flowad_jax.fit(other, workdir=fitted.workdir, **TINY)


WRONG_TO_FIT = {
    "no images": ([], "there are no images: give"),
    "one image": (U8, "images are uint8 of shape (8, 6, 3): give a folder, a pattern"),
    "a dict": ({"image": U8}, "images are of type dict: give a folder"),
    "one file": (__file__, f"images are one file, '{__file__}': give a folder"),
    "a missing file": (["nowhere.png"], "image 0: there is no file 'nowhere.png'"),
    "paths and pixels": ([U8, __file__], "image 1: images are paths and pixels mixed"),
    "a mask": ([U8, U8 > 0], "image 1 is bool of shape (8, 6, 3): give"),
}


@pytest.mark.parametrize(("given", "line"), WRONG_TO_FIT.values(), ids=WRONG_TO_FIT)
def test_nothing_is_trained_on_what_is_no_image(given, line, tmp_path, monkeypatch):
    monkeypatch.setattr(fitting.cross, "train", None)
    with pytest.raises(UserError) as fault:
        flowad_jax.fit(given, workdir=tmp_path)
    assert line in str(fault.value)


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ("textures:brick", ("textures", None, "brick")),
        (".", ("folder", str(Path.cwd()), None)),
        ("photographs/*.jpg", ("folder", "photographs/*.jpg", None)),
        ([U8, U8], ("folder", "training_images", None)),
    ],
    ids=str,
)
def test_where_the_images_lie_and_the_settings_reach_the_recipe(
    images, expected, tmp_path, monkeypatch
):
    seen = []
    monkeypatch.setattr(fitting.cross, "train", lambda config, path: seen.append(config))
    monkeypatch.setattr(fitting, "load", lambda path: path)
    settings = {"encoder": "resnet.resnet18=mine.safetensors", "data.workers": 0, "epochs": 7}
    flowad_jax.fit(images, "cflow", workdir=tmp_path, image_size=64, **settings)
    (config,) = seen
    root = config.data.root and config.data.root.removeprefix(f"{tmp_path}/")
    assert (config.data.name, root, config.data.category) == expected
    assert (config.encoder.name, config.encoder.weights) == ("resnet.resnet18", "mine.safetensors")
    assert (config.method.name, config.train.epochs, config.data.workers) == ("cflow", 7, 0)
    assert config.data.image_size == 64


def test_a_run_without_a_workdir_goes_with_its_detector(monkeypatch):
    class Loaded(list):
        """Something that can be referred to weakly."""

    monkeypatch.setattr(fitting.cross, "train", lambda config, path: None)
    monkeypatch.setattr(fitting, "load", lambda path: Loaded([path]))
    found = flowad_jax.fit([U8])
    (path,) = found
    assert (path / "training_images" / "00000.png").is_file()
    del found
    gc.collect()
    assert not path.exists()


def test_a_run_without_a_workdir_cannot_be_resumed(monkeypatch):
    folders = []

    def stopped(config, path):
        folders.append(path)
        raise Interrupted(2, type("Position", (), {"epoch": 0, "batch": 0}), path)

    monkeypatch.setattr(fitting.cross, "train", stopped)
    with pytest.raises(KeyboardInterrupt):
        flowad_jax.fit([U8])
    assert not folders[0].exists()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"epochs": 3}, ("train.epochs", 3)),
        ({"train__epochs": 3}, ("train.epochs", 3)),
        ({"train.epochs": 3}, ("train.epochs", 3)),
        ({"seed": 5}, ("seed", 5)),
        ({"white": 4095}, ("data.options.white", 4095)),
        ({"root": Path("here")}, ("data.root", "here")),
        ({"schedule__name": "x"}, "there is no setting schedule__name=: did you mean"),
        ({"train_images": 9, "data.name": "textures"}, ("data.options.train_images", 9)),
        ({"epoch": 3}, "there is no setting epoch=: did you mean 'epochs'?"),
        ({"batch_size": 3}, "could be several settings: write eval__batch_size or train__batch"),
        ({"epochs": "many"}, "epochs='many': train.epochs takes int"),
    ],
    ids=str,
)
def test_keys_of_the_config_are_keyword_arguments(values, expected):
    config = base("cflow", "folder")
    if isinstance(expected, tuple):
        keywords.assign(config, values)
        key, value = expected
        for word in key.split("."):
            config = config[word]
        assert config == value
    else:
        with pytest.raises(UserError) as fault:
            keywords.assign(config, values)
        assert expected in str(fault.value)


def test_files_are_linked_and_dark_images_are_noticed(tmp_path, caplog):
    for index in range(2):
        write_image(tmp_path / f"{index}.png", index)
    (tmp_path / "noname").write_bytes((tmp_path / "0.png").read_bytes())
    given = [tmp_path / "0.png", str(tmp_path / "1.png"), tmp_path / "noname"]
    for _ in range(2):  # again changes nothing
        kept_images.keep(given, tmp_path / "kept")
    kept = sorted((tmp_path / "kept").iterdir())
    assert [path.name for path in kept] == ["00000-0.png", "00001-1.png", "00002.png"]
    assert kept[0].samefile(given[0])
    np.testing.assert_array_equal(read_image(kept[2]), read_image(given[0]))
    with pytest.raises(UserError, match="holds other images, see '00000'"):
        kept_images.keep(given[1:], tmp_path / "kept")
    assert not caplog.records
    kept_images.keep([np.full((4, 4), 4000, np.uint16)], tmp_path / "dark")
    (record,) = caplog.records
    assert "dark: set white=4095" in record.message
