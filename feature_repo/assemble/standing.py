"""Where a candidate stands among the others that were found for the same question.

A score of .4 says little by itself: it may be the best of this visitor's candidates or a common one. What
share of the others has less is comparable from visitor to visitor, and from release to release.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def standing(values: Floats) -> Floats:
    """Share of the candidates with less, per row: float32 (m, n) of values float32 (m, n).

    Equal ones stand equally; unknown (NaN) stays unknown and counts as less than any other.

    >>> standing(np.array([[5, 1, 5, 3], [np.nan, 2, 1, 3]], np.float32)).tolist()
    [[0.5, 0.0, 0.5, 0.25], [nan, 0.5, 0.25, 0.75]]
    """
    n = values.shape[1]
    known = ~np.isnan(values)
    filled = np.where(known, values, -np.inf)
    ordered = np.sort(filled, axis=1)
    less = [np.searchsorted(one, of, "left") for one, of in zip(ordered, filled, strict=True)]
    share = np.asarray(less, np.float32).reshape(values.shape) / np.float32(max(n, 1))
    return np.where(known, share, np.float32(np.nan))
