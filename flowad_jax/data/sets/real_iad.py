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

The authors also score samples, by the worst of their views.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from flowad_jax import schema
from flowad_jax.data import layout
from flowad_jax.data.dataset_card import DatasetCard
from flowad_jax.data.file_source import Entry, FileSource
from flowad_jax.data.record import GOOD
from flowad_jax.errors import LayoutError, UserError
from flowad_jax.lookup import check_choice

CARD = DatasetCard(
    title="Real-IAD",
    licence="on request, for research that is not commercial",
    metric="image AUROC, AUPRO, sample AUROC",
    source="https://realiad4ad.github.io/Real-IAD/",
    layout="{root}/realiad_1024/{category}/{OK,NG/KIND}/{sample}/*.{jpg,png} and "
    "{root}/realiad_jsons/{category}.json",
    categories=(
        *("audiojack", "bottle_cap", "button_battery", "end_cap", "eraser", "fire_hood", "mint"),
        *("mounts", "pcb", "phone_battery", "plastic_nut", "plastic_plug", "porcelain_doll"),
        *("regulator", "rolled_strip_base", "sim_card_set", "switch", "tape", "terminalblock"),
        *("toothbrush", "toy", "toy_brick", "transistor1", "u_block", "usb", "usb_adaptor"),
        *("vcpill", "wooden_beads", "woodstick", "zipper"),
    ),
)
_LISTS = "realiad_jsons"
_ALL = "all"
_VIEWS = (_ALL, "C1", "C2", "C3", "C4", "C5")
_VIEW = re.compile(r"_(C[1-5])_")
_RESTORE = "restore the file that comes with Real-IAD"
_META = schema.table({"prefix": schema.TEXT, "normal_class": schema.TEXT})
_ITEMS = schema.array(
    schema.table(
        {"anomaly_class": schema.TEXT, "image_path": schema.TEXT},
        {"mask_path": schema.nullable(schema.TEXT)},
    )
)


def build(
    root: str | Path,
    category: str,
    split: str,
    *,
    images: str = "realiad_1024",
    splits: str = _LISTS,
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
      UserError: an option is wrong, a folder or list is missing, the list is damaged or names a
        missing image, or a mask is missing or of another size.
    """
    check_choice("data.options.views", views, _VIEWS)
    path = layout.find_root(root)
    _check_name("images", images)
    if not os.path.isdir(path / images):
        fix = f"{layout.hint(images, path)}; data.options.images names another"
        raise LayoutError(f"'{path}' has no folder '{images}': {fix}")
    file = _find_list(path, splits, category)
    content = schema.read(file, schema.table({"meta": _META, split: _ITEMS}), _RESTORE)
    entries = [
        _entry(path / images, f"'{file}' {split}[{index}]", item, content["meta"], masks)
        for index, item in enumerate(content[split])
        if views == _ALL or _view(f"'{file}' {split}[{index}]", item) == views
    ]
    if not entries:
        of = "" if views == _ALL else f" of the view {views}"
        raise LayoutError(f"'{file}' has no {split} images{of}: {_RESTORE}")
    entries.sort(key=lambda entry: entry.path)
    return FileSource(entries, masks, mask_threshold=mask_threshold, folders=())


def categories(root: str | Path) -> list[str]:
    """Those that are present in any size."""
    sizes = [f for f in layout.subfolders(layout.find_root(root)) if f.name.startswith("realiad_")]
    return [name for name in CARD.categories if any((size / name).is_dir() for size in sizes)]


def _find_list(root: Path, splits: str, category: str) -> Path:
    _check_name("splits", splits)
    for folder in (root / splits, root / _LISTS / splits):
        if os.path.isfile(folder / f"{category}.json"):
            return folder / f"{category}.json"
    places = f"'{splits}/{category}.json', nor is it in '{_LISTS}'"
    raise LayoutError(f"'{root}' has no {places}: unpack the lists of the splits there")


def _check_name(option: str, name: str) -> None:
    if name == ".." or PurePosixPath(name).name != name or not name.isprintable():
        raise UserError(f"data.options.{option}={name!r}: give it the name of a folder in the root")


def _view(where: str, item: dict[str, Any]) -> str:
    name = PurePosixPath(item["image_path"]).name
    if not (found := _VIEW.search(name)):
        fix = "set data.options.views to 'all'"
        raise UserError(f"{where}: the name {name!r} tells no view such as _C1_: {fix}")
    return found[1]


def _entry(
    folder: Path, where: str, item: dict[str, Any], meta: dict[str, str], rule: str
) -> Entry:
    normal = item["anomaly_class"] == meta["normal_class"]
    mask = None if normal or rule == "none" else item.get("mask_path")
    names = [item["image_path"]] if mask is None else [item["image_path"], mask]
    image, *masks = (
        layout.file_below(folder, where, str(PurePosixPath(meta["prefix"], name)), _RESTORE)
        for name in names
    )
    kind = GOOD if normal else item["anomaly_class"]
    return Entry(image, kind, tuple(masks), sample=str(image.parent))
