"""The folder of a run: what is in it, whether it is complete, and whether it can still be used.

Everything is read from files: opening the checkpoints as training does would create folders.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ml_collections import config_dict

from flowad_jax import memory
from flowad_jax.data import sources
from flowad_jax.detector import checkpoint, converted, folds, state, workdir
from flowad_jax.detector.model import checked
from flowad_jax.doctor.findings import Section
from flowad_jax.errors import UserError
from flowad_jax.report import results
from flowad_jax.report.results import METRICS
from flowad_jax.training import experiment, metrics_log

_AGAIN = "give the command that started the run again: it goes on where it stopped"


def examine(folder: str, allow_import: Collection[str] = ()) -> Section:
    """Looks at the workdir of a run; changes nothing.

    Args:
      folder: the workdir.
      allow_import: packages whose functions the stored config may name, as in
        ``"mine.flows:build"``; nothing is imported from elsewhere.
    """
    section, path = Section(f"Workdir '{folder}'"), Path(folder)
    try:
        config = workdir.load_config(path, allow_import)
        data, epochs = config.data, config.train.epochs
        section.fact("run", f"{config.method.name} on {data.name} {data.category or ''}".strip())
        if converted.is_converted(path):
            meta = converted.load_meta(path)
            source, dialect = meta.get("source"), meta.get("dialect")
            section.fact("converted", f"from {source}, dialect {dialect}")
        elif config.eval.calibration == "cross":
            meta = folds.meta_of(path, config)
            section.fact("detectors", f"{config.eval.folds}, one for each fold, in {folds.FOLDER}/")
        else:
            meta = _checkpoints(section, path, epochs)
            _metrics(section, path, meta)
        _results(section, path, meta, epochs)
        _space(section, path, config)
        _usable(section, path, config, meta)
    except UserError as error:
        section.refused(error)
    except OSError as error:
        section.problem(f"{path} cannot be looked at: {error}", "check the permissions")
    return section


def _checkpoints(section: Section, path: Path, epochs: int) -> dict[str, Any]:
    """Reports the checkpoints; returns what the newest says about itself, if it can be read."""
    steps, folder = checkpoint.steps(path), path / checkpoint.FOLDER
    for leftover in folder.iterdir() if folder.is_dir() else ():
        if not leftover.name.isdecimal():
            _leftover(section, leftover)
    if not steps:
        section.problem("there is no complete checkpoint", _AGAIN)
        return {}
    section.fact("checkpoints", f"steps {', '.join(map(str, steps))}")
    meta = checkpoint.read_meta(path, steps[-1])
    epoch, batch = meta["position"]
    section.fact("trained", f"{epoch} of {epochs} epochs" + (f", {batch} batches" if batch else ""))
    if epoch < epochs:
        section.problem(f"training is not finished: epoch {epoch} of {epochs}", _AGAIN)
    return meta


def _metrics(section: Section, path: Path, meta: dict[str, Any]) -> None:
    log = path / metrics_log.METRICS
    try:
        rows = metrics_log.read(path)
    except UserError as error:
        section.refused(error)
        return
    if rows:
        section.fact("metrics", f"{len(rows)} rows, up to epoch {rows[-1].get('epoch')}")
        lines = len(log.read_bytes().splitlines())
        if lines > len(rows):
            where = f"line {len(rows) + 1} of {lines}"
            section.problem(f"{log}: {where} is cut off or damaged", "remove that line")
    elif meta:
        section.problem(f"{log} is missing or empty", "train anew if you need the curves")


def _results(section: Section, path: Path, meta: dict[str, Any], epochs: int) -> None:
    file = path / "results.json"
    if not file.is_file():
        if meta and meta.get("position", [epochs])[0] >= epochs:
            evaluate = f"flowad eval --workdir={path}"
            section.problem(f"the run is finished but has no {file.name}", evaluate)
        return
    try:
        columns = results.read(path)["columns"]
    except UserError as error:
        section.refused(error)
        return
    last = columns[results.final(columns)]
    known = [f"{name} {100 * last[name]:.2f} %" for name in METRICS if last.get(name) is not None]
    section.fact("results", ", ".join(known) or "no metrics")


def _space(section: Section, path: Path, config: config_dict.ConfigDict) -> None:
    section.fact("size", f"{_size(path)} in all")
    features = Path(config.cache.folder or path / "features")
    if features.is_dir():
        kept = f"{_size(features)} in {features}"
        section.fact("features", f"{kept}; may be deleted, they are computed again")
    for leftover in sorted(features.glob(".unfinished-*")):
        _leftover(section, leftover)


def _leftover(section: Section, folder: Path) -> None:
    section.problem(
        f"{folder} was left unfinished and takes {_size(folder)}",
        "delete it, unless a run is writing there right now",
    )


def _size(folder: Path) -> str:
    files = (Path(at, name) for at, _, names in os.walk(folder) for name in names)
    return memory.text(sum(file.lstat().st_size for file in files if file.exists()))


def _usable(
    section: Section, path: Path, config: config_dict.ConfigDict, meta: dict[str, Any]
) -> None:
    """Builds all parts of the run as evaluation does; names what is missing all at once."""
    before = len(section.problems)
    encoder, data = config.encoder, config.data
    compute = encoder.get("compute", "float32")
    section.fact("encoder", f"{encoder.name}, weights {encoder.weights}, computed in {compute}")
    if encoder.weights not in ("embedded", "random") and not Path(encoder.weights).is_file():
        section.problem(
            f"the encoder's weights '{encoder.weights}' are not where config.json says",
            "put them there, or start python from the folder that the run was started from",
        )
    try:
        for split in ("train", "test"):
            place = (data.name, data.root or "", data.category or "", split)
            checked("data.options", sources.build, *place, **data.options.to_dict())
        if len(section.problems) > before:
            return
        built = experiment.build(config, for_training=False)
        _ = built.variable_shapes
        section.fact("config", "builds")
        sha256 = built.encoder.source["sha256"]
        if meta.get("encoder_sha256", sha256) != sha256:
            section.problem(
                f"the encoder's weights are others than those of the run: sha256 {sha256[:12]}..., "
                f"trained on {meta['encoder_sha256'][:12]}...",
                "put the old weights back, or train anew",
            )
        elif config.eval.calibration == "cross":
            folds.read(built, path, config)
            section.fact("state", "of all folds is whole and fits")
        elif meta:
            state.of_workdir(built, path, built.devices)
            section.fact("state", "is whole and fits")
    except UserError as error:
        section.refused(error)
