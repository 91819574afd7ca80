"""What `run.py` in an exported detector consists of: it needs NumPy, Pillow and a backend alone."""

from . import program
from .detector import Detector, Prediction
from .errors import UserError
from .regions import Region

__all__ = ["Detector", "Prediction", "Region", "UserError", "program"]
