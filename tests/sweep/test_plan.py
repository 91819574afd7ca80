"""Which trials a config asks for, in which order and folders."""

import shutil

import pytest

from flowad_jax.errors import UserError
from flowad_jax.sweep import plan

TINY, RESNET = "efficientnet_lite.efficientnet_lite_tiny", "resnet.resnet18"


@pytest.fixture(name="config")
def _config(tiny_config, image_root):
    """Of three categories."""
    for name in ("bolt", "nut"):
        shutil.copytree(image_root / "part", image_root / name)
    return tiny_config


def asked(config, settings):
    """The same config with dotted keys set."""
    for key, value in settings.items():
        section, name = key.split(".")
        config[section][name] = value
    return config


@pytest.mark.parametrize(
    ("settings", "folders"),
    [
        ({"data.category": "part,bolt"}, ["part", "bolt"]),
        ({"data.category": "all"}, ["bolt", "nut", "part"]),
        ({"sweep.seeds": (3, 4)}, ["seed_3", "seed_4"]),
        (
            {"data.category": "part, bolt", "sweep.seeds": (3, 4)},
            ["part/seed_3", "part/seed_4", "bolt/seed_3", "bolt/seed_4"],
        ),
        ({"sweep.encoders": (f"{TINY}=random", f"{RESNET}=w.npz")}, [TINY, RESNET]),
        ({"sweep.seeds": (3,)}, [TINY]),
        ({"train.stack": (3, 4)}, ["seed_3", "seed_4"]),
        (
            {"train.stack": ("part", "nut"), "sweep.seeds": (0, 1)},
            ["part/seed_0", "part/seed_1", "nut/seed_0", "nut/seed_1"],
        ),
        ({"train.stack": ("all",)}, ["bolt", "nut", "part"]),
    ],
)
def test_folders_tell_trials_apart(config, settings, folders):
    config = asked(config, settings)
    assert plan.is_sweep(config)
    found = plan.trials(config)
    assert [trial.folder for trial in found] == folders
    for trial in found:
        own = trial.config
        assert not plan.is_sweep(own)
        assert trial.facts == {
            "folder": trial.folder,
            "category": own.data.category,
            "encoder": own.encoder.name,
            "seed": own.seed,
        }
        assert "seed_" not in trial.folder or trial.folder.endswith(f"seed_{own.seed}")
    if "sweep.encoders" in settings:
        assert [trial.config.encoder.weights for trial in found] == ["random", "w.npz"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data.category": "part,part"}, "data.category: part, part names one of them twice"),
        ({"sweep.seeds": (1, 1)}, "sweep.seeds: 1, 1 names"),
        ({"sweep.encoders": ("a=1", "a=2")}, "sweep.encoders: a=1, a=2 names"),
        ({"train.stack": ("part", 1)}, r"train\.stack=\(.*: lists categories, as"),
        ({"train.stack": (1.5,)}, r"train\.stack=\(.*: lists categories, as"),
        ({"train.stack": (0, 1), "sweep.seeds": (5, 6)}, r"train\.stack=\(.*: lists categories"),
        (
            {"train.stack": ("part",), "sweep.encoders": ("a", "b")},
            r"train\.stack: its detectors share one encoder",
        ),
        (
            {"data.category": "all", "data.root": "tests/sweep"},
            r"data\.category='all': 'tests/sweep' holds no category",
        ),
    ],
)
def test_what_cannot_be_planned_is_named(config, settings, message):
    with pytest.raises(UserError, match=message):
        plan.trials(asked(config, settings))
