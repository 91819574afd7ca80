"""Files for PyTorch: what our reader and torch itself find in them."""

import struct
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest

from flowad_jax.errors import UserError
from flowad_jax.weights import streaming, torch_file, torch_writer
from tests.weights.references import assert_same

BASE = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
KINDS = ("float64", "float16", "uint8", "int8", "int16", "int32", "int64", "bool", "complex64")
TENSORS = {
    "weight": BASE,
    "transposed": BASE.T,
    "strided": BASE[1:, ::2],
    "scalar": np.array(7, np.int64),
    "empty": np.zeros((0, 3), np.float32),
    "bfloat16": BASE.astype(ml_dtypes.bfloat16),
    "big endian": BASE.astype(">f4"),
    **{kind: BASE.astype(kind) for kind in KINDS},
}
NESTED = {
    "encoder_state_dict": {"a": BASE},
    "decoder_state_dict": [{"b": BASE[0]}, {}],
    "pair": (1, BASE[1]),
    "plain": {"name": "größe", "rate": 0.5, "epoch": 3, "none": None, "yes": True, 5: -(2**40)},
}


@pytest.mark.parametrize("content", [TENSORS, NESTED, {}], ids=["tensors", "nested", "nothing"])
def test_our_reader_finds_what_was_written(tmp_path, content):
    torch_writer.write(tmp_path / "a.pth", content)
    assert_same(torch_file.read(tmp_path / "a.pth"), content)


def test_safetensors_have_the_names_of_torch(tmp_path):
    tensors = {name: t for name, t in TENSORS.items() if name != "complex64"}
    torch_writer.write(tmp_path / "a.safetensors", tensors)
    found = torch_file.state_dict(tmp_path / "a.safetensors")
    assert_same({name: found[name] for name in tensors}, tensors)


def content_starts(path):
    """Where in the file the content of every entry starts."""
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        infos = archive.infolist()
    assert all(info.compress_type == zipfile.ZIP_STORED for info in infos)
    lengths = [sum(struct.unpack_from("<26xHH", data, info.header_offset)) for info in infos]
    return [info.header_offset + 30 + n for info, n in zip(infos, lengths, strict=True)]


@pytest.mark.parametrize("limit", [zipfile.ZIP64_LIMIT, 40], ids=["small", "zip64"])
def test_entries_are_stored_and_aligned(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", limit)
    torch_writer.write(tmp_path / "a.pth", TENSORS)
    assert (b"PK\x06\x06" in (tmp_path / "a.pth").read_bytes()) == (limit == 40)
    starts = content_starts(tmp_path / "a.pth")
    assert len(starts) == 3 + len(TENSORS)
    assert all(start % torch_writer.ALIGNMENT == 0 for start in starts)
    assert_same(torch_file.read(tmp_path / "a.pth"), TENSORS)


def test_the_same_content_gives_the_same_bytes_and_one_array_one_entry(tmp_path):
    for name in ("a.pth", "b.pth"):
        torch_writer.write(tmp_path / name, {"x": BASE, "tied": BASE, "equal": BASE.copy()})
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "b.pth").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.pth") as archive:
        names = archive.namelist()
    assert [name for name in names if "/data/" in name] == ["archive/data/0", "archive/data/1"]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_one_tensor_at_a_time_is_copied_and_progress_reaches_the_end(tmp_path, monkeypatch, suffix):
    tensors = {str(i): np.ones((1000, 2000), np.float32).T for i in range(8)}  # 8 MB each
    bars, plain = [], streaming.bar
    monkeypatch.setattr(streaming, "bar", lambda *args: bars.append(plain(*args)) or bars[-1])
    seen = []
    monkeypatch.setattr(streaming.tqdm, "update", lambda self, count=1: seen.append(count))
    tracemalloc.start()
    torch_writer.write(tmp_path / f"a{suffix}", tensors)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * 8e6
    assert [bar.total for bar in bars] == [sum(seen)]
    assert 64e6 <= sum(seen) < 64.1e6  # with the pickle
    seen.clear()
    torch_file.read(tmp_path / f"a{suffix}")
    assert sum(seen) == 64e6
    assert 64e6 <= bars[-1].total < 64.1e6


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.safetensors", {"x": BASE, "deep": {"y": BASE}}, ("'deep' is a dict", ".pth")),
        ("a.safetensors", [BASE], ("is a list",)),
        ("a.safetensors", {"x": BASE.astype("c8")}, ("'x' of complex64",)),
        ("a.pth", {"a": [{"x": BASE.astype("u4")}]}, ("'a[0].x' of uint32", "float32")),
        ("a.pth", {"a": {"x": np.float32(1)}}, ("'a.x' is a float32",)),
        ("a.npz", {"x": BASE}, (".pth", ".safetensors")),
    ],
)
def test_refusals_are_one_line_and_leave_what_was_there(tmp_path, name, content, words):
    (tmp_path / name).write_text("old")
    with pytest.raises(UserError) as caught:
        torch_writer.write(tmp_path / name, content)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), caught.value
    assert (tmp_path / name).read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.live
class TestLive:
    @pytest.mark.parametrize("limit", [zipfile.ZIP64_LIMIT, 40], ids=["small", "zip64"])
    @pytest.mark.parametrize("mapped", [False, True])
    def test_torch_loads_it(self, tmp_path, monkeypatch, mapped, limit):
        torch = pytest.importorskip("torch")
        monkeypatch.setattr(zipfile, "ZIP64_LIMIT", limit)
        path = tmp_path / "a.pth"
        torch_writer.write(path, TENSORS | NESTED)
        assert_same(torch.load(path, weights_only=True, mmap=mapped), TENSORS | NESTED)

    def test_safetensors_of_torch_load_it(self, tmp_path):
        pytest.importorskip("torch")
        from safetensors.torch import load_file

        tensors = {name: t for name, t in TENSORS.items() if name != "complex64"}
        torch_writer.write(tmp_path / "a.safetensors", tensors)
        found = load_file(tmp_path / "a.safetensors")
        assert_same({name: found[name] for name in tensors}, tensors)
