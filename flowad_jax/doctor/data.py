"""A data folder: what is in it, and what would spoil a training or its figures."""

from __future__ import annotations

import contextlib
import inspect
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flowad_jax import lookup
from flowad_jax.canvas import CanvasLike
from flowad_jax.data import sources
from flowad_jax.data.findings import examples, findings
from flowad_jax.data.images import WHITE, depth_advice
from flowad_jax.data.record import count
from flowad_jax.doctor import images
from flowad_jax.doctor.findings import Section
from flowad_jax.doctor.images import ExaminedImage
from flowad_jax.errors import UserError

_FEW_TRAIN = 20  # a tenth is held out: two images say little about what is normal
_FEW_TEST = 5  # of either class; fewer make AUROC move in steps of a tenth and more
_HOLDOUT = 0.1  # the default of data.holdout
_SMALL = 32  # pixels: the deepest stride of the encoders
_IGNORE = "or set data.options.masks to 'none'"


def examine(
    root: str, name: str, category: str | None, options: Mapping[str, Any], size: CanvasLike = 256
) -> Iterator[Section]:
    """Looks at one category of a data set, or at all of them.

    Args:
      root: folder of the data set.
      name: its layout, a module of `flowad_jax.data.sets`.
      category: one of its categories; None for all that are there.
      options: of the layout, as ``data.options`` has them.
      size: of the images in training, at which defects must not vanish.

    Raises:
      UserError: there is no such layout, or it has no such options.
    """
    build = sources.find(name)
    parameters = inspect.signature(build).parameters
    known = {key: p.default for key, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
    for key in options:
        if key not in known:
            hint = lookup.nearest(key, known) if known else "it has none"
            raise UserError(f"--set={key}: no option of '{name}': {hint}")
    lookup.check_arguments("--set", build, options)
    categories = [category or ""]  # the listing of one without a name says what is wrong
    if category is None:
        with contextlib.suppress(UserError):
            categories = sources.categories(name, root) or categories
    for one in categories:
        yield _category(name, root, one, options, {**known, **options}, size)


def _category(
    name: str,
    root: str,
    category: str,
    options: Mapping[str, Any],
    settings: Mapping[str, Any],
    size: CanvasLike,
) -> Section:
    """Looks at a category; ``settings`` are the options with their defaults."""
    section = Section(f"Data '{root}'" + (f", category '{category}'" if category else ""))
    unmasked = {**options, "masks": "none"} if "masks" in settings else options
    found: list[ExaminedImage] = []
    advice: list[str] = []
    refusals = []
    for split in ("train", "test"):
        try:
            source = sources.build(name, root, category, split, **unmasked)
        except UserError as fault:
            section.refused(fault)
            continue
        kinds = count(source)["kinds"].items()
        words = [f"{number} {kind}" for kind, number in kinds]
        section.fact(split, ", ".join(words) or "no images: there will be no metrics")
        masked = None
        try:  # as training does it, masks included
            masked = sources.build(name, root, category, split, **options)
        except UserError as fault:
            refusals.append(fault)
        masks, threshold = options.get("masks") != "none", settings.get("mask_threshold", 0)
        found += images.examine(split, source, masked, masks, threshold)
        with contextlib.suppress(UserError):  # of masks that are named below
            advice += findings(masked or source, size)
    before = len(section.problems)
    for unreadable in (fault for image in found for fault in image.faults):
        section.refused(unreadable)
    _masks(section, [i for i in found if i.split == "test" and i.label == 1], bool(refusals))
    if len(section.problems) == before:  # else they say the same and more
        for refusal in refusals:
            section.refused(refusal)
    _pixels(section, [i for i in found if i.size])
    deep = [i.path for i in found if i.mode.startswith("16 bit")]
    advice += filter(None, [depth_advice(deep, settings.get("white", WHITE))])
    for line in advice:
        section.refused(UserError(line))
    _duplicates(section, found)
    _too_few(section, found)
    return section


def _masks(section: Section, anomalous: Sequence[ExaminedImage], is_refused: bool) -> None:
    having = [i for i in anomalous if i.mask]
    lacking = [i.path for i in anomalous if not i.mask]
    if having:
        section.fact("masks", f"{len(having)} of {len(anomalous)} anomalous images")
    elif anomalous:
        section.fact("masks", "none: there will be image metrics, but no pixel metrics")
    if lacking and (having or is_refused):
        section.problem(
            f"anomalous images without a mask ({len(lacking)} of {len(anomalous)}): "
            + examples(lacking),
            "add ground_truth/KIND/NAME_mask.png, or whatever the layout calls it, " + _IGNORE,
        )
    names = [
        f"{i.mask} ({_size(i.mask_size)}, image {_size(i.size)})"
        for i in having
        if i.size and i.mask_size and i.size != i.mask_size
    ]
    if names:
        section.problem(
            f"masks of another size than their image ({len(names)}): {examples(names)}",
            "draw them again at the size of the image, " + _IGNORE,
        )
    if having and all(i.mask_size and not i.is_marked for i in having):
        section.problem(
            "all masks are black: no pixel is above data.options.mask_threshold",
            "set it below the value that marks defects, e.g. --set=mask_threshold=0",
        )


def _pixels(section: Section, readable: Sequence[ExaminedImage]) -> None:
    sizes = {i.size for i in readable if i.size}
    if sizes:
        low, high = min(sizes, key=math.prod), max(sizes, key=math.prod)
        several = f"{len(sizes)} different, {_size(low)} to {_size(high)}; all become one size"
        section.fact("sizes", several if len(sizes) > 1 else f"all {_size(low)}")
    modes: dict[str, list[str]] = defaultdict(list)
    for image in readable:
        if image.mode:
            modes[image.mode].append(image.path)
    if modes:
        section.fact("modes", ", ".join(f"{len(paths)} {mode}" for mode, paths in modes.items()))
    if len(modes) > 1:
        firsts = (f"{mode} as {paths[0]}" for mode, paths in modes.items())
        section.problem(
            f"images of {len(modes)} modes are mixed: {examples(firsts, most=4)}",
            "convert all with one tool: a detector may take such a difference for a defect",
        )
    small = [i.path for i in readable if i.size and min(i.size) < _SMALL]
    if small:
        section.problem(
            f"images with a side of less than {_SMALL} pixels ({len(small)}): {examples(small)}",
            "take them again at a higher resolution, or remove them if they are thumbnails",
        )


def _duplicates(section: Section, found: Sequence[ExaminedImage]) -> None:
    """Finds images with the same pixels; whatever the file or its compression is called."""
    train: dict[bytes, list[ExaminedImage]] = defaultdict(list)
    test: dict[bytes, list[ExaminedImage]] = defaultdict(list)
    groups = {"train": train, "test": test}
    for image in found:
        if image.checksum:
            groups[image.split][image.checksum].append(image)
    leaks = [[own[0], test[key][0]] for key, own in train.items() if key in test]
    repeats = [own for own in train.values() if len(own) > 1]
    labelled = ({i.label: i for i in own if i.label >= 0} for own in test.values())
    disputed = [list(own.values()) for own in labelled if len(own) > 1]
    for twins, what, remedy in (
        (leaks, "in train and in test", "remove them from train: figures are too good"),
        (repeats, "in train more than once", "keep one of each: held-out images must be new"),
        (disputed, "tested both as normal and as anomalous", "decide which they are"),
    ):
        if twins:
            names = (" = ".join(image.path for image in own[:2]) for own in twins)
            section.problem(f"the same image {what} ({len(twins)}): {examples(names)}", remedy)


def _too_few(section: Section, found: Sequence[ExaminedImage]) -> None:
    train = sum(i.split == "train" for i in found)
    labels = [i.label for i in found if i.split == "test"]
    if train:
        held = max(1, round(_HOLDOUT * train))
        rate = f"false-alarm rates down to {1 / (held + 1):.1%} can be promised"
        section.fact("thresholds", f"{held} of the images to train on will be held out: {rate}")
    if 0 < train < _FEW_TRAIN:
        section.problem(
            f"images to train on: only {train}",
            f"add normal images: {_FEW_TRAIN} at the very least, better some hundred",
        )
    for label, kind in enumerate(("normal", "anomalous")):
        number = labels.count(label)
        if labels and number < _FEW_TEST:
            noise = "metrics will be noise" if number else "metrics will be undefined"
            section.problem(
                f"{kind} test images: only {number}, so {noise}", f"add some to {_FEW_TEST} or more"
            )


def _size(size: tuple[int, int] | None) -> str:
    return f"{size[0]} x {size[1]}" if size else "?"
