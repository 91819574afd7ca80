r"""Converts PyTorch weights into a file for flowad_jax, and back. PyTorch is not needed.

Every tensor of the checkpoint has to be used and every variable of the network has to be set;
otherwise both lists are printed and nothing is written. Beside the output comes a card,
<output stem>.card.json: source and its SHA-256, sizes, input normalisation, versions.

Examples:
  # torchvision's file; its name carries a SHA-256 prefix, which is checked
  python convert_torch_weights.py --arch=resnet.wide_resnet50_2 \
      --checkpoint=wide_resnet50_2-95faca4d.pth --output=wide_resnet50_2.safetensors

  # then train with it
  python train.py --config=configs/quickstart.py --workdir=runs/wrn \
      --config.encoder.name=resnet.wide_resnet50_2 \
      --config.encoder.weights=wide_resnet50_2.safetensors

  # which tensor becomes which variable; with --checkpoint also what that file holds
  python convert_torch_weights.py --explain --arch=resnet.resnet18

  # all of it but writing
  python convert_torch_weights.py --dry_run --arch=resnet.resnet18 \
      --checkpoint=resnet18-f37072fd.pth

  # run PyTorch's network and ours on one image; a layer that differs stops the conversion.
  # This needs torch and the network's library: torchvision, timm or efficientnet-lite-pytorch
  python convert_torch_weights.py --verify --arch=resnet.resnet18 \
      --checkpoint=resnet18-f37072fd.pth --output=resnet18.safetensors

  # the way back: a state dict for load_state_dict(strict=False), or .safetensors for PyTorch
  python convert_torch_weights.py --reverse --arch=resnet.resnet18 \
      --checkpoint=resnet18.safetensors --output=resnet18.pth

Exit status: 0 done, 1 the input has a fault that you can mend, 2 wrong usage.
"""

import json
import sys
from pathlib import Path
from typing import Any

from absl import flags

from flowad_jax import cli

flags.DEFINE_string("arch", None, "Network, e.g. resnet.resnet18; a wrong name lists all.")
flags.DEFINE_string(
    "checkpoint",
    None,
    "PyTorch file: .pth or .pt (zip or legacy format) or .safetensors; with --reverse one of ours.",
)
flags.DEFINE_string(
    "output", None, "File to write: .safetensors or .npz; with --reverse .pth, .pt or .safetensors."
)
flags.DEFINE_bool("reverse", False, "Convert a file of ours back to PyTorch's names and layouts.")
flags.DEFINE_bool("explain", False, "Print the table of the conversion and write nothing.")
flags.DEFINE_bool("verify", False, "Compare all layers with PyTorch's network before writing.")
flags.DEFINE_bool("dry_run", False, "Do everything but write; --output may be left out.")

_APART = (
    *(("explain", other) for other in ("reverse", "verify", "dry_run", "output")),
    ("reverse", "verify"),
)


def check_flags() -> None:
    """Ends the process where flags are missing or do not go together."""
    chosen = flags.FLAGS
    for one, other in _APART:
        if chosen[one].value and chosen[other].value:
            cli.fail(
                2, f"--{one} and --{other} do not go together: leave one of them out; see --help"
            )
    needed = ["arch"]
    if not chosen.explain:
        needed += ["checkpoint"] if chosen.dry_run else ["checkpoint", "output"]
    cli.require(needed)
    if chosen.output and Path(chosen.output).resolve() == Path(chosen.checkpoint).resolve():
        cli.fail(2, f"--output={chosen.output} is the file that is read: name another")


def main() -> None:
    """Does one conversion, or explains it."""
    from flowad_jax.encoders import export
    from flowad_jax.weights import layout

    chosen = flags.FLAGS
    try:
        if chosen.explain:
            print(export.explained(chosen.arch, chosen.checkpoint))
        elif chosen.reverse:
            _back()
        else:
            _convert()
    except layout.ConversionError as error:
        print(error.lists(), file=sys.stderr)
        raise


def _convert() -> None:
    """Converts one file, prints its card and, with --verify, what the comparison found."""
    from flowad_jax.encoders.load import convert_checkpoint
    from flowad_jax.weights import store

    chosen = flags.FLAGS
    if chosen.output:
        store.check_suffix(Path(chosen.output))
    variables, card = convert_checkpoint(chosen.arch, chosen.checkpoint)
    print(json.dumps(card, indent=2))
    if chosen.verify:
        card["verified"] = _verified(variables)
    if not chosen.dry_run:
        store.save(chosen.output, variables, card)
    sizes, source = card["sizes"], card["source"]
    _say_what_was_written(
        f"{sizes['tensors']} tensors, {sizes['parameters']:,} parameters, "
        f"{sizes['bytes'] / 1e6:.1f} MB, from {source['bytes'] / 1e6:.1f} MB"
    )


def _verified(variables: Any) -> dict[str, Any]:
    """Compares with PyTorch's network and returns what goes into the card."""
    from flowad_jax.encoders import architecture, verify
    from peers import verification

    chosen = flags.FLAGS
    encoder = architecture.find(chosen.arch)
    tensors = verify.trunk(encoder, verification.file_state(encoder.spec.peer, chosen.checkpoint))
    peer = verification.network(encoder.spec.peer, verify.side(encoder.spec), tensors)
    report = verify.compare(encoder, variables, peer)
    print(verify.table(report))
    verify.check(report, chosen.checkpoint)
    return verification.described(encoder.spec.peer) | report.card()


def _back() -> None:
    """Converts a file of ours back and says what PyTorch will not find in it."""
    from flowad_jax.encoders.export import export_checkpoint
    from flowad_jax.weights import torch_writer

    chosen = flags.FLAGS
    if chosen.output:
        torch_writer.check_suffix(Path(chosen.output))
    tensors, left_out = export_checkpoint(chosen.arch, chosen.checkpoint)
    if not chosen.dry_run:
        torch_writer.write(chosen.output, tensors)
    print(f"left out, as no tap needs it: {', '.join(left_out)}")
    size = sum(tensor.nbytes for tensor in tensors.values())
    _say_what_was_written(f"{len(tensors)} tensors, {size / 1e6:.1f} MB")


def _say_what_was_written(what: str) -> None:
    chosen = flags.FLAGS
    if chosen.dry_run:
        print(f"dry run, nothing was written: {what}")
    else:
        print(f"wrote {chosen.output}: {what}")


if __name__ == "__main__":
    cli.run(main, check=check_flags)
