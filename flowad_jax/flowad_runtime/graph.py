"""Runs the graph of an exported detector, by ONNX Runtime or OpenVINO."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from .errors import UserError, reason

OUTPUTS = ("score", "map")
Arrays = Mapping[str, np.ndarray]
Graph = Callable[[Arrays], Arrays]


def with_onnxruntime(model: bytes, threads: int, names: Sequence[str]) -> Graph:
    """Returns a function from inputs to named outputs; 0 threads stand for all cores."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda inputs: dict(zip(names, session.run(names, dict(inputs)), strict=True))


def with_openvino(model: bytes, threads: int, names: Sequence[str]) -> Graph:
    """The same; in float32, for by default it rounds more and is 1 to 2 % off."""
    # Importing openvino would report to Google Analytics, from a process of its own; without this
    # package it does not.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = str(threads)
    with own_signal_stack():
        compiled = core.compile_model(core.read_model(model), "CPU", settings)

    def run(inputs: Arrays) -> Arrays:
        found = compiled(dict(inputs))
        return {name: found[name] for name in names}

    return run


@contextlib.contextmanager
def own_signal_stack() -> Iterator[None]:
    """Keeps the stack on which this thread handles signals.

    OpenVINO puts one in its place that is too small for the handlers of Python, so that Ctrl-C
    would end in a crash (Linux, on processors with AMX).
    """
    if sys.platform != "linux":
        yield
        return
    library, before = ctypes.CDLL(None), ctypes.create_string_buffer(64)  # more than a stack_t
    library.sigaltstack(None, before)
    try:
        yield
    finally:
        library.sigaltstack(before, None)


BACKENDS = {"onnxruntime": with_onnxruntime, "openvino": with_openvino}


def load(
    model: bytes, backend: str, threads: int, path: object, names: Sequence[str] = OUTPUTS
) -> Graph:
    """Loads the graph of a file with a backend.

    Raises:
      UserError: the backend is unknown, not installed, or cannot load it.
    """
    if backend not in BACKENDS:
        raise UserError(f"backend={backend!r}: choose one of {', '.join(BACKENDS)}")
    try:
        return BACKENDS[backend](model, threads, names)
    except ImportError:
        raise UserError(f"backend {backend} is not installed: pip install {backend}") from None
    except Exception as error:  # each has exceptions of its own
        raise UserError(f"{path} cannot be loaded by {backend}: {reason(error)}") from error
