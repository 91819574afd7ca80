"""Weight files that have changed, or hold what no network computes with, end in one line."""

import json
import os

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from flowad_jax.encoders import load
from flowad_jax.errors import UserError
from flowad_jax.weights import store, streaming, torch_writer
from tests.weights.references import TINY, assert_same, encoder_tensors

VARIABLES = {"params": {"conv": {"kernel": np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)}}}
SUFFIX = pytest.mark.parametrize("suffix", store.SUFFIXES)


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """The folder of an encoder in both formats."""
    folder = tmp_path_factory.mktemp("converted")
    torch_writer.write(folder / "torch.pth", encoder_tensors())
    for suffix in store.SUFFIXES:
        store.save(folder / f"a{suffix}", *load.convert_checkpoint(TINY, folder / "torch.pth"))
    return folder


@SUFFIX
def test_a_flipped_bit_is_found_or_does_no_harm(converted, tmp_path, suffix):
    content = (converted / f"a{suffix}").read_bytes()
    right = store.load(converted / f"a{suffix}")
    path, rng, found = tmp_path / f"a{suffix}", np.random.default_rng(0), 0
    # As many in the header, which is small, as in the rest.
    for place in (*rng.integers(0, 2000, 60), *rng.integers(0, len(content), 60)):
        changed = bytearray(content)
        changed[place] ^= 1 << rng.integers(8)
        path.write_bytes(changed)
        try:
            variables, card = store.load(path)
        except UserError as error:
            assert str(path) in str(error)  # noqa: PT017
            found += 1
        else:
            assert_same(variables, right[0])
            assert card == right[1]
    assert found > 108 if suffix == ".safetensors" else found > 60


@SUFFIX
def test_truncated_files(tmp_path, refused, suffix):
    path = tmp_path / f"a{suffix}"
    refused(path, "does not exist", reader=store.load)
    store.save(path, VARIABLES, {})
    content = path.read_bytes()
    for length in range(1, len(content), 50):
        path.write_bytes(content[:length])
        refused(path, reader=store.load)


def test_values_that_were_changed_on_purpose_are_found(converted, tmp_path):
    path = tmp_path / "a.safetensors"
    tensors, about = streaming.read_safetensors(converted / "a.safetensors")
    changed = {**tensors, "params/conv1/kernel": tensors["params/conv1/kernel"] * 2}
    renamed = json.dumps(json.loads(about["card"]) | {"architecture": "resnet.resnet18"})
    for held, text in ((changed, about["card"]), (tensors, renamed)):
        streaming.write_safetensors(path, held, about | {"card": text})
        with pytest.raises(UserError, match="another SHA-256"):
            load.load(TINY, str(path))
    # A file of before there were digests is read.
    streaming.write_safetensors(path, tensors, {"card": about["card"]})
    assert_same(store.load(path)[0], store.load(converted / "a.safetensors")[0])


def test_the_checksum_of_an_encoder_is_that_of_the_bytes_that_were_read(converted):
    for suffix in store.SUFFIXES:
        path = converted / f"a{suffix}"
        source = load.load(TINY, str(path)).source
        assert source["sha256"] == store.sha256(path)
        assert source["sha256"] != store.load(path)[1]["source"]["sha256"]


NESTED = "[" * 100_000 + "]" * 100_000
CARDS = {
    "list": ("[]", "table"),
    "null": ("null", "table"),
    "text": ('"resnet"', "table"),
    "number": ("7", "table"),
    "true": ("true", "table"),
    "nothing": ("", "cannot be read"),
    "no JSON": ("{", "cannot be read"),
    "deep": (NESTED, "nested"),
    "deep in a key": ('{"sizes": ' + NESTED + "}", "nested"),
    "NaN": ('{"sizes": NaN}', "NaN"),
    "long number": ('{"sizes": ' + "9" * 10_000 + "}", "too large"),
    "key twice": ('{"architecture": "a", "architecture": "b"}', "twice"),
    "control characters": ('{"architecture": "a\\u001b[2J\\u202e"}', r"\x1b"),
    "no architecture": ("{}", "None"),
    **{
        f"{key}={value!r}": (
            json.dumps({"architecture": TINY, "deepest_tap": None, key: value}),
            word,
        )
        for key, value, word in (
            *(("architecture", value, "architecture=") for value in (None, 7, [], {}, True)),
            ("architecture", "resnet.resnet18", "of 'resnet.resnet18', not of"),
            ("architecture", "a\x1b[2J\n", r"of 'a\x1b[2J\n', not of"),
            *(("deepest_tap", v, "deepest_tap=") for v in ("0", -1, 10**6, 0.5, True, [], {})),
            ("deepest_tap", 2**70, "too large"),
        )
    },
}


@pytest.mark.parametrize("name", CARDS)
def test_a_card_of_another_shape_is_one_line(tmp_path, name):
    text, word = CARDS[name]
    path = tmp_path / "a.safetensors"
    tensors = {f"params/{name}": np.ones(3, np.float32) for name in "ab"}
    streaming.write_safetensors(path, tensors, {"card": text})
    with pytest.raises(UserError) as caught:
        load.load(TINY, str(path))
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 1000
    assert str(path) in message
    assert word in message


def test_the_copy_of_a_card_is_for_readers_only(converted, tmp_path):
    path = tmp_path / "a.safetensors"
    os.link(converted / "a.safetensors", path)
    for content in (b"", b"[]", b"\xff\xfe", NESTED.encode()):
        store.card_path(path).write_bytes(content)
        load.load(TINY, str(path))


def header(text, size=None):
    encoded = text.encode()
    length = len(encoded) if size is None else size
    return length.to_bytes(8, "little") + encoded + bytes(64)


ENTRY = '{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}'
HEADERS = {
    "empty": header(""),
    "null": header("null"),
    "list": header("[]"),
    "deep": header(NESTED),
    "deep metadata": header('{"__metadata__": ' + NESTED + "}"),
    "metadata that is a list": header('{"__metadata__": []}'),
    "metadata that is no text": header('{"__metadata__": {"card": 7}}'),
    "huge": header(ENTRY, 2**62),
    "longer than the file": header(ENTRY, 10**6),
    "offsets beyond the end": header(ENTRY.replace("8]", "8000]")),
    "offsets turned": header(ENTRY.replace("[0, 8]", "[8, 0]")),
    "offsets below 0": header(ENTRY.replace("[0, 8]", "[-8, 0]")),
    "offsets of another size": header(ENTRY.replace("[2]", "[3]")),
    "huge shape": header(ENTRY.replace("[2]", "[4611686018427387904, 4611686018427387904]")),
    "empty huge shape": header(
        ENTRY.replace("[2]", "[0, 4611686018427387904]").replace("8]", "0]")
    ),
    "shape of text": header(ENTRY.replace("[2]", '["2"]')),
    "unknown type": header(ENTRY.replace("F32", "F31")),
    "type of terminal": header(ENTRY.replace("F32", "\\u001b[2J")),
    "no UTF-8": (5).to_bytes(8, "little") + b'{"\xff"}' + bytes(64),
    "sub-byte type": header(ENTRY.replace("F32", "F4").replace("[2]", "[16]")),
    "float8": header(ENTRY.replace("F32", "F8_E4M3").replace("[2]", "[8]")),
    "short": b"abc",
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_are_one_line(tmp_path, refused, name):
    path = tmp_path / "a.safetensors"
    path.write_bytes(HEADERS[name])
    refused(path, reader=store.load)
    with pytest.raises(UserError, match=r"a\.safetensors") as caught:
        load.load(TINY, str(path))
    assert str(caught.value).isprintable()


def named_in(file, tensor, action):
    """The one line that an action ends with."""
    with pytest.raises(UserError) as caught:
        action()
    message = str(caught.value)
    assert message.isprintable()
    assert file in message
    assert repr(tensor) in message
    return message


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("float32", np.nan), ("float16", np.inf), ("float64", -np.inf), (ml_dtypes.bfloat16, np.nan)],
)
def test_weights_of_torch_that_are_no_numbers_are_refused(tmp_path, dtype, value):
    path = tmp_path / "net.pth"
    for key in ("conv1.weight", "bn1.running_mean", "layer4.0.bn2.bias"):
        tensors = encoder_tensors()
        tensors[key] = tensors[key].astype(dtype)
        tensors[key].flat[-1] = value
        torch_writer.write(path, tensors)
        for action in (load.convert_checkpoint, load.load):
            message = named_in("net.pth", key, lambda a=action: a(TINY, str(path)))
            assert "NaN or infinite" in message


def test_variances_and_what_is_too_large_for_float32(tmp_path):
    path, tensors = tmp_path / "net.safetensors", encoder_tensors()
    large = tensors | {"bn1.weight": np.full(tensors["bn1.weight"].shape, 1e300)}
    safetensors.numpy.save_file({k: np.ascontiguousarray(v) for k, v in large.items()}, path)
    named_in("net", "bn1.weight", lambda: load.load(TINY, str(path)))
    tensors["layer1.0.bn1.running_var"][0] = -0.5
    safetensors.numpy.save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, path)
    message = named_in("net", "layer1.0.bn1.running_var", lambda: load.load(TINY, str(path)))
    assert "negative variances" in message


def test_what_no_map_needs_may_hold_anything(tmp_path):
    tensors = encoder_tensors() | {"fc.weight": np.full((10, 64), np.nan, "f4")}
    tensors["bn1.num_batches_tracked"] = np.array(2**62)
    torch_writer.write(tmp_path / "net.pth", {f"_orig_mod.{k}": v for k, v in tensors.items()})
    load.load(TINY, str(tmp_path / "net.pth"))


@pytest.mark.parametrize(
    ("suffix", "value"), [(".safetensors", np.nan), (".npz", np.inf), (".safetensors", -np.inf)]
)
def test_a_converted_encoder_is_refused(converted, tmp_path, suffix, value):
    path = tmp_path / f"net{suffix}"
    variables, card = load.convert_checkpoint(TINY, converted / "torch.pth")
    right = variables["params"]["conv1"]["kernel"]
    variables["params"]["conv1"]["kernel"] = np.full(right.shape, value, np.float32)
    store.save(path, variables, card)
    named_in(str(path), "params/conv1/kernel", lambda: load.load(TINY, str(path)))
    variables["params"]["conv1"]["kernel"] = right
    variables["batch_stats"]["bn1"]["var"] = np.full(8, -1, np.float32)
    store.save(path, variables, card)
    named_in(str(path), "batch_stats/bn1/var", lambda: load.load(TINY, str(path)))
