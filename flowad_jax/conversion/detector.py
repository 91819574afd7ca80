"""From a checkpoint and a recipe to a workdir."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ml_collections import config_dict

from flowad_jax import files
from flowad_jax.conversion import clamp
from flowad_jax.conversion.settings import Settled, changed, left_to_recipe, reordered, settle
from flowad_jax.encoders import architecture
from flowad_jax.encoders.files import convert_tensors, renamed
from flowad_jax.errors import UserError, one_line
from flowad_jax.evaluation.fitted import to_json
from flowad_jax.training import config_schema, converted, scoring, splits, state, workdir
from flowad_jax.training.system import System, build
from flowad_jax.weights import detectors, layout, store, torch_file
from flowad_jax.weights.detectors import Found

ENCODER = "encoder.safetensors"
Say = Callable[[str], None]


def read(checkpoint: str | Path) -> Found:
    """Reads a checkpoint of a detector.

    Raises:
      UserError: it cannot be read, or is no detector that we know.
    """
    path = Path(checkpoint)
    return detectors.recognise(torch_file.read(path, foreign=True), path.name)


def convert(
    checkpoint: str | Path,
    recipe: config_dict.ConfigDict,
    target: str | Path | None,
    clamp_kind: str | None = None,
    verify: Callable[[Found, System, Any], dict[str, Any]] | None = None,
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
    found = read(checkpoint)
    if clamp_kind is not None and clamp_kind not in found.clamp_kinds:
        raise UserError(
            f"--clamp={clamp_kind}: {Path(checkpoint).name} was trained with "
            f"{' or '.join(found.clamp_kinds)}, as its permutations show"
        )
    settled = settle(found, recipe)
    say(described(found, settled))
    with _folder(target) as folder:
        here: dict[str, Any] = {}
        if found.encoder is not None:
            _write_encoder(found, settled, Path(checkpoint), folder)
            here["encoder.weights"] = str(folder / ENCODER)
        system = build(changed(settled.config, **here), for_training=False)
        variables = _checked(found, settled, system, checkpoint)
        card = _card(found, settled, Path(checkpoint), variables)
        card["clamp"] = _clamp(found, system, variables, clamp_kind, say)
        here[clamp.KEY] = card["clamp"]["kind"]
        system = build(changed(settled.config, **here), for_training=False)
        if verify is not None:
            card["verified"] = verify(found, system, variables)
        converted.save(folder, variables, card)
        config = config_schema.plain(changed(settled.config, **{clamp.KEY: here[clamp.KEY]}))
        _fit(folder, system, config, card, say)
        files.write_text(folder / workdir.CONFIG, json.dumps(config, indent=2) + "\n")
    return card


def described(found: Found, settled: Settled) -> str:
    """What the checkpoint settles, and what it leaves to the recipe, as lines."""
    settings = {f"method.{name}": value for name, value in found.options.items()}
    settings |= {key: new for key, (_, new) in settled.replaced.items()}
    lines = [f"a detector of {found.method}, dialect {found.dialect}; from the file:"]
    for key, value in sorted(settings.items()):
        old = f" (the recipe says {settled.replaced[key][0]})" if key in settled.replaced else ""
        lines.append(f"  {key} = {value}{old}")
    lines.append("not in the file, so from the recipe:")
    for key, value in left_to_recipe(found, settled.config).items():
        lines += [f"  {key} = {value}"] * (key not in settled.replaced)
    if found.left_out:
        lines.append(f"left out: {', '.join(found.left_out)}")
    return "\n".join(map(one_line, lines))


@contextlib.contextmanager
def _folder(path: str | Path | None) -> Iterator[Path]:
    """A folder that takes the place of ``path`` if all goes well; None: that is deleted."""
    if path is None:
        with tempfile.TemporaryDirectory() as name:
            yield Path(name)
        return
    target = Path(path).absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"--workdir={target} exists and is not empty: name another folder")
    with files.writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        yield folder
        with files.writing(target):
            folder.chmod(0o755)
            folder.replace(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_encoder(found: Found, settled: Settled, checkpoint: Path, folder: Path) -> None:
    """Converts the encoder of the file, all of it or as far as the flows need it."""
    encoder = architecture.find(settled.config.encoder.name)
    tensors = renamed(encoder, found.encoder or {})
    rules = layout.rules(architecture.complete_shapes(encoder), encoder.family.torch_key)
    deepest = None
    if any(rule.key not in tensors for rule in rules) and settled.config.encoder.taps:
        deepest = max(settled.config.encoder.taps)
    source = f"{checkpoint.name} (its encoder)"
    variables = convert_tensors(encoder, tensors, source, deepest)
    card = store.describe(encoder.spec, checkpoint, variables)
    store.save(folder / ENCODER, variables, card | {"deepest_tap": deepest})


def _checked(
    found: Found, settled: Settled, system: System, checkpoint: str | Path
) -> dict[str, Any]:
    """The variables in our order, of the shapes and types that the method needs."""
    variables = reordered(found, settled.order)
    shapes = state.variable_shapes(system)
    layout.require_shapes(
        variables,
        shapes,
        str(checkpoint),
        advice="give --config the encoder and the options it has",
    )
    return layout.cast(variables, shapes, str(checkpoint))


def _clamp(
    found: Found, system: System, variables: Any, wanted: str | None, say: Say
) -> dict[str, Any]:
    """The bound on the log-scales and how it is known."""
    if wanted is not None or len(found.clamp_kinds) == 1:
        kind = wanted or found.clamp_kinds[0]
        how = "asked for" if wanted else "the permutations are those of FrEIA before June 2023"
        say(f"clamp {kind}: {how}")
        return {"kind": kind, "known_from": how}
    losses = clamp.losses(system, converted.state(variables), found.clamp_kinds)
    kind = clamp.choose(losses)
    shown = ", ".join(f"{name} {loss:.4f}" for name, loss in losses.items())
    say(f"clamp {kind}: the file does not tell; loss of normal images, nats per dimension: {shown}")
    return {"kind": kind, "known_from": "loss of normal images", "losses": losses}


def _card(found: Found, settled: Settled, checkpoint: Path, variables: Any) -> dict[str, Any]:
    sizes = store.sizes(variables)
    return {
        "method": found.method,
        "dialect": found.dialect,
        "about": found.about,
        "source": store.origin(checkpoint),
        "sizes": {"bytes_before": found.size, **sizes},
        "settled": {key: new for key, (_, new) in settled.replaced.items()},
        "left_out": list(found.left_out),
        **store.maker(),
    }


def _fit(
    folder: Path, system: System, config: dict[str, Any], card: dict[str, Any], say: Say
) -> None:
    """Measures scores against normal images, as the end of training does."""
    count = len(system.calibration_rows), len(system.holdout)
    say(
        f"calibrating with {count[0]} normal images; {count[1]} more set thresholds: if it "
        "was trained on them, expect more false alarms than they promise"
    )
    trained = converted.load_state(folder, state.variable_shapes(system))
    fitted = scoring.fit(system, trained, system.features)
    meta = {
        "encoder_sha256": system.encoder.source["sha256"],
        "config": config,
        "images": splits.listed(system.config, splits.Split(system.train, system.holdout)),
        "fitted": to_json(fitted),
        "dialect": card["dialect"],
        "source": card["source"]["file"],
    }
    converted.save_meta(folder, meta)
