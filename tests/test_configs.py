"""Every recipe names things that exist and builds its method without running it."""

import importlib
import inspect
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from ml_collections import config_dict

from flowad_jax import lookup
from flowad_jax.canvas import Canvas
from flowad_jax.data import sources
from flowad_jax.data.sets import csv
from flowad_jax.detector import config_schema
from flowad_jax.encoders.taps import at_sizes, choose_taps, pooled, spread
from flowad_jax.errors import UserError
from flowad_jax.methods import msflow
from flowad_jax.recipes.base import _PUBLISHED as published
from flowad_jax.recipes.base import base
from flowad_jax.settings import sections
from flowad_jax.settings.__main__ import page as settings_page
from flowad_jax.synthesis import nsa
from flowad_jax.types import Batch

CONFIGS = Path(__file__).parents[1] / "configs"
DEVIATIONS = CONFIGS.parent / "docs" / "deviations.md"
FILES = {
    path.relative_to(CONFIGS).with_suffix("").as_posix(): path.read_text()
    for path in sorted(CONFIGS.rglob("*.py"))
}
RECIPES = [name for name, text in FILES.items() if "def get_config" in text]
METHODS = lookup.choices("flowad_jax.methods")
MENDED = [name for name, text in FILES.items() if "import mended" in text]


def recipe(name):
    return importlib.import_module(f"flowad_jax.recipes.{name}".replace("/", "."))


def map_shapes(config):
    """What the encoder of a recipe hands to its method; nothing is computed."""
    encoder = config.encoder
    family, variant = encoder.name.split(".")
    spec = importlib.import_module(f"flowad_jax.encoders.families.{family}").SPECS[variant]
    taps = choose_taps(spec, encoder.taps, encoder.strides)
    options = {} if encoder.padding is None else {"padding": encoder.padding}
    module = lookup.find("flowad_jax.encoders.families", encoder.name)(taps=taps, **options)
    image = image_shape(config)
    variables = jax.eval_shape(module.init, jax.random.key(0), image)
    apply = at_sizes(pooled(module.apply, encoder.pool), encoder.pyramid, spec.multiple)
    return jax.eval_shape(apply, variables, image)


def image_shape(config):
    size = config.data.category_sizes.get(config.data.category or "", config.data.image_size)
    return jax.ShapeDtypeStruct((1, *Canvas.of(size).shape, 3), jnp.float32)


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_builds(name):
    module = recipe(name)
    config = module.get_config()
    assert f"flowad train --config={name}" in module.__doc__
    known = sources.dataset_card(config.data.name).categories
    used = {config.data.category or "", *config.data.category_sizes}
    assert used <= set(known or used)
    lookup.find("flowad_jax.training.schedules", config.train.schedule.name)
    arguments = config.method.to_dict()
    method = lookup.find("flowad_jax.methods", arguments.pop("name"))(**arguments)
    assert config.eval.scoring in ("calibrated", method.published)
    batch = Batch(map_shapes(config), image_shape(config))
    variables = jax.eval_shape(method.init, jax.random.key(0), batch)
    groups = {*variables["params"], *variables["buffers"]}
    by_scale = [name for name in groups if name.startswith("scale")]
    scales = len(config.encoder.taps or config.encoder.strides)
    assert len(by_scale) == scales or "projection" in groups  # PatchFlow joins all scales


def flat(config):
    return config_schema.flatten(config.to_dict())


@pytest.mark.parametrize("name", MENDED)
def test_a_short_name_is_a_paper_recipe_mended(name):
    """Nothing but what `mended` takes from base.py, all of that, and each key is documented."""
    documented = re.findall(r"`([a-z]+\.[a-z_]+)", DEVIATIONS.read_text(encoding="utf-8"))
    named = {*documented, "method.legacy", "synthesis.jitter"}
    module = recipe(name)
    published = module.published
    assert published.__name__.startswith(f"flowad_jax.recipes.papers.{name}_")
    assert "mended" in module.__doc__
    assert f"recipe papers/{published.__name__.rpartition('.')[2]}." in module.__doc__
    config, theirs = module.get_config(), flat(published.get_config())
    plain = flat(base(config.method.name, config.data.name))
    for key, value in flat(config).items():
        mends = key.startswith(("method.", "synthesis.")) or key in (
            *("data.holdout", "data.drop_last", "eval.scoring"),
        )
        assert value == (plain[key] if mends else theirs[key]), key
    assert {key for key in theirs if flat(config)[key] != theirs[key]} <= named
    assert theirs["data.holdout"] == 0 < config.data.holdout
    assert theirs["eval.scoring"] != config.eval.scoring == "calibrated"


def test_every_system_and_set_of_the_papers_has_a_mended_recipe():
    """But for those whose encoder or set has a recipe of another name outside of the papers."""
    papers = {"_".join(name.split("/")[1].split("_")[:2]) for name in RECIPES if "papers/" in name}
    assert papers - set(MENDED) == {"cflow_stc", "msflow_stc", "msflow_magnetic"}


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
    for encoder in lookup.choices("flowad_jax.encoders.families"):
        family, variant = encoder.split(".")
        spec = importlib.import_module(f"flowad_jax.encoders.families.{family}").SPECS[variant]
        specs.setdefault((spec.channels, spec.strides), spec)
    return sorted(specs.values(), key=lambda spec: spec.name)


@pytest.mark.parametrize("spec", distinct_encoders(), ids=lambda spec: spec.name)
@pytest.mark.parametrize("name", METHODS)
def test_every_method_fits_every_encoder(name, spec):
    """The MSFlow reference, for one, only runs with a single encoder."""
    wanted = base(name).encoder.strides
    if len(set(spec.strides)) == 1:  # whose maps do not halve, as U-Flow needs them
        taps = spread(1 if name == "uflow" else len(wanted), spec)
    else:
        taps = choose_taps(spec, None, [stride for stride in wanted if stride in spec.strides])
    arguments = base(name).method.to_dict()
    if "blocks" in arguments and not isinstance(arguments["blocks"], int):
        arguments["blocks"] = arguments["blocks"][: len(taps)]
    method = lookup.find("flowad_jax.methods", arguments.pop("name"))(**arguments)
    size = 4 * max(spec.strides)
    maps = tuple(
        jax.ShapeDtypeStruct((1, side, side, spec.channels[tap]), jnp.float32)
        for tap in taps
        for side in [size // spec.strides[tap]]
    )
    batch = Batch(maps, jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32))
    latents = jax.eval_shape(
        lambda batch: method.log_probs(method.init(jax.random.key(0), batch), batch), batch
    )
    sizes = [m.shape[:-1] for m in maps]
    assert [z.shape for z in latents] == (sizes[:1] if name == "patchflow" else sizes)


def test_a_method_brings_its_own_anomalies():
    names = {method: base(method).synthesis.name for method in METHODS}
    own = {"sanflow": "mixture", "ssnf": "nsa"}
    assert names == dict.fromkeys(METHODS) | own


CALLS = [
    *(("method", name) for name in METHODS),
    *(("data.options", name) for name in lookup.choices("flowad_jax.data.sets")),
    *(("synthesis", name) for name in lookup.choices("flowad_jax.synthesis")),
    *(("train.schedule", name) for name in lookup.choices("flowad_jax.training.schedules")),
    *((name, None) for name in ("", "sweep", "data", "encoder", "synthesis", "train", "eval")),
]


@pytest.mark.parametrize(("key", "name"), CALLS)
def test_a_section_has_every_parameter_with_its_default_and_meaning(key, name):
    made, known = sections.section(key, name), sections.parameters(key, name)
    assert {*made} - {"name"} == {*known} - {"name"}
    for word, parameter in known.items():
        if word != "name":
            assert made.to_dict()[word] == parameter.default
        assert parameter.meaning, f"{key}.{word}: no docstring says what it means"
        kind = made.get_type(word)
        assert kind in (bool, int, float, str, tuple, object, config_dict.ConfigDict), word


def test_defaults_are_those_of_the_functions():
    assert (
        base("msflow").method.blocks == inspect.signature(msflow.build).parameters["blocks"].default
    )
    assert base("cflow", "tfds:csv").data.options.table == csv.build.__kwdefaults__["table"]
    assert base("ssnf").synthesis.draws == nsa.Settings().draws
    assert base("ssnf").synthesis.texture is None  # that of the category
    assert base("ssnf").train.schedule.eta_min == 1e-6


@pytest.mark.parametrize("name", METHODS)
def test_published_values_differ_from_the_defaults(name):
    """A misspelt key would be new; a value that is the default would be noise."""
    config, other = config_schema.flatten(base(name).to_dict()), base("cflow").to_dict()
    for key, value in published.get(name, {}).items():
        assert config[key] == value
        assert config_schema.flatten(other)[key] != value


def test_a_name_brings_the_options_that_belong_to_it():
    config = base("cflow", "folder")
    config.data.options.masks, config.data.options.normal = "none", "ok"
    config.lock()
    sections.choose(config, "data.options", "csv")
    assert config.data.name == "csv"
    assert config.data.options.to_dict() == csv.build.__kwdefaults__ | {"masks": "none"}
    sections.choose(config, "data.options", "mvtec")
    assert config.data.options.to_dict() == {"masks": "none", "mask_threshold": 0}
    sections.choose(config, "synthesis", "cutpaste.scar")
    assert (config.synthesis.name, config.synthesis.degrees) == ("cutpaste.scar", 45.0)
    config.train.schedule.sub_epochs = 3
    sections.choose(config, "train.schedule", "schedules.msflow")
    assert (config.train.schedule.sub_epochs, config.train.schedule.gamma) == (3, 0.33)
    config_schema.check(config)
    with pytest.raises(UserError, match="did you mean 'csv'"):
        sections.choose(config, "data.options", "cvs")


def test_the_page_of_all_keys_is_current():
    page = (CONFIGS.parent / "docs" / "configuration.md").read_text(encoding="utf-8")
    command = "python -m flowad_jax.settings --write=docs/configuration.md"
    assert page == settings_page(), f"write it anew: {command}"


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
