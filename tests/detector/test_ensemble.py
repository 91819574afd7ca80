"""Members of an ensemble: they learn as each would alone, and their likelihoods are averaged."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flowad_jax
from flowad_jax.bundle import export, validate
from flowad_jax.conversion.export import export as to_torch
from flowad_jax.detector.ensemble import ensemble
from flowad_jax.errors import UserError
from flowad_jax.methods import gaussian
from flowad_jax.training import schedules
from flowad_jax.training.loop import train
from flowad_jax.training.optimizer import Adam, init_state
from flowad_jax.training.step import make_train_step
from tests.conftest import tiny_recipe
from tests.methods.test_laws import make_batch

COUNT = 3


def tiny_method(name):
    module = importlib.import_module(f"flowad_jax.methods.{name}")
    return module.build(**module.TINY)


def trained(method, steps=3):
    """Some steps with an Adam that moves what is idle, and gradients that are clipped."""
    batch, adam = make_batch(), Adam(idle="decay")
    state = init_state(method, adam, batch, seed=0)
    step = make_train_step(method, adam, schedules.constant(3e-3, 1, 1), clip_norm=0.5)
    for _ in range(steps):
        state, metrics = step(state, batch)
    assert metrics["finite"]
    return state


def of_member(number, groups):
    prefix = f"member_{number}_"
    return {name[len(prefix) :]: tree for name, tree in groups.items() if name.startswith(prefix)}


@pytest.mark.parametrize("name", ["cflow", "msflow", "sanflow"])
def test_the_first_member_learns_as_it_would_alone(name):
    """Also where decoders are idle in turns, and where steps replace running statistics."""
    method = tiny_method(name)
    alone, together = trained(method), trained(ensemble(method, COUNT))
    for kind in ("params", "opt_state", "buffers"):
        expected, found = getattr(alone, kind), of_member(0, getattr(together, kind))
        assert found.keys() == expected.keys()
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), found, expected
        )


def test_members_differ():
    state = trained(ensemble(tiny_method("cflow"), COUNT))
    first, *others = (jax.tree.leaves(of_member(k, state.params)) for k in range(COUNT))
    for other in others:
        assert any(not np.allclose(x, y) for x, y in zip(first, other, strict=True))


def test_likelihoods_are_averaged():
    method, batch = tiny_method("msflow"), make_batch()
    together = ensemble(method, COUNT)
    variables = together.init(jax.random.key(0), batch)
    members = [
        method.log_probs({kind: of_member(k, variables[kind]) for kind in variables}, batch)
        for k in range(COUNT)
    ]
    for scale, found in enumerate(together.log_probs(variables, batch)):
        likelihoods = [np.exp(np.float64(maps[scale])) for maps in members]
        np.testing.assert_allclose(np.exp(found), np.mean(likelihoods, 0), rtol=1e-4)


def test_far_from_all_normal_images_the_likelihood_is_still_a_number():
    method, batch = tiny_method("msflow"), make_batch()
    together = ensemble(method, 2)
    variables = together.init(jax.random.key(0), batch)
    far = batch._replace(maps=tuple(1e4 * x for x in batch.maps))
    for x in together.log_probs(variables, far):
        assert jnp.isfinite(x).all()
        assert (x < -1e3).all()


def test_a_method_without_seeds_has_no_members():
    with pytest.raises(UserError, match=r"train\.ensemble=2: members would be equal"):
        ensemble(gaussian.build(), 2)


@pytest.mark.whole
def test_an_ensemble_is_one_detector_and_one_bundle(image_root, tmp_path):
    config = tiny_recipe(image_root, "msflow")
    config.train.ensemble = 2
    results = train(config, tmp_path / "run")
    assert results["columns"]["last"]["image_auroc"] is not None
    detector = flowad_jax.load(tmp_path / "run")
    bundle = tmp_path / "parts.flowad"
    export.export(str(tmp_path / "run"), str(bundle))
    assert validate.validate(bundle)
    (image,) = list((image_root / "part" / "test" / "good").glob("*"))[:1]
    assert np.isfinite(detector.predict([image])[0].score)
    with pytest.raises(UserError, match=r"train\.ensemble=2: no code in PyTorch"):
        to_torch(str(tmp_path / "run"), "")
