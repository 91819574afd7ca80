"""What several benchmarks share; importing it costs no JAX and no PyTorch."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import platform
from importlib import metadata
from typing import Any

from ml_collections import config_dict

from flowad_jax import files
from flowad_jax.errors import UserError
from flowad_jax.evaluation import results


def recipe(path: str) -> config_dict.ConfigDict:
    """Returns the config that a recipe file describes."""
    spec = importlib.util.spec_from_file_location("recipe", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"--config={path}: is not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except FileNotFoundError:
        raise SystemExit(f"--config={path}: no such file") from None
    return module.get_config()


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


def between(page: str, begin: str, end: str, text: str) -> str:
    """A page with another text between two lines of it.

    Raises:
      UserError: one of the lines is missing.
    """
    before, first, rest = page.partition(f"{begin}\n")
    _, last, after = rest.partition(end)
    if not (first and last):
        raise UserError(f"README.md: needs the lines '{begin}' and '{end}' around what is written")
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
