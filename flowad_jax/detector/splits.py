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
from flowad_jax.data.augment import find_source_files
from flowad_jax.data.fingerprint import Listing
from flowad_jax.data.record import Source
from flowad_jax.data.subset import NamesOnly, Subset, few_shot, fold, held_out
from flowad_jax.detector.model import checked
from flowad_jax.errors import UserError, printable

Images = Mapping[str, Listing]  # "train", "holdout"; if there are any, "lenders", "synthetic_test"
SCHEMA = schema.table({}, others=schema.table({}, others=schema.TEXT))


_TESTED = 0.1  # share of the training images for a synthetic test set, at least


class Split(NamedTuple):
    """Normal images.

    Attributes:
      train: to train on.
      holdout: to set thresholds with and to choose an epoch.
      test: for a synthetic test set, where the config wants one.
    """

    train: Source
    holdout: Source
    test: Source | None = None


def draw(config: config_dict.ConfigDict) -> Split:
    """Draws the images of a new run with the config's seed.

    Raises:
      UserError: the data set or a value of the config does not work.
    """
    data, train, own = config.data, source(config, "train"), _validation(config)
    holdout: Source
    if data.fold or config.eval.calibration != "split":
        if data.synthetic_test:
            fix = "set it to None, or eval.calibration='split'"
            raise UserError(f"data.synthetic_test needs images that no part trains on: {fix}")
        pool = few_shot(train, data.few_shot, config.seed) if data.few_shot else train
        if data.fold:
            number, count = data.fold
            return Split(*fold(pool, number, count, config.seed))
        return Split(pool, Subset(pool, np.zeros(0, int)))
    if own is not None:
        holdout = own
    else:
        train, holdout = held_out(train, data.holdout, config.seed)
    test = None
    if data.synthetic_test:  # images of its own, as those that set the threshold are below it
        train, test = held_out(train, max(data.holdout, _TESTED), config.seed)
    train = few_shot(train, data.few_shot, config.seed) if data.few_shot else train
    return Split(train, holdout, test)


def again(config: config_dict.ConfigDict, images: Images) -> Split:
    """Takes the images of an earlier run, as far as they are there, in the order they had.

    New ones follow: to train on, or, of a set with validation images of its own, to hold out.
    With ``data.few_shot`` nobody can tell what is new, and nothing follows.
    """
    pool, own = source(config, "train"), _validation(config)
    train, held, tested = images["train"], images["holdout"], images.get("synthetic_test", {})
    test = _chosen(config, pool, tested) if tested else None
    if own is None:
        rest = _chosen(config, pool, train, {**held, **tested})
        return Split(rest, _chosen(config, pool, held), test)
    return Split(_chosen(config, pool, train, tested), _chosen(config, own, held, {}), test)


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
    """Returns what an earlier run was trained on, for those who need no pixels of it."""
    return Split(NamesOnly(images["train"]), NamesOnly(images["holdout"]))


def source(config: config_dict.ConfigDict, split: str) -> Source:
    """Lists one split of the data set."""
    data = config.data
    place = (data.name, data.root or "", data.category or "", split)
    return checked("data.options", sources.build, *place, **data.options.to_dict())


def _validation(config: config_dict.ConfigDict) -> Source | None:
    """Normal images that the data set itself keeps apart, if they are there and wanted."""
    if config.data.fold or config.eval.calibration != "split":
        return None  # all images take part in turn
    wish = config.data.holdout_from
    lookup.check_choice("data.holdout_from", wish, ("validation", "train"))
    card = sources.dataset_card(config.data.name)
    if card and "validation" in card.splits and wish == "validation":
        own = source(config, "validation")
        return own if len(own) else None
    return None


def listed(config: config_dict.ConfigDict, split: Split, *, source_files: bool = False) -> Images:
    """Reads all normal images and returns their checksums.

    With ``source_files`` also those of images that synthesis takes patches from: all that training
    depends on.

    Raises:
      UserError: one cannot be read, or there are more than a checkpoint can list.
    """
    root, place = config.data.root, config.synthesis.lenders
    found = {
        "train": fingerprint.listing(split.train, root, "training"),
        "holdout": fingerprint.listing(split.holdout, root, "held-out"),
    }
    if split.test is not None:
        found["synthetic_test"] = fingerprint.listing(split.test, root, "test")
    if source_files and config.synthesis.name and place:
        files = find_source_files(place)
        names = fingerprint.names([str(file) for file in files], place)
        found["lenders"] = dict(zip(names, map(fingerprint.of_file, files), strict=True))
    if len(json.dumps(found)) > schema.LIMIT // 2:
        count = sum(map(len, found.values()))
        raise UserError(f"{count} images are more than a checkpoint can list: train on fewer")
    return found


def differences(before: Images, now: Images) -> list[str]:
    """Says which of the images that were listed now are not as they were."""
    return [
        printable(line)
        for key, listing in now.items()
        for line in fingerprint.differences(before.get(key, {}), listing)
    ]


def first(found: list[str]) -> str:
    """Returns the first of some differences, and how many more there are."""
    return found[0] + f" and {len(found) - 1} more differences" * (len(found) > 1)


def refused(path: Path, found: list[str], may_go_on: bool = False) -> UserError:
    """Returns the refusal to go on, or to fit anything, where there are differences."""
    wish = "go on with --allow_changed_data, " * may_go_on
    return UserError(
        f"the run in {path} was trained on other images: {first(found)}; put back what it had, "
        f"{wish}or train anew in another --workdir"
    )
