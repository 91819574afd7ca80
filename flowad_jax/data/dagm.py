"""DAGM 2007: ten artificial textures, each with one kind of defect.

M. Wieler, T. Hahn, "Weakly Supervised Learning for Industrial Optical Inspection", competition of
the 29th Symposium of the DAGM, 2007. As it is downloaded,

    {root}/{category}/{Train,Test}/*.PNG                     grey images, with defects or without
    {root}/{category}/{Train,Test}/Label/{stem}_label.PNG    masks, of those with a defect alone

or rearranged as for SSNF (Chiu and Lai, CVPR 2023 workshops), into the layout of ``folder``:

    {root}/{category}/train/good/*
    {root}/{category}/test/{good,...}/*
    {root}/{category}/ground_truth/{kind}/{stem}_label.PNG

The set is meant for learning with defects; a detector that learns from normal images alone leaves
out those of ``Train`` that have a mask. As downloaded, all defects are of the kind ``"defect"``.
The masks are coarse ellipses around the defects.
"""

from __future__ import annotations

from pathlib import Path

from flowad_jax.data import _files, folder
from flowad_jax.data._files import Entry, FileSource
from flowad_jax.data.about import About
from flowad_jax.data.record import GOOD
from flowad_jax.errors import LayoutError, UserError
from flowad_jax.lookup import nearest

ABOUT = About(
    title="DAGM 2007",
    licence="none in writing",
    metric="image AUROC, pixel AUROC; the contest itself scored labels",
    source="https://hci.iwr.uni-heidelberg.de/content/weakly-supervised-learning-industrial-optical-inspection",
    layout="{root}/{Class1..Class10}/{Train,Test}/*.PNG and {Train,Test}/Label/{stem}_label.PNG, "
    "or rearranged {category}/train/good, test/{good,KIND} and ground_truth/{KIND}",
)
CATEGORIES = tuple(f"Class{number}" for number in range(1, 11))
_SPLITS = {"train": "Train", "test": "Test"}
_SUFFIXES = ("_label", "_mask", "")


def build(
    root: str | Path, category: str, split: str, *, masks: str = "require", mask_threshold: int = 0
) -> FileSource:
    """Lists one split of one category, in the order of the file names.

    Args:
      root: folder of the data set, in either layout.
      category: one of the ten, ``"Class1"`` to ``"Class10"``.
      split: ``"train"`` or ``"test"``.
      masks: as in ``folder.build``. As downloaded, the presence of a mask is all that tells a
        defect, so that ``"none"`` ignores what the masks show and not that they are there.
      mask_threshold: grey value, of 255, above which a mask pixel is a defect.

    Raises:
      UserError: the category is none of the ten, a mask lacks its image, or as ``folder.build``.
    """
    _files.check_choice("split", split, _files.SPLITS)
    if category not in CATEGORIES:
        raise UserError(f"DAGM has no category {category!r}: {nearest(category, CATEGORIES)}")
    path = _files.check_root(root)
    if _downloaded(path / category):
        entries, found = _raw(path / category / _SPLITS[split])
    else:
        entries, found = _rearranged(path, category, split)
    if split == "train":
        entries = [entry for entry in entries if entry.kind == GOOD]
        found = [None] * len(entries)
    if not entries:
        raise LayoutError(f"no {split} images of '{category}' in '{path}': unpack the set again")
    joined = _files.attach_masks(entries, found, masks)
    parents = {entry.path.parent for entry in joined}
    listed = [*parents, *(parent / "Label" for parent in parents)]
    return FileSource(joined, mask_threshold=mask_threshold, folders=listed)


def categories(root: str | Path) -> list[str]:
    """Those of the ten categories that are present, by their numbers."""
    path = _files.check_root(root)
    rearranged = folder.categories(path)
    return [name for name in CATEGORIES if name in rearranged or _downloaded(path / name)]


def _downloaded(category: Path) -> bool:
    """By the capital letter, also where a file system does not tell it from a small one."""
    return not {f.name for f in _files.subfolders(category)}.isdisjoint(_SPLITS.values())


def _raw(split: Path) -> tuple[list[Entry], list[Path | None]]:
    labels = split / "Label"
    if not labels.is_dir():
        raise LayoutError(f"'{labels}' is missing: only it tells the defects, unpack the set again")
    by_stem = {file.stem: file for file in _files.images(labels)}
    files = _files.images(split)
    found = [by_stem.pop(f"{file.stem}_label", None) for file in files]
    if by_stem:
        stray = next(iter(by_stem.values()))
        raise LayoutError(f"mask '{stray}' has no image in '{split}': unpack the set again")
    kinds = ["defect" if mask else GOOD for mask in found]
    return [Entry(file, kind) for file, kind in zip(files, kinds, strict=True)], found


def _rearranged(root: Path, category: str, split: str) -> tuple[list[Entry], list[Path | None]]:
    source = folder.build(root, category, split, masks="none")
    entries = [Entry(Path(p), k) for p, k in zip(source.paths, source.kinds, strict=True)]
    truth = root / category / "ground_truth"
    by_kind = {k: {f.stem: f for f in _files.images(truth / k)} for k in set(source.kinds)}
    return entries, [_mask(by_kind[entry.kind], entry.path.stem) for entry in entries]


def _mask(by_stem: dict[str, Path], stem: str) -> Path | None:
    return next((by_stem[stem + s] for s in _SUFFIXES if stem + s in by_stem), None)
