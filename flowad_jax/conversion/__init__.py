"""Detectors that were trained with PyTorch become workdirs for ``flowad predict`` and others."""
