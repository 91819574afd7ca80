"""Files of JSON, and values of a config, that somebody made up."""

SHAPES = {
    "nothing": b"",
    "half": b'{"seed": 0, "data": {"na',
    "no UTF-8": b'{"seed": "\xff\xfe"}',
    "null": b"null",
    "truth": b"true",
    "number": b"7",
    "text": b'"os:system"',
    "list": b"[]",
    "rows": b"[1, [2], null]",
    "table": b"{}",
    "other table": b'{"runs": {"columns": []}, "columns": {"last": 3}, "kind": "eval"}',
    "deep lists": b"[" * 50_000 + b"]" * 50_000,
    "deep tables": b'{"data": ' * 5_000 + b"1" + b"}" * 5_000,
    "NaN": b'{"seed": NaN, "step": Infinity, "columns": {"last": {"image_auroc": NaN}}}',
    "huge": b'{"seed": 1' + b"0" * 6000 + b"}",
    "twice": b'{"seed": 1, "seed": 2}',
    "control": b'{"seed": "\\u0000\\u001b[31m\\n"}',
}

SECTIONS = ("seed", "data", "synthesis", "encoder", "method", "train", "cache", "eval", "sweep")
VALUES = {
    "data.image_size": (10**9, 0, -32, 32.0, "32", None, True, [32]),
    "data.category_sizes": ({"part": 0}, {"a.b": 32}, {"": 10**9}, {"x": "y"}),
    "data.category": (7, ["part"], "a\nb", "x\0", "../../..", "\ud800"),
    "data.root": (None, 7, "a\0b", "/dev/zero", "\ud800/x"),
    "data.norm": (None, "\x1b[2J", {"mean": 0}),
    "data.filter": (0, "none"),
    "data.holdout": ("all", None, [0.1], 1e300),
    "data.options": ({"masks": 7}, {"white": []}, {"unknown": 1}, {"__class__": 1}, {"lock": 1}),
    "data.options.normal": (["good"], None, 3),
    "encoder.strides": (None, [], ["4"], [[4]], {"a": 1}, 4, [10**9]),
    "encoder.taps": ("1", [1.5], [-1], [10**9], [[1]]),
    "encoder.weights": (None, 3, ["random"], "a\0b", "/dev/zero", ".", "\udcff"),
    "encoder.padding": (3, "mirror", ["zeros"]),
    "encoder.unknown": (1,),
    "encoder.lock": (1,),
    "encoder.layer_norm": (1, "yes"),
    "method.blocks": (10**9, -1, "8", None, [1], 1.5, {"a": 1}),
    "method.condition": (10**9, -4, "4", 6),
    "method.fibre_size": (10**12, 0, "x"),
    "method.clamp": ("x", None, [1.0], 1e300),
    "method.unknown": (1,),
    "method.items": (1,),
    "method/a.b": (1,),
    "train.epochs": (10**12, 0, -1, "1", None),
    "train.batch_size": (0, -4, 10**9, "4"),
    "train.learning_rate": (0, -1.0, "x", None),
    "train.unknown": (1,),
    "eval.batch_size": (0, -1, 10**9, 1.5, None),
    "eval.false_alarm_rate": (0, 2, "x", None),
    "eval.image_score": ("mean", None, 3, "-1", "2", "nan"),
    "eval.scoring": ("paper", None),
    "precision": ("float8", None, 7),
    "seed": (-1, 2**63, 1.5, "0", None, True),
}
KEYS = [(key, value) for key, values in VALUES.items() for value in values] + [
    (section, value)
    for section in (*SECTIONS, "data.options", "train.schedule", "data.category_sizes")
    for value in (None, [], "text", {"name": None})
]
