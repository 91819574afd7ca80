"""Runs converted functions with what reads ONNX files, and compares with JAX."""

import importlib.util

import jax
import numpy as np

from flowad_jax.flowad_runtime import graph
from flowad_jax.onnx.convert import convert

TOLERANCE = 1e-5  # of the largest value: float32, summed in another order


def by_onnxruntime(model, inputs):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, inputs)


def by_openvino(model, inputs):
    names = [output.name for output in model.graph.output]
    found = graph.load(model.SerializeToString(), "openvino", 1, "it", names)(inputs)
    return [found[name] for name in names]


def installed():
    """The backends that are there; onnxruntime is needed."""
    found = importlib.util.find_spec("openvino")
    return (by_onnxruntime, by_openvino) if found else (by_onnxruntime,)


def shapes(arrays, dynamic):
    """What `convert` takes for arrays whose leading axis is the batch."""
    batch = jax.export.symbolic_shape("B") if dynamic else None
    return {
        f"in{i}": jax.ShapeDtypeStruct((*(batch or x.shape[:1]), *x.shape[1:]), x.dtype)
        for i, x in enumerate(arrays)
    }


def converted(function, arrays, dynamic=False):
    count = len(jax.eval_shape(function, *arrays))
    return convert(function, shapes(arrays, dynamic), [f"out{i}" for i in range(count)])


def assert_same(function, *arrays, dynamic=False, run=(by_onnxruntime,), tolerance=TOLERANCE):
    """Converts a function that returns a tuple, runs it, and compares with JAX."""
    model = converted(function, arrays, dynamic)
    batches = (
        (arrays, tuple(np.concatenate([x, x[::-1]]) for x in arrays)) if dynamic else (arrays,)
    )
    for given in batches:
        expected = [np.asarray(x) for x in jax.jit(function)(*given)]
        for backend in run:
            found = backend(model, {f"in{i}": x for i, x in enumerate(given)})
            assert len(found) == len(expected)
            for ours, theirs in zip(found, expected, strict=True):
                assert_close(ours, theirs, tolerance)
    return model


def assert_close(ours, theirs, tolerance):
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    if theirs.dtype.kind == "f":
        scale = np.abs(theirs[np.isfinite(theirs)]).max(initial=1e-30)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * scale)
    else:
        np.testing.assert_array_equal(ours, theirs)
