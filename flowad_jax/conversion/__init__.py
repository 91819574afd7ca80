"""Detectors that were trained with PyTorch become workdirs for eval.py and predict.py."""
