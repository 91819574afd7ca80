r"""Converts PyTorch weights into a file for flowad_jax. PyTorch is not needed.

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

Exit status: 0 done, 1 the input has a fault that you can mend, 2 wrong usage.
"""

import json
import sys
from pathlib import Path

from absl import flags

from flowad_jax import cli

flags.DEFINE_string("arch", None, "Network, e.g. resnet.resnet18; a wrong name lists all.")
flags.DEFINE_string(
    "checkpoint", None, "PyTorch file: .pth or .pt (zip or legacy format) or .safetensors."
)
flags.DEFINE_string("output", None, "File to write: .safetensors or .npz.")


def main() -> None:
    """Converts one file and prints its card."""
    from flowad_jax.encoders.load import convert_checkpoint
    from flowad_jax.weights import layout, store

    chosen = flags.FLAGS
    store.check_suffix(Path(chosen.output))
    try:
        variables, card = convert_checkpoint(chosen.arch, chosen.checkpoint)
    except layout.ConversionError as error:
        print(error.lists(), file=sys.stderr)
        raise
    store.save(chosen.output, variables, card)
    print(json.dumps(card, indent=2))
    sizes, source = card["sizes"], card["source"]
    print(
        f"wrote {chosen.output}: {sizes['tensors']} tensors, {sizes['parameters']:,} parameters, "
        f"{sizes['bytes'] / 1e6:.1f} MB, from {source['bytes'] / 1e6:.1f} MB"
    )


if __name__ == "__main__":
    cli.run(main, required=("arch", "checkpoint", "output"))
