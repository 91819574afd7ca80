"""Real-IAD: 30 kinds of objects, each photographed from five sides, about 150,000 images.

C. Wang, W. Zhu, B.-B. Gao, Z. Gan, J. Zhang, Z. Gu, S. Qian, M. Chen, L. Ma, "Real-IAD: A
Real-World Multi-View Dataset for Benchmarking Versatile Industrial Anomaly Detection", CVPR 2024.
On request, for research that is not commercial.

    {root}/realiad_1024/{category}/OK/{sample}/{category}_0001_OK_C1_{time}.jpg
    {root}/realiad_1024/{category}/NG/{kind}/{sample}/*.jpg      masks: the .png beside them
    {root}/realiad_jsons/{category}.json                         which image is in which split

``realiad_512`` and ``realiad_256`` hold the same in smaller sizes. Other splits are
``realiad_jsons_sv`` (one view) and ``realiad_jsons_fuiad_0.1`` (training images of which a tenth
has a defect; they are trained on with the others, as is the point of that setting). Their folders
lie in the root or in ``{root}/realiad_jsons``.

The authors also score samples, by the worst of their views; flowad_jax scores images alone.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from flowad_jax.data import _files, _table
from flowad_jax.data._files import Entry, FileSource
from flowad_jax.data.about import About
from flowad_jax.data.record import GOOD
from flowad_jax.errors import LayoutError, UserError
from flowad_jax.lookup import nearest

ABOUT = About(
    title="Real-IAD",
    licence="on request, for research that is not commercial",
    metric="image AUROC, AUPRO, sample AUROC (not computed here)",
    source="https://realiad4ad.github.io/Real-IAD/",
    layout="{root}/realiad_1024/{category}/{OK,NG/KIND}/{sample}/*.{jpg,png} and "
    "{root}/realiad_jsons/{category}.json",
)
CATEGORIES = (
    "audiojack",
    "bottle_cap",
    "button_battery",
    "end_cap",
    "eraser",
    "fire_hood",
    "mint",
    "mounts",
    "pcb",
    "phone_battery",
    "plastic_nut",
    "plastic_plug",
    "porcelain_doll",
    "regulator",
    "rolled_strip_base",
    "sim_card_set",
    "switch",
    "tape",
    "terminalblock",
    "toothbrush",
    "toy",
    "toy_brick",
    "transistor1",
    "u_block",
    "usb",
    "usb_adaptor",
    "vcpill",
    "wooden_beads",
    "woodstick",
    "zipper",
)
_JSONS = "realiad_jsons"
_ALL = "all"
_VIEWS = (_ALL, "C1", "C2", "C3", "C4", "C5")
_VIEW = re.compile(r"_(C[1-5])_")
_RESTORE = "restore the file that comes with Real-IAD"
_TYPES: dict[type, str] = {dict: "an object", list: "a list", str: "a text"}


class _Item(NamedTuple):
    """What a list says of one image; the paths start at the folder of images."""

    where: str  # for messages
    kind: str
    image: str
    mask: str  # "" for none


def build(
    root: str | Path,
    category: str,
    split: str,
    *,
    images: str = "realiad_1024",
    splits: str = _JSONS,
    views: str = _ALL,
    masks: str = "require",
    mask_threshold: int = 0,
) -> FileSource:
    """Lists one split of one category, in the order of the file names.

    Args:
      root: folder of the data set.
      category: one of the 30.
      split: ``"train"`` or ``"test"``.
      images: folder of the images below the root, which decides on their size.
      splits: folder of the lists, below the root or its folder ``realiad_jsons``.
      views: ``"all"``, or the camera whose images are taken, ``"C1"`` to ``"C5"``.
      masks: as in ``folder.build``.
      mask_threshold: grey value, of 255, above which a mask pixel is a defect.

    Raises:
      UserError: an option or the category is wrong, a folder or list is missing, the list is
        damaged or names a missing image, or a mask is missing or of another size.
    """
    _files.check_choice("split", split, _files.SPLITS)
    _files.check_choice("data.options.views", views, _VIEWS)
    if category not in CATEGORIES:
        raise UserError(f"Real-IAD has no category {category!r}: {nearest(category, CATEGORIES)}")
    path = _files.check_root(root)
    folder = _folder(path, images)
    listed = _list(path, splits, category)
    items = [item for item in _items(listed, split) if views == _ALL or _view(item) == views]
    if not items:
        of = "" if views == _ALL else f" of the view {views}"
        raise LayoutError(f"'{listed}' has no {split} images{of}: {_RESTORE}")
    entries = [Entry(_file(folder, item.where, item.image), item.kind) for item in items]
    found = [_mask(folder, item) if masks != "none" else None for item in items]
    joined = sorted(_files.attach_masks(entries, found, masks), key=lambda entry: entry.path)
    return FileSource(joined, mask_threshold=mask_threshold, folders=())


def categories(root: str | Path) -> list[str]:
    """Those of the 30 categories that are present in any size, sorted."""
    sizes = [f for f in _files.subfolders(_files.check_root(root)) if f.name.startswith("realiad_")]
    return [name for name in CATEGORIES if any((size / name).is_dir() for size in sizes)]


def _folder(root: Path, name: str) -> Path:
    _check_name("images", name)
    if not os.path.isdir(root / name):
        fix = f"{_files.hint(name, root)}; data.options.images names another"
        raise LayoutError(f"'{root}' has no folder '{name}': {fix}")
    return root / name


def _list(root: Path, splits: str, category: str) -> Path:
    _check_name("splits", splits)
    for folder in (root / splits, root / _JSONS / splits):
        if os.path.isfile(folder / f"{category}.json"):
            return folder / f"{category}.json"
    places = f"'{splits}/{category}.json', nor is it in '{_JSONS}'"
    raise LayoutError(f"'{root}' has no {places}: unpack the lists of the splits there")


def _check_name(option: str, name: str) -> None:
    if name == ".." or PurePosixPath(name).name != name or not name.isprintable():
        raise UserError(f"data.options.{option}={name!r}: give it the name of a folder in the root")


def _items(file: Path, split: str) -> list[_Item]:
    content = _parsed(file)
    meta = _get(f"'{file}'", content, "meta", dict)
    where = f"'{file}' meta"
    prefix, normal = _get(where, meta, "prefix", str), _get(where, meta, "normal_class", str)
    listed = enumerate(_get(f"'{file}'", content, split, list))
    return [_item(f"'{file}' {split}[{i}]", entry, prefix, normal) for i, entry in listed]


def _item(where: str, entry: Any, prefix: str, normal: str) -> _Item:
    kind = _get(where, entry, "anomaly_class", str)
    image = _get(where, entry, "image_path", str)
    unmasked = entry.get("mask_path") is None
    mask = "" if unmasked else str(PurePosixPath(prefix, _get(where, entry, "mask_path", str)))
    return _Item(where, GOOD if kind == normal else kind, str(PurePosixPath(prefix, image)), mask)


def _parsed(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read '{file}': {error}: {_RESTORE}") from error


def _get(where: str, holder: Any, key: str, kind: type) -> Any:
    value = holder.get(key) if isinstance(holder, dict) else None
    if not isinstance(value, kind):
        raise UserError(f"{where}: '{key}' is missing or not {_TYPES[kind]}: {_RESTORE}")
    return value


def _view(item: _Item) -> str:
    name = PurePosixPath(item.image).name
    found = _VIEW.search(name)
    if not found:
        fix = "set data.options.views to 'all'"
        raise UserError(f"{item.where}: the name {name!r} tells no view such as _C1_: {fix}")
    return found[1]


def _mask(folder: Path, item: _Item) -> Path | None:
    return _file(folder, item.where, item.mask) if item.mask and item.kind != GOOD else None


def _file(folder: Path, where: str, name: str) -> Path:
    return _table.below(folder, where, name, _RESTORE)
