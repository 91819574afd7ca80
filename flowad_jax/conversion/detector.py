"""From a checkpoint and a recipe to a workdir."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import jax
from ml_collections import config_dict

from flowad_jax import files
from flowad_jax.conversion.settings import (
    MergedSettings,
    changed,
    described,
    merge_settings,
    rename_scales,
)
from flowad_jax.detector import config_schema, converted, splits, workdir
from flowad_jax.detector.calibration import to_json
from flowad_jax.detector.model import call
from flowad_jax.encoders import architecture
from flowad_jax.encoders.taps import choose_taps
from flowad_jax.encoders.weight_files import convert_tensors, renamed
from flowad_jax.errors import UserError
from flowad_jax.training import scoring
from flowad_jax.training.experiment import Experiment, build
from flowad_jax.training.step import make_loss
from flowad_jax.weights import detectors, layout, store, torch_file
from flowad_jax.weights.detectors import TorchDetector

ENCODER = "encoder.safetensors"
CLAMP = "method.clamp_kind"
EVIDENCE = 1e-3  # nats per dimension between two clamps; less shows nothing
Say = Callable[[str], None]


def read(checkpoint: str | Path) -> TorchDetector:
    """Reads a checkpoint of a detector.

    Raises:
      UserError: it cannot be read, or is no detector that we know.
    """
    path = Path(checkpoint)
    return detectors.detect_format(torch_file.read(path), path.name)


def convert(
    checkpoint: str | Path,
    recipe: config_dict.ConfigDict,
    target: str | Path | None,
    clamp_kind: str | None = None,
    verify: Callable[[TorchDetector, Experiment, Any], dict[str, Any]] | None = None,
    say: Say = print,
) -> dict[str, Any]:
    """Makes the workdir of a detector that was trained with PyTorch.

    Args:
      checkpoint: the file.
      recipe: how its images are prepared, and where normal ones are: they calibrate the scores.
      target: the workdir; it must not exist or be empty, and appears whole or not at all. None:
        do everything but keep it.
      clamp_kind: bound on the log-scales; None to find out.
      verify: compares with PyTorch and returns what the card says about it, or raises.
      say: takes lines for the user.

    Returns:
      The card of the detector.

    Raises:
      UserError: the checkpoint, the recipe and the encoder do not fit together, images cannot be
        read, or the folder cannot be written.
    """
    checkpoint = Path(checkpoint)
    found = read(checkpoint)
    if clamp_kind is not None and clamp_kind not in found.clamp_kinds:
        raise UserError(
            f"--clamp={clamp_kind}: {checkpoint.name} was trained with "
            f"{' or '.join(found.clamp_kinds)}, as its permutations show"
        )
    merged = merge_settings(found, recipe)
    say(described(found, merged))
    if target is not None:
        target = Path(target).absolute()
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise UserError(f"--workdir={target} exists and is not empty: name another folder")
    scratch: AbstractContextManager[str | Path] = (
        tempfile.TemporaryDirectory() if target is None else files.atomic_folder(target)
    )
    with scratch as name:
        folder = Path(name)
        here = {}
        if found.encoder is not None:
            _write_encoder(found.encoder, merged.config, checkpoint, folder)
            here["encoder.weights"] = str(folder / ENCODER)
        system = build(changed(merged.config, **here), for_training=False)
        variables = _variables(found, merged, system, checkpoint)
        clamp = _find_clamp(found, system, variables, clamp_kind, say)
        config = changed(merged.config, **{CLAMP: clamp["kind"]})
        system = build(changed(config, **here), for_training=False)
        card = _card(found, merged, checkpoint, variables) | {"clamp": clamp}
        if verify is not None:
            card["verified"] = verify(found, system, variables)
        converted.save(folder, variables, card)
        plain = config_schema.plain(config)
        _calibrate(folder, system, plain, card, say)
        files.write_text(folder / workdir.CONFIG, json.dumps(plain, indent=2) + "\n")
    return card


def _write_encoder(
    tensors: dict[str, Any], config: config_dict.ConfigDict, checkpoint: Path, folder: Path
) -> None:
    """Converts the encoder of the file, all of it or as far as the flows need it."""
    encoder = architecture.find(config.encoder.name)
    tensors = renamed(encoder, tensors)
    complete = all(rule.key in tensors for rule in architecture.rules(encoder))
    taps = choose_taps(encoder.spec, config.encoder.taps, config.encoder.strides)
    deepest = None if complete else max(taps)
    variables = convert_tensors(encoder, tensors, f"{checkpoint.name} (its encoder)", deepest)
    card = store.describe(encoder.spec, checkpoint, variables)
    store.save(folder / ENCODER, variables, card | {"deepest_tap": deepest})


def _variables(
    found: TorchDetector, merged: MergedSettings, system: Experiment, checkpoint: Path
) -> dict[str, Any]:
    """The variables in our order, of the shapes and types that the method needs."""
    ours = {theirs: scale for scale, theirs in enumerate(merged.order)}
    variables = rename_scales(found.variables, ours)
    shapes, source = system.variable_shapes, str(checkpoint)
    advice = "give --config the encoder and the options it has"
    layout.require_shapes(variables, shapes, source, advice=advice)
    return layout.cast(variables, shapes, source)


def _find_clamp(
    found: TorchDetector, system: Experiment, variables: Any, wanted: str | None, say: Say
) -> dict[str, Any]:
    """The bound on the log-scales and how it is known.

    FrEIA changed the bound in August 2023 without a trace in the tensors
    (`flows.coupling.CLAMPS`). The one that was trained with makes normal images likelier.
    """
    if wanted is not None or len(found.clamp_kinds) == 1:
        kind = wanted or found.clamp_kinds[0]
        how = "asked for" if wanted else "the permutations are those of FrEIA before June 2023"
        say(f"clamp {kind}: {how}")
        return {"kind": kind, "known_from": how}
    with closing(system.features.calibration.epoch(0)) as batches:
        batch = next(iter(batches))
    losses, trained = {}, converted.state(variables)
    for kind in found.clamp_kinds:
        method = changed(system.config, **{CLAMP: kind}).method
        loss = make_loss(call("method", "flowad_jax.methods", method))
        losses[kind] = float(jax.device_get(loss(trained, batch)))
    kind = choose_clamp(losses)
    shown = ", ".join(f"{name} {loss:.4f}" for name, loss in losses.items())
    say(f"clamp {kind}: the file does not tell; loss of normal images, nats per dimension: {shown}")
    return {"kind": kind, "known_from": "loss of normal images", "losses": losses}


def choose_clamp(losses: dict[str, float]) -> str:
    """The bound with the lowest loss.

    Raises:
      UserError: two are as good.
    """
    best, second = sorted(losses, key=losses.__getitem__)[:2]
    if not losses[second] - losses[best] > EVIDENCE:
        values = ", ".join(f"{kind} {loss:.6f}" for kind, loss in losses.items())
        raise UserError(
            f"the file does not tell its clamp, and normal images do not either ({values} nats per "
            "dimension): give --clamp, 'tanh' for FrEIA before August 2023, else 'tanh_ratio'"
        )
    return best


def _card(
    found: TorchDetector, merged: MergedSettings, checkpoint: Path, variables: Any
) -> dict[str, Any]:
    card = store.base_card(checkpoint, variables)
    return {
        "method": found.method,
        "dialect": found.dialect,
        "about": found.about,
        **card,
        "sizes": {"bytes_before": found.size, **card["sizes"]},
        "settled": {key: new for key, (_, new) in merged.replaced.items()},
        "left_out": list(found.left_out),
    }


def _calibrate(
    folder: Path, system: Experiment, config: dict[str, Any], card: dict[str, Any], say: Say
) -> None:
    """Measures scores against normal images, as the end of training does."""
    say(
        f"calibrating with {len(system.calibration_rows)} normal images; {len(system.holdout)} "
        "more set thresholds: if it was trained on them, expect more false alarms than they promise"
    )
    trained = converted.load_state(folder, system.variable_shapes)
    meta = {
        "encoder_sha256": system.encoder.source["sha256"],
        "config": config,
        "images": splits.listed(system.config, splits.Split(system.train, system.holdout)),
        "findings": system.training_findings,
        "fitted": to_json(scoring.fit(system, trained, system.features)),
        "dialect": card["dialect"],
        "source": card["source"]["file"],
    }
    converted.save_meta(folder, meta)
