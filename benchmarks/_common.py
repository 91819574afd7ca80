"""What several benchmarks share; importing it costs no JAX and no PyTorch."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
from collections.abc import Callable, Hashable, Mapping
from importlib import metadata
from typing import Any, TypeVar

from ml_collections import config_dict

from flowad_jax import files
from flowad_jax.cli.recipe import load
from flowad_jax.errors import UserError
from flowad_jax.report import results

T = TypeVar("T", bound=Hashable)


def recipe(name: str) -> config_dict.ConfigDict:
    """Returns the config of a recipe, as ``--config`` of ``flowad train`` names it."""
    try:
        return load(name)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None


def parser(doc: str | None, config: str) -> argparse.ArgumentParser:
    """The command line of a benchmark of the loader, with a recipe as default."""
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = made.add_argument
    add("--config", default=config, help="recipe")
    add("--data_root", help="folder of the images, where the recipe needs one")
    add("--workers", default="0,1,2", help="numbers to try")
    add("--turns", type=int, default=3, help="epochs of each, after one that warms up")
    add("--output", help="JSON file")
    return made


def asked(options: argparse.Namespace) -> tuple[config_dict.ConfigDict, list[int]]:
    """The recipe and the numbers of workers that the flags of `parser` name."""
    config = recipe(options.config)
    if options.data_root:
        config.data.root = options.data_root
    return config, [int(number) for number in options.workers.split(",")]


def positive(value: str) -> int:
    """A flag's whole number of at least 1; raises a ValueError for another."""
    if int(value) < 1:
        raise ValueError
    return int(value)


def medians(jobs: Mapping[T, Callable[[int], float]], turns: int) -> dict[T, float]:
    """Medians of what jobs return for the number of a turn, such as seconds.

    All take turns, so that what else the machine does meets all of them. The first turn, which
    decodes and compiles, is left out.
    """
    found: dict[T, list[float]] = {key: [] for key in jobs}
    for turn in range(1 + turns):
        for key, job in jobs.items():
            found[key].append(job(turn))
    return {key: statistics.median(own[1:]) for key, own in found.items()}


def between(page: str, begin: str, end: str, text: str) -> str:
    """A page with another text between two lines of it.

    Raises:
      UserError: one of the lines is missing.
    """
    before, first, rest = page.partition(f"{begin}\n")
    _, last, after = rest.partition(end)
    if not (first and last):
        raise UserError(f"the page needs the lines '{begin}' and '{end}' around what is written")
    return f"{before}{first}{text}\n{last}{after}"


def write(path: str, **measured: Any) -> None:
    """Writes what was measured, and on what, as JSON.

    Raises:
      UserError: the file cannot be written.
    """
    versions = results.versions()
    with contextlib.suppress(metadata.PackageNotFoundError):
        versions["torch"] = metadata.version("torch")
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    text = json.dumps({"machine": machine, "versions": versions, **measured}, indent=2)
    files.write_text(path, text + "\n")
