"""The few records that travel between the parts of the package.

Everything here is a plain tuple or dataclass without behaviour. Symbols used in shapes:
B images, H x W pixels, h x w positions of a feature map, C channels, L scales, N fibre rows.
jax is imported for annotations only, so that data loading does not pay for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import jax
    import numpy as np

Tree = Any  # a pytree of arrays


class Batch(NamedTuple):
    """Images as the encoder wants them, with what is known about each.

    Attributes:
      image: (B, H, W, 3) float32, normalised with the encoder's mean and std; None where the
        encoder's feature maps travel beside the batch.
      mask: (B, H, W) bool, true on defects, real or synthetic.
      label: (B,) int32, 0 for good and 1 for anomalous.
      weight: (B,) float32, 0 for rows that count for nothing: they pad the last batch, or no
        synthetic anomaly came about.
    """

    image: Any
    mask: Any
    label: Any
    weight: Any


class Published(NamedTuple):
    """A weight file that an encoder's authors offer.

    Attributes:
      file: its name; where that ends in a hash, the content has to match.
      source: its official address, or the command ``pip install ...`` that brings it.
      licence: of the weights, as an SPDX name.
      megabytes: size in 10^6 bytes, as published or from the number of parameters.
    """

    file: str
    source: str
    licence: str
    megabytes: float


@dataclass(frozen=True)
class EncoderSpec:
    """What an encoder promises; a test compares the promise with the real output.

    Attributes:
      name: module and variant, e.g. ``"resnet.resnet18"``.
      channels: channels of every tap that can be asked for, shallow first.
      strides: input pixels per position of those taps.
      mean, std: per-channel input normalisation for pixels in [0, 1].
      weights: what it was published with; None for the tiny ones that tests use.
      peer: the same network in PyTorch, ``"torchvision.resnet18"`` or ``"timm.cait_m48_448"``.
      size: side of the images that position codes were learned for, others are interpolated;
        None for networks without position codes.
      multiple: sides of images must be a multiple of it.
    """

    name: str
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    weights: Published | None = None
    peer: str = ""
    size: int | None = None
    multiple: int = 1


class Encoder(NamedTuple):
    """A frozen network with its weights.

    Attributes:
      apply: ``(variables, image (B, H, W, 3)) -> tuple of maps (B, h, w, C)``, shallow first, in
        float32 whatever it computes in.
      variables: the weights; always an argument of a jitted function, never closed over.
      spec: the promise that ``apply`` keeps.
      taps: the indices into ``spec.channels`` that ``apply`` returns.
      source: where the weights come from: ``name``, ``weights``, ``sha256``; and ``compute``, the
        precision of the products.
    """

    apply: Callable[[Tree, Any], tuple[jax.Array, ...]]
    variables: Tree
    spec: EncoderSpec
    taps: tuple[int, ...]
    source: dict[str, str]


class Aux(NamedTuple):
    """What a loss function returns beside the loss.

    Attributes:
      constants: new values of the groups that the phase updates, such as running statistics.
      metrics: scalars to report, by name.
    """

    constants: dict[str, Tree]
    metrics: dict[str, Any]


class Phase(NamedTuple):
    """A run of gradient steps on one group of parameters.

    Attributes:
      trains: names of the parameter groups that receive gradients.
      loss_fn: ``(params of those groups, constants of the groups in updates, minibatch) ->
        (scalar loss, Aux)``.
      minibatches: pytree whose leaves are (n_steps, n, ...).
      active: (n_steps,) bool; a step that is not active changes nothing.
      dimensions: reported losses are divided by it, gradients are not.
      updates: names of the groups of constants that every step replaces.
    """

    trains: tuple[str, ...]
    loss_fn: Callable[[Tree, Tree, Tree], tuple[jax.Array, Aux]]
    minibatches: Tree
    active: jax.Array
    dimensions: int = 1
    updates: tuple[str, ...] = ()


class Calibration(NamedTuple):
    """Constants fitted on normal images, which free a score from the other test images.

    Attributes:
      scale_max: (L,) largest log-likelihood per dimension of each scale.
      map_max: () or (K,) largest value of the summed likelihood map, or of each of K such maps.
    """

    scale_max: Any
    map_max: Any


class Scores(NamedTuple):
    """Anomaly scores; larger is more anomalous.

    Attributes:
      image: (N,) one score per image.
      pixel: (N, H, W) anomaly maps.
      overlap: the map that AUPRO uses where it is another one, else None.
    """

    image: np.ndarray
    pixel: np.ndarray
    overlap: np.ndarray | None = None


@dataclass(frozen=True)
class Method:
    """One published system as pure functions.

    Attributes:
      init: ``(rng, maps) -> {"params": {group: tree}, "constants": {group: tree}}``.
      phases: ``(constants, maps, batch, rng) -> tuple of Phase`` for one image batch.
      log_probs: ``(variables, maps) -> L maps (B, h, w)`` on the device.
      calibrate: ``(log_probs of normal images, image size) -> Calibration``.
      aggregate: ``(log_probs, image size, calibration or None) -> Scores``; None is the form of
        the paper, without constants from normal images.
      published: name of that form, e.g. ``"transductive"``.
      learns_from: what a training batch holds: ``"normal"`` images; ``"pairs"``, all normal images
        and below them, row by row, what synthesis made of each; or ``"mixture"``, images of which
        synthesis has changed some, with masks.
      sees_images: whether the encoder's input (B, H, W, 3) follows its feature maps as the last
        map.
    """

    init: Callable[[jax.Array, tuple[jax.Array, ...]], dict[str, Tree]]
    phases: Callable[..., tuple[Phase, ...]]
    log_probs: Callable[[Mapping[str, Tree], tuple[jax.Array, ...]], tuple[jax.Array, ...]]
    calibrate: Callable[..., Calibration]
    aggregate: Callable[..., Scores]
    published: str
    learns_from: str = "normal"
    sees_images: bool = False


class TrainState(NamedTuple):
    """All that a run needs to go on; one checkpoint holds one of these.

    Attributes:
      step: () int32, image batches seen.
      params: trained parameters by group.
      opt_state: optimizer state by group.
      constants: tensors without gradients by group: permutations, running statistics.
      rng: key from which every step folds its own.
    """

    step: Any
    params: dict[str, Tree]
    opt_state: dict[str, Tree]
    constants: dict[str, Tree]
    rng: Any
