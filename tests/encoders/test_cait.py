"""CaiT against timm, live and from stored tensors, and what only a transformer can get wrong.

``python -m tests.encoders.test_cait`` computes the stored tensors again, where timm is installed.
"""

import functools
from importlib.util import find_spec
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

from flowad_jax.encoders import architecture, attention, cait, load, position
from flowad_jax.errors import UserError
from flowad_jax.weights import layout, store
from peers import encoders as peers
from tests.encoders import maps

TINY = "cait.cait_tiny"
STORED = Path(__file__).parents[1] / "golden" / "encoder_cait_tiny.npz"
IMAGE = maps.image(64, 64, batch=2)
BLOCKS = (0, 1, 2, 3)
# These networks are deep and their programs long; nothing here depends on XLA's effort.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
needs_timm = [
    pytest.mark.live,
    pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed"),
]


def tensor(key, shape):
    return peers.random_tensor(f"cait.{key}", shape)


def shapes(variant):
    return architecture.complete_shapes(architecture.find(f"cait.{variant}"))


@functools.cache
def torch_state(variant):
    """Random weights in torch's layout for every variable of ours."""
    rules = layout.rules(shapes(variant), cait.torch_key)
    return {rule.key: tensor(rule.key, rule.torch_shape) for rule in rules}


def with_head(variant):
    """The same, and what the complete network has beside: it stays unused."""
    return torch_state(variant) | {
        "cls_token": np.ones((1, 1, 24), np.float32),
        "blocks_token_only.0.attn.q.weight": np.ones((24, 24), np.float32),
        "head.bias": np.ones(10, np.float32),
    }


def variables(variant):
    return layout.to_flax(torch_state(variant), shapes(variant), cait.torch_key, (), "random")


def ours(variant, image, taps, **options):
    module = getattr(cait, variant)(taps=taps, **options)
    return jit(module.apply)(variables(variant), image)


def peer(variant, **options):
    """A network of timm; it makes its own weights only to lose them."""
    peers.torchvision()
    from timm.models.cait import Cait

    trunk = getattr(cait, variant).keywords
    model = Cait(
        img_size=trunk["size"],
        patch_size=cait.PATCH,
        embed_dim=trunk["dim"],
        depth=trunk["depth"],
        num_heads=trunk["heads"],
        num_classes=10,
        **options,
    )
    return model.eval()


def published(variant):
    """A network of timm without values, which costs next to nothing."""
    import torch

    peers.torchvision()
    import timm

    with torch.device("meta"):
        return timm.create_model(variant)


def peer_taps(model, image, taps, final_norm):
    import torch

    missing, extra = model.load_state_dict(
        {key: torch.from_numpy(value) for key, value in torch_state("cait_tiny").items()},
        strict=False,
    )
    assert not extra
    assert all(key.startswith(("cls_token", "blocks_token_only", "head")) for key in missing)
    with torch.no_grad():
        taps = model.forward_intermediates(
            peers.channels_first(image),
            indices=list(taps),
            norm=final_norm,
            intermediates_only=True,
        )
    return [tap.permute(0, 2, 3, 1).numpy() for tap in taps]


@pytest.mark.parametrize("final_norm", [True, False])
def test_every_block_agrees_with_tensors_of_timm(final_norm):
    with np.load(STORED) as file:
        stored = [file[f"tap{index}_{'norm' if final_norm else 'bare'}"] for index in BLOCKS]
    maps.assert_close(ours("cait_tiny", IMAGE, BLOCKS, final_norm=final_norm), stored)


class TestLive:
    pytestmark = needs_timm

    @pytest.mark.parametrize("final_norm", [True, False])
    def test_every_block_agrees_with_timm(self, final_norm):
        image = maps.image(64, 64, batch=3)
        theirs = peer_taps(peer("cait_tiny"), image, BLOCKS, final_norm)
        maps.assert_close(ours("cait_tiny", image, BLOCKS, final_norm=final_norm), theirs)

    def test_codes_are_interpolated_as_in_timm(self):
        import torch

        peers.torchvision()
        from timm.layers.pos_embed import resample_abs_pos_embed

        rng = np.random.default_rng(0)
        code = rng.standard_normal((1, 64, 6)).astype(np.float32)
        for grid in ((8, 8), (5, 11), (13, 3), (16, 16)):
            theirs = resample_abs_pos_embed(
                torch.from_numpy(code), new_size=list(grid), num_prefix_tokens=0
            )
            np.testing.assert_allclose(position.resized(code, grid), theirs, atol=1e-5)

    @pytest.mark.parametrize("variant", ["cait_xxs24_224", "cait_m48_448"])
    def test_names_and_shapes_are_those_of_the_published_network(self, variant):
        """Of the complete network: what is left over is what a converter may ignore."""
        state = published(variant).state_dict()
        left_over = ("cls_token", "blocks_token_only.", "head.")
        theirs = {k: tuple(v.shape) for k, v in state.items() if not k.startswith(left_over)}
        rules = layout.rules(shapes(variant), cait.torch_key)
        assert {rule.key: rule.torch_shape for rule in rules} == theirs

    @pytest.mark.parametrize("variant", [v for v in cait.SPECS if v != "cait_tiny"])
    def test_measures_are_those_of_the_published_networks(self, variant):
        model, spec = published(variant), cait.SPECS[variant]
        assert len(spec.channels) == len(model.blocks)
        assert set(spec.channels) == {model.embed_dim}
        assert getattr(cait, variant).keywords["heads"] == model.blocks[0].attn.num_heads
        settings = model.pretrained_cfg
        assert (spec.mean, spec.std) == (settings["mean"], settings["std"])
        assert settings["input_size"] == (3, spec.size, spec.size)
        assert settings["url"] == spec.weights.source


def test_groups_of_queries_change_nothing_but_the_memory(monkeypatch):
    """Of 16 queries: all, groups of 8, one by one; seen in the program, not only asked for."""
    weights = variables("cait_tiny")
    module = cait.cait_tiny(taps=(1,))
    results = []
    for entries, loops in ((attention.ENTRIES, 0), (16 * 3 * 2 * 8, 2), (1, 2)):
        monkeypatch.setattr(attention, "ENTRIES", entries)
        lowered = jit(lambda w, image: module.apply(w, image)).lower(weights, IMAGE)
        assert lowered.as_text().count("stablehlo.while") == loops
        results.append(lowered.compile()(weights, IMAGE))
    maps.assert_close(results[1], results[0])
    maps.assert_close(results[2], results[0])


def test_attention_takes_less_memory_than_its_entries():
    """In blocks like M48's: 32 images have 1.26 GB of attention, and no block leaves any behind."""

    def scratch(blocks):
        module = cait.cait_m48_448(taps=(blocks - 1,))
        image = jax.ShapeDtypeStruct((32, 448, 448, 3), np.float32)
        weights = jax.eval_shape(module.init, jax.random.key(0), image)
        return jit(module.apply).lower(weights, image).compile().memory_analysis()

    few, many = (scratch(blocks).temp_size_in_bytes for blocks in (2, 4))
    assert few < 32 * 16 * 784 * 784 * 4
    assert many < 1.05 * few


def test_taps_are_blocks_and_the_published_one_is_a_number():
    encoder = load.load(TINY, "random", taps=(0, 2))
    taps = jit(encoder.apply)(encoder.variables, IMAGE)
    every = ours_random(BLOCKS)
    maps.assert_close(taps, (every[0], every[2]))
    assert "blocks_3" not in encoder.variables["params"]
    assert load.load(TINY, "random", strides=(16,)).taps == (3,)
    with pytest.raises(
        UserError, match=r"encoder\.strides .* of stride 16 only: set encoder\.taps=\(0, 2, 3\)"
    ):
        load.load(TINY, "random")
    spec = cait.SPECS["cait_m48_448"]
    assert len(spec.channels) == len(spec.strides) == 48
    assert (spec.channels[40], spec.strides[40], spec.size) == (768, 16, 448)


def ours_random(taps, **options):
    encoder = load.load(TINY, "random", taps=taps, **options)
    return jit(encoder.apply)(encoder.variables, IMAGE)


def test_the_last_normalisation_can_be_left_out():
    normal, bare = ours_random((2,)), ours_random((2,), final_norm=False)
    mean, std = bare[0].mean(-1, keepdims=True), bare[0].std(-1, keepdims=True)
    np.testing.assert_allclose(normal[0], (bare[0] - mean) / std, atol=1e-4)
    assert "norm" not in load.load(TINY, "random", (0,), final_norm=False).variables["params"]
    with pytest.raises(UserError, match=r"encoder\.final_norm=True: 'resnet\.resnet_tiny' has no"):
        load.load("resnet.resnet_tiny", "random", final_norm=True)
    with pytest.raises(UserError, match=r"encoder\.padding='zeros': 'cait\.cait_tiny' has no"):
        load.load(TINY, "random", taps=(0,), padding="zeros")


def test_an_image_of_broken_patches_is_told_the_next_size():
    encoder = load.load(TINY, "random", taps=(0,))
    with pytest.raises(UserError, match=r"64 x 70 px.*patches of 16 px.* 64 x 64, see"):
        encoder.apply(encoder.variables, maps.image(64, 70))


def test_codes_of_the_own_size_stay_and_others_are_smooth():
    code = np.arange(16, dtype=np.float32).reshape(1, 16, 1)
    np.testing.assert_array_equal(position.resized(code, (4, 4)), code)
    wide = np.asarray(position.resized(code, (4, 8))).reshape(4, 8)
    assert (np.diff(wide, axis=1) > 0).all()
    np.testing.assert_allclose(wide[:, 3:5].mean(1), code.reshape(4, 4)[:, 1:3].mean(1), rtol=1e-5)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_file_of_the_complete_network_is_converted(tmp_path, prefix):
    path = tmp_path / "TINY_64.safetensors"
    tensors = {f"{prefix}{key}": value for key, value in with_head("cait_tiny").items()}
    safetensors.numpy.save_file(tensors, path)
    encoder = load.load(TINY, path, taps=BLOCKS)
    jax.tree.map(np.testing.assert_array_equal, encoder.variables, variables("cait_tiny"))
    store.save(tmp_path / "ours.npz", *load.convert_checkpoint(TINY, path))
    again = load.load(TINY, tmp_path / "ours.npz", taps=(1,), final_norm=False)
    jax.tree.map(
        np.testing.assert_array_equal,
        again.variables["params"]["blocks_1"],
        encoder.variables["params"]["blocks_1"],
    )


@pytest.mark.live
@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")
def test_the_authors_files_keep_the_network_under_a_name_of_its_own(tmp_path):
    import torch

    path = tmp_path / "TINY_64.pth"
    state = {f"module.{k}": torch.from_numpy(v) for k, v in with_head("cait_tiny").items()}
    torch.save({"model": state, "epoch": 3}, path)
    encoder = load.load(TINY, path, taps=BLOCKS)
    jax.tree.map(np.testing.assert_array_equal, encoder.variables, variables("cait_tiny"))


def main():
    model = peer("cait_tiny")
    arrays = {}
    for kind, final_norm in (("norm", True), ("bare", False)):
        for index, tap in enumerate(peer_taps(model, IMAGE, BLOCKS, final_norm)):
            arrays[f"tap{index}_{kind}"] = tap
    np.savez_compressed(STORED, allow_pickle=False, **arrays)


if __name__ == "__main__":
    main()
