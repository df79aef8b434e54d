"""Matplotlib as our reports use it: a Figure is drawn into a file, and text is text.

Names of a shop's own stand in pictures. Matplotlib reads what stands between two $ as a formula, and raises
where it is none.
"""

import matplotlib
from matplotlib.figure import Figure

matplotlib.rcParams["text.parse_math"] = False

__all__ = ["Figure"]
