"""What only a transformer can get wrong: memory of attention, position codes, patches, namings."""

import jax
import numpy as np
import pytest
import safetensors.numpy

from flowad_jax.encoders import architecture, load, transformer
from flowad_jax.errors import UserError
from flowad_jax.weights import store
from tests.encoders import maps, tiny_transformers

TINY, DINO = "cait.cait_tiny", "vit.dinov2_tiny"


def test_groups_of_queries_change_nothing_but_the_memory(monkeypatch):
    """Of 16 queries: all, groups of 8, one by one; seen in the program, not only asked for."""
    weights, image = maps.random_variables(TINY), maps.image(64, 64, batch=2)
    module = architecture.find(TINY).factory(taps=(0,))
    results = []
    for entries, loops in ((transformer.ENTRIES, 0), (16 * 3 * 2 * 8, 1), (1, 1)):
        monkeypatch.setattr(transformer, "ENTRIES", entries)
        lowered = jax.jit(lambda w, image: module.apply(w, image)).lower(weights, image)
        assert lowered.as_text().count("stablehlo.while") == loops
        results.append(lowered.compile()(weights, image))
    maps.assert_close(results[1], results[0])
    maps.assert_close(results[2], results[0])


def test_attention_takes_less_memory_than_its_entries():
    """In blocks like M48's: 32 images have 1.26 GB of attention, and no block leaves any behind."""

    def scratch(blocks):
        module = architecture.find("cait.cait_m48_448").factory(taps=(blocks - 1,))
        image = jax.ShapeDtypeStruct((32, 448, 448, 3), np.float32)
        weights = jax.eval_shape(module.init, jax.random.key(0), image)
        analysis = jax.jit(module.apply).lower(weights, image).compile().memory_analysis()
        return analysis.temp_size_in_bytes

    few, many = scratch(2), scratch(4)
    assert few < 32 * 16 * 784 * 784 * 4
    assert many < 1.05 * few


def test_the_last_normalisation_can_be_left_out():
    encoders = [load.load(TINY, "random", taps=(1,), final_norm=norm) for norm in (None, False)]
    assert ["norm" in encoder.variables["params"] for encoder in encoders] == [True, False]
    (normal,), (bare,) = (jax.jit(e.apply)(e.variables, maps.image(64, 64)) for e in encoders)
    expected = (bare - bare.mean(-1, keepdims=True)) / bare.std(-1, keepdims=True)
    np.testing.assert_allclose(normal, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        (TINY, (64, 70), r"64 x 70 px.*patches of 16 px.* 64 x 64, see"),
        (DINO, (64, 56), r"64 x 56 px: .*patches of 14 px.* 70 x 56, see"),
    ],
)
def test_an_image_of_broken_patches_is_told_the_next_size(name, size, message):
    encoder = load.load(name, "random", taps=(0,))
    with pytest.raises(UserError, match=message):
        encoder.apply(encoder.variables, maps.image(*size))


def test_codes_of_the_own_size_stay_and_others_are_smooth():
    code = np.arange(16, dtype=np.float32).reshape(1, 16, 1)
    np.testing.assert_array_equal(transformer.resized(code, (4, 4)), code)
    wide = np.asarray(transformer.resized(code, (4, 8))).reshape(4, 8)
    assert (np.diff(wide, axis=1) > 0).all()
    np.testing.assert_allclose(wide[:, 3:5].mean(1), code.reshape(4, 4)[:, 1:3].mean(1), rtol=1e-5)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_file_of_the_complete_cait_is_converted(tmp_path, prefix):
    """What it has beside the patch blocks stays unused."""
    path = tmp_path / "TINY_64.safetensors"
    tensors = maps.torch_state(TINY) | {
        "cls_token": np.ones((1, 1, 24), np.float32),
        "blocks_token_only.0.attn.q.weight": np.ones((24, 24), np.float32),
        "head.bias": np.ones(10, np.float32),
    }
    safetensors.numpy.save_file({f"{prefix}{k}": v for k, v in tensors.items()}, path)
    encoder = load.load(TINY, path, taps=(0, 1, 2, 3))
    maps.assert_same(encoder.variables, maps.random_variables(TINY))
    store.save(tmp_path / "ours.npz", *load.convert_checkpoint(TINY, path))
    again = load.load(TINY, tmp_path / "ours.npz", taps=(1,), final_norm=False)
    blocks = (e.variables["params"]["blocks_1"] for e in (again, encoder))
    maps.assert_same(*blocks)


@pytest.mark.live
def test_the_authors_files_keep_the_network_under_a_name_of_its_own(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "TINY_64.pth"
    state = {f"module.{k}": torch.from_numpy(v) for k, v in maps.torch_state(TINY).items()}
    torch.save({"model": state, "epoch": 3}, path)
    encoder = load.load(TINY, path, taps=(0, 1, 2, 3))
    maps.assert_same(encoder.variables, maps.random_variables(TINY))


def test_files_in_both_spellings_of_dinov2_are_converted_alike(tmp_path):
    results = []
    for file, tensors in (
        ("a", maps.torch_state(DINO)),
        ("b", tiny_transformers.named_as_in_timm(DINO)),
    ):
        path = tmp_path / f"{file}.safetensors"
        safetensors.numpy.save_file(dict(tensors), path)
        encoder = load.load(DINO, path, taps=(1,))
        results.append(jax.jit(encoder.apply)(encoder.variables, maps.image(56, 70)))
    maps.assert_close(*results)
