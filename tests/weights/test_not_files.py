"""What is named like a weight file and is none is refused at once, wherever one is opened."""

import os
import socket

import pytest

from flowad_jax.conversion import detector, encoder, explain
from flowad_jax.encoders import export, load
from flowad_jax.errors import UserError
from flowad_jax.weights import download, store, torch_file

TINY = "resnet.resnet_tiny"
pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without named pipes")


def _socket(path):
    os.chdir(path.parent)  # an address of a socket is short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)


KINDS = {
    "named pipe": os.mkfifo,
    "link to a named pipe": lambda path: (os.mkfifo(f"{path}_"), path.symlink_to(f"{path}_")),
    "socket": _socket,
    "folder": lambda path: path.mkdir(),
    "endless device": lambda path: path.symlink_to("/dev/zero"),
    "empty device": lambda path: path.symlink_to("/dev/null"),
    "broken link": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to(path.name),
}
OPENED = {
    "encoder.weights": lambda path: load.load(TINY, str(path)),
    "conversion": lambda path: encoder.convert(TINY, str(path), None),
    "conversion back": lambda path: encoder.back(TINY, str(path), None),
    "table": lambda path: export.explained(TINY, str(path)),
    "detector": detector.read,
    "table of a detector": explain.explained,
    "reader": torch_file.read,
    "state dict": torch_file.state_dict,
    "checksum": store.sha256,
    "card": store.origin,
    "download": lambda path: download.require_hash(path, path.name, "delete it"),
}


@pytest.mark.parametrize("opened", OPENED)
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_refused(tmp_path, monkeypatch, kind, opened):
    monkeypatch.chdir(tmp_path)
    for suffix in (".pth", ".safetensors", ".npz"):
        path = tmp_path / f"net-01234567{suffix}"
        KINDS[kind](path)
        with pytest.raises(UserError) as caught:
            OPENED[opened](path)
        message = str(caught.value)
        assert path.name in message
        assert message.isprintable()


@pytest.mark.parametrize("opened", ["reader", "checksum"])
def test_so_it_is_where_it_takes_the_place_of_a_file_at_the_last_moment(
    tmp_path, monkeypatch, opened
):
    path, stat, seen = tmp_path / "net.pth", type(tmp_path).stat, []

    def replaced(self, **options):
        status = stat(self, **options)
        seen.append(status)
        if len(seen) == 2:  # whether it is a file, and of what size
            path.unlink()
            os.mkfifo(path)
        return status

    path.write_bytes(b"PK")
    monkeypatch.setattr(type(tmp_path), "stat", replaced)
    with pytest.raises(UserError, match="named pipe"):
        OPENED[opened](path)
