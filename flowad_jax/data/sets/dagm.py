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

from flowad_jax.data import layout
from flowad_jax.data.dataset_card import DatasetCard
from flowad_jax.data.file_source import Entry, FileSource
from flowad_jax.data.record import GOOD
from flowad_jax.errors import LayoutError

CARD = DatasetCard(
    title="DAGM 2007",
    licence="none in writing",
    metric="image AUROC, pixel AUROC; the contest itself scored labels",
    source="https://hci.iwr.uni-heidelberg.de/content/weakly-supervised-learning-industrial-optical-inspection",
    layout="{root}/{Class1..Class10}/{Train,Test}/*.PNG and {Train,Test}/Label/{stem}_label.PNG, "
    "or rearranged {category}/train/good, test/{good,KIND} and ground_truth/{KIND}",
    categories=tuple(f"Class{number}" for number in range(1, 11)),
)
_SPLITS = {"train": "Train", "test": "Test"}
_SUFFIXES = ("_label", "_mask", "")


def build(
    root: str | Path, category: str, split: str, *, masks: str = "require", mask_threshold: int = 0
) -> FileSource:
    """Lists one split of one category, in the order of the file names.

    As downloaded, the presence of a mask is all that tells a defect, so that ``masks="none"``
    ignores what the masks show and not that they are there.

    Raises:
      UserError: a mask lacks its image, or as ``folder.build``.
    """
    path = layout.find_root(root)
    if not _downloaded(path / category):
        return layout.folder_per_kind(
            layout.category_folder(path, category),
            split,
            masks,
            mask_threshold=mask_threshold,
            mask_suffixes=_SUFFIXES,
        )
    folder = path / category / _SPLITS[split]
    entries = [e for e in _entries(folder) if split == "test" or e.kind == GOOD]
    if not entries:
        raise LayoutError(f"no {split} images of '{category}' in '{path}': {layout.UNPACK}")
    folders = [folder, folder / "Label"]
    return FileSource(entries, masks, mask_threshold=mask_threshold, folders=folders)


def categories(root: str | Path) -> list[str]:
    """Those that are present in either layout."""
    path = layout.find_root(root)
    downloaded = [folder.name for folder in layout.subfolders(path) if _downloaded(folder)]
    return [*layout.category_names(path), *downloaded]


def _downloaded(category: Path) -> bool:
    """By the capital letter, also where a file system does not tell it from a small one."""
    return not {f.name for f in layout.subfolders(category)}.isdisjoint(_SPLITS.values())


def _entries(folder: Path) -> list[Entry]:
    labels = folder / "Label"
    if not labels.is_dir():
        raise LayoutError(f"'{labels}' is missing: only it tells the defects, {layout.UNPACK}")
    masks, entries = layout.by_stem(labels), []
    for file in layout.images(folder):
        mask = masks.pop(f"{file.stem}_label", None)
        entries.append(Entry(file, "defect", (mask,)) if mask else Entry(file, GOOD))
    if masks:
        stray = next(iter(masks.values()))
        raise LayoutError(f"mask '{stray}' has no image in '{folder}': {layout.UNPACK}")
    return entries
