"""The records that travel between the parts of the package, without behaviour.

Symbols in shapes: B images, H x W pixels, h x w positions of a feature map, C channels, L scales,
N rows. jax is imported for annotations only, so that data loading does not pay for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import jax
    import numpy as np

Tree = Any  # a pytree of arrays


class Batch(NamedTuple):
    """Images on their way to the flows, with what is known about each.

    Attributes:
      maps: the encoder's L feature maps (B, h, w, C) float32; empty before the encoder has run.
      image: (B, H, W, 3) float32, normalised with the encoder's mean and std; None behind the
        encoder, unless the method needs it.
      mask: (B, H, W) bool, true on defects, real or synthetic.
      label: (B,) int32, 0 for normal and 1 for anomalous.
      weight: (B,) float32, 0 for rows excluded from losses and scores: they pad the last batch, or
        synthesis made nothing of them.
    """

    maps: tuple[Any, ...] = ()
    image: Any = None
    mask: Any = None
    label: Any = None
    weight: Any = None


class Defect(NamedTuple):
    """One defect of an image; defects of an image may share pixels.

    Attributes:
      mask: (H, W) bool, true on the defect.
      saturation: share of its area, or number of pixels, from which on it counts as found.
      relative: whether that is a share.
    """

    mask: np.ndarray
    saturation: float = 1.0
    relative: bool = True


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
      buffers: new values of the mutable groups, such as running statistics.
      metrics: scalars to report, by name.
    """

    buffers: dict[str, Tree]
    metrics: dict[str, Any]


class Phase(NamedTuple):
    """A run of gradient steps on one group of parameters.

    Attributes:
      param_groups: names of the parameter groups that receive gradients.
      loss_fn: ``(params of those groups, buffers of mutable groups, minibatch) -> (loss, Aux)``.
      minibatches: pytree whose leaves are (n_steps, n, ...).
      active: (n_steps,) bool; a step that is not active changes nothing.
      dimensions: reported losses are divided by it, gradients are not.
      mutable: names of the groups of buffers that every step replaces, by `Aux.buffers`.
      family: how the names of the groups of the same detector begin; those of its parameters that
        receive no gradient are idle meanwhile.
    """

    param_groups: tuple[str, ...]
    loss_fn: Callable[[Tree, Tree, Tree], tuple[jax.Array, Aux]]
    minibatches: Tree
    active: jax.Array
    dimensions: int = 1
    mutable: tuple[str, ...] = ()
    family: str = ""


class Calibration(NamedTuple):
    """Constants fitted on normal images, which free a score from the other test images.

    Attributes:
      scale_max: (L,) largest log-likelihood per dimension of each map of likelihoods.
      map_max: () or (K,) largest value of the summed likelihood map, or of each of K such maps.
      form: () number of the formula for image scores, where a method has had several; stored, so
        that a detector keeps the one that its thresholds are of.
    """

    scale_max: Any
    map_max: Any
    form: Any = 0


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
      init: ``(rng, batch) -> {"params": {group: tree}, "buffers": {group: tree}}``; of the batch
        only the shapes matter.
      phases: ``(buffers, batch, rng) -> tuple of Phase``, the gradient steps of one batch.
      log_probs: ``(variables, batch) -> L maps (B, h, w)`` on the device.
      calibrate: ``(log_probs of normal images, image size) -> Calibration``.
      aggregate: ``(log_probs, image size, calibration or None) -> Scores``; None is the form of
        the paper, without constants from normal images.
      published: name of that form, e.g. ``"transductive"``.
      batch_kind: what a training batch holds: ``"normal"`` images; ``"pairs"``, all normal images
        and below them, row by row, what synthesis made of each; or ``"mixture"``, images of which
        synthesis has changed some, with masks.
      needs_image: whether it needs `Batch.image` beside the feature maps.
      fit: ``(variables, training batches) -> buffers``, what one pass over the training images
        finds in closed form before the first gradient step; None where there is nothing to find.
    """

    init: Callable[[jax.Array, Batch], dict[str, Tree]]
    phases: Callable[[dict[str, Tree], Batch, jax.Array], tuple[Phase, ...]]
    log_probs: Callable[[Mapping[str, Tree], Batch], tuple[jax.Array, ...]]
    calibrate: Callable[..., Calibration]
    aggregate: Callable[..., Scores]
    published: str
    batch_kind: str = "normal"
    needs_image: bool = False
    fit: Callable[[Mapping[str, Tree], Iterable[Batch]], dict[str, Tree]] | None = None


class TrainState(NamedTuple):
    """All that a run needs to go on; one checkpoint holds one of these.

    Attributes:
      step: () int32, image batches seen.
      params: trained parameters by group.
      opt_state: optimizer state by group.
      buffers: tensors without gradients by group: permutations, running statistics.
      rng: key from which every step folds its own.
    """

    step: Any
    params: dict[str, Tree]
    opt_state: dict[str, Tree]
    buffers: dict[str, Tree]
    rng: Any
