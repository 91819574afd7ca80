"""Which images a run trains on and which it holds out: drawn once, then kept in its checkpoints.

What is kept are names and checksums, so that whoever goes on with a run trains on the same images,
and no image that was trained on ever sets a threshold.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import config_dict

from flowad_jax import lookup, schema
from flowad_jax.data import fingerprint, sources
from flowad_jax.data.augment import lender_files
from flowad_jax.data.fingerprint import Listing
from flowad_jax.data.record import Source
from flowad_jax.data.subset import NamesOnly, Subset, few_shot, held_out
from flowad_jax.errors import UserError, printable
from flowad_jax.training.model import checked

Images = Mapping[str, Listing]  # "train", "holdout" and, if there are any, "lenders"
SCHEMA = schema.table({}, others=schema.table({}, others=schema.TEXT))


class Split(NamedTuple):
    """Normal images.

    Attributes:
      train: to train on.
      holdout: to set thresholds with and to choose an epoch.
    """

    train: Source
    holdout: Source


def draw(config: config_dict.ConfigDict) -> Split:
    """Takes the images that a new run gets: the seed draws them.

    Raises:
      UserError: the data set or a value of the config does not work.
    """
    train, own = source(config, "train"), _validation(config)
    holdout: Source
    if own is not None:
        holdout = own
    else:
        train, holdout = held_out(train, config.data.holdout, config.seed)
    if config.data.few_shot:
        train = few_shot(train, config.data.few_shot, config.seed)
    return Split(train, holdout)


def again(config: config_dict.ConfigDict, images: Images) -> Split:
    """Takes the images of an earlier run, as far as they are there, in the order they had.

    New ones follow: to train on, or, of a set with validation images of its own, to hold out.
    With ``data.few_shot`` nobody can tell what is new, and nothing follows.
    """
    pool, own = source(config, "train"), _validation(config)
    train, held = images["train"], images["holdout"]
    if own is None:
        chosen = _chosen(config, pool, train, held), _chosen(config, pool, held)
    else:
        chosen = _chosen(config, pool, train, {}), _chosen(config, own, held, {})
    return Split(*chosen)


def _chosen(
    config: config_dict.ConfigDict, pool: Source, kept: Listing, others: Listing | None = None
) -> Subset:
    """The records that were kept, and then those that neither were nor are among the others."""
    names = fingerprint.names(pool.paths, config.data.root)
    rows = {name: row for row, name in enumerate(names)}
    there = [rows[name] for name in kept if name in rows]
    if others is not None and not config.data.few_shot:
        there += [row for name, row in rows.items() if name not in kept and name not in others]
    return Subset(pool, np.array(there, int))


def names_only(images: Images) -> Split:
    """What an earlier run was trained on, for those who need no pixels of it."""
    return Split(NamesOnly(images["train"]), NamesOnly(images["holdout"]))


def source(config: config_dict.ConfigDict, split: str) -> Source:
    """Lists one split of the data set."""
    data = config.data
    place = (data.name, data.root, data.category, split)
    return checked("data.options", sources.build, *place, **data.options.to_dict())


def _validation(config: config_dict.ConfigDict) -> Source | None:
    """Normal images that the data set itself keeps apart, if they are there and wanted."""
    lookup.check_choice("data.holdout_from", config.data.holdout_from, ("validation", "train"))
    about = sources.about(config.data.name)
    if about and about.validation and config.data.holdout_from == "validation":
        own = source(config, about.validation)
        return own if len(own) else None
    return None


def listed(config: config_dict.ConfigDict, split: Split) -> dict[str, Listing]:
    """Reads all normal images.

    Raises:
      UserError: one cannot be read.
    """
    root = config.data.root
    return {
        "train": fingerprint.listing(split.train, root, "training"),
        "holdout": fingerprint.listing(split.holdout, root, "held-out"),
    }


def all_listed(config: config_dict.ConfigDict, split: Split) -> Images:
    """The same with the images that lend material to synthesis: all that training depends on.

    Raises:
      UserError: one cannot be read, or there are more than a checkpoint can list.
    """
    found, lenders = listed(config, split), config.synthesis.lenders
    if config.synthesis.name and lenders:
        files = lender_files(lenders)
        names = fingerprint.names([str(file) for file in files], lenders)
        found["lenders"] = dict(zip(names, map(fingerprint.of_file, files), strict=True))
    if len(json.dumps(found)) > schema.LIMIT // 2:
        raise UserError(
            f"{sum(map(len, found.values()))} images are more than a checkpoint can list: train "
            "on fewer"
        )
    return found


def differences(before: Images, now: Images) -> list[str]:
    """Says which of the images that were listed now are not as they were."""
    return [
        printable(line)
        for key, listing in now.items()
        for line in fingerprint.differences(before.get(key, {}), listing)
    ]


def first(found: list[str]) -> str:
    """The first of some differences, and how many more there are."""
    return found[0] + f" and {len(found) - 1} more differences" * (len(found) > 1)


def refused(path: Path, found: list[str], may_go_on: bool = False) -> UserError:
    """The refusal to go on, or to fit anything, where there are differences."""
    wish = "go on with --allow_changed_data, " * may_go_on
    return UserError(
        f"the run in {path} was trained on other images: {first(found)}; put back what it had, "
        f"{wish}or train anew in another --workdir"
    )
