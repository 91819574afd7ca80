"""Every recipe names things that exist and builds its method without running it."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from configs import datasets, methods
from configs.base import base
from flowad_jax import lookup
from flowad_jax.errors import UserError

RECIPES = sorted(
    path.stem
    for path in (Path(__file__).parents[1] / "configs").glob("*.py")
    if "def get_config" in path.read_text()
)


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_builds(name):
    module = __import__(f"configs.{name}", fromlist=["get_config"])
    config = module.get_config()
    assert f"configs/{name}.py" in module.__doc__
    lookup.find("flowad_jax.data", config.data.name)
    lookup.find("flowad_jax.training", config.train.schedule.name)
    arguments = config.method.to_dict()
    method = lookup.find("flowad_jax.methods", arguments.pop("name"))(**arguments)
    family, variant = config.encoder.name.split(".")
    encoders = __import__(f"flowad_jax.encoders.{family}", fromlist=["SPECS"])
    spec = encoders.SPECS[variant]
    size = config.data.image_size
    maps = [
        jnp.zeros((1, size // spec.strides[tap], size // spec.strides[tap], spec.channels[tap]))
        for tap in spec.default_taps
    ]
    variables = jax.eval_shape(method.init, jax.random.key(0), maps)
    assert len(variables["params"]) == len(maps)


def test_every_data_set_and_method_has_its_defaults():
    assert set(datasets._OPTIONS) == set(lookup.choices("flowad_jax.data"))
    assert set(methods._SECTIONS) == set(lookup.choices("flowad_jax.methods"))


@pytest.mark.parametrize("name", datasets._OPTIONS)
def test_data_options_are_the_defaults_of_the_code(name):
    """The recipe shows them; the code must not mean something else by leaving them out."""
    build = lookup.find("flowad_jax.data", name)
    assert base("cflow", name).data.options.to_dict() == build.__kwdefaults__


def test_method_options_are_the_defaults_of_the_code():
    import inspect

    arguments = base("cflow").method.to_dict()
    build = lookup.find("flowad_jax.methods", arguments.pop("name"))
    assert arguments == {n: p.default for n, p in inspect.signature(build).parameters.items()}


def test_a_recipe_is_locked():
    with pytest.raises(AttributeError):
        base().train.epohcs = 3


def test_lookup_imports_what_lives_elsewhere():
    assert lookup.find("flowad_jax.methods", "pathlib:Path") is Path
    with pytest.raises(UserError, match="cannot import 'pathlib:Paht'"):
        lookup.find("flowad_jax.methods", "pathlib:Paht")
    with pytest.raises(UserError, match="choices are cflow"):
        lookup.find("flowad_jax.methods", "zzz")
