"""The ground plan: curved town coordinates, streets, blocks and the river, for any extent and seed."""

import math
from dataclasses import dataclass

import numpy as np

from simulator.canvas import Place
from simulator.sensor import Floats

TOWN_ANGLE = math.radians(13.0)
RIVER_ANGLE = math.radians(4.0)
RIVER_SHIFT = 48.0
RIVER_HALF = 9.5
BANK = 7.0
HIGH_STREET = 4.6
SIDE_STREET = 2.8
PAVEMENT = 1.9


@dataclass(frozen=True, slots=True)
class Cell:
    """One town block between streets, in town coordinates (metres), with its land use."""

    u: tuple[float, float]
    v: tuple[float, float]
    use: str

    @property
    def size(self) -> tuple[float, float]:
        """Extent along u and v."""
        return self.u[1] - self.u[0], self.v[1] - self.v[0]


class Town:
    """Curved town coordinates, the streets on them and the river that bounds them.

    Attributes:
        streets_u, streets_v: (coordinate, half-width) of the streets along v and along u.
        cells: the blocks between them.
    """

    def __init__(self, reach: float, seed: int) -> None:
        """Lay out streets and blocks to `reach` metres from the middle; a larger reach only adds to them."""
        rng_u, rng_v = np.random.default_rng([seed, 1]), np.random.default_rng([seed, 2])
        self.streets_u = _street_lines(rng_u, reach, (74.0, 96.0), main_every=3)
        self.streets_v = _street_lines(rng_v, reach, (62.0, 80.0), main_every=4)
        self.cells = self._cells(np.random.default_rng([seed, 3]))

    def coordinates(self, x: Floats | float, y: Floats | float) -> tuple[Floats, Floats]:
        """Town coordinates of map positions."""
        c, s = math.cos(TOWN_ANGLE), math.sin(TOWN_ANGLE)
        a, b = x * c + y * s, -x * s + y * c
        return a + 6.0 * np.sin(b / 70.0 + 0.4), b + 5.0 * np.sin(a / 85.0 + 1.0)

    def place(self, u: float, v: float, turn: float = 0.0) -> Place:
        """The map position of a point in town coordinates, directed along u there."""
        (x0, y0), (x1, y1) = self._invert(u, v), self._invert(u + 1.0, v)
        return Place(x0, y0, math.atan2(y1 - y0, x1 - x0) + turn)

    def _invert(self, u: float, v: float) -> tuple[float, float]:
        a, b = u, v
        for _ in range(12):
            a, b = u - 6.0 * math.sin(b / 70.0 + 0.4), v - 5.0 * math.sin(a / 85.0 + 1.0)
        c, s = math.cos(TOWN_ANGLE), math.sin(TOWN_ANGLE)
        return a * c - b * s, a * s + b * c

    def in_town(self, place: Place, radius: float) -> bool:
        """Whether a thing of that radius stands clear of the river bank, on the town side."""
        distance = float(river_distance(place.x, place.y))
        return distance < -(RIVER_HALF + BANK + 2.0 + radius)

    def off_street(self, place: Place) -> bool:
        """Whether a point lies clear of every carriageway."""
        u, v = (float(c) for c in self.coordinates(place.x, place.y))
        return all(
            abs(position - at) > half + PAVEMENT / 2
            for position, streets in ((u, self.streets_u), (v, self.streets_v))
            for at, half in streets
        )

    def _cells(self, rng: np.random.Generator) -> list[Cell]:
        deck = ["houses", *rng.permutation(["halls", "sport", "retail", "houses", "park", "flats", "houses"])]
        deck += ["houses", "site", "houses", "flats", "houses"]
        spans_u = list(zip(self.streets_u[:-1], self.streets_u[1:], strict=True))
        spans_v = list(zip(self.streets_v[:-1], self.streets_v[1:], strict=True))
        blocks = [
            ((a[0] + a[1] + PAVEMENT, b[0] - b[1] - PAVEMENT), (c[0] + c[1] + PAVEMENT, d[0] - d[1] - PAVEMENT))
            for a, b in spans_u
            for c, d in spans_v
        ]
        blocks.sort(key=lambda block: math.hypot(sum(block[0]) / 2, sum(block[1]) / 2 + 60.0))
        whole = [all(self.in_town(self.place(a, b), 0.0) for a in u for b in v) for u, v in blocks]
        cells = []
        for index, (u, v) in enumerate(blocks):
            order = sum(whole[:index])
            use = deck[order % len(deck)] if whole[index] else ("green", "houses")[index % 2]
            cells.append(Cell(u, v, str(use)))
        return cells


def _street_lines(
    rng: np.random.Generator, reach: float, gaps: tuple[float, float], main_every: int
) -> list[tuple[float, float]]:
    first = float(rng.uniform(-25.0, 25.0))
    lines = [(first, HIGH_STREET)]
    for direction in (1.0, -1.0):
        position, index = first, 0
        side = np.random.default_rng(rng.integers(2**32))
        while abs(position) < reach + gaps[1]:
            index += 1
            position += direction * float(side.uniform(*gaps))
            lines.append((position, SIDE_STREET if index % main_every else HIGH_STREET))
    return sorted(lines)


def river_distance(x: Floats | float, y: Floats | float) -> Floats:
    """Metres from the middle of the river, about; negative on the town side (north)."""
    c, s = math.cos(RIVER_ANGLE), math.sin(RIVER_ANGLE)
    along, across = x * c + y * s, -x * s + y * c
    bend = 15.0 * np.sin(along / 62.0 + 0.6) + 3.0 * np.sin(along / 17.0)
    return np.asarray(across - RIVER_SHIFT - bend, dtype=np.float32)
