"""A weight file of ours that was changed since it was written is refused, down to one bit."""

import json
import os

import numpy as np
import pytest

from flowad_jax.encoders import load, resnet
from flowad_jax.errors import UserError
from flowad_jax.weights import layout, store, streaming, torch_writer
from tests.encoders import maps
from tests.weights.test_references import assert_same

TINY = "resnet.resnet_tiny"
VARIABLES = {"params": {"conv": {"kernel": np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)}}}


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """The folder of an encoder in both formats."""
    folder = tmp_path_factory.mktemp("converted")
    tensors = layout.to_torch(maps.random_variables(TINY), resnet.torch_key)
    torch_writer.write(folder / "torch.pth", tensors)
    for suffix in store.SUFFIXES:
        store.save(folder / f"a{suffix}", *load.convert_checkpoint(TINY, folder / "torch.pth"))
    return folder


@pytest.mark.parametrize("suffix", store.SUFFIXES)
def test_a_flipped_bit_is_found_or_does_no_harm(converted, tmp_path, suffix):
    content = (converted / f"a{suffix}").read_bytes()
    right = store.load(converted / f"a{suffix}")
    path, rng = tmp_path / f"a{suffix}", np.random.default_rng(0)
    # As many in the header, which is small, as in the rest.
    places = [*rng.integers(0, 2000, 100), *rng.integers(0, len(content), 100)]
    found = 0
    for place in places:
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
    assert found > 180 if suffix == ".safetensors" else found > 100


def test_values_that_were_changed_on_purpose_are_found(converted, tmp_path):
    path = tmp_path / "a.safetensors"
    tensors, about = streaming.read_safetensors(converted / "a.safetensors")
    changed = {**tensors, "params/conv1/kernel": tensors["params/conv1/kernel"] * 2}
    renamed = json.dumps(json.loads(about["card"]) | {"architecture": "resnet.resnet18"})
    for held, text in ((changed, about["card"]), (tensors, renamed)):
        streaming.write_safetensors(path, held, about | {"card": text})
        with pytest.raises(UserError, match="another SHA-256"):
            load.load(TINY, str(path))


def test_a_file_of_before_there_were_digests_is_read(converted, tmp_path):
    tensors, about = streaming.read_safetensors(converted / "a.safetensors")
    streaming.write_safetensors(tmp_path / "a.safetensors", tensors, {"card": about["card"]})
    assert_same(
        store.load(tmp_path / "a.safetensors")[0], store.load(converted / "a.safetensors")[0]
    )


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
}
KEYS = [
    *(("architecture", value, "architecture=") for value in (None, 7, [], {}, True)),
    ("architecture", "resnet.resnet18", "of 'resnet.resnet18', not of"),
    ("architecture", "a\x1b[2J\n", r"of 'a\x1b[2J\n', not of"),
    *(("deepest_tap", value, "deepest_tap=") for value in ("0", -1, 10**6, 0.5, True, [], {})),
    ("deepest_tap", 2**70, "too large"),
]


def check_card(path, text, *words):
    tensors = {f"params/{name}": np.ones(3, np.float32) for name in "ab"}
    streaming.write_safetensors(path, tensors, {"card": text})
    with pytest.raises(UserError) as caught:
        load.load(TINY, str(path))
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 1000
    for word in (str(path), *words):
        assert word in message, message


@pytest.mark.parametrize("name", CARDS)
def test_a_card_of_another_shape_is_one_line(tmp_path, name):
    text, word = CARDS[name]
    check_card(tmp_path / "a.safetensors", text, word)


@pytest.mark.parametrize(("key", "value", "words"), KEYS)
def test_so_is_every_value_that_is_used(tmp_path, key, value, words):
    card = {"architecture": TINY, "deepest_tap": None} | {key: value}
    check_card(tmp_path / "a.safetensors", json.dumps(card), words)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe", NESTED.encode()])
def test_the_copy_beside_is_for_readers_only(converted, tmp_path, content):
    path = tmp_path / "a.safetensors"
    os.link(converted / "a.safetensors", path)
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
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_are_one_line(tmp_path, refused, name):
    path = tmp_path / "a.safetensors"
    path.write_bytes(HEADERS[name])
    with pytest.raises(UserError, match=r"a\.safetensors") as caught:
        load.load(TINY, str(path))
    assert str(caught.value).isprintable()
    refused(path, reader=store.load)
