"""Code bases whose detectors are converted, a file each; every file defines a ``DIALECT``."""
