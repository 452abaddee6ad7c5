"""What people build and park: houses, halls, flats, cars, lorries, pools, car parks, sports grounds."""

import math
from dataclasses import dataclass

import numpy as np

from simulator.canvas import Canvas, Patch, Place, chance, fade, slope_shade
from simulator.sensor import Floats
from simulator.vegetation import lawn, lay

ROOFS = ("red_tile", "red_tile", "red_tile", "brown_tile", "slate", "slate", "bitumen")
HALL_ROOFS = ("metal", "membrane", "blue_metal", "slate", "metal", "bitumen", "gravel")
CAR_COLOURS = (
    ("white_paint", 0.85),
    ("white_paint", 1.0),
    ("silver_paint", 1.0),
    ("silver_paint", 0.8),
    ("silver_paint", 0.45),
    ("dark_paint", 1.3),
    ("dark_paint", 2.0),
    ("red_paint", 0.9),
    ("blue_metal", 0.8),
    ("blue_metal", 0.45),
    ("silver_paint", 0.6),
    ("white_paint", 0.95),
    ("dark_paint", 1.6),
    ("yellow_paint", 0.8),
    ("red_tile", 0.7),
)
LINE_WIDTH = 0.14


@dataclass(frozen=True, slots=True)
class Roof:
    """Size of a building in metres, wall height, roof pitch in degrees and material."""

    length: float
    width: float
    wall: float
    pitch: float
    material: str


def gabled(canvas: Canvas, rng: np.random.Generator, place: Place, roof: Roof) -> None:
    """A building with a saddle or hipped roof, one side lit and the other dark, with chimney, windows or panels."""
    patch = canvas.around(place, math.hypot(roof.length, roof.width) / 2 + 1)
    if patch is None:
        return
    slope = math.tan(math.radians(roof.pitch))
    from_eaves = roof.width / 2 - np.abs(patch.across)
    to_gable = roof.length / 2 - np.abs(patch.along)
    hipped = chance(rng, 0.35)
    hip = (to_gable < from_eaves) if hipped else np.zeros(to_gable.shape, dtype=bool)
    rise = slope * np.clip(np.minimum(from_eaves, to_gable) if hipped else from_eaves, 0.0, None)
    along = np.where(hip, -slope * np.sign(patch.along), 0.0).astype(np.float32)
    across = np.where(hip, 0.0, -slope * np.sign(patch.across)).astype(np.float32)
    cover = patch.box(roof.length, roof.width)
    courses = 1.0 + 0.05 * np.sin(2 * math.pi * from_eaves / 0.42)
    age = 1.0 + 0.07 * canvas.texture("clump", patch) + 0.06 * canvas.texture("patch", patch)
    age += 0.05 * canvas.texture("grain", patch)
    canvas.paint(patch, cover, roof.material, rng.uniform(0.75, 1.15) * courses * age)
    ridge = fade(np.abs(patch.across) - 0.14, canvas.sample) * cover * (~hip)
    canvas.paint(patch, 0.6 * ridge, roof.material, 0.7)
    canvas.lift(patch, cover, roof.wall + rise, slope_shade(along, across, place.angle))
    _roof_fittings(canvas, rng, place, roof)


def _roof_fittings(canvas: Canvas, rng: np.random.Generator, place: Place, roof: Roof) -> None:
    slope = math.tan(math.radians(roof.pitch))
    ridge = roof.wall + slope * roof.width / 2
    chimney = place.offset(rng.uniform(-0.3, 0.3) * roof.length, rng.choice((-1.0, 1.0)) * 0.8)
    block(canvas, chimney, (0.75, 0.6), ridge + 0.8, "concrete")
    south = 1.0 if math.cos(place.angle) > 0 else -1.0
    side = place.offset(0.0, south * roof.width * 0.25)
    if chance(rng, 0.22):
        _sheet(canvas, side, (rng.uniform(0.4, 0.8) * roof.length, roof.width * 0.3), "solar_panel")
    elif chance(rng, 0.5):
        for step in range(int(rng.integers(1, 4))):
            _sheet(canvas, side.offset((step - 1) * 2.4, 0.0), (0.9, 1.2), "dark_paint", 2.0)


def _sheet(canvas: Canvas, place: Place, size: tuple[float, float], material: str, gain: float = 1.0) -> None:
    """Paint a rectangle without changing heights: a sign, a window, a marking, a solar panel."""
    patch = canvas.around(place, math.hypot(*size) / 2 + 0.5)
    if patch is not None:
        canvas.paint(patch, patch.box(*size), material, gain)


def block(canvas: Canvas, place: Place, size: tuple[float, float], height: float, material: str) -> None:
    """A plain box: a chimney, a container, a roof unit, a kiosk."""
    patch = canvas.around(place, math.hypot(*size) / 2 + 0.5)
    if patch is not None:
        cover = patch.box(*size)
        gain = 1.0 + 0.05 * canvas.texture("grain", patch)
        canvas.paint(patch, cover, material, gain)
        canvas.lift(patch, cover, height)


def flat_roofed(canvas: Canvas, rng: np.random.Generator, place: Place, roof: Roof) -> None:
    """A hall or a block of flats: parapet, seams or membrane, puddle stains, skylights, machinery."""
    patch = canvas.around(place, math.hypot(roof.length, roof.width) / 2 + 1)
    if patch is None:
        return
    cover = patch.box(roof.length, roof.width)
    stains = 1.0 + 0.06 * canvas.texture("stain", patch) + 0.04 * canvas.texture("patch", patch)
    stains += 0.025 * canvas.texture("grain", patch)
    if roof.material in ("metal", "blue_metal", "membrane"):
        stains *= 1.0 + 0.045 * np.sign(np.sin(2 * math.pi * patch.across / 1.3) - 0.7)
        stains *= 1.0 + 0.03 * np.sin(np.floor(patch.along / 6.0) * 43.7)
    canvas.paint(patch, cover, roof.material, rng.uniform(0.85, 1.05) * stains)
    # Two shallow slopes that meet on a ridge along the building.
    tilt = math.tan(math.radians(roof.pitch)) * np.where(patch.across > 0, -1.0, 1.0)
    canvas.lift(patch, cover, roof.wall, slope_shade(0.0 * tilt, tilt, place.angle))
    parapet = cover * (1.0 - patch.box(roof.length - 0.8, roof.width - 0.8))
    canvas.paint(patch, parapet, "concrete", 0.9)
    canvas.lift(patch, parapet, roof.wall + 0.7)
    if roof.pitch > 0:
        strips = int(roof.length // 9)
        for strip in range(strips):
            spot = place.offset((strip + 0.5) * roof.length / strips - roof.length / 2, 0.0)
            _sheet(canvas, spot.offset(0.0, roof.width * 0.24), (1.3, roof.width * 0.3), "silver_paint", 1.5)
            _sheet(canvas, spot.offset(0.0, -roof.width * 0.24), (1.3, roof.width * 0.3), "silver_paint", 1.5)
    for _ in range(int(roof.length * roof.width / 110) + 1):
        a, b = rng.uniform(-0.42, 0.42, 2) * (roof.length, roof.width)
        size = (rng.uniform(0.9, 2.8), rng.uniform(0.9, 2.0))
        unit = str(rng.choice(["silver_paint", "concrete", "membrane"]))
        block(canvas, place.offset(a, b), size, roof.wall + rng.uniform(0.6, 1.9), unit)


def car(canvas: Canvas, rng: np.random.Generator, place: Place) -> None:
    """A car of 4.5 x 1.8 m, nose along the place's direction: body, windscreens, cabin roof."""
    patch = canvas.around(place, 3.2)
    if patch is None:
        return
    length, width = rng.normal(4.4, 0.25), rng.normal(1.8, 0.05)
    material, gain = CAR_COLOURS[int(rng.integers(len(CAR_COLOURS)))]
    body = patch.box(length, width, corner=0.4)
    canvas.paint(patch, body, material, gain * rng.uniform(0.85, 1.1))
    glass = patch.box(length * 0.56, width * 0.86, (-0.25, 0.0), 0.3)
    canvas.paint(patch, glass, "dark_paint", 1.5)
    cabin = patch.box(length * 0.3, width * 0.76, (-0.35, 0.0), 0.2)
    canvas.paint(patch, cabin, material, gain)
    ground = float(np.median(canvas.height[patch.window]))
    canvas.lift(patch, body, ground + 0.95)
    canvas.lift(patch, glass, ground + 1.45)


def lorry(canvas: Canvas, rng: np.random.Generator, place: Place) -> None:
    """A lorry with a box body of 8 to 13 m, or its trailer alone."""
    length = rng.uniform(7.0, 12.5)
    paint = str(rng.choice(["white_paint", "white_paint", "silver_paint", "blue_metal", "red_paint", "membrane"]))
    block(canvas, place, (length, 2.5), 3.8, paint)
    if chance(rng, 0.7):
        cab = str(rng.choice(["white_paint", "red_paint", "blue_metal", "silver_paint"]))
        block(canvas, place.offset(length / 2 + 1.5, 0.0), (2.2, 2.4), 3.0, cab)


def pool(canvas: Canvas, place: Place, size: tuple[float, float]) -> None:
    """A swimming pool with its paved rim; the deep end is darker."""
    patch = canvas.around(place, math.hypot(*size) / 2 + 2)
    if patch is None:
        return
    lay(canvas, patch, patch.box(size[0] + 2.2, size[1] + 2.2), "concrete")
    deep = 1.0 - 0.2 * patch.along / size[0] + 0.05 * canvas.texture("clump", patch)
    canvas.paint(patch, patch.box(*size, corner=0.6), "pool", deep)


def car_park(
    canvas: Canvas, rng: np.random.Generator, place: Place, extent: tuple[float, float], occupancy: float
) -> None:
    """Asphalt with marked stalls of 2.5 x 5 m in rows across the place, filled to an occupancy 0..1."""
    patch = canvas.around(place, math.hypot(*extent) / 2 + 1)
    if patch is None:
        return
    area = patch.box(*extent)
    lay(canvas, patch, area, "asphalt", (0.05, 0.10))
    half = extent[1] / 2
    for row, base in enumerate(np.arange(-half + 2.6, half - 2.4, 8.2)):
        stalls = int((extent[0] - 2) // 2.5)
        start = -stalls * 1.25
        lines = patch.box(stalls * 2.5, 5.0, (0.0, base))
        lines *= fade(np.abs((patch.along - start + 1.25) % 2.5 - 1.25) - LINE_WIDTH / 2, canvas.sample)
        canvas.paint(patch, lines * 0.8, "white_paint", 0.8)
        for stall in range(stalls):
            if chance(rng, occupancy):
                turn = math.pi / 2 if (row + rng.integers(3)) % 2 else -math.pi / 2
                jitter = rng.normal(0.0, (0.12, 0.25))
                spot = place.offset(start + (stall + 0.5) * 2.5 + jitter[0], base + jitter[1])
                car(canvas, rng, spot.offset(0.0, 0.0, turn + rng.normal(0.0, 0.03)))


def _lines(patch: Patch, length: float, width: float) -> Floats:
    """The outline of a rectangle, drawn inwards with marking paint."""
    outer = patch.box(length, width)
    inner = patch.box(length - 2 * LINE_WIDTH, width - 2 * LINE_WIDTH)
    return np.asarray(np.maximum(outer - inner, 0.0))


def pitch(canvas: Canvas, place: Place, extent: tuple[float, float]) -> None:
    """A football pitch: mowing stripes, markings, worn goal areas, two goals."""
    length, width = extent
    patch = canvas.around(place, math.hypot(*extent) / 2 + 4)
    if patch is None:
        return
    lawn(canvas, patch, patch.box(length + 6, width + 6), 1.05, shorn=0.11)
    for end in (-1.0, 1.0):
        worn = np.exp(-((patch.along - end * (length / 2 - 3)) ** 2) / 14 - patch.across**2 / 22)
        lay(canvas, patch, (worn * 0.65).astype(np.float32), "soil")
    marks = np.maximum(_lines(patch, length, width), patch.box(LINE_WIDTH, width))
    ring = np.abs(np.hypot(patch.along, patch.across) - 7.0) - LINE_WIDTH / 2
    marks = np.maximum(marks, fade(ring, canvas.sample))
    for end in (-1.0, 1.0):
        box = patch.box(11.0, width * 0.55, (end * (length / 2 - 5.5), 0.0))
        inner = patch.box(11.0 - 2 * LINE_WIDTH, width * 0.55 - 2 * LINE_WIDTH, (end * (length / 2 - 5.5), 0.0))
        marks = np.maximum(marks, box - inner)
        block(canvas, place.offset(end * length / 2, 0.0), (0.3, 6.0), 2.2, "white_paint")
    canvas.paint(patch, np.asarray(marks * 0.85, dtype=np.float32), "white_paint")


def tennis(canvas: Canvas, place: Place) -> None:
    """A clay tennis court with its lines and net."""
    patch = canvas.around(place, 22.0)
    if patch is None:
        return
    lay(canvas, patch, patch.box(34.0, 16.5), "clay_court", (0.05, 0.06))
    marks = np.maximum(_lines(patch, 23.8, 11.0), _lines(patch, 23.8, 8.2))
    marks = np.maximum(marks, _lines(patch, 12.8, 8.2))
    marks = np.maximum(marks, patch.box(12.8, LINE_WIDTH))
    canvas.paint(patch, np.asarray(marks * 0.8, dtype=np.float32), "white_paint")
    block(canvas, place, (0.25, 12.0), 1.0, "dark_paint")
