"""The keys of a config that are no arguments of a call: default, bounds and meaning of each.

The other keys are arguments of what a section names, see `sections`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from flowad_jax.schema import integer, within

# Bounds of what a config may hold, so that no number takes the memory or the time of a machine.
COUNT, SIZE, MANY = within(0, 2**31), within(1, 2**16), within(1, 2**31)
WORKERS = within(0, 1024)
_SIDE = {**within(1, 8192), "description": "a whole number of pixels from 1 to 8192"}
PIXELS = {
    **_SIDE,
    "items": {"type": "integer", **_SIDE},
    "description": f"{_SIDE['description']}, or two: (height, width)",
}
SEED = within(0, 2**63 - 1)
PART = {"items": integer(0, 64), "minItems": 2, "maxItems": 2}
NAME_OR_NUMBER = {"type": ["integer", "string"], "description": "a name or a number"}


@dataclass(frozen=True)
class Root:
    """Keys without a section.

    Attributes:
      seed: everything random follows from it: initial weights, shuffling, augmentation.
      precision: how accelerators multiply float32 numbers: in full, as processors do; ``"tf32"``,
        faster on recent GPUs; or as is the device's ``"default"`` (TF32 on these, bfloat16 on
        TPUs).
    """

    seed: Annotated[int, SEED] = 0
    precision: str = "float32"


@dataclass(frozen=True)
class Sweep:
    """Several runs by one command, each in a folder of its own.

    They are all combinations of the categories in ``data.category`` and of these.

    Attributes:
      seeds: such as ``(0, 1, 2)``; None for ``seed`` alone.
      encoders: names with their weights, ``("resnet.resnet18=resnet18.safetensors", ...)``; None
        for ``encoder.name`` alone.
    """

    seeds: Annotated[tuple[int, ...] | None, {"items": integer(0, 2**63 - 1)}] = None
    encoders: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Data:
    """The images; ``data.options`` has what only one data set takes.

    Attributes:
      name: ``textures``, ``folder``, ``csv``, ``mvtec``, ...: ``flowad data`` lists
        all. ``tfds:mvtec`` is the same set as that command's ``--prepare`` wrote it. A name on the
        command line brings the options of its data set.
      root: folder that holds the categories; textures need none.
      category: one of them, several ``like,this``, or ``all``; None where the root itself is the
        category.
      image_size: pixels of the images that the encoder sees: one number for a square, or
        ``(height, width)``.
      fit: ``"stretch"`` scales images to that size, whatever their aspect; ``"crop"`` takes the
        largest middle part of its aspect; ``"pad"`` shows the whole image, mirrored at its borders.
      category_sizes: categories with a size of their own, which wins: ``{"transistor": 256}``.
      norm: mean and std of the input: the ``"encoder"``'s own, or a quirk of a reference:
        ``"stc"`` or ``"mean_as_std"``.
      filter: Pillow's filter for resizing images.
      holdout: share of the normal training images that is kept apart to set thresholds and to
        choose an epoch; the seed draws them.
      holdout_from: sets with ``"validation"`` images of their own keep those apart instead;
        ``"train"`` ignores them.
      fold: (k, K) holds the k-th of K parts out, from 0, instead of a share: what
        ``eval.calibration="cross"`` does in turn. None for no parts.
      synthetic_test: for sets without test images: a kind of synthesis, ``nsa``, ``cutpaste`` or
        ``mixture``. As many of the normal images as ``holdout`` says, but at least a tenth, are
        kept apart for it as well; they and their copies with synthetic anomalies are the test set,
        and all that is measured on it is called synthetic.
      few_shot: trains on so many of the others, drawn by the seed; None for all.
      repeat: times that an epoch visits every training image.
      rotation_degrees: bound of the random rotation of training images, 0 for none.
      sharpen: probability that a training image is sharpened.
      jitter: brightness and contrast of training images vary by factors up to 1 plus and minus
        this; 0 for none.
      drop_last: leaves out an incomplete last batch, as the references do.
      workers: threads that decode images.
      processes: processes that make training images instead, for machines with many cores.
      cache_mb: memory for decoded images.
    """

    name: str = "textures"
    root: str | None = None
    category: str | None = None
    image_size: Annotated[int | tuple[int, int], PIXELS] = 256
    fit: str = "stretch"
    category_sizes: dict[str, Annotated[int | tuple[int, int], PIXELS]] = field(
        default_factory=dict
    )
    norm: str = "encoder"
    filter: str = "lanczos"
    holdout: Annotated[float, within(0, 1)] = 0.1
    holdout_from: str = "validation"
    fold: Annotated[tuple[int, ...] | None, PART] = None
    synthetic_test: str | None = None
    few_shot: Annotated[int | None, COUNT] = None
    repeat: Annotated[int, within(high=2**31)] = 1
    rotation_degrees: Annotated[float, within(0, 360)] = 5.0
    sharpen: float = 0.0
    jitter: Annotated[float, within(0, 1)] = 0.0
    drop_last: bool = False
    workers: Annotated[int, WORKERS] = 2
    processes: Annotated[int, WORKERS] = 0
    cache_mb: Annotated[int, COUNT] = 2048


@dataclass(frozen=True)
class Synthesis:
    """How anomalies are made for the methods that learn from some, whatever their kind.

    Attributes:
      name: kind of synthesis, ``nsa``, ``cutpaste`` or ``mixture``; None for none.
      mask_threshold: a pixel is anomalous where its share of foreign material is above this.
      lenders: folder of images that lend their material; None for the other training images.
      unchanged_as_negative: methods that learn from pairs: a synthesis that changed nothing trains
        as an anomaly all the same, as SSNF's released code has it; else as normal only.
    """

    name: str | None = None
    mask_threshold: float = 0.0
    lenders: str | None = None
    unchanged_as_negative: bool = False


@dataclass(frozen=True)
class Train:
    """How a method learns; ``train.schedule`` has the learning rate over time.

    Attributes:
      epochs: passes over the training images.
      batch_size: images per batch.
      learning_rate: its largest value, see the schedule.
      clip_norm: bound on the norm of a gradient; None for none.
      adam_eps: the constant of Adam that keeps it from dividing by zero.
      weight_decay: pull of every parameter towards zero; 0 for none.
      decay: weight decay as part of the gradient, ``"l2"``; ``"decoupled"`` is AdamW.
      adam_idle: what happens to decoders without a gradient: ``"decay"`` as published, or
        ``"skip"``, see `flowad_jax.training.optimizer.Adam`.
      eval_every: epochs between evaluations; the last epoch always is one.
      checkpoint_every: epochs between checkpoints; the last epoch always is one.
      whiten: features get mean 0 and covariance 1 first, by an affine map that is fitted in one
        pass over the training images; for any method that does not fit them itself.
      feature_noise: standard deviation of noise on the features of training batches, for 1 of each
        map's own; 0 for none.
      ema_decay: the detector has an exponential moving average of its parameters over all steps,
        such as 0.99, in the place of the last ones; None for the last ones.
      loggers: where numbers go besides ``metrics.jsonl``: ``"tensorboard"``, ``"mlflow"``,
        ``"wandb"``; the latter two also get the config and the report.
      ensemble: members of a deep ensemble, flows that learn side by side from other seeds and whose
        likelihoods are averaged; the time of so many detectors.
      stack: detectors trained in one program: categories, ``("bottle", "cable")`` or ``("all",)``,
        also with ``sweep.seeds``, or seeds, ``(0, 1, 2)``; None for one run after the other.
      init_from: workdir of an earlier run of the same method, encoder and image size, whose
        parameters this one starts with; None for random ones. Also ``--init_from``.
    """

    epochs: Annotated[int, within(1, 10**6)] = 200
    batch_size: Annotated[int, SIZE] = 32
    learning_rate: Annotated[float, {"exclusiveMinimum": 0}] = 2e-4
    clip_norm: Annotated[float | None, within(0)] = None
    adam_eps: Annotated[float, within(0)] = 1e-8
    weight_decay: Annotated[float, within(0)] = 0.0
    decay: str = "l2"
    adam_idle: str = "decay"
    eval_every: Annotated[int, MANY] = 8
    checkpoint_every: Annotated[int, MANY] = 8
    whiten: bool = False
    feature_noise: Annotated[float, within(0)] = 0.0
    ema_decay: Annotated[float | None, {"exclusiveMinimum": 0, "exclusiveMaximum": 1}] = None
    loggers: Annotated[tuple[str, ...], {"items": {"type": "string"}}] = ("tensorboard",)
    ensemble: Annotated[int, within(1, 64)] = 1
    stack: Annotated[tuple[str, ...] | None, {"items": NAME_OR_NUMBER}] = None
    init_from: str | None = None


@dataclass(frozen=True)
class Cache:
    """Features of images that are never augmented are computed once and kept.

    Attributes:
      place: on the ``"device"``, in memory of the ``"host"``, on ``"disk"``, wherever they fit
        first (``"auto"``), or not at all (``"off"``).
      dtype: ``"bfloat16"`` takes half the space.
      memory_mb: most memory to take for them; None for half of what is free.
      folder: where ``"disk"`` keeps them for later runs; None for the workdir.
    """

    place: str = "auto"
    dtype: str = "float32"
    memory_mb: Annotated[int | None, COUNT] = None
    folder: str | None = None


@dataclass(frozen=True)
class Eval:
    """What is measured and reported.

    Attributes:
      batch_size: images per batch.
      scoring: ``"calibrated"``: a score depends on its image alone, measured against normal images.
        Or the paper's form: ``"transductive"`` (CFLOW-AD, SANFlow), in which the maxima of the
        whole test set enter every score; ``"per_image"`` (MSFlow, SSNF), in which every image is
        its own measure.
      calibration_images: training images that fit the calibration.
      image_score: the score of an image is that of the ``"method"``, the ``"max"`` of its anomaly
        map, or the mean of its most anomalous pixels, whose share is given, as ``"0.03"``.
      mask_size: pixel metrics at the ``"network"``'s size, or at every mask's own size,
        ``"native"``.
      calibration: what sets the thresholds: ``"split"``: images that training holds out;
        ``"cross"``: all of them, each held out by one of several detectors, which judge together;
        ``"cross_fast"``: the same scores for one detector trained on all images, an estimate.
      folds: detectors of ``"cross"`` and ``"cross_fast"``.
      false_alarm_rate: how often a normal image may be called anomalous; an estimate where the
        images are too few for a promise.
      min_region: smallest region of an image that `predict` reports, in pixels, or below 1 as a
        share of the image; None for what one position of the finest feature map covers.
      report_images: images in the gallery of report.html; 0 for no such page.
      pictures_per_kind: example panels per defect kind; 0 for no pictures.
    """

    batch_size: Annotated[int, SIZE] = 32
    scoring: str = "calibrated"
    calibration_images: Annotated[int, MANY] = 128
    image_score: str = "method"
    mask_size: str = "network"
    calibration: str = "split"
    folds: Annotated[int, within(2, 64)] = 5
    false_alarm_rate: float = 0.01
    min_region: Annotated[float | None, within(0)] = None
    report_images: Annotated[int, COUNT] = 200
    pictures_per_kind: Annotated[int, COUNT] = 2


SECTIONS: dict[str, type[Any]] = {
    "": Root,
    "sweep": Sweep,
    "data": Data,
    "synthesis": Synthesis,
    "train": Train,
    "cache": Cache,
    "eval": Eval,
}
