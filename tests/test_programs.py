"""Where compiled programs are kept, and that nobody is forced to keep them."""

import jax
import pytest

from flowad_jax import programs


@pytest.fixture
def chosen(monkeypatch, tmp_path):
    """What jax is told, without telling it."""
    told = {}
    monkeypatch.setattr(jax.config, "update", told.__setitem__)
    monkeypatch.delenv(programs.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return told


def test_programs_are_kept_in_the_users_cache_by_processor(chosen, tmp_path, monkeypatch):
    programs.keep()
    (folder,) = (tmp_path / "cache" / "flowad_jax").iterdir()
    assert chosen == {"jax_compilation_cache_dir": str(folder)}
    monkeypatch.setattr(programs.platform, "machine", lambda: "another")
    programs.keep()
    assert len(list((tmp_path / "cache" / "flowad_jax").iterdir())) == 2


@pytest.mark.parametrize("value", ["", "/elsewhere"])
def test_jaxs_own_variable_comes_first(chosen, tmp_path, monkeypatch, value):
    monkeypatch.setenv(programs.VARIABLE, value)
    programs.keep()
    assert not chosen
    assert not (tmp_path / "cache").exists()


def test_a_home_that_cannot_be_written_does_not_matter(chosen, tmp_path):
    (tmp_path / "cache").write_text("a file")
    programs.keep()
    assert not chosen
