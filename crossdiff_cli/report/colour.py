"""Bands to pictures: which bands make a true or a false colour picture, and how DN become grey levels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossdiff_cli.sensors.table import Band

TRUE, FALSE, GREY = "True colour", "False colour", "Grey"

_RED_NM, _GREEN_NM, _BLUE_NM, _NIR_NM = 660.0, 555.0, 480.0, 835.0
_TOLERANCE_NM = 60.0
"""How far from its nominal wavelength a band may lie and still stand for the colour."""
_NIR_TOLERANCE_NM = 95.0
_PERCENTILES = (0.5, 99.0)
_GAMMA = 1.5
_MOST = 4.0


def composites(bands: Sequence[Band]) -> Mapping[str, tuple[int, int, int]]:
    """Name the pictures that these bands can make: 0-based bands of (red, green, blue) by title, at least one."""
    red, green, blue = (_nearest(bands, nm, _TOLERANCE_NM) for nm in (_RED_NM, _GREEN_NM, _BLUE_NM))
    nir = _nearest(bands, _NIR_NM, _NIR_TOLERANCE_NM)
    found = {}
    if red is not None and green is not None and blue is not None and len({red, green, blue}) == 3:
        found[TRUE] = (red, green, blue)
    if nir is not None and red is not None and green is not None and len({nir, red, green}) == 3:
        found[FALSE] = (nir, red, green)
    if not found:
        longest = sorted(range(len(bands)), key=lambda i: -bands[i].center_nm)
        picked = [longest[0], longest[len(longest) // 2], longest[-1]]
        found[FALSE if len(bands) >= 3 else GREY] = (
            (picked[0], picked[1], picked[2]) if len(bands) >= 3 else (longest[-1],) * 3
        )
    return found


def _nearest(bands: Sequence[Band], nm: float, tolerance: float) -> int | None:
    best = min(range(len(bands)), key=lambda i: abs(bands[i].center_nm - nm))
    return best if abs(bands[best].center_nm - nm) <= tolerance else None


@dataclass(frozen=True, slots=True)
class Stretch:
    """DN that are shown black and white, one pair a band; the same for every picture of a scene."""

    low: NDArray[np.float32]
    """(bands,)."""
    high: NDArray[np.float32]
    """(bands,), above `low`."""

    def near(self, local: "Stretch") -> "Stretch":
        """The contrast of a part of the scene, but not more than `_MOST` times the contrast of the whole."""
        least = (self.high - self.low) / _MOST
        middle, half = (local.high + local.low) / 2, np.maximum(local.high - local.low, least) / 2
        return Stretch(middle - half, middle + half)

    def picture(
        self, image: NDArray[np.float32], mask: NDArray[np.bool_], bands: Sequence[int] | None = None
    ) -> NDArray[np.uint8]:
        """Grey levels (len(bands), rows, columns) of the chosen bands of (bands, rows, columns); masked is black."""
        chosen = list(range(len(image))) if bands is None else list(bands)
        low, span = self.low[chosen, None, None], (self.high - self.low)[chosen, None, None]
        level = np.clip((image[chosen] - low) / span, 0.0, 1.0) ** (1 / _GAMMA)
        return np.where(mask, np.rint(255.0 * level), 0).astype(np.uint8)


def stretch(image: NDArray[np.float32], mask: NDArray[np.bool_]) -> Stretch:
    """Percentiles of the valid pixels of (bands, rows, columns), or 0 to 1 where there are none."""
    if not mask.any():
        return Stretch(np.zeros(len(image), np.float32), np.ones(len(image), np.float32))
    low, high = np.percentile(image[:, mask], _PERCENTILES, axis=1)
    return Stretch(low.astype(np.float32), np.where(high > low, high, low + 1).astype(np.float32))
