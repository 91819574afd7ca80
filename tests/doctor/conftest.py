"""The doctor's command, and ways to spoil a folder."""

import shutil

import pytest

from flowad_jax.doctor.__main__ import main


def snapshot(folder):
    """Names, times and contents of everything below a folder."""
    files = sorted(folder.rglob("*"))
    return [(f, f.lstat().st_mtime_ns, f.read_bytes() if f.is_file() else b"") for f in files]


def remove(*names):
    """Removes files and folders below a folder."""

    def spoil(folder):
        for path in (folder / name for name in names):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    return spoil


def write(name, content):
    """Writes a file below a folder, whatever was there."""

    def spoil(folder):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)

    return spoil


@pytest.fixture
def ask(capsys):
    """Runs the doctor; returns its exit code and what it said."""

    def run(*words):
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in words])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return stop.value.code, out + err

    return run


@pytest.fixture
def assert_only_problem(ask):
    """Runs the doctor, which finds one problem in a folder and leaves it as it was."""

    def check(folder, words, what, remedy):
        before = snapshot(folder)
        code, text = ask(*words)
        assert code == 1, text
        lines = text.splitlines()
        (found,) = (number for number, line in enumerate(lines) if what in line)
        assert lines[found].startswith("  ! ")
        assert lines[found + 1].startswith("    -> ")
        assert remedy in lines[found + 1]
        assert lines[-1] == "1 problem found", text
        assert snapshot(folder) == before

    return check
