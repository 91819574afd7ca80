"""Every recipe names things that exist and builds its method without running it."""

import importlib
import inspect
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from configs import datasets, methods
from configs.base import base
from flowad_jax import lookup
from flowad_jax.encoders.pooling import pooled
from flowad_jax.encoders.taps import choose_taps
from flowad_jax.errors import UserError

RECIPES = sorted(
    path.stem
    for path in (Path(__file__).parents[1] / "configs").glob("*.py")
    if "def get_config" in path.read_text()
)


def map_shapes(config):
    """What the encoder of a recipe hands to its method; nothing is computed."""
    encoder, sizes = config.encoder, config.data.category_sizes
    family, variant = encoder.name.split(".")
    spec = importlib.import_module(f"flowad_jax.encoders.{family}").SPECS[variant]
    taps = choose_taps(spec, encoder.taps, encoder.strides)
    options = {} if encoder.padding is None else {"padding": encoder.padding}
    module = lookup.find("flowad_jax.encoders", encoder.name)(taps=taps, **options)
    side = sizes.get(config.data.category, config.data.image_size)
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), image)
    return jax.eval_shape(pooled(module.apply, encoder.pool), variables, image)


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_builds(name):
    module = importlib.import_module(f"configs.{name}")
    config = module.get_config()
    assert f"configs/{name}.py" in module.__doc__
    data_set = sys.modules[lookup.find("flowad_jax.data", config.data.name).__module__]
    known = getattr(data_set, "CATEGORIES", (config.data.category,))
    assert {config.data.category, *config.data.category_sizes} <= set(known)
    lookup.find("flowad_jax.training", config.train.schedule.name)
    arguments = config.method.to_dict()
    method = lookup.find("flowad_jax.methods", arguments.pop("name"))(**arguments)
    assert config.eval.scoring in ("calibrated", method.published)
    variables = jax.eval_shape(method.init, jax.random.key(0), map_shapes(config))
    scales = len(config.encoder.taps or config.encoder.strides)
    assert len(variables["params"]) >= scales


def test_pooling_halves_the_maps_of_a_recipe():
    config = base("msflow")
    config.data.category_sizes = {"grass": 96}
    config.data.category = "grass"
    assert [m.shape for m in map_shapes(config)] == [
        (1, 12, 12, 24),
        (1, 6, 6, 40),
        (1, 3, 3, 112),
    ]


@pytest.mark.parametrize("encoder", sorted(lookup.choices("flowad_jax.encoders")))
@pytest.mark.parametrize("name", methods._SECTIONS)
def test_every_method_fits_every_encoder(name, encoder):
    """The MSFlow reference, for one, only runs with a single encoder."""
    family, variant = encoder.split(".")
    spec = importlib.import_module(f"flowad_jax.encoders.{family}").SPECS[variant]
    strides = [stride for stride in base(name).encoder.strides if stride in spec.strides]
    arguments = base(name).method.to_dict()
    if "blocks" in arguments and not isinstance(arguments["blocks"], int):
        arguments["blocks"] = arguments["blocks"][: len(strides)]
    method = lookup.find("flowad_jax.methods", arguments.pop("name"))(**arguments)
    maps = [
        jax.ShapeDtypeStruct(
            (1, 64 // spec.strides[tap], 64 // spec.strides[tap], spec.channels[tap]), jnp.float32
        )
        for tap in choose_taps(spec, None, strides)
    ]
    latents = jax.eval_shape(
        lambda maps: method.log_probs(method.init(jax.random.key(0), maps), maps), maps
    )
    assert [z.shape for z in latents] == [m.shape[:-1] for m in maps]


def test_every_data_set_and_method_has_its_defaults():
    assert set(datasets._OPTIONS) == set(lookup.choices("flowad_jax.data"))
    assert set(methods._SECTIONS) == set(lookup.choices("flowad_jax.methods"))


@pytest.mark.parametrize("name", datasets._OPTIONS)
def test_data_options_are_the_defaults_of_the_code(name):
    """The recipe shows them; the code must not mean something else by leaving them out."""
    build = lookup.find("flowad_jax.data", name)
    assert base("cflow", name).data.options.to_dict() == build.__kwdefaults__


@pytest.mark.parametrize("name", methods._SECTIONS)
def test_method_options_are_the_defaults_of_the_code(name):
    arguments = base(name).method.to_dict()
    build = lookup.find("flowad_jax.methods", arguments.pop("name"))
    assert arguments == {n: p.default for n, p in inspect.signature(build).parameters.items()}


@pytest.mark.parametrize("name", methods._SCHEDULES)
def test_schedule_options_are_arguments_of_the_code(name):
    """The run gives the rest; what has a default in the code has the same one in the recipe."""
    arguments = base(name).train.schedule.to_dict()
    parameters = inspect.signature(
        lookup.find("flowad_jax.training", arguments.pop("name"))
    ).parameters
    given = {"learning_rate", "epochs", "steps_per_epoch"}
    assert set(parameters) == given | set(arguments)
    defaults = {n: p.default for n, p in parameters.items() if p.default is not p.empty}
    assert defaults == {n: arguments[n] for n in defaults}


@pytest.mark.parametrize("name", methods._SECTIONS)
def test_published_values_are_keys_that_differ(name):
    """A misspelt key would be new; a value that is base.py's own would be noise."""
    config = base(name)
    other = base("cflow")
    for key, value in methods.published(name).items():
        section, entry = key.split(".")
        assert config[section][entry] == value
        assert other[section][entry] != value


def test_a_recipe_is_locked():
    with pytest.raises(AttributeError):
        base().train.epohcs = 3


def test_lookup_imports_what_lives_elsewhere():
    assert lookup.find("flowad_jax.methods", "pathlib:Path") is Path
    with pytest.raises(UserError, match="cannot import 'pathlib:Paht'"):
        lookup.find("flowad_jax.methods", "pathlib:Paht")
    with pytest.raises(UserError, match="choices are cflow"):
        lookup.find("flowad_jax.methods", "zzz")
