"""How plugins are found by name."""

from pathlib import Path

import pytest

from flowad_jax import lookup
from flowad_jax.errors import UserError


def test_lookup_imports_what_lives_elsewhere():
    assert lookup.find("flowad_jax.methods", "pathlib:Path") is Path
    for name in ("pathlib:Paht", ":Path", ".pathlib:Path"):
        with pytest.raises(UserError, match=f"cannot import '{name}'"):
            lookup.find("flowad_jax.methods", name)
    with pytest.raises(UserError, match="choices are cflow"):
        lookup.find("flowad_jax.methods", "zzz")
