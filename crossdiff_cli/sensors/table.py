"""The sensor table: bands with wavelengths and MTF gains, delivered file orders, GSD ratio, and the names to find them.

Wavelengths are band centres and full widths in nm. MTF gains are amplitudes at the Nyquist frequency of the sampling of
that band; where no gain is published the usual 0.30 (MS) and 0.15 (PAN) stand in, and `mtf_published` is false.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType

from crossdiff_cli.errors import SensorError

DEFAULT_NYQUIST_GAIN = 0.30
DEFAULT_PAN_NYQUIST_GAIN = 0.15


@dataclass(frozen=True, slots=True)
class Band:
    """One spectral band: its name, centre and full width in nm, and the MTF gain at Nyquist, in (0, 1)."""

    name: str
    center_nm: float
    width_nm: float
    nyquist_gain: float = DEFAULT_NYQUIST_GAIN


@dataclass(frozen=True, slots=True)
class Sensor:
    """One PAN + MS instrument.

    Attributes:
        key: short lower-case name, as `--sensor` takes it.
        name: full name.
        aliases: further names that `find_sensor` accepts, among them the vendor's satellite identifiers.
        layouts: band names in delivered file order, one tuple per kind of delivery.
        bands: every band of the MS instrument.
        ratio: nominal GSD of the MS over that of the PAN.
        pan_nm: lower and upper edge of the PAN band, nm.
        pan_nyquist_gain: MTF gain of the PAN at its Nyquist frequency.
        bit_depth: bits of the stored numbers.
        mtf_published: whether the gains are published for this sensor, or the usual ones.
        codes: (vendor's band code, band name) pairs, such as ("B2", "B") of Landsat 8.
    """

    key: str
    name: str
    aliases: tuple[str, ...]
    layouts: tuple[tuple[str, ...], ...]
    bands: tuple[Band, ...]
    ratio: float
    pan_nm: tuple[float, float]
    pan_nyquist_gain: float = DEFAULT_PAN_NYQUIST_GAIN
    bit_depth: int = 11
    mtf_published: bool = False
    codes: tuple[tuple[str, str], ...] = ()

    def select(self, names: Sequence[str]) -> tuple[Band, ...]:
        """Return the named bands, in the order given.

        Args:
            names: band names in any case: the sensor's own, its codes (`B2` of Landsat), common words (`blue`) or close
                kin (`NIR` is `N1` where there is no `NIR`). A standard band that the sensor lacks is nominal.

        Raises:
            SensorError: a name means nothing, or two of them mean the same band.
        """
        bands: list[Band] = []
        for name in names:
            band = self._band(name)
            if band in bands:
                raise SensorError(
                    f"the band {name!r} of {self.name} is named twice",
                    found=",".join(names),
                    expected="each band once, in file order",
                )
            bands.append(band)
        return tuple(bands)

    def layout(self, count: int) -> tuple[Band, ...]:
        """Return the bands of a delivery with `count` bands, in file order.

        Raises:
            SensorError: no delivery has that many bands.
        """
        for names in self.layouts:
            if len(names) == count:
                return self.select(names)
        if not self.layouts:
            raise SensorError(
                f"the sensor {self.key!r} has no band order of its own", cure=f"name the {count} MS bands with --bands"
            )
        counts = [str(n) for n in sorted({len(names) for names in self.layouts}, reverse=True)]
        known = counts[0] if len(counts) == 1 else f"{', '.join(counts[:-1])} or {counts[-1]}"
        raise SensorError(
            f"the MS does not have the bands that {self.name} is delivered with",
            found=count,
            expected=known,
            cure="name them with --bands",
        )

    def _band(self, name: str) -> Band:
        own = {band.name.upper(): band for band in self.bands}
        code = name.strip().upper()
        canonical = dict(self.codes).get(code) or canonical_band(name)
        for candidate in (canonical or code, *_KIN.get(canonical or "", ())):
            if candidate in own:
                return own[candidate]
        if canonical is not None:
            return nominal_band(canonical)
        raise SensorError(
            f"{self.name} has no band {name!r}", expected=f"one of {', '.join(own)}, or any of {', '.join(NOMINAL)}"
        )


def _fold(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def spectral_order(bands: Sequence[Band]) -> list[int]:
    """Return the indices of the bands from the shortest wavelength to the longest.

    Sums over bands are taken in this order, so that the order of the file changes no bit of a result.
    """
    return sorted(range(len(bands)), key=lambda i: (bands[i].center_nm, bands[i].width_nm, bands[i].name))


def canonical_band(name: str) -> str | None:
    """Return the standard name (`B`, `NIR`, `RE1`, ...) that a band name, word or abbreviation stands for, or None."""
    folded = _fold(name)
    if folded.upper() in NOMINAL:
        return folded.upper()
    return _WORDS.get(folded)


def nominal_band(name: str) -> Band:
    """Return a standard band with the wavelengths usual for its colour, and the default gain.

    Raises:
        SensorError: `name` is no standard band.
    """
    canonical = canonical_band(name)
    if canonical is None:
        raise SensorError(
            f"unknown band {name!r}", expected=f"one of {', '.join(NOMINAL)}", cure="give others with --wavelengths"
        )
    return NOMINAL[canonical]


def find_sensor(name: str) -> Sensor:
    """Return the sensor of that key, full name or alias, whatever the case, spaces and dashes.

    Raises:
        SensorError: there is none; the message names the closest ones.
    """
    folded = _fold(name)
    if folded in _BY_NAME:
        return _BY_NAME[folded]
    close = dict.fromkeys(_BY_NAME[match].key for match in get_close_matches(folded, _BY_NAME, n=5, cutoff=0.6))
    hint = f"did you mean {', '.join(close)}?" if close else f"known are {', '.join(SENSORS)}."
    raise SensorError(
        f"unknown sensor {name!r}",
        cure=f"{hint} `crossdiff sensors` lists all; any other: --sensor FILE.toml, or --sensor generic --bands ...",
    )


def in_table(name: str) -> bool:
    """Whether `find_sensor` finds a sensor of that name."""
    return _fold(name) in _BY_NAME


def _bands(table: str, gains: Sequence[float] = ()) -> tuple[Band, ...]:
    """Read `"B 480 60, G 545 70"`: name, centre and width in nm; `gains` in the same order, the default when empty."""
    rows = [row.split() for row in table.split(",")]
    return tuple(
        Band(name, float(center), float(width), gain)
        for (name, center, width), gain in zip(rows, gains or [DEFAULT_NYQUIST_GAIN] * len(rows), strict=True)
    )


def _orders(table: str) -> tuple[tuple[str, ...], ...]:
    """Read `"B G R NIR | R G B"`: one delivered file order between bars."""
    return tuple(tuple(order.split()) for order in table.split("|"))


def _codes(table: str) -> tuple[tuple[str, str], ...]:
    """Read `"B1=CA B2=B"`: vendor's code = band name."""
    pairs = (pair.split("=") for pair in table.split())
    return tuple((code, name) for code, name in pairs)


NOMINAL: Mapping[str, Band] = MappingProxyType(
    {
        band.name: band
        for band in _bands(
            "CA 430 45, DB 425 50, B 480 65, G 550 70, Y 605 40, R 660 60, RE 720 40, RE1 705 20, RE2 740 20,"
            "RE3 783 20, NIR 835 130, N1 833 125, N2 950 180, CIRRUS 1375 25, SWIR1 1610 90, SWIR2 2200 190,"
            "TIR 11450 2100, TIR1 10895 590, TIR2 12005 1010"
        )
    }
)

_WORDS = {
    "blu": "B", "blue": "B", "grn": "G", "green": "G", "red": "R", "yellow": "Y", "yel": "Y",
    "n": "NIR", "ir": "NIR", "nearir": "NIR", "nearinfrared": "NIR", "infrared": "NIR", "vnir": "NIR",
    "nir1": "N1", "nearir1": "N1", "nearinfrared1": "N1", "nir2": "N2", "nearir2": "N2", "nearinfrared2": "N2",
    "c": "CA", "cb": "CA", "coastal": "CA", "coastalblue": "CA", "coastalaerosol": "CA", "aerosol": "CA",
    "ultrablue": "CA", "deepblue": "DB", "rededge": "RE", "rededge1": "RE1", "rededge2": "RE2", "rededge3": "RE3",
    "swir": "SWIR1", "swir16": "SWIR1", "swir22": "SWIR2", "thermal": "TIR", "lwir": "TIR", "lwir1": "TIR1",
    "lwir2": "TIR2", "lwir11": "TIR1", "lwir12": "TIR2",
}  # fmt: skip

_KIN = {"NIR": ("N1",), "N1": ("NIR",), "RE": ("RE1",), "RE1": ("RE",), "CA": ("DB",), "DB": ("CA",)}

_WORLDVIEW = "CA 427 55, B 480 60, G 545 70, Y 605 40, R 660 60, RE 725 40, N1 833 125, N2 950 180"
_WORLDVIEW_ORDERS = _orders("CA B G Y R RE N1 N2 | B G R N1 | R G B")
_GEOEYE = _bands("B 480 60, G 545 70, R 672.5 35, NIR 850 140", gains=(0.23, 0.23, 0.23, 0.23))
_SPOT = _bands("R 660 70, G 560 60, B 485 70, NIR 825 130")
_GAOFEN = _bands("B 485 70, G 555 70, R 660 60, NIR 830 120")
_SSTL = _bands("B 475 70, G 550 80, R 635 70, NIR 835 150")
_OLI = _bands(
    "CA 443 16, B 482 60, G 561 57, R 655 37, NIR 865 28, SWIR1 1609 85, SWIR2 2201 187,"
    "CIRRUS 1373 20, TIR1 10895 590, TIR2 12005 1010"
)
_OLI_CODES = _codes("B1=CA B2=B B3=G B4=R B5=NIR B6=SWIR1 B7=SWIR2 B9=CIRRUS B10=TIR1 B11=TIR2")
_OLI_ORDERS = _orders(
    "CA B G R NIR SWIR1 SWIR2 CIRRUS TIR1 TIR2 | CA B G R NIR SWIR1 SWIR2 CIRRUS"
    "| CA B G R NIR SWIR1 SWIR2 | B G R NIR SWIR1 SWIR2 | B G R NIR | R G B"
)
_BGRN = _orders("B G R NIR | R G B")
_RGBN = _orders("R G B NIR | R G B")

_TABLE = (
    Sensor(
        "qb", "QuickBird", ("QB02", "QuickBird-2", "QB2"), _BGRN,
        _bands("B 487.5 115, G 543 154, R 650 120, NIR 816.5 203", gains=(0.34, 0.32, 0.30, 0.22)),
        4, (405, 1053), 0.15, mtf_published=True,
    ),
    Sensor(
        "ik", "IKONOS", ("IK01", "IKONOS-2", "IK02", "ikonos2"), _BGRN,
        _bands("B 480.5 71, G 550.5 89, R 665 66, NIR 805 96", gains=(0.26, 0.28, 0.29, 0.28)),
        4, (450, 900), 0.17, mtf_published=True,
    ),
    Sensor("ge1", "GeoEye-1", ("GE01", "GE"), _BGRN, _GEOEYE, 4, (450, 800), 0.16, mtf_published=True),
    Sensor(
        "wv2", "WorldView-2", ("WV02", "WorldView02"), _WORLDVIEW_ORDERS,
        _bands(_WORLDVIEW, gains=(0.35, 0.35, 0.35, 0.35, 0.35, 0.35, 0.35, 0.27)),
        4, (450, 800), 0.11, mtf_published=True,
    ),
    Sensor(
        "wv3", "WorldView-3", ("WV03", "WorldView03"), _WORLDVIEW_ORDERS,
        _bands(_WORLDVIEW, gains=(0.325, 0.355, 0.360, 0.350, 0.365, 0.360, 0.335, 0.315)),
        4, (450, 800), 0.14, mtf_published=True,
    ),
    Sensor(
        "wv4", "WorldView-4", ("WV04", "WorldView04", "GeoEye-2"), _BGRN, _GEOEYE,
        4, (450, 800), 0.16, mtf_published=True,
    ),
    Sensor(
        "lg", "WorldView Legion", ("Legion", "WVLegion", *(f"LG0{n}" for n in range(1, 9))),
        _orders("CA B G Y R RE1 RE2 NIR | B G R NIR | R G B"),
        _bands("CA 425 50, B 480 60, G 545 70, Y 605 40, R 660 60, RE1 705 20, RE2 740 20, NIR 832.5 125"),
        4, (450, 800),
    ),
    Sensor(
        "phr", "Pleiades", ("PHR1A", "PHR1B", "Pleiades-1A", "Pleiades-1B", "Pleiades-1", "PHR1", "PLD"), _RGBN,
        _bands("R 650 120, G 560 120, B 490 120, NIR 840 200"), 4, (470, 830), bit_depth=12,
    ),
    Sensor(
        "pneo", "Pleiades Neo", tuple(f"{name}{n}" for name in ("PNEO", "Pleiades Neo ") for n in range(3, 7)),
        _orders("R G B NIR RE DB | R G B NIR | R G B"),
        _bands("R 660 120, G 550 120, B 485 70, NIR 790 80, RE 725 50, DB 425 50"), 4, (450, 800), bit_depth=12,
    ),
    Sensor("spot6", "SPOT-6", (), _RGBN, _SPOT, 4, (450, 745), bit_depth=12),
    Sensor("spot7", "SPOT-7", ("Azersky",), _RGBN, _SPOT, 4, (450, 745), bit_depth=12),
    Sensor("gf1", "Gaofen-1 PMS", ("GF-1", "Gaofen-1"), _BGRN, _GAOFEN, 4, (450, 900), bit_depth=10),
    Sensor("gf2", "Gaofen-2 PMS", ("GF-2", "Gaofen-2"), _BGRN, _GAOFEN, 4, (450, 900), bit_depth=10),
    Sensor(
        "skysat", "SkySat", ("SSC", "PlanetSkySat"), _BGRN,
        _bands("B 482.5 65, G 555 80, R 650 90, NIR 820 160"), 1, (450, 900), bit_depth=16,
    ),
    Sensor(
        "kompsat3a", "KOMPSAT-3A", ("K3A", "Arirang-3A", "KOMPSAT-3", "K3", "Arirang-3"), _BGRN,
        _bands("B 485 70, G 560 80, R 660 60, NIR 830 140"), 4, (450, 900), bit_depth=14,
        codes=_codes("MS1=B MS2=G MS3=R MS4=NIR"),
    ),
    Sensor("sv1", "SuperView-1", ("GaoJing-1", "GJ1", "SuperView", "GaoJing"), _BGRN, _GAOFEN, 4, (450, 900)),
    Sensor("triplesat", "TripleSat", ("BJ2", "Beijing-2", "DMC3"), _BGRN, _SSTL, 4, (450, 650), bit_depth=10),
    Sensor(
        "geosat2", "GEOSAT-2", ("Deimos-2", "DE2"), _orders("NIR R G B | R G B"),
        _bands("NIR 831 122, R 668.5 57, G 565.5 67, B 495.5 59"), 4, (560, 900), bit_depth=10,
    ),
    Sensor("vision1", "Vision-1", ("VIS1", "S1-4", "SSTL-S1"), _BGRN, _SSTL, 4, (450, 650), bit_depth=10),
    Sensor(
        "cbers4a", "CBERS-4A WPM", ("CBERS-4A", "CBERS4AWPM", "WPM"), _BGRN, _GAOFEN, 4, (450, 900), bit_depth=10,
        codes=_codes("BAND1=B BAND2=G BAND3=R BAND4=NIR"),
    ),
    Sensor(
        "l7", "Landsat 7 ETM+", ("Landsat-7", "LE07", "LE7", "ETM+", "ETM", "Landsat7ETM"),
        _orders("B G R NIR SWIR1 TIR SWIR2 | B G R NIR SWIR1 SWIR2 | B G R NIR | R G B"),
        _bands("B 485 70, G 560 80, R 660 60, NIR 835 130, SWIR1 1650 200, TIR 11450 2100, SWIR2 2215 270"),
        2, (520, 900), bit_depth=8, codes=_codes("B1=B B2=G B3=R B4=NIR B5=SWIR1 B6=TIR B7=SWIR2"),
    ),
    Sensor(
        "l8", "Landsat 8 OLI", ("Landsat-8", "LC08", "LO08", "LC8", "OLI"), _OLI_ORDERS, _OLI,
        2, (500, 680), bit_depth=16, codes=_OLI_CODES,
    ),
    Sensor(
        "l9", "Landsat 9 OLI-2", ("Landsat-9", "LC09", "LO09", "LC9", "OLI2"), _OLI_ORDERS, _OLI,
        2, (500, 680), bit_depth=16, codes=_OLI_CODES,
    ),
    Sensor(
        "vhr", "very high resolution, unnamed", (), _orders("CA B G Y R RE N1 N2 | B G R NIR | R G B"),
        _bands("CA 427 55, B 480 60, G 545 70, Y 605 40, R 660 60, RE 725 40, NIR 835 130, N1 833 125, N2 950 180"),
        4, (450, 800), bit_depth=16,
    ),
    Sensor(
        "generic", "any PAN + MS sensor", (), (), tuple(NOMINAL.values()),
        4, (450, 800), bit_depth=16,
    ),
)  # fmt: skip

SENSORS: dict[str, Sensor] = {sensor.key: sensor for sensor in _TABLE}

_BY_NAME: dict[str, Sensor] = {
    _fold(name): sensor for sensor in _TABLE for name in (sensor.key, sensor.name, *sensor.aliases)
}
