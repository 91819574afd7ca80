"""The sets of images: where they lie and what a recipe needs to know of each."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

# What is compared: a method and the keys of its recipe with other values.
METHODS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "gaussian": ("gaussian", {}),
    "gaussian, shared": ("gaussian", {"method.covariance": "shared"}),
    **{
        name: (name, {})
        for name in ("cflow", "fastflow", "msflow", "patchflow", "sanflow", "ssnf", "uflow")
    },
}
TEST_EVERY = 5  # of the good solar cells, as of the good tiles


class ImageSet(NamedTuple):
    """One set.

    Attributes:
      title: for people.
      recipe: part of the recipe's name behind that of the method.
      settings: keys of the recipe with other values.
    """

    title: str
    recipe: str
    settings: Mapping[str, Any]


def recipe(method: str, one: ImageSet) -> str:
    """The name of a method's recipe on a set."""
    return f"{method}_{one.recipe}"


def find(folder: Path, magnetic_tile: str, ball_screw: str) -> dict[str, ImageSet]:
    """Returns the sets that are there, by name.

    Args:
      folder: where tables of images may be written.
      magnetic_tile: root of Magnetic Tile Defects; empty to leave it out.
      ball_screw: table of the ball screw; empty to leave it out.
    """
    found = {}
    if magnetic_tile:
        settings = {"data.root": magnetic_tile}
        found["magnetic_tile"] = ImageSet("Magnetic Tile Defects", "magnetic_tile", settings)
    if ball_screw:
        # Of its own shape, 1130 x 460, as a multiple of 32 pixels.
        settings = {"data.root": ball_screw, "data.image_size": (160, 384)}
        found["ball_screw"] = ImageSet("Ball screw, ten days", "csv", settings)
    if importlib.util.find_spec("elpv_dataset"):
        for kind, title in (("mono", "monocrystalline"), ("poly", "polycrystalline")):
            root = solar_cells(folder, kind)
            settings = {"data.root": root, "data.options.masks": "none"}
            found[f"elpv_{kind}"] = ImageSet(f"ELPV solar cells, {title}", "csv", settings)
    for category in ("brick", "grass", "gravel"):
        settings = {"data.category": category}
        found[category] = ImageSet(f"Textures, {category}", "textures", settings)
    return found


def solar_cells(folder: Path, kind: str) -> Path:
    """Writes the table of the solar cells of a kind; those nobody was sure about are left out.

    Every fifth functional cell, in the order of their names, is a test image.
    """
    spec = importlib.util.find_spec("elpv_dataset")
    assert spec is not None
    assert spec.origin is not None
    data, target = Path(spec.origin).parent / "data", folder / f"elpv_{kind}"
    target.mkdir(parents=True, exist_ok=True)
    if not (target / "images").exists():
        (target / "images").symlink_to(data / "images", target_is_directory=True)
    cells = [line.split() for line in (data / "labels.csv").read_text().splitlines()]
    good = [name for name, probability, own in cells if own == kind and float(probability) == 0]
    bad = [name for name, probability, own in cells if own == kind and float(probability) == 1]
    rows = [(name, "train" if i % TEST_EVERY else "test", "good") for i, name in enumerate(good)]
    rows += [(name, "test", "defective") for name in bad]
    table = target / "cells.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("image", "split", "label"), *rows])
    return table
