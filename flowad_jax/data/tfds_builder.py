"""Preparing data sets with TensorFlow Datasets: from a folder to array_record, without TensorFlow.

Every data set of this package has a ``GeneratorBasedBuilder`` of its own; all are made by
`builder_class`, because a layout knows its records already and TFDS only has to write them.
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
from flowad_jax.data.record import Record, Source
from flowad_jax.data.tfds import PREFIX, VERSION, config_name, folder
from flowad_jax.errors import UserError


def prepare(
    name: str, root: str | Path, category: str, target: str | Path, options: dict[str, Any]
) -> Path:
    """Writes all splits of one category; does nothing if it is there already.

    A category appears as a whole or not at all, because TFDS writes into a folder of another name.

    Args:
      name: the data set, a module of ``flowad_jax.data``.
      root: its folder as it was downloaded.
      category: one of its categories.
      target: folder of prepared sets.
      options: of the layout, as ``data.options`` has them.

    Returns:
      The folder that was written.

    Raises:
      UserError: the data set cannot be read, the target cannot be written, or it holds the
        category with other options.
    """
    keywords = inspect.signature(sources.find(name)).parameters.values()
    defaults = {p.name: p.default for p in keywords if p.kind is p.KEYWORD_ONLY}
    options = defaults | options
    place = folder(target, name, category)
    if place.is_dir():  # reading it finds whatever is wrong with it
        sources.build(f"{PREFIX}{name}", target, category, "test", **options)
        return place
    splits = {split: _split(name, root, category, split, options) for split in _splits(name)}
    with files.writing(Path(target)):
        Path(target).mkdir(parents=True, exist_ok=True)
        tfds.disable_progress_bar()  # its bars start anew for every split and shard
        builder = builder_class(name)(splits, category, options, target)
        with contextlib.redirect_stdout(io.StringIO()):  # it speaks of downloading
            builder.download_and_prepare()
    return place


@functools.cache  # TFDS registers a class once
def builder_class(name: str) -> type[tfds.core.GeneratorBasedBuilder]:
    """Returns the builder of a data set, which TFDS calls ``flowad_{name}``."""
    title = "Flowad" + "".join(part.capitalize() for part in name.split("_"))
    return type(title, (_Builder,), {"name": f"flowad_{name}", "__module__": __name__})


class _Builder(tfds.core.GeneratorBasedBuilder):
    """Writes sources of this package, in their order."""

    VERSION = tfds.core.Version(VERSION)
    url_infos: ClassVar[dict] = {}  # nothing is downloaded, so there are no checksums to look for

    def __init__(
        self,
        made: dict[str, Source],
        category: str,
        options: dict[str, Any],
        target: str | Path,
    ) -> None:
        self._made, self._options = made, options
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
        splits = {split: _listing(source) for split, source in self._made.items()}
        options = {k: list(v) if isinstance(v, tuple) else v for k, v in self._options.items()}
        return tfds.core.DatasetInfo(
            builder=self,
            features=features,
            disable_shuffling=True,  # the order of the folder, so that results are the same
            metadata=tfds.core.MetadataDict(splits=splits, options=options),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        made = (split for split, source in self._made.items() if len(source))
        return {split: self._generate_examples(split) for split in made}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        source = self._made[split]
        for index in tqdm(range(len(source)), desc=split, unit="img", disable=None):
            yield index, _example(source[index])


def _example(record: Record) -> dict[str, Any]:
    mask = record.mask.astype(np.uint8) * 255
    return {
        "image": _png(record.image),
        "mask": _png(mask),
        "label": record.label,
        "kind": record.kind,
        "path": record.path,
    }


def _png(pixels: np.ndarray) -> io.BytesIO:
    """A file, because TFDS compresses arrays with TensorFlow."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    file.seek(0)
    return file


def _listing(source: Source) -> dict[str, Any]:
    """What is known without decoding."""
    return {
        "labels": source.labels.tolist(),
        "kinds": list(source.kinds),
        "paths": list(source.paths),
        "has_masks": source.has_masks,
    }


def _splits(name: str) -> list[str]:
    about = sources.about(name)
    own = [about.validation] if about and about.validation else []
    return ["train", *own, "test"]


def _split(
    name: str, root: str | Path, category: str, split: str, options: dict[str, Any]
) -> Source:
    try:
        return sources.build(name, root, category, split, **options)
    except TypeError as error:
        raise UserError(f"--set: {error}") from error
