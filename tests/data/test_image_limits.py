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
from flowad_jax.data.image_file import FORMATS, SUFFIXES, PixelBudget
from flowad_jax.data.layout import Entry, FileSource, listing
from flowad_jax.data.masks import read_mask
from tests.data.test_images import GREY, refused, save

READERS = (images.read_image, images.image_size, read_mask)


# Pillow warns below twice its limit, which is an error here, and refuses what is above.
@pytest.mark.parametrize(("limit", "named"), [(30, 30), (20, 40)])
def test_the_limit_of_pixels_is_named(tmp_path, monkeypatch, limit, named):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    path = save(tmp_path / "bomb.png", np.zeros((6, 8), np.uint8))
    refused(path, rf"bomb\.png': it has more than {named} pixels; make it smaller")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_is_just_below_the_limit_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    path = save(tmp_path / "a.png", np.zeros((4, 10), np.uint8))
    assert images.read_image(path).shape == (4, 10, 3)
    path = save(tmp_path / "long.png", np.zeros((40, 1), np.uint8))  # 40 x 8 after the first pass
    refused(path, "40 rows are too many", images.read_resized, size=8)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\n0 0 20 20 rectfill\n"


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("content", [EPS, b"", b"no image", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_refused_and_starts_no_program(tmp_path, monkeypatch, read, content):
    """Pillow would have Ghostscript draw the first one."""
    (tmp_path / "a.png").write_bytes(content)
    monkeypatch.setattr(subprocess, "Popen", None)
    words = r"cannot read '.*a\.png': (it is none of BMP, GIF, JPEG, JPEG2000, PNG|the file is dam)"
    refused(tmp_path / "a.png", words, read)


def test_other_formats_are_refused_whatever_their_name(tmp_path):
    path, tried = tmp_path / "a.png", []
    for name in ("BLP", "EPS", "ICNS", "ICO", "MSP", "PCX", "QOI", "SGI", "TGA", "XBM"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            Image.fromarray(GREY).convert("1" if name in ("MSP", "XBM") else "L").save(path, name)
            tried.append(name)
            refused(path, "it is none of BMP, GIF, JPEG, JPEG2000, PNG, PPM, TIFF, WEBP, or dam")
    assert len(tried) > 5


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "webp"])
def test_truncated_file(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    path = save(tmp_path / f"cut.{suffix}", noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(path, f"cut.{suffix}")


def test_suffixes_are_those_of_the_formats_and_documented(tmp_path):
    for name in ("a.png", "b.JPG", "c.eps", "d.psd", "e.fits", "f.tiff", "g.txt"):
        (tmp_path / name).write_bytes(b"")
    found, skipped = listing(tmp_path)
    assert [p.name for p in found] == ["a.png", "b.JPG", "f.tiff"]
    assert [p.name for p in skipped] == ["c.eps", "d.psd", "e.fits", "g.txt"]
    known = Image.registered_extensions()
    assert all(known[suffix] in FORMATS for suffix in SUFFIXES)  # as Pillow sees it
    page = (Path(__file__).parents[2] / "docs" / "images.md").read_text()
    for name, suffixes in FORMATS.items():
        words = " ".join(f"`{suffix}`" for suffix in suffixes)
        assert f"| {name} | {words} |" in page


def read_record(path):
    return FileSource([Entry(Path(path), "good")])[0]


@pytest.mark.parametrize("read", [*READERS, read_record])
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
            ("gone.png", "No such file"),
        ):
            refused(name, f"cannot read '{name}': {words}", read)


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


def test_memory_of_a_small_file_that_is_a_huge_image(tmp_path):
    """At most its own mode and bands in RGB, not copies of the whole in RGB and float."""
    sizes = {"L": 1, "RGB": 4}  # bytes of a pixel, the larger last
    for mode in sizes:
        Image.new("L", (6000, 6000), 7).convert(mode).save(tmp_path / f"{mode}.png")
    code = (
        "import resource, sys\nfrom flowad_jax.data import images\n"
        "used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = used()\n"
        "for path in sys.argv[1:]:\n"
        "    pixels, size = images.read_resized(path, 256)\n"
        "    assert size == (6000, 6000) and pixels.shape == (256, 256, 3)\n"
        "    assert (pixels[..., 0] == 7).all()\n    print(used() - before)\n"
    )
    words = [sys.executable, "-c", code, *(str(tmp_path / f"{mode}.png") for mode in sizes)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    for most, pixel in zip(done.stdout.split(), sizes.values(), strict=True):
        assert int(most) < 6000 * 6000 * pixel / 1024 + 60_000  # kB: bands of 4 million pixels
