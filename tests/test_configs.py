"""Every recipe names things that exist and builds its method without running it."""

import dataclasses
import importlib
import inspect
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from configs import datasets, methods, synthesis
from configs.base import base
from flowad_jax import lookup
from flowad_jax import synthesis as library
from flowad_jax.encoders.pooling import pooled
from flowad_jax.encoders.taps import choose_taps, spread
from flowad_jax.errors import UserError
from flowad_jax.synthesis import cutpaste, mixture, nsa
from flowad_jax.training import config_schema

CONFIGS = Path(__file__).parents[1] / "configs"
DEVIATIONS = CONFIGS.parent / "docs" / "deviations.md"
FILES = {
    path.relative_to(CONFIGS).with_suffix("").as_posix(): path.read_text()
    for path in sorted(CONFIGS.rglob("*.py"))
}
RECIPES = [name for name, text in FILES.items() if "def get_config" in text]
MENDED = [name for name, text in FILES.items() if "import mended" in text]


def recipe(name):
    return importlib.import_module(f"configs.{name}".replace("/", "."))


def map_shapes(config):
    """What the encoder of a recipe hands to its method; nothing is computed."""
    encoder = config.encoder
    family, variant = encoder.name.split(".")
    spec = importlib.import_module(f"flowad_jax.encoders.{family}").SPECS[variant]
    taps = choose_taps(spec, encoder.taps, encoder.strides)
    options = {} if encoder.padding is None else {"padding": encoder.padding}
    module = lookup.find("flowad_jax.encoders", encoder.name)(taps=taps, **options)
    image = image_shape(config)
    variables = jax.eval_shape(module.init, jax.random.key(0), image)
    return jax.eval_shape(pooled(module.apply, encoder.pool), variables, image)


def image_shape(config):
    side = config.data.category_sizes.get(config.data.category, config.data.image_size)
    return jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_builds(name):
    module = recipe(name)
    config = module.get_config()
    assert f"--config=configs/{name}.py" in module.__doc__
    data_set = sys.modules[lookup.find("flowad_jax.data", config.data.name).__module__]
    known = getattr(data_set, "CATEGORIES", (config.data.category,))
    assert {config.data.category, *config.data.category_sizes} <= set(known)
    lookup.find("flowad_jax.training", config.train.schedule.name)
    arguments = config.method.to_dict()
    method = lookup.find("flowad_jax.methods", arguments.pop("name"))(**arguments)
    assert config.eval.scoring in ("calibrated", method.published)
    maps = map_shapes(config) + (image_shape(config),) * method.sees_images
    variables = jax.eval_shape(method.init, jax.random.key(0), maps)
    scales = len(config.encoder.taps or config.encoder.strides)
    assert len(variables["params"]) >= scales


def flat(config):
    return config_schema.flatten(config.to_dict())


@pytest.mark.parametrize("name", MENDED)
def test_a_short_name_is_a_paper_recipe_mended(name):
    """Nothing but what `mended` takes from base.py, all of that, and each key is documented."""
    documented = re.findall(r"`([a-z]+\.[a-z_]+)", DEVIATIONS.read_text(encoding="utf-8"))
    named = {*documented, "method.legacy", "synthesis.jitter"}
    module = recipe(name)
    published = module.published
    assert published.__name__.startswith(f"configs.papers.{name}_")
    assert "mended" in module.__doc__
    assert f"{published.__name__.replace('.', '/')}.py" in module.__doc__
    config, theirs = module.get_config(), flat(published.get_config())
    plain = flat(base(config.method.name, config.data.name))
    for key, value in flat(config).items():
        mends = key.startswith(("method.", "synthesis.")) or key in (
            *("data.holdout", "data.drop_last", "data.train_filter", "eval.scoring"),
        )
        assert value == (plain[key] if mends else theirs[key]), key
    assert {key for key in theirs if flat(config)[key] != theirs[key]} <= named
    assert theirs["data.holdout"] == 0 < config.data.holdout
    assert theirs["eval.scoring"] != config.eval.scoring == "calibrated"


def test_every_system_and_set_of_the_papers_has_a_mended_recipe():
    """But for those whose encoder or set has a recipe of another name outside of the papers."""
    papers = {"_".join(name.split("/")[1].split("_")[:2]) for name in RECIPES if "papers/" in name}
    assert papers - set(MENDED) == {"cflow_stc", "msflow_magnetic"}


def test_pooling_halves_the_maps_of_a_recipe():
    config = base("msflow")
    config.data.category_sizes = {"grass": 96}
    config.data.category = "grass"
    assert [m.shape for m in map_shapes(config)] == [
        (1, 12, 12, 24),
        (1, 6, 6, 40),
        (1, 3, 3, 112),
    ]


def distinct_encoders():
    """One encoder of each shape: what methods make of a map depends on nothing else."""
    specs = {}
    for encoder in lookup.choices("flowad_jax.encoders"):
        family, variant = encoder.split(".")
        spec = importlib.import_module(f"flowad_jax.encoders.{family}").SPECS[variant]
        specs.setdefault((spec.channels, spec.strides), spec)
    return sorted(specs.values(), key=lambda spec: spec.name)


@pytest.mark.parametrize("spec", distinct_encoders(), ids=lambda spec: spec.name)
@pytest.mark.parametrize("name", methods._SECTIONS)
def test_every_method_fits_every_encoder(name, spec):
    """The MSFlow reference, for one, only runs with a single encoder."""
    wanted = base(name).encoder.strides
    if len(set(spec.strides)) == 1:
        taps = spread(len(wanted), spec)
    else:
        taps = choose_taps(spec, None, [stride for stride in wanted if stride in spec.strides])
    arguments = base(name).method.to_dict()
    if "blocks" in arguments and not isinstance(arguments["blocks"], int):
        arguments["blocks"] = arguments["blocks"][: len(taps)]
    method = lookup.find("flowad_jax.methods", arguments.pop("name"))(**arguments)
    size = 4 * max(spec.strides)
    maps = [
        jax.ShapeDtypeStruct((1, side, side, spec.channels[tap]), jnp.float32)
        for tap in taps
        for side in [size // spec.strides[tap]]
    ]
    image = [jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)] * method.sees_images
    latents = jax.eval_shape(
        lambda maps: method.log_probs(method.init(jax.random.key(0), maps), maps), maps + image
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


@pytest.mark.parametrize("family", [nsa, cutpaste, mixture])
def test_synthesis_options_are_the_defaults_of_the_code(family):
    name = family.__name__.rpartition(".")[2]
    options = base("ssnf", anomalies=name).synthesis.to_dict()
    for key in ("name", "mask_threshold", "lenders", "unchanged_as_negative"):
        del options[key]
    given = {key: value for key, value in options.items() if value is not None}
    if family is nsa:
        assert (given.pop("dataset"), given.pop("category")) == ("", "")
        unset = options.keys() - given.keys() - {"dataset", "category"}
        assert unset == {field.name for field in dataclasses.fields(library.Constants)}
    assert given == dataclasses.asdict(family.Settings())


def test_a_method_brings_its_own_anomalies():
    names = {method: base(method).synthesis.name for method in methods._SECTIONS}
    assert names == {"cflow": "", "msflow": "", "sanflow": "mixture", "ssnf": "nsa"}
    assert set(synthesis._OPTIONS) == {"", *(kind.partition(".")[0] for kind in library.KINDS)}


@pytest.mark.parametrize("name", methods._SECTIONS)
def test_method_options_are_the_defaults_of_the_code(name):
    arguments = base(name).method.to_dict()
    build = lookup.find("flowad_jax.methods", arguments.pop("name"))
    assert arguments == {n: p.default for n, p in inspect.signature(build).parameters.items()}


@pytest.mark.parametrize("name", methods._SCHEDULES)
def test_schedule_options_are_arguments_of_the_code(name):
    """The run gives the rest; defaults of the code are those of the method it is named after."""
    arguments = base(name).train.schedule.to_dict()
    schedule = arguments.pop("name")
    parameters = inspect.signature(lookup.find("flowad_jax.training", schedule)).parameters
    given = {"learning_rate", "epochs", "steps_per_epoch"}
    assert set(parameters) == given | set(arguments)
    defaults = {n: p.default for n, p in parameters.items() if p.default is not p.empty}
    if schedule == f"schedules.{name}":
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


def test_recipes_share_no_values():
    one = base("ssnf")
    one.synthesis.background, one.encoder.taps = ((20, 20),), (1,)
    other = base("ssnf")
    assert (other.synthesis.background, other.encoder.taps) == (None, None)
    with pytest.raises(TypeError):
        other.synthesis.max_patches = "many"


def test_lookup_imports_what_lives_elsewhere():
    assert lookup.find("flowad_jax.methods", "pathlib:Path") is Path
    for name in ("pathlib:Paht", ":Path", ".pathlib:Path"):
        with pytest.raises(UserError, match=f"cannot import '{name}'"):
            lookup.find("flowad_jax.methods", name)
    with pytest.raises(UserError, match="choices are cflow"):
        lookup.find("flowad_jax.methods", "zzz")
