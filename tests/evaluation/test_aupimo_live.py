"""AUPIMO beside anomalib's, which takes thresholds at equal steps of the logarithm of the rate."""

import importlib
import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from flowad_jax.evaluation.aupimo import aupimo

pytestmark = pytest.mark.live


@pytest.fixture(name="theirs")
def _theirs(monkeypatch):
    """Functions of anomalib, without the packages that it depends on."""
    root = Path(importlib.util.find_spec("anomalib").origin).parent
    for name in ("anomalib", "anomalib.metrics", "anomalib.metrics.pimo"):
        module = types.ModuleType(name)
        module.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
        monkeypatch.setitem(sys.modules, name, module)
    name = "anomalib.metrics.pimo.functional"
    monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module(name)


@pytest.mark.parametrize("seed", range(3))
def test_areas_are_those_of_anomalib(theirs, seed):
    """To a thousandth: its curves have 20,000 thresholds, ours all."""
    torch = pytest.importorskip("torch")
    rng, bounds = np.random.default_rng(seed), (1e-4, 1e-2)
    smooth = ndimage.gaussian_filter(rng.normal(size=(10, 128, 128)), (0, 4, 4))
    masks = smooth > 1.2 * smooth.std()
    masks[:5] = False
    maps = (rng.normal(size=masks.shape) + 2 * masks).astype(np.float32)
    _, _, _, _, expected, points = theirs.aupimo_scores(
        torch.tensor(maps), torch.tensor(masks), 20_000, bounds, force=False
    )
    assert points > 500
    np.testing.assert_allclose(aupimo(masks, maps, bounds), expected, atol=1e-3)
