"""The authors' code of CFLOW-AD."""

from collections.abc import Mapping
from typing import Any

from flowad_jax.weights import freia
from flowad_jax.weights.detectors import Dialect, TorchDetector, resnet_padding
from flowad_jax.weights.state_dicts import Flat, other_keys, size, state_dict, state_dict_list

_VIT_BLOCKS = (10, 2, 6)  # the last ones for fewer decoders


def read(content: Mapping[str, Any]) -> TorchDetector:
    """Converts a checkpoint."""
    decoders = state_dict_list(content, "decoder_state_dict")
    shapes = [freia.ChainShape.of(state) for state in decoders]
    return TorchDetector(
        dialect="cflow",
        method="cflow",
        options=freia.common(shapes, "blocks", "condition", "permutation"),
        **freia.common(shapes, "clamp_kinds"),
        channels=tuple(shape.channels for shape in shapes),
        variables=freia.join_scales([freia.chain(state) for state in decoders]),
        size=size(*decoders),
        encoder=state_dict(content, "encoder_state_dict", finite=False),
        left_out=other_keys(content, "decoder_state_dict", "encoder_state_dict"),
    )


def write(variables: Mapping[str, Any], encoder: Flat | None, indices: bool) -> dict[str, Any]:
    """The way back of `read`."""
    scales = freia.split_scales(variables)
    return {
        "encoder_state_dict": encoder or {},
        "decoder_state_dict": [freia.state_dict(scale, indices=indices) for scale in scales],
    }


def encoder_settings(encoder: str) -> dict[str, Any]:
    """How the encoder is fed."""
    norm = {"data.norm": "mean_as_std"} if encoder.startswith(("vit.", "efficientnet.")) else {}
    return resnet_padding(encoder) | norm


def tap_order(encoder: str, count: int) -> tuple[int, ...] | None:
    """The blocks of a ViT, which are not sorted."""
    known = encoder.startswith("vit.vit_") and count <= len(_VIT_BLOCKS)
    return _VIT_BLOCKS[-count:] if known else None


DIALECT = Dialect(
    known_by="CFLOW-AD (encoder_state_dict, decoder_state_dict)",
    matches=lambda content: "decoder_state_dict" in content and "variance" not in content,
    read=read,
    write=write,
    encoder_settings=encoder_settings,
    tap_order=tap_order,
)
