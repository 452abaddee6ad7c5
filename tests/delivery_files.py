"""Small deliveries in the layouts of the vendors: metadata after the public format descriptions, generated pixels."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from conftest import landscape, write_raster
from rasterio.rpc import RPC
from rasterio.transform import Affine

PAN_GRID = Affine(0.5, 0, 500000, 0, -0.5, 5000000)
TIME = "2018-01-01T10:00:00.123456Z"


def pixels(bands: int = 4, ratio: int = 4, size: int = 64, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """PAN (1, size, size) and MS (bands, size / ratio, size / ratio), uint16."""
    pan, ms = landscape((size, size), bands, ratio, seed)
    return np.rint(pan).astype(np.uint16), np.rint(ms).astype(np.uint16)


def grid(ratio: int = 1) -> Affine:
    """Geotransform of a scene's PAN, or of its MS."""
    return PAN_GRID @ Affine.scale(ratio)


def split(columns: int) -> list[tuple[int, int]]:
    """Two tiles of unequal width, as columns from and to."""
    cut = columns * 5 // 8
    return [(0, cut), (cut, columns)]


# Maxar


def imd(
    satellite: str,
    groups: str,
    shape: tuple[int, int],
    transform: Affine | None,
    *,
    band_id: str,
    time: str = TIME,
    catalogue: str = "1040010012345600",
    algorithm: str = "None",
) -> str:
    """A Maxar IMD; ULX and ULY are the centre of the first pixel."""
    bands = "".join(
        f"BEGIN_GROUP = BAND_{g}\n\tabsCalFactor = 9.29e-03;\n\teffectiveBandwidth = 5.85e-02;\nEND_GROUP = BAND_{g}\n"
        for g in groups.split()
    )
    projected = ""
    if transform is not None:
        x, y = transform @ (0.5, 0.5)
        projected = (
            f"BEGIN_GROUP = MAP_PROJECTED_PRODUCT\n\tearliestAcqTime = {time};\n\tlatestAcqTime = {time};\n"
            f"\tULX = {x};\n\tULY = {y};\n\tcolSpacing = {transform.a};\n\trowSpacing = {-transform.e};\n"
            "END_GROUP = MAP_PROJECTED_PRODUCT\n"
        )
    return (
        'version = "28.3";\ngenerationTime = 2018-01-03T00:00:00.000000Z;\nproductOrderId = "012345678901_01_P001";\n'
        f'bandId = "{band_id}";\n'
        f'panSharpenAlgorithm = "{algorithm}";\nnumRows = {shape[0]};\nnumColumns = {shape[1]};\n'
        f'productLevel = "LV2A";\nbitsPerPixel = 16;\n{bands}BEGIN_GROUP = IMAGE_1\n\tsatId = "{satellite}";\n'
        f'\tcatId = "{catalogue}";\n\tfirstLineTime = {time};\nEND_GROUP = IMAGE_1\n{projected}END;\n'
    )


def til(names: Sequence[str], columns: Sequence[tuple[int, int]], rows: int, band_id: str) -> str:
    """A Maxar TIL of one row of tiles."""
    groups = "".join(
        f'BEGIN_GROUP = TILE_{i}\n\tfilename = "{name}";\n'
        f"\tULColOffset = {a};\n\tULRowOffset = 0;\n\tURColOffset = {b - 1};\n"
        f"\tURRowOffset = 0;\n\tLRColOffset = {b - 1};\n\tLRRowOffset = {rows - 1};\n\tLLColOffset = {a};\n"
        f"\tLLRowOffset = {rows - 1};\nEND_GROUP = TILE_{i}\n"
        for i, (name, (a, b)) in enumerate(zip(names, columns, strict=True), start=1)
    )
    return (
        f'bandId = "{band_id}";\nnumTiles = {len(names)};\ntileSizeX = {columns[0][1]};\ntileSizeY = {rows};\n'
        f'tileUnits = "Pixels";\ntileOverlap = 0;\n{groups}END;\n'
    )


def rpb(rpc: RPC) -> str:
    """A Maxar (or GaoFen) RPB."""
    lists = "".join(
        f"\t{name} = (\n" + ",\n".join(f"\t\t\t{value:E}" for value in values) + ");\n"
        for name, values in (
            ("lineNumCoef", rpc.line_num_coeff),
            ("lineDenCoef", rpc.line_den_coeff),
            ("sampNumCoef", rpc.samp_num_coeff),
            ("sampDenCoef", rpc.samp_den_coeff),
        )
    )
    return (
        'satId = "XX";\nbandId = "X";\nSpecId = "RPC00B";\nBEGIN_GROUP = IMAGE\n\terrBias = 1.0;\n\terrRand = 0.1;\n'
        f"\tlineOffset = {rpc.line_off};\n\tsampOffset = {rpc.samp_off};\n\tlatOffset = {rpc.lat_off};\n"
        f"\tlongOffset = {rpc.long_off};\n\theightOffset = {rpc.height_off};\n\tlineScale = {rpc.line_scale};\n"
        f"\tsampScale = {rpc.samp_scale};\n\tlatScale = {rpc.lat_scale};\n\tlongScale = {rpc.long_scale};\n"
        f"\theightScale = {rpc.height_scale};\n{lists}END_GROUP = IMAGE\nEND;\n"
    )


def maxar_image(
    folder: Path,
    data: np.ndarray,
    ratio: int,
    groups: str,
    *,
    letter: str,
    band_id: str,
    satellite: str = "WV04",
    part: str = "P001",
    stamp: str = "18JAN01100000",
    rpc: RPC | None = None,
    georeferenced: bool = True,
    **facts: str,
) -> Path:
    """One image of a Maxar order in two tiles, with TIL, IMD and perhaps RPB; returns the IMD."""
    folder.mkdir(parents=True, exist_ok=True)
    tail = f"012345678901_01_{part}"
    stem = f"{stamp}-{letter}2AS-{tail}"
    transform = grid(ratio) if georeferenced else None
    columns = split(data.shape[2])
    names = [f"{stamp}-{letter}2AS_R1C{i}-{tail}.TIF" for i in (1, 2)]
    for name, (a, b) in zip(names, columns, strict=True):
        write_raster(folder / name, data[:, :, a:b], transform and transform @ Affine.translation(a, 0))
    (folder / f"{stem}.TIL").write_text(til(names, columns, data.shape[1], band_id))
    text = imd(satellite, groups, data.shape[1:], transform, band_id=band_id, **facts)
    (folder / f"{stem}.IMD").write_text(text)
    if rpc is not None:
        (folder / f"{stem}.RPB").write_text(rpb(rpc))
    return folder / f"{stem}.IMD"


def maxar(folder: Path, groups: str = "B G R N", part: str = "P001", ms_facts: dict | None = None, **both: str) -> Path:
    """A Maxar order: PAN and MUL folders of tiles. `groups` is the band order of the file."""
    pan, ms = pixels(len(groups.split()))
    base = folder / "012345678901_01"
    maxar_image(base / f"012345678901_01_{part}_PAN", pan, 1, "P", letter="P", band_id="P", part=part, **both)
    more = {"band_id": "Multi", **both, **(ms_facts or {})}
    maxar_image(base / f"012345678901_01_{part}_MUL", ms, 4, groups, letter="M", part=part, **more)
    (base / "GIS_FILES").mkdir(exist_ok=True)
    (base / f"012345678901_01_{part}_README.XML").write_text("<README><TITLE>order</TITLE></README>")
    return folder


# Landsat


def landsat(folder: Path, satellite: str = "LANDSAT_9", form: str = "txt", level: str = "L1TP") -> Path:
    """A Landsat Collection 2 folder: one file per band and an MTL; each band is filled with its own number."""
    folder.mkdir(parents=True, exist_ok=True)
    number = satellite[-1]
    stem = f"{'LE' if number == '7' else 'LC'}0{number}_{level}_044034_20200101_20200114_02_T1"
    bands = [1, 2, 3, 4, 5, 7] if number == "7" else [1, 2, 3, 4, 5, 6, 7, 9, 10, 11]
    for band in bands:
        data = np.full((1, 16, 16), 1000 * band, np.uint16) + np.arange(16, dtype=np.uint16)
        write_raster(folder / f"{stem}_B{band}.TIF", data, Affine(30, 0, 500000, 0, -30, 5000000))
    if level == "L1TP":
        bands.append(8)
        pan = np.arange(32 * 32, dtype=np.uint16).reshape(1, 32, 32) + 7000
        write_raster(folder / f"{stem}_B8.TIF", pan, Affine(15, 0, 500000 - 7.5, 0, -15, 5000000 + 7.5))
    document = {
        "PRODUCT_CONTENTS": {
            "LANDSAT_PRODUCT_ID": stem,
            "PROCESSING_LEVEL": level,
            **{f"FILE_NAME_BAND_{band}": f"{stem}_B{band}.TIF" for band in sorted(bands)},
        },
        "IMAGE_ATTRIBUTES": {
            "SPACECRAFT_ID": satellite,
            "SENSOR_ID": "OLI_TIRS",
            "DATE_ACQUIRED": "2020-01-01",
            "SCENE_CENTER_TIME": "18:45:32.4010000Z",
        },
        "LEVEL1_MIN_MAX_PIXEL_VALUE": {f"QUANTIZE_CAL_MIN_BAND_{band}": 1 for band in sorted(bands)},
    }
    if form == "xml":
        groups = ("".join(f"<{k}>{v}</{k}>" for k, v in rows.items()) for rows in document.values())
        body = "".join(f"<{name}>{text}</{name}>" for name, text in zip(document, groups, strict=True))
        (folder / f"{stem}_MTL.xml").write_text(f"<LANDSAT_METADATA_FILE>{body}</LANDSAT_METADATA_FILE>")
        return folder
    if form == "json":
        text = {g: {k: str(v) for k, v in rows.items()} for g, rows in document.items()}
        (folder / f"{stem}_MTL.json").write_text(json.dumps({"LANDSAT_METADATA_FILE": text}))
        return folder
    lines = ["GROUP = LANDSAT_METADATA_FILE"]
    for group, rows in document.items():
        lines.append(f"  GROUP = {group}")
        lines += [
            f"    {key} = {value if isinstance(value, int) else chr(34) + value + chr(34)}"
            for key, value in rows.items()
        ]
        lines.append(f"  END_GROUP = {group}")
    (folder / f"{stem}_MTL.txt").write_text("\n".join([*lines, "END_GROUP = LANDSAT_METADATA_FILE", "END", ""]))
    return folder


# One file per band


def geoeye(folder: Path, sensor: str = "IKONOS-2", bands: str = "blu grn red nir", algorithm: str = "None") -> Path:
    """An order of GeoEye: `po_*` files and a metadata text."""
    folder.mkdir(parents=True, exist_ok=True)
    pan, ms = pixels(len(bands.split()))
    names = ["po_123456_pan_0000000.tif"]
    write_raster(folder / names[0], pan, grid())
    for band, data in zip(bands.split(), ms, strict=True):
        names.append(f"po_123456_{band}_0000000.tif")
        write_raster(folder / names[-1], data[None], grid(4))
    rule = "=" * 80
    (folder / "po_123456_metadata.txt").write_text(
        f"{rule}\nVersion Number: 2.2\n{rule}\n\nProduct Order Metadata\n\nCreation Date: 01/03/08\n"
        f"Product Order Number: 123456\nSensor Type: Satellite\nSensor Name: {sensor}\n"
        f"Processing Level: Standard Geometrically Corrected\n"
        f"Image Type: PAN/MSI\nMultispectral Algorithm: {algorithm}\nFile Format: GeoTIFF\n\n{rule}\n\n"
        "Source Image Metadata\n\nNumber of Source Images: 1\n\nSource Image ID: 2008010110000000000011612345\n"
        f"Product Image ID: 000\nSensor: {sensor}\nAcquisition Date/Time: 2008-01-01 10:00 GMT\n\n{rule}\n\n"
        "Product Component Metadata\n\nNumber of Components: 1\n\nComponent ID: 0000000\nProduct Image ID: 000\n"
        f"Component File Name: {' '.join(names)}\nThumbnail File Name: po_123456_rgb_0000000_ovr.jpg\n"
    )
    return folder


def cbers(folder: Path, bands: str = "0 1 2 3 4") -> Path:
    """A CBERS-4A WPM scene, level 4."""
    folder.mkdir(parents=True, exist_ok=True)
    pan, ms = pixels(4)
    stem = "CBERS_4A_WPM_20200801_209_115_L4"
    for band in bands.split():
        data, ratio = (pan, 1) if band == "0" else (ms[int(band) - 1][None], 4)
        write_raster(folder / f"{stem}_BAND{band}.tif", data, grid(ratio))
        (folder / f"{stem}_BAND{band}.xml").write_text(
            '<?xml version="1.0" encoding="UTF-8"?><prdf xmlns="http://www.gisplan.com.br/xmlsat"><satellite><name>CBERS</name>'
            "<number>4A</number><instrument>WPM</instrument></satellite><image><level>4</level></image></prdf>"
        )
    return folder


# One file for all bands


def gaofen(folder: Path, bands: str = "1,2,3,4", rpcs: tuple[RPC, RPC] | None = None, shape: int = 64) -> Path:
    """A GF-2 L1A scene: PAN1 and MSS1 without georeference, XML and RPB each."""
    folder.mkdir(parents=True, exist_ok=True)
    pan, ms = pixels(len(bands.split(",")), size=shape)
    stem = "GF2_PMS1_E116.6_N40.0_20180101_L1A0001234567"
    for i, (name, data, numbers) in enumerate((("PAN1", pan, "5"), ("MSS1", ms, bands))):
        write_raster(folder / f"{stem}-{name}.tiff", data)
        (folder / f"{stem}-{name}.xml").write_text(
            '<?xml version="1.0" encoding="UTF-8"?><ProductMetaData><SatelliteID>GF2</SatelliteID>'
            f"<SensorID>PMS1</SensorID><ReceiveTime>2018-01-01 03:00:00</ReceiveTime><Bands>{numbers}</Bands>"
            "<ProductLevel>LEVEL1A</ProductLevel>"
            "<StartTime>2018-01-01 03:10:20</StartTime><EndTime>2018-01-01 03:10:24</EndTime></ProductMetaData>"
        )
        if rpcs is not None:
            (folder / f"{stem}-{name}.rpb").write_text(rpb(rpcs[i]))
    return folder


def skysat(
    folder: Path, ratio: int = 4, variants: Sequence[str] = ("panchromatic_dn", "analytic_dn", "analytic")
) -> Path:
    """A SkySat scene with its metadata JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    pan, ms = pixels(4, ratio)
    item = "20180101_100000_ssc4d3_0021"
    for variant in variants:
        data, step = (pan, 1) if variant.startswith("pan") and "sharp" not in variant else (ms, ratio)
        write_raster(folder / f"{item}_{variant}.tif", data, grid(step))
    write_raster(folder / f"{item}_analytic_udm2.tif", np.ones((8, 16, 16), np.uint8), grid(4))
    properties = {"acquired": "2018-01-01T10:00:00.1Z", "satellite_id": "SSC4", "provider": "skysat", "gsd": 0.8}
    (folder / f"{item}_metadata.json").write_text(json.dumps({"id": item, "type": "Feature", "properties": properties}))
    return folder


def rpc_model(
    offset: tuple[float, float],
    scale: tuple[float, float],
    height: tuple[float, float] = (0.0, 0.0),
    ground: float = 15.0,
) -> RPC:
    """An affine RPC: line falls with latitude, sample grows with longitude, both grow by `height` per height scale."""
    one = [1.0] + [0.0] * 19
    line = [0.0, 0.0, -1.0, height[0] / scale[0]] + [0.0] * 16
    samp = [0.0, 1.0, 0.0, height[1] / scale[1]] + [0.0] * 16
    return RPC(
        height_off=100.0, height_scale=500.0, lat_off=45.0, lat_scale=0.001, long_off=ground, long_scale=0.001,
        line_off=offset[0], line_scale=scale[0], samp_off=offset[1], samp_scale=scale[1],
        line_num_coeff=line, line_den_coeff=one, samp_num_coeff=samp, samp_den_coeff=one, err_bias=1.0, err_rand=0.1,
    )  # fmt: skip
