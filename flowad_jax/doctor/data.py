"""A data folder: what is in it, and what would spoil a training or its figures."""

from __future__ import annotations

import contextlib
import inspect
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from flowad_jax import lookup
from flowad_jax.data import sources
from flowad_jax.data.findings import examples, findings
from flowad_jax.data.images import WHITE, depth_advice
from flowad_jax.data.record import Source, count
from flowad_jax.doctor.findings import Section
from flowad_jax.doctor.images import Reader, Seen
from flowad_jax.errors import UserError

_SPLITS = ("train", "test")
_FEW_TRAIN = 20  # a tenth is held out: two images say little about what is normal
_FEW_TEST = 5  # of either class; fewer make AUROC move in steps of a tenth and more
_HOLDOUT = 0.1  # the default of data.holdout
_SMALL = 32  # pixels: the deepest stride of the encoders
_IGNORE = "or set data.options.masks to 'none'"


def examine(
    root: str, name: str, category: str | None, options: dict[str, Any], image_size: int = 256
) -> Iterator[Section]:
    """Looks at one category of a data set, or at all of them.

    Args:
      root: folder of the data set.
      name: its layout, a module of `flowad_jax.data`.
      category: one of its categories; None for all that are there.
      options: of the layout, as ``data.options`` has them.
      image_size: side of the images in training, at which defects must not vanish.

    Raises:
      UserError: there is no such layout, or it has no such options.
    """
    _check(sources.find(name), name, options)
    for one in [category] if category is not None else _categories(name, root):
        yield _category(name, root, one, options, image_size)


def _check(build: Callable[..., Source], name: str, options: dict[str, Any]) -> None:
    """Raises a UserError if the layout has no such options, or values of another type."""
    known = {
        p.name: p.default
        for p in inspect.signature(build).parameters.values()
        if p.kind is p.KEYWORD_ONLY
    }
    for key, value in options.items():
        if key not in known:
            hint = lookup.nearest(key, known) if known else "it has none"
            raise UserError(f"--set={key}: no option of '{name}': {hint}")
        default = known[key]
        number = isinstance(default, float) and isinstance(value, int)
        if not number and type(value) is not type(default):
            raise UserError(f"--set={key}={value}: must be like {default!r}, its default")


def _categories(name: str, root: str) -> list[str]:
    """All categories; one without a name, whose listing says what is wrong, if there are none."""
    try:
        return sources.categories(name, root) or [""]
    except UserError:
        return [""]


def _category(
    name: str, root: str, category: str, options: dict[str, Any], image_size: int
) -> Section:
    section = Section(f"Data '{root}'" + (f", category '{category}'" if category else ""))
    keyword = inspect.signature(sources.find(name)).parameters
    plain = options | ({"masks": "none"} if "masks" in keyword else {})
    threshold = keyword["mask_threshold"].default if "mask_threshold" in keyword else 0
    threshold = options.get("mask_threshold", threshold)
    seen: list[Seen] = []
    found: list[str] = []
    refusals = []
    for split in _SPLITS:
        try:
            source = sources.build(name, root, category, split, **plain)
        except UserError as fault:
            section.refused(fault)
            continue
        section.fact(split, _counts(source))
        whole = None
        try:  # as training does it, masks included
            whole = sources.build(name, root, category, split, **options)
        except UserError as fault:
            refusals.append(fault)
        masks = options.get("masks") != "none"
        seen += Reader(split, source, whole, masks, threshold).all()
        with contextlib.suppress(UserError):  # of masks that the reader names
            found += findings(whole or source, image_size)
    before = len(section.problems)
    _unreadable(section, seen)
    _masks(section, [s for s in seen if s.split == "test" and s.anomalous], bool(refusals))
    if len(section.problems) == before:  # else they say the same and more
        for refusal in refusals:
            section.refused(refusal)
    for line in found:
        section.refused(UserError(line))
    _pixels(section, [s for s in seen if s.size])
    deep = [s.path for s in seen if s.size and s.mode.startswith("16 bit")]
    if advice := depth_advice(deep, options.get("white", WHITE)):
        section.refused(UserError(advice))
    _duplicates(section, seen)
    _few(section, seen)
    return section


def _counts(source: Source) -> str:
    kinds = count(source)["kinds"]
    return ", ".join(f"{number} {kind}" for kind, number in kinds.items())


def _unreadable(section: Section, seen: Iterable[Seen]) -> None:
    for fault in (fault for s in seen for fault in s.faults):
        section.refused(fault)


def _masks(section: Section, anomalous: Sequence[Seen], refused: bool) -> None:
    having = [s for s in anomalous if s.mask]
    lacking = [s.path for s in anomalous if not s.mask]
    if having:
        section.fact("masks", f"{len(having)} of {len(anomalous)} anomalous images")
    elif anomalous:
        section.fact("masks", "none: there will be image metrics, but no pixel metrics")
    if lacking and (having or refused):
        section.problem(
            f"anomalous images without a mask ({len(lacking)} of {len(anomalous)}): "
            + examples(lacking),
            "add ground_truth/KIND/NAME_mask.png, or whatever the layout calls it, " + _IGNORE,
        )
    wrong = [s for s in having if s.size and s.mask_size and s.size != s.mask_size]
    if wrong:
        names = (f"{s.mask} ({_size(s.mask_size)}, image {_size(s.size)})" for s in wrong)
        section.problem(
            f"masks of another size than their image ({len(wrong)}): {examples(names)}",
            "draw them again at the size of the image, " + _IGNORE,
        )
    if having and not any(s.marked or not s.mask_size for s in having):
        section.problem(
            "all masks are black: no pixel is above data.options.mask_threshold",
            "set it below the value that marks defects, e.g. --set=mask_threshold=0",
        )


def _pixels(section: Section, seen: Sequence[Seen]) -> None:
    sizes = Counter(s.size for s in seen if s.size)
    if sizes:
        low, high = min(sizes, key=_area), max(sizes, key=_area)
        several = f"{len(sizes)} different, {_size(low)} to {_size(high)}; all become one square"
        section.fact("sizes", several if len(sizes) > 1 else f"all {_size(low)}")
    modes: dict[str, list[str]] = defaultdict(list)
    for s in seen:
        if s.mode:
            modes[s.mode].append(s.path)
    if modes:
        section.fact("modes", ", ".join(f"{len(paths)} {mode}" for mode, paths in modes.items()))
    if len(modes) > 1:
        firsts = (f"{mode} as {paths[0]}" for mode, paths in modes.items())
        section.problem(
            f"images of {len(modes)} modes are mixed: {examples(firsts, most=4)}",
            "convert all with one tool: a detector may take such a difference for a defect",
        )
    small = [s.path for s in seen if s.size and min(s.size) < _SMALL]
    if small:
        section.problem(
            f"images with a side of less than {_SMALL} pixels ({len(small)}): {examples(small)}",
            "take them again at a higher resolution, or remove them if they are thumbnails",
        )


def _duplicates(section: Section, seen: Iterable[Seen]) -> None:
    """Groups images by their pixels; whatever the file or its compression is called."""
    groups: dict[bytes, list[Seen]] = defaultdict(list)
    for s in seen:
        if s.checksum:
            groups[s.checksum].append(s)
    twins = [group for group in groups.values() if len(group) > 1]
    train = [[s for s in group if s.split == "train"] for group in twins]
    test = [[s for s in group if s.split == "test"] for group in twins]
    leaks = [[a[0], b[0]] for a, b in zip(train, test, strict=True) if a and b]
    repeats = [group for group in train if len(group) > 1]
    disputed = [_each(group) for group in test if len(_each(group)) > 1]
    for found, what, remedy in (
        (leaks, "in train and in test", "remove them from train: figures are too good"),
        (repeats, "in train more than once", "keep one of each: held-out images must be new"),
        (disputed, "tested both as good and as anomalous", "decide which they are"),
    ):
        if found:
            names = (" = ".join(s.path for s in group[:2]) for group in found)
            section.problem(f"the same image {what} ({len(found)}): {examples(names)}", remedy)


def _each(group: Iterable[Seen]) -> list[Seen]:
    """One good and one anomalous image, as far as there are."""
    return list({s.good: s for s in group if s.good or s.anomalous}.values())


def _few(section: Section, seen: Sequence[Seen]) -> None:
    train = [s for s in seen if s.split == "train"]
    test = [s for s in seen if s.split == "test"]
    if train:
        held = max(1, round(_HOLDOUT * len(train)))
        rate = f"false-alarm rates down to {1 / (held + 1):.1%} can be promised"
        section.fact("thresholds", f"{held} of the images to train on will be held out: {rate}")
    if train and len(train) < _FEW_TRAIN:
        section.problem(
            f"images to train on: only {len(train)}",
            f"add normal images: {_FEW_TRAIN} at the very least, better some hundred",
        )
    for number, kind in (
        (sum(s.good for s in test), "good"),
        (sum(s.anomalous for s in test), "anomalous"),
    ):
        if test and number < _FEW_TEST:
            noise = "metrics will be noise" if number else "metrics will be undefined"
            section.problem(
                f"{kind} test images: only {number}, so {noise}", f"add some to {_FEW_TEST} or more"
            )


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def _size(size: tuple[int, int] | None) -> str:
    return f"{size[0]} x {size[1]}" if size else "?"
