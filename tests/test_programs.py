"""Where compiled programs are kept, and that nobody is forced to keep them."""

import jax
import pytest

from configs.base import base
from flowad_jax import programs
from flowad_jax.errors import UserError
from flowad_jax.training.model import build_model


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


def test_accelerators_multiply_in_full_unless_told_otherwise(chosen, monkeypatch):
    """Jax rounds float32 numbers there: a rotation would be none to more than three digits."""
    config = base("cflow")
    config.encoder.name, config.encoder.weights = (
        "efficientnet_lite.efficientnet_lite_tiny",
        "random",
    )
    build_model(config)
    assert not chosen  # a processor knows nothing else
    monkeypatch.setattr(programs.jax, "default_backend", lambda: "tpu")
    for precision, told in (("default", None), ("tf32", "tensorfloat32"), ("float32", "highest")):
        programs.multiply_in(precision)
        assert chosen.get("jax_default_matmul_precision") == told
    chosen.clear()
    build_model(config)
    assert chosen == {"jax_default_matmul_precision": "highest"}
    config.precision = "bf16"
    with pytest.raises(UserError, match="precision='bf16': "):
        build_model(config)
