"""A person with pip, a folder of photographs and no defects yet; `.ci/run` plays it from a wheel.

python tests/new_user.py FOLDER

FOLDER has to be empty and outside of the checkout. The interpreter is one into which nothing was
installed but the wheel and what it depends on.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from skimage import data

RATE = "0.25"  # of 30 photographs 3 are held out
IN_PYTHON = """
import flowad_jax

detector = flowad_jax.fit("photos", method="msflow", false_alarm_rate=0.25, epochs=2)
prediction = detector.predict("new/crack.jpg")
print(detector)
assert prediction.anomalous is not None
assert prediction.p_value <= 1
prediction.overlay().save("overlay.png")
detector.save("saved")
assert flowad_jax.load("saved").predict("new/crack.jpg").score == prediction.score
"""


def photographs(folder: Path) -> None:
    """Writes 30 normal photographs as cameras, phones and scanners do, and two new ones."""
    wall, rng = data.brick(), np.random.default_rng(0)
    kinds = ["a.jpg", "B.JPG", "c.png", "d.bmp", "e.tif", "f.webp", "grey 16.png", "ü alpha.png"]
    (folder / "photos").mkdir()
    (folder / "new").mkdir()
    for index in range(30):
        grey = crop(wall, rng)
        image = Image.fromarray(np.stack([grey, grey, (grey * 0.9).astype(np.uint8)], axis=-1))
        if index % 8 == 6:
            image = Image.fromarray(grey.astype(np.uint16) * 257)
        elif index % 8 == 7:
            image = image.convert("RGBA")
        elif index % 8 < 2:
            image = image.resize((320, 240))
        image.save(folder / "photos" / f"{index} {kinds[index % 8]}")
    good = Image.fromarray(crop(wall, rng)).convert("RGB")
    good.save(folder / "new" / "good.jpg")
    ImageDraw.Draw(good).line([(30, 60), (110, 150), (190, 160)], (20, 20, 20), 9)
    good.save(folder / "new" / "crack.jpg")


def crop(wall: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A part of the photograph, 240 x 240."""
    y, x = rng.integers(0, 512 - 240, 2)
    return wall[y : y + 240, x : x + 240]


def run(folder: Path, *words: str, code: int = 0) -> str:
    """Runs the command `flowad` as the person does, and returns all that is shown."""
    command = [str(Path(sys.executable).with_name("flowad")), *words]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True)
    shown = done.stdout + done.stderr
    assert done.returncode == code, f"{' '.join(words)}: exit code {done.returncode}\n{shown}"
    assert "Traceback" not in shown, shown
    assert "nan" not in shown.lower().split(), shown
    return shown


def shadows(folder: Path) -> list[Path]:
    """Writes files of the person that are named like ours and must not be taken for them."""
    names = ("flowad_jax.py", "quickstart.py", "base.py", "configs/__init__.py", "recipes/base.py")
    files = [folder / name for name in names]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.write_text("raise SystemExit('not this one')")
    return files


def play(folder: Path) -> None:
    """Trains, judges and looks at the report; then the same in Python."""
    started = time.perf_counter()
    photographs(folder)
    mine = shadows(folder)
    assert "flowad train --config=quickstart" in run(folder, "--help")
    assert "msflow_folder" in run(folder, "recipes")
    run(folder, "recipes", "--copy", "msflow_folder", ".")
    shown = run(folder, "train", "--config=msflow_folder.py", "--workdir=run",
                "--config.data.root=photos", f"--config.eval.false_alarm_rate={RATE}",
                "--config.train.epochs=8")  # fmt: skip
    assert "warning" not in shown.lower(), shown
    assert "no test images: no metrics" in shown.lower(), shown
    words = ("--workdir=run", "--input=new", "--output=judged", "--fail_on_anomaly")
    shown = run(folder, "predict", *words, code=3)
    print(f"decided after {time.perf_counter() - started:.0f} s\n{shown}")
    lines = [json.loads(line) for line in (folder / "judged/predictions.jsonl").open()]
    found = {Path(line["path"]).stem: line for line in lines}
    assert found["crack"]["anomalous"] is True, found
    assert found["crack"]["score"] > found["good"]["score"], found
    page = (folder / "run/report.html").read_text(encoding="utf-8")
    assert "no test images: no metrics" in page.lower()
    assert "nothing is wrong" in run(folder, "doctor", "--workdir=run")
    for file in mine:
        file.unlink()
    subprocess.run([sys.executable, "-c", IN_PYTHON], cwd=folder, check=True)


if __name__ == "__main__":
    play(Path(sys.argv[1]))
