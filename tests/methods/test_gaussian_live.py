"""The Gaussian baseline as PaDiM, against anomalib's statistics and maps in PyTorch."""

import jax
import numpy as np
import pytest

from flowad_jax.methods import gaussian
from flowad_jax.types import Batch
from tests.methods import anomalib_files

pytestmark = pytest.mark.live
IMAGES, SHAPE, SIZE = 40, (5, 4, 6), (40, 36)  # (h, w, C)


def blur_class(torch):
    """What the peer takes from a package that is not installed: a mirrored Gaussian."""

    class GaussianBlur2d(torch.nn.Module):
        def __init__(self, kernel_size, sigma, channels):
            super().__init__()
            assert channels == 1
            self.radius = kernel_size[0] // 2
            at = torch.arange(-self.radius, self.radius + 1)
            weights = torch.exp(-(at**2) / (2 * sigma[0] ** 2))
            self.kernel = torch.outer(weights, weights)[None, None] / weights.sum() ** 2

        def forward(self, x):
            padded = torch.nn.functional.pad(x, 4 * (self.radius,), mode="reflect")
            return torch.nn.functional.conv2d(padded, self.kernel)

    return GaussianBlur2d


def test_fit_distances_maps_and_scores_agree(monkeypatch):
    """The peer divides by one image less, which scales variances and so all distances."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("anomalib")
    statistics = "anomalib.models.components.stats.multi_variate_gaussian"
    maps, stats = anomalib_files.load(
        "padim",
        monkeypatch,
        ("anomaly_map", statistics),
        {
            "anomalib.models.components": {"GaussianBlur2d": blur_class(torch)},
            "anomalib.models.components.base": {"DynamicBufferMixin": type("Mixin", (), {})},
            "anomalib.models.components.stats": {},
        },
    )
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(SHAPE[-1], SHAPE[-1]))
    train, new = (
        (rng.normal(size=(count, *SHAPE)) @ mixing).astype(np.float32) for count in (IMAGES, 3)
    )
    mean, inverse = stats.MultiVariateGaussian().fit(torch.from_numpy(train).permute(0, 3, 1, 2))
    theirs = maps.AnomalyMapGenerator(4).compute_anomaly_map(
        torch.from_numpy(new).permute(0, 3, 1, 2), mean, inverse, SIZE
    )[:, 0]

    smaller = (IMAGES - 1) / IMAGES
    method = gaussian.build("position", shrinkage=0.0, ridge=0.01 * smaller, smoothing=4.0)
    batch = Batch((train,), weight=np.ones(IMAGES), label=np.zeros(IMAGES))
    variables = method.init(jax.random.key(0), batch)
    variables["buffers"] = method.fit(variables, [batch])
    log_probs = [np.asarray(x) for x in method.log_probs(variables, Batch((new,)))]
    scores = method.aggregate(log_probs, SIZE, method.calibrate(log_probs, SIZE))
    scale = (smaller * SHAPE[-1]) ** 0.5  # ours is per channel
    np.testing.assert_allclose(scores.pixel * scale, theirs.numpy(), rtol=1e-4)
    np.testing.assert_allclose(scores.image * scale, theirs.amax((1, 2)).numpy(), rtol=1e-4)
