"""A town by a river with fields beyond it, built on a canvas."""

import math

import numpy as np

from simulator import buildings, vegetation
from simulator.blocks import fill
from simulator.canvas import HALF, Canvas, Patch, Place, chance, fade
from simulator.sensor import Floats
from simulator.town import BANK, HIGH_STREET, PAVEMENT, RIVER_ANGLE, RIVER_HALF, RIVER_SHIFT, Town, river_distance

MENDED = 1.7
"""Level of the patchy texture above which the asphalt has been mended."""


def build(canvas: Canvas, seed: int) -> None:
    """Build the whole landscape on an empty canvas."""
    town = Town(canvas.size * canvas.sample * 0.75, seed)
    rng = np.random.default_rng([seed, 4])
    whole = canvas.everywhere()
    vegetation.lawn(canvas, whole, np.ones_like(canvas.height), 0.55)
    _fields(canvas, rng, whole)
    _streets(canvas, town, whole)
    for index, cell in enumerate(town.cells):
        fill(canvas, np.random.default_rng([seed, 5, index]), town, cell)
    _river(canvas, rng, whole)
    _bridge_and_traffic(canvas, rng, town)


def _fields(canvas: Canvas, rng: np.random.Generator, whole: Patch) -> None:
    """Strips of land on the far side of the river, each with its crop, parted by grass balks and hedges."""
    distance = river_distance(whole.along, whole.across)
    reach = canvas.size * canvas.sample * 0.75
    kinds = ["rapeseed", "crop", "ploughed", "orchard", "crop", "meadow", "crop", "ploughed"]
    position, index = -reach, int(rng.integers(len(kinds)))
    while position < reach:
        width = float(rng.uniform(34.0, 62.0))
        turn = RIVER_ANGLE + math.pi / 2 + rng.normal(0.0, 0.03)
        centre = Place(0.0, 0.0, turn).offset(RIVER_SHIFT + 100.0, -(position + width / 2))
        patch = canvas.around(centre, reach + width)
        if patch is not None:
            side = fade(np.abs(patch.across) - (width / 2 - 1.0) + 0.4 * canvas.texture("stain", patch), 0.8)
            inland = fade(RIVER_HALF + BANK + 3.5 - distance[patch.window], 1.5)
            _strip(canvas, rng, kinds[index % len(kinds)], patch, side * inland)
            if kinds[index % len(kinds)] == "orchard":
                vegetation.orchard(canvas, rng, centre.offset(16.0, 0.0), (180.0, width - 4))
            elif chance(rng, 0.5):
                vegetation.hedge(canvas, rng, centre.offset(-50.0, width / 2), 140.0)
        position += width
        index += 1


def _strip(canvas: Canvas, rng: np.random.Generator, kind: str, patch: Patch, cover: Floats) -> None:
    if kind == "ploughed":
        vegetation.ploughed(canvas, rng, patch, cover)
    elif kind in ("crop", "rapeseed"):
        vegetation.crop(canvas, rng, patch, cover, kind)
    elif kind == "meadow":
        vegetation.lawn(canvas, patch, cover, 0.75)
    else:
        vegetation.lawn(canvas, patch, cover, 0.35)


def _river(canvas: Canvas, rng: np.random.Generator, whole: Patch) -> None:
    """Water with a shallow, silty edge, gravel banks, a tow path and bankside trees."""
    distance = river_distance(whole.along, whole.across) + 0.7 * canvas.texture("stain", whole)
    distance += 0.25 * canvas.texture("patch", whole)
    path = fade(np.abs(river_distance(whole.along, whole.across) + RIVER_HALF + BANK) - 1.2, 0.5)
    vegetation.lay(canvas, whole, path * 0.85, "gravel")
    depth = RIVER_HALF - np.abs(distance)
    bank = np.clip(1.0 + depth / 1.8 - 0.25 * canvas.texture("clump", whole), 0.0, 1.0).astype(np.float32)
    vegetation.lay(canvas, whole, bank, "gravel", (0.10, 0.10))
    water = fade(-depth, 0.6)
    ripple = 1.0 + 0.04 * canvas.texture("grain", whole) + 0.05 * canvas.texture("patch", whole)
    ripple += 0.07 * canvas.texture("broad", whole)
    canvas.paint(whole, water, "river", ripple)
    silt = water * np.exp(-np.maximum(depth, 0.0) / 1.6) * 0.55
    vegetation.lay(canvas, whole, silt.astype(np.float32), "soil")
    flood = distance < RIVER_HALF
    canvas.height[(np.abs(distance) < RIVER_HALF) & flood] = 0.0
    canvas.shade[np.abs(distance) < RIVER_HALF] = 1.0
    reach = canvas.size * canvas.sample / 2 + 5
    for t in np.arange(-reach, reach, 5.0):
        for side in (-1.0, 1.0):
            if chance(rng, 0.55):
                x = float(t + rng.normal(0, 2))
                off = side * (RIVER_HALF + rng.uniform(2.0, BANK - 2.0))
                y = off - float(river_distance(x, 0.0))
                vegetation.tree(canvas, rng, Place(x, y), float(rng.gamma(9.0, 0.31)))


def _streets(canvas: Canvas, town: Town, whole: Patch) -> None:
    """Carriageways with wheel tracks, patches, kerbs, pavements and markings, up to the river path."""
    u, v = town.coordinates(whole.along, whole.across)
    near = fade(river_distance(whole.along, whole.across) + RIVER_HALF + BANK + 2.0, 0.6)
    lines = [(u, v, at, half) for at, half in town.streets_u] + [(v, u, at, half) for at, half in town.streets_v]
    for position, _, at, half in lines:
        pavement = near * fade(np.abs(position - at) - half - PAVEMENT, canvas.sample)
        vegetation.lay(canvas, whole, pavement, "concrete", (0.05, 0.06))
    carriage = np.zeros_like(near)
    for position, _, at, half in lines:
        np.maximum(carriage, near * fade(np.abs(position - at) - half, canvas.sample), out=carriage)
    vegetation.lay(canvas, whole, carriage, "asphalt", (0.05, 0.10))
    mended = np.asarray((canvas.texture("patch", whole) > MENDED) * 0.35, dtype=np.float32)
    canvas.paint(whole, carriage * mended, "bitumen", 0.9)
    junction = np.zeros_like(near)
    for at_u, half_u in town.streets_u:
        for at_v, half_v in town.streets_v:
            gap = np.maximum(np.abs(u - at_u) - half_u, np.abs(v - at_v) - half_v) - 1.5
            np.maximum(junction, fade(gap, canvas.sample), out=junction)
    _crossings(canvas, town, (u, v), near)
    for position, along, at, half in lines:
        _markings(canvas, whole, (position - at, along), half, near * (1.0 - junction))


def _crossings(canvas: Canvas, town: Town, position: tuple[Floats, Floats], near: Floats) -> None:
    """Zebra crossings over the high streets, one beside each junction."""
    whole = canvas.everywhere()
    stripes = np.zeros_like(near)
    axes = ((0, town.streets_u, town.streets_v), (1, town.streets_v, town.streets_u))
    for axis, streets, crossing in axes:
        across, along = position[axis], position[1 - axis]
        for at, half in streets:
            if half == HIGH_STREET:
                for junction, other in crossing:
                    box = np.maximum(np.abs(across - at) - half, np.abs(along - junction - other - 3.4) - 1.7)
                    bars = fade(np.abs((across - at + 0.5) % 1.0 - 0.5) - 0.25, canvas.sample)
                    np.maximum(stripes, fade(box, canvas.sample) * bars, out=stripes)
    canvas.paint(whole, stripes * near * 0.8, "white_paint", 0.85)


def _markings(canvas: Canvas, whole: Patch, axes: tuple[Floats, Floats], half: float, where: Floats) -> None:
    """Wheel tracks, a dashed middle line and, on high streets, edge lines."""
    across, along = axes
    tracks = np.exp(-(((np.abs(np.abs(across) - half / 2) - 0.8) / 0.35) ** 2)) * (np.abs(across) < half) * 0.17
    canvas.paint(whole, (where * tracks).astype(np.float32), "gravel")
    dashed = fade(np.abs(across) - buildings.LINE_WIDTH / 2, canvas.sample)
    dashed *= fade(np.abs((along % 6.0) - 3.0) - 1.5, canvas.sample)
    if half == HIGH_STREET:
        edge = fade(np.abs(np.abs(across) - (half - 0.4)) - buildings.LINE_WIDTH / 2, canvas.sample)
        dashed = np.maximum(dashed, edge * 0.8)
    canvas.paint(whole, where * dashed * 0.85, "white_paint", 0.9)


def _bridge_and_traffic(canvas: Canvas, rng: np.random.Generator, town: Town) -> None:
    """Carry each high street over the river and on as a country road; cars and street trees along all streets."""
    reach = canvas.size * canvas.sample * 0.75
    whole = canvas.everywhere()
    u, v = town.coordinates(whole.along, whole.across)
    distance = river_distance(whole.along, whole.across)
    for at, half in town.streets_u:
        if half == HIGH_STREET:
            beyond = fade(-(distance + RIVER_HALF + BANK + 2.0), canvas.sample)
            deck = fade(np.abs(u - at) - half, canvas.sample) * beyond
            span = fade(np.abs(distance) - RIVER_HALF - 3.0, canvas.sample)
            rails = fade(np.abs(u - at) - half - 1.3, canvas.sample) * span
            vegetation.lay(canvas, whole, rails, "concrete", (0.04, 0.04))
            vegetation.lay(canvas, whole, deck, "asphalt", (0.05, 0.08))
            _markings(canvas, whole, (u - at, v), half, beyond)
            canvas.lift(whole, np.maximum(deck, rails), np.where(rails > HALF, 4.0, 0.0))
        for v_spot in np.arange(-reach, reach, 16.0):
            _street_life(canvas, rng, town, town.place(at, v_spot + rng.uniform(-6, 6), math.pi / 2), half)
    for at, half in town.streets_v:
        for u_spot in np.arange(-reach, reach, 16.0):
            _street_life(canvas, rng, town, town.place(u_spot + rng.uniform(-6, 6), at), half)


def _street_life(canvas: Canvas, rng: np.random.Generator, town: Town, place: Place, half: float) -> None:
    if chance(rng, 0.3):
        lane = 1.0 if chance(rng, 0.5) else -1.0
        distance = lane * half / 2 if half == HIGH_STREET else lane * (half - 1.15)
        if half == HIGH_STREET or town.in_town(place, 0.0):
            buildings.car(canvas, rng, place.offset(0.0, distance, 0.0 if lane > 0 else math.pi))
    if chance(rng, 0.35) and town.in_town(place, 4.0):
        side = 1.0 if chance(rng, 0.5) else -1.0
        spot = place.offset(4.0, side * (half + PAVEMENT + 1.2))
        if town.off_street(spot) and not canvas.occupied(spot, 1.5):
            vegetation.tree(canvas, rng, spot, rng.uniform(1.3, 2.4))
