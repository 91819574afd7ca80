"""Writes a detector's checkpoint as the authors' code or anomalib does, of the published shapes.

    python -m benchmarks.dialects --dialect=cflow --output=cflow.pt

Weights are random; dialects that hold their encoder get an untrained Wide-ResNet-50-2. The file is
what `convert_torch_weights.py --verify` is measured on. Needs the `peers` extra.
"""

from __future__ import annotations

import argparse
from typing import Any

from peers import detectors, encoders

CHANNELS = {
    **dict.fromkeys(("cflow", "sanflow", "anomalib"), (512, 1024, 2048)),
    "msflow": (256, 512, 1024),
    "ssnf": (768,),
}


def untrained_encoder() -> dict[str, Any]:
    """A Wide-ResNet-50-2 whose feature maps have a sensible size."""
    import torch

    torch.manual_seed(0)
    state = encoders.build("torchvision.wide_resnet50_2").state_dict()
    for name, tensor in state.items():
        if name.endswith("bn3.weight"):  # or every block would double the variance
            tensor.fill_(0.2)
    return {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}


def content(dialect: str, freia: str) -> dict[str, Any]:
    """What ``torch.save`` is given."""
    made = detectors.build(dialect, CHANNELS[dialect], freia=freia, strength=1.0)
    if dialect not in ("cflow", "sanflow", "anomalib"):
        return made.content()
    found = made.content(untrained_encoder())
    if dialect == "anomalib":
        layers = ("layer2", "layer3", "layer4")
        found["hyper_parameters"] |= {"backbone": "wide_resnet50_2", "layers": layers}
    return found


def main() -> None:
    """Writes the file."""
    import torch

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dialect", choices=detectors.DIALECTS, required=True)
    parser.add_argument("--freia", default="0.2", help="version of the blocks, see peers/freia.py")
    parser.add_argument("--output", required=True, help="file to write")
    options = parser.parse_args()
    torch.save(content(options.dialect, options.freia), options.output)


if __name__ == "__main__":
    main()
