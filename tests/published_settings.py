"""What was published, value by value: facts of the authors' programs, logs and papers."""

ALL = {
    "data.holdout": 0.0,  # all normal images train
    "data.few_shot": None,
    "data.repeat": 1,
    "data.filter": "lanczos",
    "train.weight_decay": 0.0,
    "train.adam_eps": 1e-8,
    "method.clamp_kind": "tanh",  # FrEIA 0.2: alpha * tanh(0.1 a)
    "encoder.tap_at": None,
    "encoder.layer_norm": False,
    "encoder.compute": "float32",
}
CFLOW = ALL | {
    "data.image_size": 256,
    "data.rotation_degrees": 5.0,
    "data.sharpen": 0.0,
    "data.drop_last": True,
    "data.norm": "encoder",
    "encoder.strides": (8, 16, 32),
    "encoder.pool": None,
    "synthesis.name": None,
    "method.condition": 128,
    "method.blocks": 8,
    "method.clamp": 1.9,
    "method.permutation": "soft",
    "method.fibre_size": 256,
    "method.fibre_steps": None,
    "method.objective": "log_sigmoid",
    "train.epochs": 200,  # 25 meta epochs of 8
    "train.batch_size": 32,
    "train.learning_rate": 2e-4,
    "train.clip_norm": None,
    "train.adam_idle": "decay",
    "train.schedule.name": "schedules.cflow",
    "train.schedule.sub_epochs": 8,
    "train.schedule.warmup_meta_epochs": 2,
    "train.schedule.decay_rate": 0.1,
    "eval.scoring": "transductive",
}
FASTFLOW = ALL | {
    "data.image_size": 256,
    "data.rotation_degrees": 0.0,
    "data.sharpen": 0.0,
    "data.drop_last": True,
    "data.norm": "encoder",
    "encoder.strides": (4, 8, 16),
    "encoder.pool": None,
    "encoder.padding": "zeros",
    "synthesis.name": None,
    "method.blocks": 8,
    "method.ratio": 1.0,
    "method.conv3x3_only": False,
    "method.layer_norm": True,
    "method.clamp": 2.0,
    "train.epochs": 500,
    "train.batch_size": 32,
    "train.learning_rate": 1e-3,
    "train.weight_decay": 1e-5,
    "train.decay": "l2",
    "train.clip_norm": None,
    "train.schedule.name": "schedules.constant",
    "eval.scoring": "per_image",
}
PATCHFLOW = ALL | {
    "data.image_size": 768,
    "data.rotation_degrees": 0.0,
    "data.sharpen": 0.0,
    "data.norm": "encoder",
    "encoder.name": "efficientnet.tf_efficientnet_b5_ns",
    "encoder.strides": (8, 16, 32),
    "encoder.pyramid": 3,
    "encoder.pool": None,
    "synthesis.name": None,
    "method.channels": 128,
    "method.hidden": 128,
    "method.blocks": 1,
    "method.projection": "trained",
    "method.pool": 3,
    "method.clamp": 2.0,
    "train.epochs": 10,
    "train.batch_size": 16,
    "train.learning_rate": 1e-3,
    "train.weight_decay": 1e-4,
    "train.decay": "l2",
    "train.clip_norm": None,
    "train.schedule.name": "schedules.constant",
    "eval.scoring": "per_image",
}
SANFLOW = CFLOW | {
    "data.rotation_degrees": 0.0,
    "synthesis.name": "mixture",
    "synthesis.kinds": ("normal", "rectangle", "circle", "scar"),
    "synthesis.jitter": 0.1,  # one strength a run, drawn from 0 to 0.2
    "synthesis.jitter_per_sample": False,
    "synthesis.legacy": True,  # training images are resized bilinearly
    "synthesis.mask_threshold": 0.0,  # any share of a blend makes a pixel anomalous
    "synthesis.lenders": None,
    "method.condition": 512,
    "method.permutation": "hard",
    "method.prior_p": 11.0,
    "method.prior_level": 0.1,
    "method.anomalous_mean": 1.0,
    "method.variance_clip": 5.0,
    "method.log_alpha_clip": (1e-8, 1e4),
    "method.cross_entropy_weight": 0.2,
    "method.legacy": True,
    "method.log_variance_weight": 1.0,
    "method.stop_alpha": False,
    "method.cross_entropy": "double_softmax",
    "method.variance_floor": 0.0,
    "method.mask_pool": "corner",
    "method.variance_pool": "corner",
    "method.per_scale": False,
    "method.joint_step": False,
    "train.epochs": 80,  # 20 meta epochs of 4
    "train.batch_size": 4,
    "train.learning_rate": 5e-4,
    "train.schedule.sub_epochs": 4,
}
del SANFLOW["method.fibre_size"], SANFLOW["method.fibre_steps"], SANFLOW["method.objective"]
MSFLOW = ALL | {
    "data.image_size": 512,
    "data.rotation_degrees": 0.0,
    "data.sharpen": 0.0,
    "data.drop_last": False,
    "data.norm": "encoder",
    "encoder.strides": (4, 8, 16),
    "encoder.pool": "avg",
    "encoder.padding": "reflect",
    "synthesis.name": None,
    "method.condition": 64,
    "method.blocks": (2, 5, 8),
    "method.clamp": 1.9,
    "method.top": 0.03,
    "method.compute": "float32",
    "train.epochs": 100,  # 25 meta epochs of 4
    "train.batch_size": 8,
    "train.learning_rate": 1e-4,
    "train.clip_norm": 2.0,
    "train.schedule.name": "schedules.msflow",
    "train.schedule.sub_epochs": 4,
    "train.schedule.warmup_meta_epochs": 3,
    "train.schedule.gamma": 0.33,
    "eval.scoring": "per_image",
    "eval.image_score": "method",
}
RELEASE = {"train.schedule.warmup_start": 0.3, "train.schedule.milestones": (0.75, 0.9)}
LATER = {"train.schedule.warmup_start": 0.1, "train.schedule.milestones": (0.7, 0.9)}
SSNF = ALL | {
    "seed": 923_874_273,
    "data.image_size": 448,
    "data.rotation_degrees": 0.0,
    "data.sharpen": 0.5,
    "data.drop_last": False,
    "data.norm": "encoder",
    "encoder.name": "cait.cait_m48_448",
    "encoder.taps": (40,),
    "encoder.pool": None,
    "synthesis.name": "nsa",
    "synthesis.dataset": None,  # the constants of the category at hand
    "synthesis.gamma": (2, 0.05, 0.03),
    "synthesis.resize": True,
    "synthesis.shift": True,
    "synthesis.blend": "normal",
    "synthesis.tolerance": 1.0,
    "synthesis.draws": 200,
    "synthesis.filter_scale": 1.0,
    "synthesis.retries": 0,
    "synthesis.legacy": True,
    "synthesis.unchanged_as_negative": True,
    "method.blocks": 10,
    "method.hidden": 128,
    "method.heads": 4,
    "method.clamp": 2.0,
    "method.drop": 0.2,
    "method.layout": "conv+attn",
    "method.negative_weight": 0.5,
    "method.negative_cap": 1e5,
    "method.cap_dimensions": 768 * 28 * 28,
    "method.positive_weight": "switch",
    "method.score": "density",
    "method.top": None,
    "method.sigmoid": False,
    "train.epochs": 500,
    "train.batch_size": 16,
    "train.learning_rate": 2e-4,
    "train.adam_eps": 1e-4,
    "train.weight_decay": 1e-5,
    "train.decay": "l2",
    "train.clip_norm": None,
    "train.schedule.name": "schedules.ssnf",
    "train.schedule.t_max": 100,
    "train.schedule.eta_min": 1e-6,
    "eval.scoring": "per_image",
}
LARGE = ("bottle", "carpet", "grid", "leather", "screw", "tile", "toothbrush", "wood", "zipper")
WIDE = {"encoder.name": "resnet.wide_resnet50_2", "encoder.padding": "reflect"}
TRANSISTOR = {"data.category_sizes.transistor": 256}
PUBLISHED = {
    "cflow_mvtec_wide_resnet50_2": CFLOW
    | WIDE
    | {"data.category_sizes.transistor": 128}
    | {f"data.category_sizes.{category}": 512 for category in LARGE},
    "cflow_mvtec_resnet18": CFLOW
    | {"encoder.name": "resnet.resnet18", "encoder.padding": "reflect"},
    "cflow_mvtec_mobilenet_v3_large": CFLOW | {"encoder.name": "mobilenet_v3.mobilenet_v3_large"},
    "cflow_stc_wide_resnet50_2": CFLOW
    | WIDE
    | {"data.norm": "stc", "data.options.quality": 80, "data.options.every": 1},
    "sanflow_mvtec_wide_resnet50_2": SANFLOW | WIDE | {"data.image_size": 256},
    "sanflow_mvtec_wide_resnet101_2": SANFLOW
    | WIDE
    | {"encoder.name": "resnet.wide_resnet101_2", "data.image_size": 320},
    "msflow_mvtec_wide_resnet50_2": MSFLOW | WIDE | RELEASE | TRANSISTOR,
    "msflow_mvtec_wide_resnet50_2_later": MSFLOW | WIDE | LATER | TRANSISTOR,
    "msflow_visa_wide_resnet50_2_later": MSFLOW | WIDE | LATER,
    "msflow_magnetic_tile_wide_resnet50_2": MSFLOW
    | WIDE
    | RELEASE
    | {
        "data.image_size": 192,
        "data.options.test_every": 5,
        "train.epochs": 30,
        "train.batch_size": 16,
        "train.schedule.milestones": (0.7, 0.9),  # by a third party's notes of the paper
    },
    "msflow_stc_wide_resnet50_2": MSFLOW
    | WIDE
    | RELEASE
    | {
        "data.image_size": (256, 384),
        "data.options.every": 5,
        "train.epochs": 10,
        "train.batch_size": 16,
        "train.schedule.milestones": (0.7, 0.9),
    },
    "fastflow_mvtec_wide_resnet50_2": FASTFLOW,
    "fastflow_mvtec_resnet18": FASTFLOW | {"method.conv3x3_only": True},
    "patchflow_mvtec_tf_efficientnet_b5_ns": PATCHFLOW,
    "patchflow_visa_tf_efficientnet_b5_ns": PATCHFLOW,
    **dict.fromkeys(("ssnf_mvtec_cait_m48", "ssnf_btad_cait_m48", "ssnf_dagm_cait_m48"), SSNF),
}
