"""MVTec LOCO AD: five categories with logical and structural anomalies, 3,644 images.

P. Bergmann, K. Batzner, M. Fauser, D. Sattlegger, C. Steger, "Beyond Dents and Scratches: Logical
Constraints in Unsupervised Anomaly Detection and Localization", IJCV 2022. Licence CC BY-NC-SA
4.0: not for commercial use.

    {root}/{category}/train/good/*.png         normal images to learn from
    {root}/{category}/validation/good/*.png    normal images, for thresholds
    {root}/{category}/test/{good,logical_anomalies,structural_anomalies}/*.png
    {root}/{category}/ground_truth/{kind}/{stem}/*.png

An image has a folder of masks, one for each of its anomalies. Their grey values stand for kinds of
anomaly, as listed in ``defects_config.json``; here the mask is the union of all that is not black.
In the authors' metric, sPRO (saturated per-region overlap), finding a part of a region can count as
finding all of it; which part, `defects_config.json` says of each kind of anomaly. It is computed
where that file is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flowad_jax import schema
from flowad_jax.data import layout
from flowad_jax.data.dataset_card import DatasetCard
from flowad_jax.data.file_source import Entry, FileSource
from flowad_jax.data.image_file import decode
from flowad_jax.data.record import GOOD
from flowad_jax.errors import UserError
from flowad_jax.types import Defect

_KINDS = {
    "train": (GOOD,),
    "validation": (GOOD,),
    "test": (GOOD, "logical_anomalies", "structural_anomalies"),
}
CARD = DatasetCard(
    title="MVTec LOCO AD",
    licence="CC BY-NC-SA 4.0",
    metric="image AUROC, AU-sPRO up to 0.05",
    source="https://www.mvtec.com/company/research/datasets/mvtec-loco",
    layout="{root}/{category}/train/good/*.png, validation/good/*.png, "
    "test/{good,logical_anomalies,structural_anomalies}/*.png and "
    "ground_truth/{KIND}/{stem}/*.png",
    categories=("breakfast_box", "juice_bottle", "pushpins", "screw_bag", "splicing_connectors"),
    splits=tuple(_KINDS),
)
categories = layout.category_names
_LIST = "defects_config.json"
_CONFIG = schema.array(
    schema.table(
        {
            "pixel_value": schema.integer(1, 255),
            "saturation_threshold": {**schema.number(0), "exclusiveMinimum": 0},
            "relative_saturation": {"type": "boolean"},
        }
    )
)


def build(
    root: str | Path, category: str, split: str, *, masks: str = "require", mask_threshold: int = 0
) -> FileSource:
    """Lists one split of one category, in the order of kinds and file names.

    A ``mask_threshold`` above 0 would lose anomalies, as the values are numbers of kinds.
    """
    where = layout.category_folder(root, category)
    entries = [
        Entry(file, kind, tuple(layout.images(where / "ground_truth" / kind / file.stem)))
        for kind in _KINDS[split]
        for file in layout.some_images(where / split / kind)
    ]
    config = where / _LIST
    if split != "test" or masks == "none" or not config.is_file():
        return FileSource(entries, masks, mask_threshold=mask_threshold)
    saturations = {
        row["pixel_value"]: (row["saturation_threshold"], row["relative_saturation"])
        for row in schema.read(config, _CONFIG, "restore the file that comes with MVTec LOCO AD")
    }
    return LocoSource(entries, saturations, masks=masks, mask_threshold=mask_threshold)


class LocoSource(FileSource):
    """Images whose anomalies are known one by one."""

    def __init__(
        self,
        entries: Sequence[Entry],
        saturations: Mapping[int, tuple[float, bool]],
        **options: Any,
    ) -> None:
        """Keeps from which share or number of pixels on an anomaly is found, by its grey value."""
        super().__init__(entries, **options)
        self._saturations = saturations

    def defects(self, index: int) -> list[Defect]:
        """Reads the anomalies of a record.

        Raises:
          UserError: a mask cannot be read, or its grey value is not in the list.
        """
        found = []
        for file, mask in self.part_masks(index).items():
            with decode(file) as decoded:
                value = int(decoded.read().max())
            if value not in self._saturations:
                raise UserError(f"mask '{file}' has the grey value {value}, which {_LIST} lacks")
            found.append(Defect(mask, *self._saturations[value]))
        return found
