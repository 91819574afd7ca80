r"""How far the layers of every encoder are from PyTorch's, with the same weights on one image.

    python -m benchmarks.encoder_parity --output=docs/encoder_parity.json
    python -m benchmarks.encoder_parity --output=docs/encoder_parity.json --only=resnet.resnet18

Does what ``convert_torch_weights.py --verify`` does: with the embedded weights where a package
brings some, else with a checkpoint of random numbers under PyTorch's names, which lies in a
temporary folder. The figure of an encoder is the largest of its layers' differences, each over
the largest value of PyTorch's layer, in float32.

Each encoder has a process of its own, so that its memory is free when the next one starts. A row
is written as soon as it is measured, and the same command goes on where it was stopped: rows of
the same versions are kept. ``--only`` measures what it names anew and leaves all other rows alone.
"""

from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
import os
import platform
import tempfile
import time
from concurrent.futures.process import BrokenProcessPool
from importlib import metadata
from pathlib import Path
from typing import Any

from tqdm import tqdm

from flowad_jax import files, lookup
from flowad_jax.arguments import Parser
from flowad_jax.encoders import architecture, load, verify
from flowad_jax.errors import UserError
from flowad_jax.weights import store, torch_writer
from peers import encoders, verification

PACKAGES = ("flowad-jax", "jax", "jaxlib", "flax", "torch")


def measure(name: str) -> dict[str, Any]:
    """Compares one encoder with PyTorch's network.

    Raises:
      UserError: the encoder's library has no such network, or lacks layers of ours.
    """
    start, encoder = time.perf_counter(), architecture.find(name)
    peer, embedded = encoder.spec.peer, store.embedded(name)
    with tempfile.TemporaryDirectory() as folder:
        path = embedded or random_checkpoint(peer, Path(folder))
        variables, card = load.convert_checkpoint(name, path)
        tensors = verify.trunk(encoder, verification.file_state(peer, path))
        network = verification.network(peer, verify.side(encoder.spec), tensors)
        report = verify.compare(encoder, variables, network)
    if not report.layers:
        raise UserError(f"'{peer}' has none of our layers: see torch_key of its family")
    return {
        "encoder": name,
        "parameters": card["sizes"]["parameters"],
        "peer": peer,
        "weights": embedded.name if embedded else "random",
        "image": list(report.size),
        "worst": report.worst,
        "layer": max(report.layers, key=report.layers.__getitem__),
        "layers": len(report.layers),
        "not_compared": len(report.not_compared),
        "seconds": round(time.perf_counter() - start, 1),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": versions(peer),
    }


def random_checkpoint(peer: str, folder: Path) -> Path:
    """Writes a complete network of random numbers, which depend on PyTorch's names alone."""
    import torch

    with torch.device("meta"):
        model = encoders.build(peer)
    path = folder / "random.pth"
    torch_writer.write(path, encoders.random_state(model))
    return path


def versions(peer: str) -> dict[str, str]:
    """Of all that computes one of the two networks."""
    return {name: metadata.version(name) for name in (*PACKAGES, peer.partition(".")[0])}


def without_peer(name: str) -> dict[str, Any]:
    """The row of an encoder that no library has."""
    return {"encoder": name, "peer": None}


def measured_apart(name: str) -> dict[str, Any]:
    """`measure` in a new process.

    Raises:
      UserError: also where the process ends without an answer.
    """
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
        try:
            return pool.submit(measure, name).result()
        except BrokenProcessPool:
            raise UserError("its process was ended, perhaps for lack of memory") from None


def read(path: str | Path) -> dict[str, dict[str, Any]]:
    """The rows of a file by encoder; none where there is no file yet.

    Raises:
      UserError: it is not what this program writes.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        return {row["encoder"]: row for row in content["encoders"]}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is not a file of this program ({error}); delete it") from error


def write(path: str, rows: dict[str, dict[str, Any]]) -> None:
    """Replaces the file as a whole; a row is a line.

    Raises:
      UserError: the file cannot be written; what was there stays.
    """
    lines = ",\n".join(json.dumps(rows[name]) for name in sorted(rows))
    files.write_text(path, f'{{"encoders": [\n{lines}\n]}}\n')


def chosen(only: str, rows: dict[str, dict[str, Any]]) -> list[str]:
    """The encoders to measure.

    Raises:
      UserError: one that ``only`` names does not exist, or PyTorch is not installed.
    """
    names = lookup.choices(architecture.PACKAGE)
    wanted = only.split(",") if only else names
    for name in wanted:
        lookup.check_choice("--only", name, names)
    peers = {name: architecture.find(name).spec.peer for name in wanted}
    for peer in filter(None, peers.values()):
        verification.require(peer)
    if only:
        return wanted
    return [
        name
        for name, peer in peers.items()
        if name not in rows or (peer and rows[name].get("versions") != versions(peer))
    ]


def run(output: str, only: str) -> list[str]:
    """Measures encoders and writes each row at once; returns what went wrong, a line each."""
    rows, wrong = read(output), []
    with tqdm(chosen(only, rows), unit="encoder") as bar:
        for name in bar:
            bar.set_postfix_str(name)
            try:
                has_peer = architecture.find(name).spec.peer
                rows[name] = measured_apart(name) if has_peer else without_peer(name)
            except UserError as error:
                wrong.append(f"{name}: {error}")
                continue
            bar.write(line(rows[name]))
            write(output, rows)
            if has_peer and not rows[name]["worst"] <= verify.LIMIT:
                wrong.append(f"{name}: differs by more than {verify.LIMIT:g}")
    return wrong


def line(row: dict[str, Any]) -> str:
    """What was measured, for people."""
    if row["peer"] is None:
        return f"{row['encoder']}: no PyTorch network to compare with"
    return (
        f"{row['encoder']}: {row['worst']:.1e}, {row['layers']} layers, worst {row['layer']}, "
        f"{row['image'][0]} px, {row['weights']} weights, {row['seconds']} s"
    )


def main() -> None:
    """Measures what is missing; exits with status 1 where an encoder differs or has no figure."""
    parser = Parser("python -m benchmarks.encoder_parity", __doc__)
    parser.add_argument("--output", required=True, help="JSON file to write or to complete")
    parser.add_argument("--only", default="", metavar="NAME,NAME", help="encoders [all]")
    options = parser.parse_args()
    try:
        wrong = run(options.output, options.only)
    except UserError as error:
        parser.fail(error)
    if wrong:
        parser.fail("; ".join(wrong))


if __name__ == "__main__":
    main()
