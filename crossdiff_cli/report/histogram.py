"""The values of a band before and after, as one small SVG."""

import numpy as np
from numpy.typing import NDArray

_BINS = 16, 72
"""Fewest and most bins; the square root of the number of values between."""
_TAILS = (0.1, 99.9)
"""Percentiles beyond which values are left out."""


def histogram(before: NDArray[np.float32], after: NDArray[np.float32]) -> str:
    """Draw two sets of values, (n,) and (m,), one as an area and one as a line, each of unit area, on one scale."""
    if not before.size or not after.size:
        return '<p class="soft">no valid pixel</p>'
    limits = np.array([np.percentile(values, _TAILS) for values in (before, after)])
    low, high = float(limits[:, 0].min()), float(limits[:, 1].max())
    high = high if high > low else low + 1.0
    bins = min(max(round(min(before.size, after.size) ** 0.5), _BINS[0]), _BINS[1])
    shares = [np.histogram(values, bins, (low, high))[0] / values.size for values in (before, after)]
    top = max(float(share.max()) for share in shares) or 1.0
    area, line = (" ".join(f"{x},{100 - 96 * y / top:.2f}" for x, y in enumerate(share)) for share in shares)
    return (
        f'<svg class="hist" viewBox="0 0 {bins - 1} 100" preserveAspectRatio="none" role="img" '
        f'aria-label="Histogram before and after"><polygon class="before" points="0,100 {area} {bins - 1},100"/>'
        f'<polyline class="after" points="{line}"/></svg>'
        f"<figcaption>{low:.4g} to {high:.4g}; mean {before.mean():.4g} → {after.mean():.4g}, "
        f"deviation {before.std():.4g} → {after.std():.4g}</figcaption>"
    )
