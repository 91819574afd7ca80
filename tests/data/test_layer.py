"""Data loading must not pay for jax, and only data sets are offered by name."""

import subprocess
import sys

from flowad_jax import lookup

DATA_SETS = ("btad", "dagm", "folder", "magnetic_tile", "mvtec", "textures", "visa")


def test_no_module_imports_jax():
    names = [f"flowad_jax.data.{name}" for name in (*DATA_SETS, "pipeline")]
    code = f"import sys, {', '.join(names)}; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_data_sets_build_and_list_categories_and_helpers_are_not_offered():
    assert set(DATA_SETS) <= set(lookup.choices("flowad_jax.data"))
    assert not {"pipeline", "record", "transforms"} & set(lookup.choices("flowad_jax.data"))
    for name in lookup.choices("flowad_jax.data"):
        assert callable(lookup.find("flowad_jax.data", name))
        assert callable(lookup.find("flowad_jax.data", name, default="categories"))
