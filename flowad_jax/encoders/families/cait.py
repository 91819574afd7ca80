"""CaiT, "class-attention in image transformers", without its class-attention.

Touvron, Cord, Sablayrolles, Synnaeve, Jegou, "Going deeper with Image Transformers" (ICCV 2021):
patches of 16 x 16 px become tokens; only behind all blocks does a class token look at them, so
that feature maps need none. Blocks have LayerScale and attention with talking heads.

A tap is the output of one block, counted from 0. As in SSNF and in FastFlow (block 40 of M48) the
network's last LayerNorm is applied to it, though that was trained for the last block;
``final_norm=False`` gives the bare output, which the taps 15, 31 and 47 of CFLOW-AD's and
SANFlow's code are. Position codes are learned for one image size and interpolated for others.
"""

from functools import partial

from flowad_jax.encoders import transformer
from flowad_jax.types import EncoderSpec, Published

IGNORABLE = (r"cls_token", r"(blocks_token_only|head)\..*")
torch_key = transformer.torch_key

_CAIT = partial(transformer.Transformer, talking=True, scale="block", final_norm=True)

cait_xxs24_224 = partial(_CAIT, depth=24, dim=192, heads=4, size=224)
cait_xxs24_384 = partial(_CAIT, depth=24, dim=192, heads=4, size=384)
cait_xxs36_224 = partial(_CAIT, depth=36, dim=192, heads=4, size=224)
cait_xxs36_384 = partial(_CAIT, depth=36, dim=192, heads=4, size=384)
cait_xs24_384 = partial(_CAIT, depth=24, dim=288, heads=6, size=384)
cait_s24_224 = partial(_CAIT, depth=24, dim=384, heads=8, size=224)
cait_s24_384 = partial(_CAIT, depth=24, dim=384, heads=8, size=384)
cait_s36_384 = partial(_CAIT, depth=36, dim=384, heads=8, size=384)
cait_m36_384 = partial(_CAIT, depth=36, dim=768, heads=16, size=384)
cait_m48_448 = partial(_CAIT, depth=48, dim=768, heads=16, size=448)
# For tests: 48 thousand parameters, no published weights.
cait_tiny = partial(_CAIT, depth=4, dim=24, heads=3, size=64)


def _published(
    variant: str, factory: partial[transformer.Transformer], megabytes: float
) -> EncoderSpec:
    file = f"{variant.removeprefix('cait_').upper()}.pth"
    url = f"https://dl.fbaipublicfiles.com/deit/{file}"
    weights = Published(file, url, "Apache-2.0", megabytes)
    return transformer.spec(f"cait.{variant}", factory, weights, variant)


SPECS = {
    "cait_xxs24_224": _published("cait_xxs24_224", cait_xxs24_224, 47.8),
    "cait_xxs24_384": _published("cait_xxs24_384", cait_xxs24_384, 48.1),
    "cait_xxs36_224": _published("cait_xxs36_224", cait_xxs36_224, 69.2),
    "cait_xxs36_384": _published("cait_xxs36_384", cait_xxs36_384, 69.5),
    "cait_xs24_384": _published("cait_xs24_384", cait_xs24_384, 106.7),
    "cait_s24_224": _published("cait_s24_224", cait_s24_224, 187.7),
    "cait_s24_384": _published("cait_s24_384", cait_s24_384, 188.2),
    "cait_s36_384": _published("cait_s36_384", cait_s36_384, 273.5),
    "cait_m36_384": _published("cait_m36_384", cait_m36_384, 1084.9),
    "cait_m48_448": _published("cait_m48_448", cait_m48_448, 1425.8),
    "cait_tiny": transformer.spec("cait.cait_tiny", cait_tiny),
}
