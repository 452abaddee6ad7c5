"""Plants and open ground: lawns, trees, hedges, crops in rows, tilled soil."""

import math

import numpy as np

from simulator.canvas import Canvas, Patch, Place, chance, fade, slope_shade
from simulator.sensor import Floats

CANOPIES = ("broadleaf", "broadleaf", "broadleaf", "lawn", "conifer", "blossom", "crop")


def lay(canvas: Canvas, patch: Patch, cover: Floats, material: str, mottle: tuple[float, float] = (0.06, 0.08)) -> None:
    """Lay a material whose brightness varies from sample to sample and from metre to metre (relative deviations)."""
    fine, coarse = mottle
    gain = 1.0 + fine * canvas.texture("grain", patch) + coarse * canvas.texture("patch", patch)
    canvas.paint(patch, cover, material, np.clip(gain, 0.4, 1.8))


def lawn(canvas: Canvas, patch: Patch, cover: Floats, vigour: float, shorn: float = 0.0) -> None:
    """Grass: green by `vigour` 0..1 over dry grass and thin soil, with mowing stripes of relative strength `shorn`."""
    lay(canvas, patch, cover, "dry_grass", (0.10, 0.10))
    green = vigour + 0.16 * canvas.texture("patch", patch) + 0.12 * canvas.texture("stain", patch)
    green += 0.10 * canvas.texture("clump", patch)
    stripe = 1.0 + shorn * np.sign(np.sin(patch.along * (math.pi / 5.2)))
    gain = np.clip(stripe + 0.10 * canvas.texture("grain", patch), 0.5, 1.6)
    canvas.paint(patch, cover * np.clip(green, 0.0, 1.0), "lawn", gain)
    bare = np.clip(canvas.texture("patch", patch) + 0.5 * canvas.texture("clump", patch) - 2.3, 0.0, 0.7)
    lay(canvas, patch, (cover * bare * (1.1 - vigour)).astype(np.float32), "soil")


def tree(canvas: Canvas, rng: np.random.Generator, place: Place, radius: float, material: str | None = None) -> None:
    """One tree: an irregular, lumpy crown, lit on the sunny side."""
    patch = canvas.around(place, radius * 1.5)
    if patch is None:
        return
    kind = material or str(rng.choice(CANOPIES))
    angle = np.arctan2(patch.across, patch.along)
    lobes = sum(
        rng.uniform(0.3, 1.0) / order * np.cos(order * angle + rng.uniform(0.0, 2 * math.pi)) for order in range(2, 7)
    )
    distance = np.hypot(patch.along, patch.across)
    lumps = canvas.texture("clump", patch)
    reach = distance / (radius * (1.0 + 0.10 * lobes + 0.07 * lumps))
    tall = radius * rng.uniform(1.7, 2.3) if kind == "conifer" else radius * rng.uniform(1.3, 1.8)
    dome = np.maximum(1.0 - reach, 0.0) if kind == "conifer" else np.sqrt(np.maximum(1.0 - reach**2, 0.0))
    crown = tall * (0.45 + 0.55 * dome) + 0.16 * radius**0.5 * lumps
    cover = fade((reach - 1.0) * radius, 0.35)
    # Thin crowns let the ground through; the gaps follow the same lumps that make the relief.
    cover *= np.clip(1.05 + 0.35 * lumps + 0.4 * dome, 0.35, 1.0)
    slope = np.gradient(crown * 0.75, canvas.sample)
    shade = np.clip(slope_shade(slope[1], slope[0]), 0.3, 1.6)
    gain = rng.uniform(0.85, 1.3) * np.clip(1.0 + 0.16 * lumps + 0.08 * canvas.texture("grain", patch), 0.4, 1.7)
    canvas.paint(patch, cover, kind, gain)
    canvas.lift(patch, cover, crown, shade)


def hedge(canvas: Canvas, rng: np.random.Generator, start: Place, length: float) -> None:
    """A row of bushes of varying size along the direction of `start`."""
    position = 0.0
    while position < length:
        size = rng.uniform(0.55, 1.0)
        tree(canvas, rng, start.offset(position, rng.normal(0.0, 0.15)), size, "broadleaf")
        position += size * 1.3


def _tilled(canvas: Canvas, patch: Patch, cover: Floats, pale: float) -> None:
    lay(canvas, patch, cover, "soil", (0.07, 0.05))
    dry = np.clip(pale + 0.30 * canvas.texture("broad", patch) + 0.14 * canvas.texture("stain", patch), 0.0, 0.9)
    lay(canvas, patch, cover * dry, "pale_soil", (0.06, 0.05))


def ploughed(canvas: Canvas, rng: np.random.Generator, patch: Patch, cover: Floats) -> None:
    """Bare soil: moist and dry stains, furrows across the patch, the wider passes of the plough."""
    _tilled(canvas, patch, cover, rng.uniform(0.15, 0.45))
    wobble = 0.12 * canvas.texture("stain", patch)
    furrow = np.sin(2 * math.pi * (patch.across + wobble) / 1.1) * (0.7 + 0.3 * canvas.texture("clump", patch))
    passes = np.floor((patch.across + wobble) / 3.4)
    level = 0.06 * np.sin(passes * 12.9898 + rng.uniform(0, 6)) + 0.14 * np.clip(furrow, -1.5, 1.5)
    crumbs = 0.05 * canvas.texture("clump", patch) + 0.05 * canvas.texture("grain", patch)
    canvas.shade[patch.window] *= 1.0 + cover * (level + crumbs)


def crop(canvas: Canvas, rng: np.random.Generator, patch: Patch, cover: Floats, material: str = "crop") -> None:
    """A crop in drilled rows with tramlines; its vigour follows the soil, with thin and lodged spots."""
    pale = rng.uniform(0.1, 0.4)
    _tilled(canvas, patch, cover, pale)
    density = rng.uniform(0.72, 0.9)
    vigour = density - 0.20 * canvas.texture("broad", patch) + 0.08 * canvas.texture("stain", patch)
    vigour += 0.05 * canvas.texture("patch", patch) + 0.05 * canvas.texture("clump", patch)
    vigour -= 0.5 * np.clip(canvas.texture("stain", patch) - 1.9, 0.0, 1.0)
    wobble = 0.15 * canvas.texture("stain", patch)
    rows = np.sin(2 * math.pi * (patch.across + wobble) / 0.75)
    swath = (patch.across + wobble + rng.uniform(0, 18)) % 18.0
    tracks = np.maximum(fade(np.abs(swath - 8.1) - 0.28, 0.25), fade(np.abs(swath - 9.9) - 0.28, 0.25))
    # The drill is 3 m wide: neighbouring passes differ a little in row distance and density.
    drill = 0.05 * np.sin(np.floor((patch.across + wobble) / 3.0) * 78.233 + rng.uniform(0, 6))
    green = np.clip(vigour + 0.14 * rows + drill, 0.0, 1.0) * (1.0 - 0.8 * tracks)
    gain = 1.0 + 0.06 * canvas.texture("grain", patch) + 0.06 * canvas.texture("clump", patch) + 0.05 * rows
    gain *= rng.uniform(0.85, 1.3)
    canvas.paint(patch, (cover * green).astype(np.float32), material, np.clip(gain, 0.5, 1.8))


def orchard(canvas: Canvas, rng: np.random.Generator, place: Place, extent: tuple[float, float]) -> None:
    """Rows of small trees, 4 m apart, over a box of `extent` metres around a place."""
    for across in np.arange(-extent[1] / 2 + 2, extent[1] / 2 - 1, 4.2):
        for along in np.arange(-extent[0] / 2 + 2, extent[0] / 2 - 1, 2.9):
            if chance(rng, 0.93):
                spot = place.offset(along + rng.normal(0, 0.15), across + rng.normal(0, 0.12))
                tree(canvas, rng, spot, rng.uniform(0.9, 1.35), "blossom" if chance(rng, 0.25) else "broadleaf")
