"""The uses of town blocks: houses with gardens, halls, flats, shops, sports ground, park, building site."""

import math
from collections.abc import Callable, Iterator

import numpy as np

from simulator import buildings, vegetation
from simulator.buildings import Roof
from simulator.canvas import Canvas, Patch, Place, chance, fade, slope_shade
from simulator.sensor import Floats
from simulator.town import BANK, RIVER_HALF, Cell, Town, river_distance

POND_RADIUS = 9.0


def fill(canvas: Canvas, rng: np.random.Generator, town: Town, cell: Cell) -> None:
    """Build one block by its land use; nothing when it lies off the canvas."""
    u, v = sum(cell.u) / 2, sum(cell.v) / 2
    if canvas.around(town.place(u, v), math.hypot(*cell.size) / 2) is not None:
        _USES[cell.use](canvas, rng, town, cell)


def _ground(canvas: Canvas, town: Town, cell: Cell) -> tuple[Patch, Floats] | None:
    """The patch around a cell and the share of each sample that belongs to it and lies on the town side."""
    patch = canvas.around(town.place(sum(cell.u) / 2, sum(cell.v) / 2), math.hypot(*cell.size) / 2 + 3)
    if patch is None:
        return None
    rows, columns = patch.window
    axis = (np.arange(canvas.size, dtype=np.float32) + 0.5 - canvas.size / 2) * canvas.sample
    x, y = np.broadcast_arrays(axis[None, columns], axis[rows, None])
    u, v = town.coordinates(x, y)
    outside = np.maximum(np.abs(u - sum(cell.u) / 2) - cell.size[0] / 2, np.abs(v - sum(cell.v) / 2) - cell.size[1] / 2)
    dry = fade(river_distance(x, y) + RIVER_HALF + BANK + 2.0, 0.6)
    return patch, fade(outside, canvas.sample) * dry


def _scatter(rng: np.random.Generator, cell: Cell, area_each: float) -> Iterator[tuple[float, float, float]]:
    """Tree positions from the middle of a cell along u and v, and crown radii; one per `area_each` square metres."""
    for _ in range(int(cell.size[0] * cell.size[1] / area_each)):
        u, v = rng.uniform(-0.5, 0.5, 2) * cell.size
        yield float(u), float(v), float(rng.gamma(10.0, 0.31))


def _plant(canvas: Canvas, rng: np.random.Generator, town: Town, place: Place, radius: float) -> None:
    if town.in_town(place, radius):
        vegetation.tree(canvas, rng, place, radius)


def _houses(canvas: Canvas, rng: np.random.Generator, town: Town, cell: Cell) -> None:
    """Two rows of lots, back to back, each facing its street."""
    ground = _ground(canvas, town, cell)
    if ground is None:
        return
    vegetation.lawn(canvas, *ground, vigour=0.8)
    width, depth = cell.size[0], cell.size[1] / 2
    lots = max(int(width // rng.uniform(17.0, 20.0)), 1)
    fashion = [str(rng.choice(buildings.ROOFS)) for _ in range(2)]
    for facing in (-1.0, 1.0):
        street = cell.v[0] if facing < 0 else cell.v[1]
        for lot in range(lots):
            u = cell.u[0] + (lot + 0.5) * width / lots
            # In a lot's own axes "across" points from the street to the back of the garden.
            front = town.place(u, street, 0.0 if facing < 0 else math.pi)
            if town.in_town(front.offset(0.0, 12.0), 9.0):
                material = str(rng.choice(fashion)) if chance(rng, 0.7) else str(rng.choice(buildings.ROOFS))
                _lot(canvas, rng, front, (width / lots, depth), material)


def _lot(canvas: Canvas, rng: np.random.Generator, front: Place, extent: tuple[float, float], roof: str) -> None:
    width, depth = extent
    middle = front.offset(0.0, depth / 2)
    patch = canvas.around(middle, math.hypot(width, depth) / 2)
    if patch is None:
        return
    vegetation.lawn(canvas, patch, patch.box(width - 0.4, depth), rng.uniform(0.55, 1.1))
    side = 1.0 if chance(rng, 0.5) else -1.0
    drive = side * (width / 2 - 2.2)
    paving = str(rng.choice(["concrete", "gravel", "asphalt", "clay_court"]))
    surface = patch.box(3.0, 15.0, (drive, 7.5 - depth / 2))
    vegetation.lay(canvas, patch, surface, paving)
    length, breadth = rng.uniform(9.5, 12.5), rng.uniform(7.5, 9.0)
    house = front.offset(-side * 1.6, rng.uniform(8.5, 10.0), math.pi / 2 * float(chance(rng, 0.2)))
    terrace = patch.box(rng.uniform(5, 9), 4.0, (-side * 1.6, 16.0 - depth / 2))
    vegetation.lay(canvas, patch, terrace, "concrete", (0.04, 0.05))
    buildings.gabled(canvas, rng, house, Roof(length, breadth, rng.uniform(3.2, 5.6), rng.uniform(28, 42), roof))
    garage = front.offset(drive, 13.0)
    if chance(rng, 0.6):
        shed_roof = str(rng.choice(["bitumen", "slate", "gravel", roof]))
        buildings.block(canvas, garage, (3.4, 6.0), 2.7, shed_roof)
    if chance(rng, 0.75):
        buildings.car(canvas, rng, front.offset(drive, rng.uniform(3.5, 6.5), math.pi / 2))
    back = front.offset(0.0, (depth + 18.0) / 2)
    if chance(rng, 0.24):
        spot = back.offset(rng.uniform(-2, 2), rng.uniform(-2, 1), math.pi / 2 * float(rng.integers(2)))
        buildings.pool(canvas, spot, (rng.uniform(6.5, 9.0), rng.uniform(3.4, 4.4)))
    if chance(rng, 0.35):
        bed = patch.box(rng.uniform(3, 6), rng.uniform(2.5, 5), (side * 3.5, depth / 2 - 5))
        vegetation.lay(canvas, patch, bed * 0.9, "soil", (0.12, 0.1))
    for edge in (-1.0, 1.0):
        if chance(rng, 0.5):
            vegetation.hedge(canvas, rng, front.offset(edge * width / 2, 1.5, math.pi / 2), depth - 3)
    for _ in range(int(rng.integers(2, 7))):
        spot = front.offset(rng.uniform(-0.45, 0.45) * width, rng.uniform(19.0, max(depth - 1, 20.0)))
        vegetation.tree(canvas, rng, spot, float(np.clip(rng.gamma(7.0, 0.27), 0.8, 4.0)))


def _halls(canvas: Canvas, rng: np.random.Generator, town: Town, cell: Cell) -> None:
    """A works: two or three large halls on a paved yard, lorries at the docks, staff parking."""
    ground = _ground(canvas, town, cell)
    if ground is None:
        return
    patch, cover = ground
    vegetation.lay(canvas, patch, cover, "concrete", (0.05, 0.08))
    worn = np.clip(0.45 + 0.4 * canvas.texture("stain", patch), 0.0, 0.9)
    vegetation.lay(canvas, patch, (cover * worn).astype(np.float32), "asphalt", (0.05, 0.08))
    width, depth = cell.size
    split = rng.uniform(0.42, 0.58)
    materials = rng.permutation(np.array(buildings.HALL_ROOFS[:4]))
    position = cell.u[0] + 4.0
    for index, share in enumerate((split, 1.0 - split)):
        length = share * (width - 16.0)
        breadth = depth * rng.uniform(0.48, 0.58)
        place = town.place(position + length / 2, cell.v[0] + breadth / 2 + 3.5)
        if town.in_town(place, breadth / 2):
            roof = Roof(length, breadth, rng.uniform(6.5, 10.0), rng.uniform(3.0, 6.0), str(materials[index]))
            buildings.flat_roofed(canvas, rng, place, roof)
            for dock in np.arange(-length / 2 + 3, length / 2 - 3, 4.3):
                if chance(rng, 0.5):
                    spot = place.offset(float(dock), breadth / 2 + 7.5, math.pi / 2)
                    if town.in_town(spot, 6.0):
                        buildings.lorry(canvas, rng, spot)
        position += length + 8.0
    row = town.place(sum(cell.u) / 2, cell.v[1] - 5.5)
    if town.in_town(row, 6.0):
        buildings.car_park(canvas, rng, row, (width - 8.0, 8.0), 0.75)
    for _ in range(9):
        spot = town.place(rng.uniform(cell.u[0] + 4, cell.u[1] - 4), cell.v[1] - 12.5 - 2.9 * rng.integers(3))
        if town.in_town(spot, 4.0) and not canvas.occupied(spot, 3.4):
            colour = str(rng.choice(["blue_metal", "red_paint", "silver_paint", "concrete", "red_tile"]))
            buildings.block(canvas, spot, (6.1, 2.4), 2.6, colour)


def _flats(canvas: Canvas, rng: np.random.Generator, town: Town, cell: Cell) -> None:
    """Slabs of flats in a green court, with paths and a car park."""
    ground = _ground(canvas, town, cell)
    if ground is None:
        return
    patch, cover = ground
    vegetation.lawn(canvas, patch, cover, 0.8)
    width, depth = cell.size
    for offset in (-0.2, 0.27):
        path = cover * fade(np.abs(patch.across - offset * depth) - 1.0, canvas.sample)
        vegetation.lay(canvas, patch, path, "concrete")
    slabs = int(width // 26)
    for u, v, radius in _scatter(rng, cell, 140.0):
        _plant(canvas, rng, town, town.place(sum(cell.u) / 2 + u, sum(cell.v) / 2 + v), radius)
    for slab in range(slabs):
        u = cell.u[0] + (slab + 0.5) * width / slabs
        place = town.place(u, cell.v[0] + depth * 0.36, math.pi / 2)
        if town.in_town(place, 16.0):
            material = str(rng.choice(["bitumen", "gravel", "membrane", "slate"]))
            roof = Roof(depth * 0.55, rng.uniform(11.0, 13.0), rng.uniform(10.0, 15.5), 0.0, material)
            buildings.flat_roofed(canvas, rng, place, roof)
    parking = town.place(sum(cell.u) / 2, cell.v[1] - 9.5)
    if town.in_town(parking, 10.0):
        buildings.car_park(canvas, rng, parking, (width - 6.0, 16.5), 0.7)


def _retail(canvas: Canvas, rng: np.random.Generator, town: Town, cell: Cell) -> None:
    """A supermarket behind its car park."""
    ground = _ground(canvas, town, cell)
    if ground is None:
        return
    patch, cover = ground
    vegetation.lawn(canvas, patch, cover, 0.6)
    width, depth = cell.size
    shop = town.place(cell.u[0] + width * 0.17, sum(cell.v) / 2, math.pi / 2)
    if town.in_town(shop, 12.0):
        material = str(rng.choice(["membrane", "red_tile", "metal"]))
        roof = Roof(depth - 8.0, width * 0.3, 6.5, 4.0, material)
        buildings.flat_roofed(canvas, rng, shop, roof)
    lot = town.place(cell.u[0] + width * 0.66, sum(cell.v) / 2)
    if town.in_town(lot, depth / 2 - 4):
        buildings.car_park(canvas, rng, lot, (width * 0.58, depth - 7.0), 0.72)
        for _ in range(7):
            spot = lot.offset(rng.uniform(-0.28, 0.28) * width, rng.choice((-1.0, 1.0)) * (depth / 2 - 2.0))
            vegetation.tree(canvas, rng, spot, rng.uniform(1.3, 2.2), "broadleaf")


def _sport(canvas: Canvas, rng: np.random.Generator, town: Town, cell: Cell) -> None:
    """A football pitch, two clay courts and a clubhouse."""
    ground = _ground(canvas, town, cell)
    if ground is None:
        return
    vegetation.lawn(canvas, *ground, vigour=0.65)
    width, depth = cell.size
    field = town.place(cell.u[0] + width * 0.5, cell.v[0] + (depth - 22.0) / 2 + 1.0)
    if town.in_town(field, 20.0):
        buildings.pitch(canvas, field, (min(width - 12.0, 72.0), depth - 28.0))
    for court in (0.24, 0.66):
        spot = town.place(cell.u[0] + width * court, cell.v[1] - 10.0)
        if town.in_town(spot, 9.0):
            buildings.tennis(canvas, spot)
    club = town.place(cell.u[0] + width * 0.92, cell.v[1] - 10.0, math.pi / 2)
    if town.in_town(club, 8.0):
        buildings.gabled(canvas, rng, club, Roof(14.0, 8.0, 3.5, 24.0, "brown_tile"))
    for u in np.arange(cell.u[0] + 2, cell.u[1], 5.5):
        spot = town.place(float(u), cell.v[0] + 1.5)
        if town.in_town(spot, 3.0) and chance(rng, 0.8):
            vegetation.tree(canvas, rng, spot, rng.uniform(1.8, 3.2), "broadleaf")


def _park(canvas: Canvas, rng: np.random.Generator, town: Town, cell: Cell) -> None:
    """Lawns and groves around a pond, with gravel paths."""
    ground = _ground(canvas, town, cell)
    if ground is None:
        return
    patch, cover = ground
    vegetation.lawn(canvas, patch, cover, 0.95)
    width, depth = cell.size
    bend = np.abs(patch.across - 7.0 * np.sin(patch.along / 13.0)) - 1.1
    ring = np.abs(np.hypot(patch.along / width, patch.across / depth) - 0.38) * depth - 0.9
    paths = np.maximum(fade(bend, 0.4), fade(ring, 0.4)) * cover
    vegetation.lay(canvas, patch, paths, "gravel")
    centre = (patch.along - 0.14 * width, patch.across + 0.12 * depth)
    wobble = 1.6 * canvas.texture("stain", patch)
    shore = np.asarray(np.hypot(centre[0] / 1.5, centre[1]) - POND_RADIUS + wobble, dtype=np.float32)
    vegetation.lay(canvas, patch, fade(shore - 0.8, 0.8) * cover, "soil")
    canvas.paint(patch, fade(shore, 0.5) * cover, "river", 0.8 + 0.04 * canvas.texture("patch", patch))
    for u, v, radius in _scatter(rng, cell, 60.0):
        if math.hypot((u - 0.14 * width) / 1.4, v + 0.12 * depth) > POND_RADIUS + 1.0 + radius:
            _plant(canvas, rng, town, town.place(sum(cell.u) / 2 + u, sum(cell.v) / 2 + v), radius)


def _green(canvas: Canvas, rng: np.random.Generator, town: Town, cell: Cell) -> None:
    """Meadow and loose trees by the river, with a trodden path."""
    ground = _ground(canvas, town, cell)
    if ground is None:
        return
    patch, cover = ground
    vegetation.lawn(canvas, patch, cover, 0.8)
    bend = patch.across - 0.25 * patch.along - 5.0 * np.sin(patch.along / 11.0)
    vegetation.lay(canvas, patch, fade(np.abs(bend) - 0.6, 0.6) * cover * 0.8, "pale_soil")
    for u, v, radius in _scatter(rng, cell, 150.0):
        _plant(canvas, rng, town, town.place(sum(cell.u) / 2 + u, sum(cell.v) / 2 + v), radius)


def _site(canvas: Canvas, rng: np.random.Generator, town: Town, cell: Cell) -> None:
    """A building site: bare and compacted soil, wheel ruts, a slab, heaps, containers, a half-built shell."""
    ground = _ground(canvas, town, cell)
    if ground is None:
        return
    patch, cover = ground
    vegetation.lay(canvas, patch, cover, "soil", (0.10, 0.12))
    pale = np.clip(0.45 + 0.35 * canvas.texture("stain", patch) + 0.15 * canvas.texture("patch", patch), 0.0, 1.0)
    vegetation.lay(canvas, patch, (cover * pale).astype(np.float32), "pale_soil", (0.08, 0.08))
    for _ in range(6):
        turn, shift, curve = rng.uniform(-0.5, 0.5), rng.uniform(-20, 20), rng.uniform(5, 12)
        line = patch.across - shift - turn * patch.along - curve * np.sin(patch.along / 21.0 + turn)
        rut = np.maximum(fade(np.abs(line - 0.95) - 0.25, 0.3), fade(np.abs(line + 0.95) - 0.25, 0.3))
        canvas.paint(patch, cover * rut * 0.4, "pale_soil", 1.1)
    weeds = np.clip(canvas.texture("stain", patch) - 0.8, 0.0, 0.8)
    canvas.paint(patch, (cover * weeds).astype(np.float32), "lawn")
    width, depth = cell.size
    for share, floor in ((0.3, 0.6), (0.68, 4.0)):
        place = town.place(cell.u[0] + share * width, cell.v[0] + 0.42 * depth)
        if town.in_town(place, 15.0):
            buildings.block(canvas, place, (24.0, 15.0), floor, "concrete")
            for wall in np.arange(-10.0, 11.0, 5.0):
                buildings.block(canvas, place.offset(float(wall), 0.0), (0.4, 15.0), floor + 2.6, "gravel")
    for _ in range(8):
        place = town.place(rng.uniform(*cell.u), cell.v[1] - rng.uniform(4.0, 16.0))
        if town.in_town(place, 5.0):
            _heap(canvas, rng, place)
    for slot in range(4):
        place = town.place(cell.u[0] + 8.0 + 7.0 * slot, cell.v[0] + 3.5)
        if town.in_town(place, 4.0):
            colour = str(rng.choice(["blue_metal", "red_paint", "white_paint", "silver_paint"]))
            buildings.block(canvas, place, (6.1, 2.4), 2.6, colour)


def _heap(canvas: Canvas, rng: np.random.Generator, place: Place) -> None:
    radius = rng.uniform(2.0, 4.5)
    patch = canvas.around(place, radius * 1.3)
    if patch is None:
        return
    reach = np.hypot(patch.along, patch.across) / radius + 0.08 * canvas.texture("clump", patch)
    height = np.maximum(1.0 - reach, 0.0) * radius * 0.62
    slope = np.gradient(height, canvas.sample)
    cover = fade((reach - 1.0) * radius, 0.4)
    material = str(rng.choice(["pale_soil", "gravel", "soil"]))
    canvas.paint(patch, cover, material, 1.0 + 0.08 * canvas.texture("grain", patch))
    canvas.lift(patch, cover, height, slope_shade(slope[1], slope[0]))


_USES: dict[str, Callable[[Canvas, np.random.Generator, Town, Cell], None]] = {
    "houses": _houses,
    "halls": _halls,
    "flats": _flats,
    "retail": _retail,
    "sport": _sport,
    "park": _park,
    "green": _green,
    "site": _site,
}
