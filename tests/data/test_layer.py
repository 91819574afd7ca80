"""Data loading must not pay for jax, and only data sets are offered by name."""

import subprocess
import sys
from pathlib import Path

import pytest

from flowad_jax import lookup
from flowad_jax.data import sources
from flowad_jax.errors import UserError

DATA_SETS = {
    *("btad", "csv", "dagm", "folder", "ksdd2", "magnetic_tile", "mvtec", "mvtec_ad2"),
    *("mvtec_loco", "real_iad", "stc", "textures", "visa"),
}


def test_no_module_imports_jax():
    names = [f"flowad_jax.data.{name}" for name in (*DATA_SETS, "pipeline")]
    code = f"import sys, {', '.join(names)}; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_data_sets_build_and_list_categories_and_helpers_are_not_offered():
    assert set(lookup.choices("flowad_jax.data")) >= DATA_SETS
    assert not {"pipeline", "record", "transforms"} & set(lookup.choices("flowad_jax.data"))
    for name in lookup.choices("flowad_jax.data"):
        assert callable(lookup.find("flowad_jax.data", name))
        assert callable(lookup.find("flowad_jax.data", name, default="categories"))


@pytest.mark.parametrize("name", sources.names())
def test_every_data_set_says_what_it_is(name):
    about = sources.about(name)
    assert about is not None
    assert all(about._replace(validation="none"))
    assert "\n" not in about.layout


def test_a_wrong_folder_is_answered_with_the_layout(tmp_path):
    with pytest.raises(UserError, match=r"\(expected {root}/MT_Free/Imgs/\*\.jpg and MT_{Blow"):
        sources.build("magnetic_tile", tmp_path, "", "train")
    with pytest.raises(UserError, match=r"unknown name 'mvtce': did you mean 'mvtec'"):
        sources.build("mvtce", tmp_path, "", "train")


def test_a_data_set_of_someone_else(tmp_path, monkeypatch):
    (tmp_path / "elsewhere.py").write_text("def build(root, category, split): return [root, split]")
    monkeypatch.syspath_prepend(tmp_path)
    name = "elsewhere:build"
    assert sources.build(name, Path("there"), "", "test") == [Path("there"), "test"]
    assert sources.about(name) is None
    with pytest.raises(UserError, match="'elsewhere:build' cannot list its categories"):
        sources.categories(name, "")
