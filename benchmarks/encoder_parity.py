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
Row = dict[str, Any]


def measure(name: str) -> Row:
    """Compares one encoder with PyTorch's network.

    Raises:
      UserError: the encoder's library has no such network, or lacks layers of ours.
    """
    import torch

    start, encoder = time.perf_counter(), architecture.find(name)
    peer, embedded = encoder.spec.peer, store.embedded(name)
    with tempfile.TemporaryDirectory() as folder:
        path = embedded or Path(folder) / "random.pth"
        if embedded is None:  # random numbers that depend on PyTorch's names alone
            with torch.device("meta"):
                model = encoders.build(peer)
            torch_writer.write(path, encoders.random_state(model))
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


def measured_apart(name: str) -> Row:
    """Calls `measure` in a new process.

    Raises:
      UserError: also where the process ends without an answer.
    """
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
        try:
            return pool.submit(measure, name).result()
        except BrokenProcessPool:
            raise UserError("its process was ended, perhaps for lack of memory") from None


def versions(peer: str) -> dict[str, str]:
    """Returns those of all that computes one of the two networks."""
    return {name: metadata.version(name) for name in (*PACKAGES, peer.partition(".")[0])}


def read(path: str | Path) -> dict[str, Row]:
    """Returns the rows of a file by encoder; none where there is no file yet.

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


def write(path: str | Path, rows: dict[str, Row]) -> None:
    """Replaces the file as a whole; a row is a line."""
    lines = ",\n".join(json.dumps(rows[name]) for name in sorted(rows))
    files.write_text(path, f'{{"encoders": [\n{lines}\n]}}\n')


def run(output: str | Path, only: str) -> list[str]:
    """Measures encoders and writes each row at once; returns what went wrong, a line each.

    Raises:
      UserError: an encoder that ``only`` names does not exist, PyTorch is not installed, or the
        file cannot be read or written.
    """
    rows, wrong = read(output), []
    names = lookup.choices(architecture.PACKAGE)
    wanted = only.split(",") if only else names
    for name in wanted:
        lookup.check_choice("--only", name, names)
    peers = {name: architecture.find(name).spec.peer for name in wanted}
    for peer in filter(None, peers.values()):
        verification.require(peer)
    with tqdm(peers.items(), unit="encoder") as bar:
        for name, peer in bar:
            kept = name in rows and (not peer or rows[name].get("versions") == versions(peer))
            if kept and not only:
                continue
            bar.set_postfix_str(name)
            try:
                rows[name] = measured_apart(name) if peer else {"encoder": name, "peer": None}
            except UserError as error:
                wrong.append(f"{name}: {error}")
                continue
            write(output, rows)
            if not peer:
                bar.write(f"{name}: no PyTorch network to compare with")
                continue
            bar.write(
                "{encoder}: {worst:.1e}, {layers} layers, worst {layer}, {image[0]} px, {weights} "
                "weights, {seconds} s".format(**rows[name])
            )
            if not rows[name]["worst"] <= verify.LIMIT:
                wrong.append(f"{name}: differs by more than {verify.LIMIT:g}")
    return wrong


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
