"""Image files that cost or start too much: other formats, pipes, huge images in small files."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flowad_jax.data import images
from flowad_jax.data._budget import PixelBudget
from flowad_jax.data._files import Entry, FileSource, listing
from flowad_jax.data._image_file import FORMATS, SUFFIXES
from flowad_jax.data.masks import read_mask
from flowad_jax.errors import UserError
from tests.data.test_images import GREY, refused


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_size_limit_is_the_one_that_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    for shape in ((4, 10), (1, 41)):
        Image.fromarray(np.zeros(shape, np.uint8)).save(tmp_path / f"{shape[0]}.png")
    assert images.read_image(tmp_path / "4.png").shape == (4, 10, 3)
    refused(tmp_path / "1.png", "it has more than 40 pixels; make it smaller")
    Image.fromarray(np.zeros((40, 1), np.uint8)).save(tmp_path / "long.png")
    with pytest.raises(UserError, match="40 rows are too many"):  # 40 x 8 after the first pass
        images.read_resized(tmp_path / "long.png", 8)


EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 20 20
%%EndComments
0 0 20 20 rectfill
showpage
"""


@pytest.mark.parametrize("read", [images.read_image, images.image_size, read_mask])
def test_no_other_program_is_started(tmp_path, monkeypatch, read):
    """Pillow would have Ghostscript draw this one."""
    path = tmp_path / "innocent.png"
    path.write_bytes(EPS)
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(a))
    with pytest.raises(UserError, match=r"innocent\.png': it is none of BMP, GIF, JPEG"):
        read(path)
    assert not started


def test_other_formats_are_refused_whatever_their_name(tmp_path):
    path, tried = tmp_path / "a.png", []
    for name in ("BLP", "EPS", "ICNS", "ICO", "MSP", "PCX", "QOI", "SGI", "TGA", "XBM"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            Image.fromarray(GREY).convert("1" if name in ("MSP", "XBM") else "L").save(path, name)
            tried.append(name)
            refused(
                path, "it is none of BMP, GIF, JPEG, JPEG2000, PNG, PPM, TIFF, WEBP, or damaged"
            )
    assert len(tried) > 5


def test_suffixes_are_those_of_the_formats(tmp_path):
    for name in ("a.png", "b.JPG", "c.eps", "d.psd", "e.fits", "f.tiff", "g.txt"):
        (tmp_path / name).write_bytes(b"")
    found, skipped = listing(tmp_path)
    assert [p.name for p in found] == ["a.png", "b.JPG", "f.tiff"]
    assert [p.name for p in skipped] == ["c.eps", "d.psd", "e.fits", "g.txt"]
    known = Image.registered_extensions()
    assert all(known[suffix] in FORMATS for suffix in SUFFIXES)  # as Pillow sees it


@pytest.mark.parametrize("read", [images.read_image, images.image_size, read_mask])
def test_what_is_no_file_never_blocks(tmp_path, monkeypatch, read):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.png")
    os.mkdir("folder.png")
    os.symlink("/dev/zero", "device.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
        for name, words in (
            ("pipe.png", "it is a named pipe, not a file"),
            ("socket.png", "it is a socket, not a file"),
            ("device.png", "it is a device, not a file"),
            ("folder.png", "Is a directory"),
        ):
            with pytest.raises(UserError, match=f"cannot read '{name}': {words}"):
                read(name)
        with pytest.raises(UserError, match=r"cannot read 'pipe\.png'"):
            FileSource([Entry(Path("pipe.png"), "good")])[0]


def test_budget_bounds_the_sum_and_lets_one_large_image_through():
    budget, most, held = PixelBudget(100), [], []

    def work(pixels):
        with budget.hold(pixels):
            held.append(pixels)
            most.append(sum(held))
            time.sleep(0.005)
            held.remove(pixels)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [40, 60, 30, 250, 50, 90, 10, 100] * 3))
    assert not held
    assert len(most) == 24
    assert max(m for m in most if m != 250) <= 100


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_memory_of_a_small_file_that_is_a_huge_image(tmp_path, mode):
    """13300 x 13300 pixels: at most their own mode and a tenth, not copies in RGB and float."""
    path = tmp_path / "huge.png"
    Image.new(mode, (6000, 6000), 7 if mode == "L" else (7, 8, 9)).save(path)
    code = (
        "import resource, sys\nfrom flowad_jax.data import images\n"
        "used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = used()\npixels, size = images.read_resized(sys.argv[1], 256)\n"
        "assert size == (6000, 6000) and pixels.shape == (256, 256, 3)\n"
        "assert (pixels[..., 0] == 7).all()\nprint(used() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    own = 6000 * 6000 * (1 if mode == "L" else 4) / 1024
    assert int(done.stdout) < own + 60_000  # kB: bands of 4 million pixels in RGB


def test_documentation_names_every_format():
    page = (Path(__file__).parents[2] / "docs" / "images.md").read_text()
    for name, suffixes in FORMATS.items():
        words = " ".join(f"`{suffix}`" for suffix in suffixes)
        assert f"| {name} | {words} |" in page
