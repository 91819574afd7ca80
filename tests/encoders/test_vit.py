"""ViT, DeiT and DINOv2 against timm, live and from stored tensors, and what methods make of them.

``python -m tests.encoders.test_vit`` computes the stored tensors again, where timm is installed.
"""

import functools
from importlib.util import find_spec
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

from flowad_jax.encoders import architecture, load, vit
from flowad_jax.encoders.taps import choose_taps
from flowad_jax.errors import UserError
from flowad_jax.weights import layout
from peers import encoders as peers
from tests.encoders import maps

STORED = Path(__file__).parents[1] / "golden" / "encoder_vit.npz"
SIZES = {"vit_tiny": [(64, 64), (48, 96)], "dinov2_tiny": [(56, 56), (84, 42)]}
BLOCKS = (0, 1, 2, 3)
# These programs are long, and nothing here depends on XLA's effort.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
needs_timm = [
    pytest.mark.live,
    pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed"),
]
CASES = [(variant, size) for variant, sizes in SIZES.items() for size in sizes]
PUBLISHED = [variant for variant, spec in vit.SPECS.items() if spec.weights]


def shapes(variant):
    return architecture.complete_shapes(architecture.find(f"vit.{variant}"))


def tensor(key, shape):
    """Tokens and codes of a size that matters."""
    return peers.random_tensor(f"vit.{key}", shape)


@functools.cache
def state(variant):
    rules = layout.rules(shapes(variant), vit.torch_key)
    return {rule.key: tensor(rule.key, rule.torch_shape) for rule in rules}


def ours(variant, image, taps, tensors=None, **options):
    tensors = state(variant) if tensors is None else tensors
    weights = layout.to_flax(
        vit.from_dialect(tensors), shapes(variant), vit.torch_key, vit.IGNORABLE, variant
    )
    module = getattr(vit, variant)(taps=taps, **options)
    return jit(module.apply)(weights, image)


def peer(variant):
    """A network of timm with the measures of one of ours."""
    peers.torchvision()
    from timm.models.vision_transformer import VisionTransformer

    trunk = getattr(vit, variant).keywords
    registers = trunk.get("registers", 0)
    distilled = "dist_token" in trunk.get("coded", ())
    model = VisionTransformer(
        img_size=trunk["size"],
        patch_size=trunk.get("patch", 16),
        embed_dim=trunk["dim"],
        depth=trunk["depth"],
        num_heads=trunk["heads"],
        init_values=1.0 if trunk.get("layer_scale") else None,
        reg_tokens=registers or int(distilled),  # a second coded token is one register to timm
        no_embed_class=bool(registers),
        dynamic_img_size=True,
        num_classes=0,
    )
    return model.eval()


def named_as_in_timm(variant):
    """The weights of `state` under timm's names; see `vit.from_dialect`."""
    tensors = dict(state(variant))
    if "register_tokens" in tensors:
        code = tensors["pos_embed"]
        tensors["cls_token"] = tensors["cls_token"] + code[:, :1]
        tensors["pos_embed"] = code[:, 1:]
        tensors["reg_token"] = tensors.pop("register_tokens")
    if "dist_token" in tensors:
        tensors["reg_token"] = tensors.pop("dist_token")
    return tensors


def peer_taps(model, image, final_norm, count):
    import torch

    with torch.no_grad():
        taps = model.forward_intermediates(
            peers.channels_first(image), indices=count, norm=final_norm, intermediates_only=True
        )
    return [tap.permute(0, 2, 3, 1).numpy() for tap in taps]


@pytest.mark.parametrize("final_norm", [True, False])
@pytest.mark.parametrize(("variant", "size"), CASES)
def test_every_block_agrees_with_tensors_of_timm(variant, size, final_norm):
    kind = "norm" if final_norm else "bare"
    with np.load(STORED) as file:
        stored = [file[f"{variant}_{size[0]}x{size[1]}_{kind}_{tap}"] for tap in BLOCKS]
    taps = ours(variant, maps.image(*size), BLOCKS, final_norm=final_norm)
    maps.assert_close([maps.sample(tap) for tap in taps], stored)


class TestLive:
    pytestmark = needs_timm

    @pytest.mark.parametrize("final_norm", [True, False])
    @pytest.mark.parametrize(("variant", "size"), CASES)
    def test_every_block_agrees_with_timm(self, variant, size, final_norm):
        model, image = peer(variant), maps.image(*size, batch=2)
        peers.fill(model, named_as_in_timm(variant))
        theirs = peer_taps(model, image, final_norm, 4)
        maps.assert_close(ours(variant, image, BLOCKS, final_norm=final_norm), theirs)

    @pytest.mark.parametrize(
        ("variant", "size"),
        [
            ("vit_base_patch16_224", (224, 160)),
            ("deit_base_distilled_patch16_384", (384, 384)),
            ("dinov2_vits14", (112, 140)),
            ("dinov2_vits14_reg", (112, 140)),
        ],
    )
    def test_published_networks_agree_with_timm(self, variant, size):
        spec = vit.SPECS[variant]
        options = {} if size == (spec.size, spec.size) else {"dynamic_img_size": True}
        model = peers.build(spec.peer, **options)
        tensors = peers.random_state(model)
        peers.fill(model, tensors)
        image, taps = maps.image(*size), (2, 6, 10)
        theirs = peer_taps(model, image, False, list(taps))
        maps.assert_close(ours(variant, image, taps, tensors, final_norm=False), theirs)

    @pytest.mark.parametrize("variant", PUBLISHED)
    def test_spec_names_and_shapes_are_those_of_timm(self, variant):
        import timm
        import torch

        peers.torchvision()
        spec = vit.SPECS[variant]
        with torch.device("meta"):
            model = timm.create_model(spec.peer.removeprefix("timm."))
        theirs = {key: np.empty(value.shape, bool) for key, value in model.state_dict().items()}
        theirs = vit.from_dialect(theirs)
        rules = layout.rules(shapes(variant), vit.torch_key)
        assert {rule.key: rule.torch_shape for rule in rules} == {
            key: value.shape for key, value in theirs.items() if not key.startswith("head")
        }
        if "base_patch16" in spec.peer and "deit" not in spec.peer:
            name = f"{variant}.orig_in21k_ft_in1k"
        else:
            name = spec.peer.removeprefix("timm.")
        settings = timm.get_pretrained_cfg(name)
        assert settings.url == spec.weights.source
        assert settings.input_size == (3, spec.size, spec.size)
        assert (spec.mean, spec.std) == (settings.mean, settings.std)
        parameters = sum(leaf.numel() for leaf in model.parameters())
        assert spec.weights.megabytes == pytest.approx(parameters * 4e-6, abs=0.1)


@pytest.mark.parametrize("variant", vit.SPECS)
def test_every_variant_keeps_its_promise(variant):
    spec = vit.SPECS[variant]
    assert spec.name == f"vit.{variant}"
    taps = (0, len(spec.channels) - 1)
    module = getattr(vit, variant)(taps=taps)
    image = jax.ShapeDtypeStruct((2, 3 * spec.multiple, 5 * spec.multiple, 3), np.float32)
    found = jax.eval_shape(lambda x: module.init_with_output(jax.random.key(0), x)[0], image)
    assert [tap.shape for tap in found] == [(2, 3, 5, spec.channels[tap]) for tap in taps]


def test_the_taps_of_cflow_are_what_the_message_proposes():
    spec = vit.SPECS["vit_base_patch16_224"]
    with pytest.raises(UserError, match=r"of stride 16 only: set encoder\.taps=\(2, 6, 10\)$"):
        choose_taps(spec, None, (8, 16, 32))


def test_files_in_both_spellings_are_converted_alike(tmp_path):
    results = []
    for name, tensors in (
        ("a", state("dinov2_tiny")),
        ("b", named_as_in_timm("dinov2_tiny")),
    ):
        path = tmp_path / f"{name}.safetensors"
        safetensors.numpy.save_file(dict(tensors), path)
        encoder = load.load("vit.dinov2_tiny", path, taps=(1, 3))
        results.append(jit(encoder.apply)(encoder.variables, maps.image(56, 70)))
    maps.assert_close(*results)


def test_an_image_of_broken_patches_is_told_the_next_size():
    encoder = load.load("vit.dinov2_tiny", "random", taps=(0,))
    with pytest.raises(UserError, match=r"64 x 56 px: .*patches of 14 px.* 70 x 56, see"):
        encoder.apply(encoder.variables, maps.image(64, 56))


def main():
    arrays = {}
    for variant, size in CASES:
        model = peer(variant)
        peers.fill(model, named_as_in_timm(variant))
        for kind, final_norm in (("norm", True), ("bare", False)):
            taps = peer_taps(model, maps.image(*size), final_norm, 4)
            for tap, values in enumerate(taps):
                arrays[f"{variant}_{size[0]}x{size[1]}_{kind}_{tap}"] = maps.sample(values)
    np.savez_compressed(STORED, allow_pickle=False, **arrays)


if __name__ == "__main__":
    main()
