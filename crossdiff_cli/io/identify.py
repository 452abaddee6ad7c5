"""Which sensor a PAN/MS pair comes from, and which band each MS band is: metadata first, then names, then a guess."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from crossdiff_cli.errors import SceneError, SensorError
from crossdiff_cli.io.hints import Hints, read_hints
from crossdiff_cli.sensors.table import NOMINAL, SENSORS, Band, Sensor, canonical_band, find_sensor

__all__ = ["Hints", "Identification", "UserChoice", "detect_sensor", "read_hints"]

_SATELLITES = {
    "QB02": "qb", "IK0[12]": "ik", "GE01": "ge1", "WV02": "wv2", "WV03": "wv3", "WV04": "wv4", "LG0[1-8]": "lg",
    "PHR1[AB]": "phr", "PNEO[3-6]?": "pneo", "SPOT6": "spot6", "SPOT7": "spot7",
}  # fmt: skip

_FILE_NAMES = tuple(
    (re.compile(pattern, re.IGNORECASE), key)
    for pattern, key in (
        *((rf"(?<![A-Z0-9]){satellite}(?![A-Z0-9])", key) for satellite, key in _SATELLITES.items()),
        (r"^po_\d{5,7}_(?:pan|blu|grn|red|nir|bgrn|msi|rgb)_", "ik"),
        (r"(?:^|_)L[CO]0?8(?:_|\d{13})", "l8"),
        (r"(?:^|_)L[CO]0?9(?:_|\d{13})", "l9"),
        (r"(?:^|_)LE0?7(?:_|\d{13})", "l7"),
        (r"^\d{8}_\d{6}_ssc\w{1,4}_|SkySat", "skysat"),
        (r"(?:^|_)DE2_(?:PM4|PSH|PS3|PS4|MS4|PAN)_", "geosat2"),
        (r"(?:^|_)SV1-0[1-4]_", "sv1"),
        (r"(?:^|_)VIS1_(?:PAN|BUN|PSH|MS4)_", "vision1"),
        (r"(?:^|_)GF1[BCD]?_PMS\d?_", "gf1"),
        (r"(?:^|_)GF2_PMS\d?_", "gf2"),
        (r"(?:^|_)K3A?_\d{14}_", "kompsat3a"),
        (r"CBERS_?4A_WPM", "cbers4a"),
        (r"TripleSat|(?:^|_)BJ-?2[_-]", "triplesat"),
    )
)

_SHARPENED_NAME = re.compile(
    r"^\d{2}[A-Z]{3}\d{8}-S\w{3}[-_]|(?:PHR1[AB]|SPOT[67]|PNEO\d)_(?:\w+_)?PMS(?:-N|-X|-FS)?_"
    r"|DE2_PS[H34]_|SV1-0[1-4]_.*-PSH|VIS1_PSH_|ssc\w{1,4}_\w{4,5}_pansharpened",
    re.IGNORECASE,
)

_DIMAP_BAND = {"B0": "B", "B1": "G", "B2": "R", "B3": "NIR"}
_UNNAMED = ("vhr", "generic")
_GUESS = "band count and ratio"
_ODD_RATIO = 0.2
_NEAR_NM = 15.0
_CURE = "if that is wrong, say --sensor NAME or --bands B,G,R,NIR (the file order)"


@dataclass(frozen=True, slots=True)
class UserChoice:
    """What is fixed: the sensor (`--sensor`) and the names of the MS bands in file order (`--bands`)."""

    sensor: Sensor | None = None
    bands: tuple[str, ...] = ()
    source: str = "option"
    """What told the sensor."""


@dataclass(frozen=True, slots=True)
class Identification:
    """The sensor of a pair, the MS bands in file order, what told the sensor, and what had to be assumed."""

    sensor: Sensor
    bands: tuple[Band, ...]
    source: str
    warning: str | None


def detect_sensor(
    pan: Hints, ms: Sequence[Hints], band_count: int, ratio: float, choice: UserChoice | None = None
) -> Identification:
    """Find the sensor and the order of the MS bands.

    The sensor: the user's choice, else IMD, DIMAP, MTL or XML metadata, else a file name, else band count and ratio.
    The bands: the user's choice, else wavelengths or descriptions of the bands, else metadata, file names, colour
    interpretation, and last the order in which the sensor is usually delivered.

    Args:
        pan: evidence of the PAN.
        ms: evidence of the MS files in band order; `Hints.select` restricts one to the bands in use.
        band_count: number of MS bands in use, all files together.
        ratio: PAN pixels per MS pixel.
        choice: what the user fixed.

    Raises:
        SceneError: the MS is already pansharpened, or PAN and MS are swapped.
        SensorError: the bands cannot be told, or the user's names do not fit them.
    """
    choice = choice or UserChoice()
    _refuse_wrong_product(pan, ms)
    sensor, source, warnings = choice.sensor, choice.source, []
    if sensor is None:
        found = _told_sensor(pan, ms)
        sensor, source = found or (_guess(band_count, ratio, pan.dtype), _GUESS)
        warnings += _conflict(pan, ms)
    guessed = source == _GUESS
    if not guessed and sensor.key not in _UNNAMED and sensor.ratio > 1 and abs(ratio / sensor.ratio - 1) > _ODD_RATIO:
        warnings.append(f"{sensor.name} has a PAN/MS ratio of {sensor.ratio:g}, these files have {ratio:.3g}")
    bands, told = _bands(sensor, ms, band_count, choice.bands)
    if bands is None:
        bands = _delivered(sensor, ms, band_count, ratio, guessed)
        if not guessed and (len(ms) > 1 or sensor.codes or sensor.key == "wv4"):
            warnings.append(f"nothing names the bands of {ms[0].name}: taken as {_list(bands)}; {_CURE}")
    if guessed:
        order = f"the bands are {_list(bands)}, from {told}" if told else f"the bands are taken as {_list(bands)}"
        warnings.append(
            f"neither metadata nor file name tells the sensor of {ms[0].name}: {band_count} bands at ratio {ratio:.3g} "
            f"are treated as '{sensor.key}' ({sensor.name}), {order}; {_CURE}"
        )
    return Identification(sensor, bands, source, "; ".join(warnings) or None)


def _list(bands: Sequence[Band]) -> str:
    return ",".join(band.name for band in bands)


def _refuse_wrong_product(pan: Hints, ms: Sequence[Hints]) -> None:
    for hints in ms:
        algorithm = hints.fact("panSharpenAlgorithm") or "none"
        spectral = _spectral_mode(hints)
        named = _SHARPENED_NAME.search(hints.name)
        if algorithm.lower() not in ("none", "n/a", "unspecified"):
            why = f"panSharpenAlgorithm is {algorithm}"
        elif spectral.startswith(("PMS", "PSH")):
            why = f"its metadata calls it {spectral}"
        elif named:
            why = f"its file name says {named[0].strip('_-')}"
        else:
            continue
        raise SceneError(
            f"it is already pansharpened: {why}", path=hints.path, cure="give the original multispectral file"
        )
    if _spectral_mode(pan).startswith("M") and all(_spectral_mode(hints) in ("P", "PAN") for hints in ms):
        raise SceneError(
            f"it is the multispectral file, and {ms[0].path} the panchromatic one", path=pan.path, cure="swap them"
        )


def _spectral_mode(hints: Hints) -> str:
    """`P`, `MULTI`, `MS`, `PMS`, ... as Maxar (bandId) or DIMAP (SPECTRAL_PROCESSING) put it, or an empty string."""
    mode = hints.fact("bandId") or hints.fact("SPECTRAL_PROCESSING") or hints.tags.get("SPECTRAL_PROCESSING")
    return (mode or "").upper()


def _told_sensor(pan: Hints, ms: Sequence[Hints]) -> tuple[Sensor, str] | None:
    for claims in (_metadata_claims, _name_claims):
        for hints in (*ms, pan):
            if found := next(_sensors(claims(hints)), None):
                return found
    return None


def _conflict(pan: Hints, ms: Sequence[Hints]) -> list[str]:
    """Say so when the PAN and the MS, or two MS files, come from different sensors."""
    for claims in (_metadata_claims, _name_claims):
        told = {h.name: found[0] for h in (pan, *ms) if (found := next(_sensors(claims(h)), None))}
        if len({sensor.key for sensor in told.values()}) > 1:
            return ["files of different sensors: " + ", ".join(f"{name} is {s.name}" for name, s in told.items())]
    return []


def _sensors(claims: Iterator[tuple[str, str]]) -> Iterator[tuple[Sensor, str]]:
    for name, source in claims:
        try:
            yield find_sensor(name), source
        except SensorError:
            continue


def _metadata_claims(hints: Hints) -> Iterator[tuple[str, str]]:
    """Yield (satellite name, kind of source), the most trusted first."""
    if satellite := hints.fact("satId"):
        yield satellite, "IMD"
    if satellite := hints.imagery.get("SATELLITEID"):
        yield satellite, "DIMAP" if hints.tags.get("METADATATYPE") == "DIMAP" else "IMD"
    mission = hints.fact("MISSION") or hints.tags.get("MISSION")
    if mission:
        yield mission + (hints.fact("MISSION_INDEX") or hints.tags.get("MISSION_INDEX") or ""), "DIMAP"
        yield mission, "DIMAP"
    if profile := hints.fact("METADATA_PROFILE"):
        yield profile.split("_")[0], "DIMAP"
    if satellite := hints.fact("SPACECRAFT_ID") or hints.tags.get("SPACECRAFT_ID"):
        yield satellite, "MTL"
    if satellite := hints.fact("SatelliteID"):
        yield satellite, "XML"
        yield re.split(r"[-_ ]", satellite)[0], "XML"


def _name_claims(hints: Hints) -> Iterator[tuple[str, str]]:
    yield from ((key, "file name") for pattern, key in _FILE_NAMES if pattern.search(hints.name))


def _guess(band_count: int, ratio: float, pan_dtype: str) -> Sensor:
    if 1.8 <= ratio <= 2.2:
        return SENSORS["l7" if pan_dtype == "uint8" else "l8"]
    if 3.4 <= ratio <= 4.6 and band_count == 6:
        return SENSORS["pneo"]
    return SENSORS["vhr" if band_count in (3, 4, 8) else "generic"]


def _bands(
    sensor: Sensor, ms: Sequence[Hints], band_count: int, names: Sequence[str]
) -> tuple[tuple[Band, ...] | None, str]:
    """Return the bands and what told them: the user's names, or evidence for every band; (None, "") if neither."""
    if names:
        if len(names) != band_count:
            raise SensorError(
                "--bands does not name every band of the MS",
                path=ms[0].path,
                found=f"{len(names)} ({','.join(names)})",
                expected=band_count,
            )
        return sensor.select(names), "--bands"
    for read, told in _EVIDENCE:
        parts = [read(hints, sensor) for hints in ms]
        bands = tuple(band for part in parts if part for band in part)
        if all(parts) and len(bands) == band_count and len({band.name for band in bands}) == band_count:
            return bands, told
    return None, ""


def _delivered(sensor: Sensor, ms: Sequence[Hints], band_count: int, ratio: float, guessed: bool) -> tuple[Band, ...]:
    """Take the sensor's usual file order, cut to the bands in use."""
    if any(re.search(r"_P?MS-X_", hints.name, re.IGNORECASE) for hints in ms):
        raise SensorError(
            "it is a false-colour product without its DIMAP file", path=ms[0].path, cure="name its bands with --bands"
        )
    delivered = [(n, i) for n, hints in enumerate(ms) for i in hints.spectral]
    used = [(n, i) for n, hints in enumerate(ms) for i in hints.indexes]
    if len(used) != band_count:
        delivered = used = [(0, i) for i in range(band_count)]
    try:
        layout = dict(zip(delivered, sensor.layout(len(delivered)), strict=True))
    except SensorError as error:
        if not guessed:
            raise SensorError(
                error.problem, path=ms[0].path, found=error.found, expected=error.expected, cure=error.cure
            ) from None
        raise SensorError(
            f"nothing tells what its {len(delivered)} bands are: no metadata, no known file name",
            path=ms[0].path,
            found=f"PAN/MS ratio {ratio:.3g}",
            cure="give --sensor NAME, or name the bands in file order with --bands",
        ) from None
    return tuple(layout[place] for place in used)


def _from_wavelengths(hints: Hints, sensor: Sensor) -> tuple[Band, ...] | None:
    pairs = [hints.wavelengths[i - 1] for i in hints.indexes]
    table = NOMINAL.values() if sensor.key in _UNNAMED else sensor.bands
    bands: list[Band] = []
    for pair in pairs:
        if pair is None:
            return None
        center, width = pair
        near = min(table, key=lambda band: abs(band.center_nm - center))
        known = abs(near.center_nm - center) <= max(_NEAR_NM, 0.02 * center)
        if known and sensor.key not in _UNNAMED:
            bands.append(near)
            continue
        taken = not known or near.name in {band.name for band in bands}
        bands.append(Band(f"{center:.0f}nm" if taken else near.name, center, width or near.width_nm))
    return tuple(bands)


def _from_descriptions(hints: Hints, sensor: Sensor) -> tuple[Band, ...] | None:
    return _select(sensor, [_label(hints.descriptions[i - 1] or "", sensor) for i in hints.indexes])


def _label(text: str, sensor: Sensor) -> str | None:
    """The band that a description such as `NIR`, `B2`, `Band 4 - Red` or `B02 (Blue)` names."""
    if text.strip().upper() in dict(sensor.codes):
        return text.strip().upper()
    return canonical_band(text) or canonical_band(re.sub(r"(?i)^\s*b(?:and)?[\s_#]*\d+[a-z]?\b", "", text))


def _from_metadata(hints: Hints, sensor: Sensor) -> tuple[Band, ...] | None:
    """BAND_* groups of an IMD, or the band list of a DIMAP document; both stand in file order."""
    groups = (m[1] for key in hints.imd if (m := re.match(r"(?i)(?:.*\.)?BAND_([A-Z]+\d?)\.", key)))
    names = list(dict.fromkeys(group for group in groups if canonical_band(group)))
    names = names or _dimap_bands(hints.document, hints.name) or _dimap_bands(hints.imd, hints.name)
    bands = _select(sensor, names)
    if bands is None or len(bands) != len(hints.spectral):
        return None
    by_index = dict(zip(hints.spectral, bands, strict=True))
    return tuple(by_index[i] for i in hints.indexes)


def _dimap_bands(facts: Mapping[str, str], name: str) -> list[str]:
    """Band names of a DIMAP document; of the group of files that holds `name`, where it lists bands per group."""
    entry = re.compile(r"(.*(?:Raster_Index|Spectral_Band_Info)(?:_\d+)?)\.(?:BAND_ID|BAND_DESCRIPTION)$")
    rows = [(m[1], value) for key, value in facts.items() if (m := entry.match(key))]
    href = next(
        (key for key, value in facts.items() if key.endswith(".href") and PurePosixPath(value).name == name), ""
    )
    group = re.match(r".*Data_Files(?:_\d+)?\.", href)
    rows = [row for row in rows if group and row[0].startswith(group[0])] or rows
    order = [facts.get(f"{path}.BAND_INDEX", "") for path, _ in rows]
    if sorted(order) == sorted(str(i) for i in range(1, len(rows) + 1)):
        rows = [row for _, row in sorted(zip(map(int, order), rows, strict=True))]
    return [_DIMAP_BAND.get(value.upper(), value) for _, value in rows]


def _from_file_name(hints: Hints, sensor: Sensor) -> tuple[Band, ...] | None:
    """One band per file: `_B2.TIF`, `_BAND3.tif`, `po_1234_nir_...tif`, `..._red.tif`, `..._L1G_N.tif`."""
    if len(hints.spectral) != 1:
        return None
    stem = re.sub(r"(?i)(?:_VCID_\d)?(?:\.[a-z0-9]{2,5})+$", "", hints.name)
    *words, last = re.split(r"[^A-Za-z0-9]+", stem)
    if name := _label(last, sensor):
        return _select(sensor, [name])
    named = {band for word in words if len(word) > 2 and (band := canonical_band(word))}
    return _select(sensor, sorted(named)) if len(named) == 1 else None


def _from_colors(hints: Hints, sensor: Sensor) -> tuple[Band, ...] | None:
    return _select(sensor, [canonical_band(hints.colors[i - 1]) for i in hints.indexes])


def _select(sensor: Sensor, names: Sequence[str | None]) -> tuple[Band, ...] | None:
    known = [name for name in names if name]
    try:
        return sensor.select(known) if known and len(known) == len(names) else None
    except SensorError:
        return None


_EVIDENCE: tuple[tuple[Callable[[Hints, Sensor], tuple[Band, ...] | None], str], ...] = (
    (_from_wavelengths, "their wavelength tags"),
    (_from_descriptions, "their descriptions"),
    (_from_metadata, "the metadata"),
    (_from_file_name, "the file names"),
    (_from_colors, "the colour interpretation"),
)
