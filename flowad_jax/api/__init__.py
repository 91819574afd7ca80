"""flowad_jax from Python: `fit`, `load`, and the `Detector` that both return."""
