"""Where compiled programs are kept, and that nobody is forced to keep them."""

from types import SimpleNamespace

import jax
import pytest

from flowad_jax import jax_config
from flowad_jax.detector.model import build_model
from flowad_jax.errors import UserError
from flowad_jax.recipes.base import base


@pytest.fixture
def chosen(monkeypatch, tmp_path):
    """What jax is told, without telling it."""
    told, update, folder = {}, jax.config.update, jax.config.jax_compilation_cache_dir
    update("jax_compilation_cache_dir", None)
    monkeypatch.setattr(jax.config, "update", told.__setitem__)
    monkeypatch.delenv(jax_config.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield told
    update("jax_compilation_cache_dir", folder)


def test_programs_are_kept_in_the_users_cache_by_processor(chosen, tmp_path, monkeypatch):
    jax_config.enable_compilation_cache()
    (folder,) = (tmp_path / "cache" / "flowad_jax").iterdir()
    assert chosen == {"jax_compilation_cache_dir": str(folder)}
    monkeypatch.setattr(jax_config.platform, "machine", lambda: "another")
    jax_config.enable_compilation_cache()
    assert len(list((tmp_path / "cache" / "flowad_jax").iterdir())) == 2


@pytest.mark.parametrize("value", ["", "/elsewhere"])
def test_jaxs_own_variable_comes_first(chosen, tmp_path, monkeypatch, value):
    monkeypatch.setenv(jax_config.VARIABLE, value)
    jax_config.enable_compilation_cache()
    assert not chosen
    assert not (tmp_path / "cache").exists()


def test_a_folder_that_jax_was_given_stays(chosen, tmp_path, monkeypatch):
    told = SimpleNamespace(
        config=SimpleNamespace(**{jax_config.FOLDER: "/elsewhere"})
    )  # and no `update`
    monkeypatch.setattr(jax_config, "jax", told)
    jax_config.enable_compilation_cache()
    assert not (tmp_path / "cache").exists()


def test_a_home_that_cannot_be_written_does_not_matter(chosen, tmp_path):
    (tmp_path / "cache").write_text("a file")
    jax_config.enable_compilation_cache()
    assert not chosen


def test_accelerators_multiply_in_full_unless_told_otherwise(chosen, monkeypatch):
    """Jax rounds float32 numbers there: a rotation would be none to more than three digits."""
    jax_config.set_matmul_precision("float32")
    assert not chosen  # a processor knows nothing else
    monkeypatch.setattr(jax_config.jax, "default_backend", lambda: "tpu")
    for precision, told in (("default", None), ("tf32", "tensorfloat32"), ("float32", "highest")):
        jax_config.set_matmul_precision(precision)
        assert chosen.get("jax_default_matmul_precision") == told
    chosen.clear()
    config = base("cflow")
    config.encoder.name = "efficientnet_lite.efficientnet_lite_tiny"
    config.encoder.weights = "random"
    build_model(config)
    assert chosen == {"jax_default_matmul_precision": "highest"}
    config.precision = "bf16"
    with pytest.raises(UserError, match="precision='bf16': "):
        build_model(config)
