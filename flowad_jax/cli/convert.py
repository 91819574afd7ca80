r"""Converts PyTorch weights into files for flowad_jax, and back. PyTorch is not needed.

An encoder becomes a weight file, a detector that was trained with the authors' code of CFLOW-AD,
SANFlow, MSFlow or SSNF, or with anomalib (Cflow, Fastflow, Uflow, Patchflow), becomes a workdir for
`flowad eval` and `flowad predict`.
Every tensor of the checkpoint has to be used and every variable of the network has to be set;
otherwise both lists are printed and nothing is written. Beside the output comes a card,
<output stem>.card.json: source and its SHA-256, sizes, settings, versions.

Encoders:
  # torchvision's file; its name carries a SHA-256 prefix, which is checked
  flowad convert --arch=resnet.wide_resnet50_2 \
      --checkpoint=wide_resnet50_2-95faca4d.pth --output=wide_resnet50_2.safetensors

  # then train with it
  flowad train --config=cflow_textures --workdir=runs/wrn \
      --config.encoder.name=resnet.wide_resnet50_2 \
      --config.encoder.weights=wide_resnet50_2.safetensors

  # which tensor becomes which variable; with --checkpoint also what that file holds
  flowad convert --explain --arch=resnet.resnet18

  # run PyTorch's network and ours on one image; a layer that differs stops the conversion.
  # This needs torch and the network's library: torchvision, timm or efficientnet-lite-pytorch
  flowad convert --verify --arch=resnet.resnet18 \
      --checkpoint=resnet18-f37072fd.pth --output=resnet18.safetensors

  # the way back: a state dict for load_state_dict(strict=False), or .safetensors for PyTorch
  flowad convert --reverse --arch=resnet.resnet18 \
      --checkpoint=resnet18.safetensors --output=resnet18.pth

Detectors: the recipe says where good images are, which calibrate the scores, and what the file does
not know, such as the size of images. What the file knows wins.
  flowad convert --config=cflow_mvtec:bottle \
      --config.data.root=/path/to/mvtec --checkpoint=bottle.pt --workdir=runs/bottle
  flowad predict --workdir=runs/bottle --input=new/ --output=found

  # whose code wrote a file, what is in it, and what becomes of every tensor
  flowad convert --explain --checkpoint=bottle.pt

  # the way back: what the authors' code loads, also from a run of `flowad train`
  flowad convert --reverse --workdir=runs/bottle --output=bottle_back.pt

--dry_run does everything but write.

Exit status: 0 done, 1 the input has a fault that you can mend, 2 wrong usage.
"""

import sys
from pathlib import Path
from typing import Any

from absl import flags

from flowad_jax.arguments import fail
from flowad_jax.cli import scripts
from flowad_jax.errors import UserError

_APART = (
    *(("explain", other) for other in ("reverse", "verify", "dry_run", "output", "workdir")),
    ("reverse", "verify"),
    *(("arch", other) for other in ("workdir", "config", "clamp")),
    ("reverse", "config"),
)


def define_flags() -> None:
    """Defines the flags of the command."""
    scripts.define_config()
    scripts.define_allow_import()
    flags.adopt_module_key_flags(scripts)
    flags.DEFINE_string("arch", None, "Encoder, e.g. resnet.resnet18; a wrong name lists all.")
    flags.DEFINE_string(
        "checkpoint",
        None,
        "PyTorch file: .pth, .pt or .ckpt (zip or legacy format) or .safetensors; with --reverse a "
        "weight file of ours.",
    )
    flags.DEFINE_string(
        "output",
        None,
        "File to write: .safetensors or .npz; with --reverse .pth, .pt or .safetensors.",
    )
    flags.DEFINE_string("workdir", None, "Folder to make of a detector; with --reverse, to read.")
    flags.DEFINE_enum(
        "clamp",
        None,
        ("tanh", "tanh_ratio"),
        "How a detector bounds its log-scales: alpha * tanh(s), FrEIA before August 2023, or "
        "alpha * tanh(s / alpha). Default: what the file shows or, where it does not, what makes "
        "normal images likelier; both likelihoods are printed.",
    )
    flags.DEFINE_bool("reverse", False, "Convert what is ours back to PyTorch's names and layouts.")
    flags.DEFINE_bool("explain", False, "Print the table of the conversion and write nothing.")
    flags.DEFINE_bool(
        "verify",
        False,
        "Compare with PyTorch's network before writing: every layer of an encoder, "
        "likelihoods and anomaly maps of a detector.",
    )
    flags.DEFINE_bool("dry_run", False, "Do everything but write.")


def check_flags() -> None:
    """Ends the process where flags are missing or do not go together."""
    chosen = flags.FLAGS
    for one, other in _APART:
        if chosen[one].value and chosen[other].value:
            fail(2, f"--{one} and --{other} do not go together: leave one of them out; see --help")
    if chosen.explain:
        needed, target = [] if chosen.arch else ["checkpoint"], []
    elif _is_detector():
        needed = ["workdir"] if chosen.reverse else ["config", "checkpoint"]
        target = ["output"] if chosen.reverse else ["workdir"]
    else:
        needed, target = ["arch", "checkpoint"], ["output"]
    scripts.require(needed if chosen.dry_run else needed + target)
    same = chosen.output and chosen.checkpoint
    if same and Path(chosen.output).resolve() == Path(chosen.checkpoint).resolve():
        fail(2, f"--output={chosen.output} is the file that is read: name another")


def _is_detector() -> bool:
    return flags.FLAGS.workdir is not None or flags.FLAGS.config is not None


def job() -> None:
    """Does one conversion, or explains it."""
    from flowad_jax.weights import layout

    chosen = flags.FLAGS
    output, workdir = (None if chosen.dry_run else name for name in (chosen.output, chosen.workdir))
    try:
        if chosen.explain and chosen.arch:
            from flowad_jax.encoders import weight_files

            print(weight_files.conversion_table(chosen.arch, chosen.checkpoint))
        elif chosen.explain:
            from flowad_jax.conversion import explain

            print(explain.explained(chosen.checkpoint))
        elif _is_detector():
            from flowad_jax.conversion import detector, export

            if chosen.reverse:
                export.export(chosen.workdir, output, allow_import=chosen.allow_import)
            else:
                verify = _verified_detector if chosen.verify else None
                detector.convert(chosen.checkpoint, chosen.config, workdir, chosen.clamp, verify)
        else:
            from flowad_jax.conversion import encoder

            if chosen.reverse:
                encoder.export(chosen.arch, chosen.checkpoint, output)
            else:
                verify_layers = _verified_encoder if chosen.verify else None
                encoder.convert(chosen.arch, chosen.checkpoint, output, verify_layers)
    except layout.ConversionError as error:
        print(error.lists(), file=sys.stderr)
        raise


def _pytorch_side() -> Any:
    """Returns the module that runs PyTorch's networks, which only a checkout has."""
    try:
        from peers import verification
    except ModuleNotFoundError:
        raise UserError(
            "--verify needs the folder peers/ of a checkout: run 'python convert_torch_weights.py' "
            "there"
        ) from None
    return verification


def _verified_encoder(variables: Any) -> dict[str, Any]:
    """Compares with PyTorch's network and returns what goes into the card."""
    from flowad_jax.encoders import architecture, verify

    chosen = flags.FLAGS
    verification = _pytorch_side()
    encoder = architecture.find(chosen.arch)
    tensors = verify.trunk(encoder, verification.file_state(encoder.spec.peer, chosen.checkpoint))
    peer = verification.network(encoder.spec.peer, verify.side(encoder.spec), tensors)
    report = verify.compare(encoder, variables, peer)
    print(verify.table(report))
    verify.check(report, chosen.checkpoint)
    return verification.described(encoder.spec.peer) | report.card()


def _verified_detector(found: Any, system: Any, variables: Any) -> dict[str, Any]:
    """Compares with PyTorch's flows and returns what goes into the card."""
    from flowad_jax.conversion import verify
    from flowad_jax.weights import torch_file

    verification = _pytorch_side()
    content = torch_file.read(flags.FLAGS.checkpoint)
    method = system.config.method.to_dict()
    peer = verification.detector(found.dialect, content, found.channels, method)
    report = verify.compare(found, system, variables, peer)
    print(verify.shown(report))
    return verification.described("FrEIA") | report


def main() -> None:
    """Runs the command with the words of ``sys.argv``."""
    scripts.run(__doc__, define_flags, job, check=check_flags)
