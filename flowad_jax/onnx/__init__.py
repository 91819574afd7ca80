"""A converter from JAX functions to ONNX, for forward passes of encoders and flows."""
