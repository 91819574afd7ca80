"""What families of encoders have in common: torch's names of variables, sources, normalisation."""

import re

from flowad_jax.types import Published

Triple = tuple[float, float, float]
Norm = tuple[Triple, Triple]  # mean and standard deviation of pixels in [0, 1]

IMAGENET: Norm = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF: Norm = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


def torch_key(path: tuple[str, ...]) -> str:
    """Returns the torch name of a variable; numbers of modules follow a dot there.

    ``("batch_stats", "layer1_0", "bn1", "mean")`` is ``"layer1.0.bn1.running_mean"``.
    """
    *modules, leaf = path[1:]
    return ".".join([*(re.sub(r"_(?=\d)", ".", m) for m in modules), LEAVES.get(leaf, leaf)])


def of_torchvision(variant: str, digest: str, megabytes: float) -> Published:
    """Returns torchvision's first ImageNet weights."""
    file = f"{variant}-{digest}.pth"
    url = f"https://download.pytorch.org/models/{file}"
    return Published(file, url, "BSD-3-Clause", megabytes)


def of_timm(file: str, megabytes: float, release: str = "v0.1-weights") -> Published:
    """Returns weights of a release of timm."""
    releases = "https://github.com/rwightman/pytorch-image-models/releases/download"
    return Published(file, f"{releases}/{release}/{file}", "Apache-2.0", megabytes)
