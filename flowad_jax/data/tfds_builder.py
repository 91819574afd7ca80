"""Preparing data sets with TensorFlow Datasets: from a folder to array_record, without TensorFlow.

A layout knows its records already and TFDS only has to write them, so that one builder serves all.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tqdm import tqdm

from flowad_jax import files
from flowad_jax.data import sources
from flowad_jax.data.record import Source
from flowad_jax.data.tfds_source import PREFIX, VERSION, config_name, folder
from flowad_jax.errors import UserError


def prepare(
    name: str, root: str | Path, category: str, target: str | Path, options: dict[str, Any]
) -> Path:
    """Writes all splits of one category; does nothing if it is there already.

    A category appears as a whole or not at all, because TFDS writes into a folder of another name.

    Returns:
      The folder that was written, below that of prepared sets, ``target``.

    Raises:
      UserError: the data set cannot be read, the target cannot be written, or it holds the
        category with other options.
    """
    keywords = inspect.signature(sources.find(name)).parameters.values()
    options = {p.name: p.default for p in keywords if p.kind is p.KEYWORD_ONLY} | options
    place = folder(target, name, category)
    if place.is_dir():  # reading it finds whatever is wrong with it
        sources.build(f"{PREFIX}{name}", target, category, "test", **options)
        return place
    card = sources.dataset_card(name)
    validation = ["validation"] if card and "validation" in card.splits else []
    try:
        splits = {
            split: sources.build(name, root, category, split, **options)
            for split in ("train", *validation, "test")
        }
    except TypeError as error:
        raise UserError(f"--set: {error}") from error
    with files.writing(Path(target)):
        Path(target).mkdir(parents=True, exist_ok=True)
        tfds.disable_progress_bar()  # its bars start anew for every split and shard
        builder = _builder_class(name)(splits, category, options, target)
        with contextlib.redirect_stdout(io.StringIO()):  # it speaks of downloading
            builder.download_and_prepare()
    return place


@functools.cache  # TFDS registers a class once
def _builder_class(name: str) -> type[_Builder]:
    """Returns the builder of a data set, which TFDS calls ``flowad_{name}``."""
    title = "Flowad" + "".join(part.capitalize() for part in name.split("_"))
    return type(title, (_Builder,), {"name": f"flowad_{name}", "__module__": __name__})


class _Builder(tfds.core.GeneratorBasedBuilder):  # type: ignore[misc]  # it has no types
    """Writes sources of this package, in their order."""

    VERSION = tfds.core.Version(VERSION)
    url_infos: ClassVar[
        dict[str, Any]
    ] = {}  # nothing is downloaded, so there are no checksums to look for

    def __init__(
        self,
        sources: dict[str, Source],
        category: str,
        options: dict[str, Any],
        target: str | Path,
    ) -> None:
        self._sources, self._options = sources, options
        config = tfds.core.BuilderConfig(name=config_name(category), description=category)
        super().__init__(data_dir=str(target), file_format="array_record", config=config)

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
                "mask": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
                "label": np.int32,
                "kind": tfds.features.Text(),
                "path": tfds.features.Text(),
            }
        )
        splits = {
            split: {
                "labels": source.labels.tolist(),
                "kinds": list(source.kinds),
                "paths": list(source.paths),
                "has_masks": source.has_masks,
            }
            for split, source in self._sources.items()
        }
        options = {k: list(v) if isinstance(v, tuple) else v for k, v in self._options.items()}
        return tfds.core.DatasetInfo(
            builder=self,
            features=features,
            disable_shuffling=True,  # the order of the folder, so that results are the same
            metadata=tfds.core.MetadataDict(splits=splits, options=options),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[Any]]:
        filled = (split for split, source in self._sources.items() if len(source))
        return {split: self._generate_examples(split) for split in filled}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        source = self._sources[split]
        for index in tqdm(range(len(source)), desc=split, unit="img", disable=None):
            example = source[index]._asdict()
            mask = example["mask"].astype(np.uint8) * 255
            yield index, example | {"image": _png(example["image"]), "mask": _png(mask)}


def _png(pixels: np.ndarray) -> io.BytesIO:
    """A file, because TFDS compresses arrays with TensorFlow."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    file.seek(0)
    return file
