"""The command draws its sheet or says in one line why not."""

import numpy as np
import pytest
from PIL import Image

from flowad_jax.cli import synthesis_sheet
from flowad_jax.cli.synthesis_sheet import main
from flowad_jax.synthesis.types import Synthetic
from tests.conftest import write_image


@pytest.fixture
def folder(tmp_path):
    for index in range(3):
        write_image(tmp_path / "good" / f"{index}.png", index)
    return tmp_path / "good"


@pytest.mark.parametrize("kind", ["nsa", "cutpaste", "mixture", "mixture.rectangle"])
def test_sheet_of_a_folder(folder, tmp_path, capsys, kind):
    output = tmp_path / "new" / "sheet.png"
    main([f"--kind={kind}", f"--input={folder}", f"--output={output}", "--count=5", "--cell=40"])
    with Image.open(output) as picture:
        assert picture.size == (92 + 5 * 46, 22 + 4 * 46)
    assert "of 5 images changed" in capsys.readouterr().out


def test_sheet_of_the_embedded_textures_at_their_own_size(tmp_path, capsys):
    output = tmp_path / "sheet.png"
    main(["--input=grass", f"--output={output}", "--count=2", "--size=0", "--set=blend=mixed"])
    assert "2 of 2" in capsys.readouterr().out
    assert output.is_file()


def test_rows_show_original_synthetic_mask_and_difference():
    original, mask = np.full((10, 10, 3), 50, np.uint8), np.ones((10, 10), np.float32)
    changed = Synthetic(original + np.uint8(20), mask, "nsa", True)
    pixels = np.asarray(synthesis_sheet.draw([(original, changed)], cell=10))
    middle = [pixels[22 + row * 16 + 5, 92 + 5, 0] for row in range(4)]
    assert middle == [50, 70, 255, 80]


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    assert "--kind=nsa --output=nsa.png" in text
    assert "mixture.scar" in text


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--kind=nsaa"], 2, "invalid choice: 'nsaa'"),
        (["--colour=red"], 2, "--colour=red"),
        (["--count=0"], 2, "use 1 to 200"),
        (["--input=nowhere"], 1, "no such folder"),
        (["--input={empty}"], 1, "no images"),
        (["--output=sheet.xyz"], 1, ".png"),
        (["--size=-3"], 2, "--size: -3 is out of range"),
        (["--set=blend"], 1, "--set=OPTION=VALUE"),
        (["--set=blend=mixd"], 1, "did you mean 'mixed'"),
        (["--dataset=mvtek"], 1, "did you mean 'mvtec'"),
        (["--dataset=mvtec", "--category=nut"], 1, "mvtec: synthesis.category='nut'"),
        (["--kind=mixture", "--dataset=mvtec"], 1, "for --kind=nsa"),
        (["--seed=-1"], 2, "--seed: -1"),
        (["--cell=many"], 2, "'many' is not a whole number"),
    ],
)
def test_faults_are_one_line(folder, tmp_path, capsys, words, code, message):
    output = tmp_path / "sheet.png"
    output.write_bytes(b"an older sheet")
    (tmp_path / "empty").mkdir()
    words = [word.format(empty=tmp_path / "empty") for word in words]
    with pytest.raises(SystemExit) as stop:
        main([f"--input={folder}", f"--output={output}", *words])
    error = capsys.readouterr().err
    assert stop.value.code == code
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert output.read_bytes() == b"an older sheet"


def test_damaged_image_is_named(folder, tmp_path, capsys):
    (folder / "1.png").write_bytes(b"not an image")
    with pytest.raises(SystemExit):
        main([f"--input={folder}", f"--output={tmp_path / 'sheet.png'}"])
    assert "1.png" in capsys.readouterr().err
