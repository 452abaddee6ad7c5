"""Small deliveries in Airbus DIMAP 2, after the public format description, with generated pixels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from conftest import write_raster
from delivery_files import grid, pixels, split
from rasterio.transform import Affine


def _index(bands: Sequence[str]) -> str:
    rows = "".join(
        f"<Raster_Index><BAND_ID>{band}</BAND_ID><BAND_INDEX>{i}</BAND_INDEX></Raster_Index>"
        for i, band in enumerate(bands, start=1)
    )
    return f"<Raster_Index_List>{rows}</Raster_Index_List>"


def _data_files(names: Sequence[str]) -> str:
    return "".join(
        f'<Data_File tile_R="1" tile_C="{i}"><DATA_FILE_PATH href="{name}"/></Data_File>'
        for i, name in enumerate(names, start=1)
    )


def dimap_document(
    satellite: tuple[str, str],
    mode: str,
    groups: Sequence[tuple[Sequence[str], Sequence[str]]],
    shape: tuple[int, int],
    transform: Affine | None,
    time: str,
    rpc: str = "",
) -> str:
    """A DIMAP 2 document; `groups` are (file names, band ids), more than one as Pleiades Neo has them."""
    if len(groups) == 1:
        files, index = f"<Data_Files>{_data_files(groups[0][0])}</Data_Files>", _index(groups[0][1])
    else:
        index = ""
        files = "".join(
            f"<Data_Files>{_data_files(names)}<Raster_Display>{_index(bands)}</Raster_Display></Data_Files>"
            for names, bands in groups
        )
    place = ""
    if transform is not None:
        place = (
            "<Coordinate_Reference_System><Projected_CRS><PROJECTED_CRS_NAME>WGS 84 / UTM zone 33N</PROJECTED_CRS_NAME>"
            "<PROJECTED_CRS_CODE>urn:ogc:def:crs:EPSG::32633</PROJECTED_CRS_CODE></Projected_CRS>"
            f"</Coordinate_Reference_System><Geoposition><Geoposition_Insert><ULXMAP>{transform.c}</ULXMAP>"
            f"<ULYMAP>{transform.f}</ULYMAP><XDIM>{transform.a}</XDIM><YDIM>{-transform.e}</YDIM></Geoposition_Insert>"
            "</Geoposition>"
        )
    if rpc:
        place = (
            "<Geoposition><Geoposition_Models><Rational_Function_Model><Component><COMPONENT_TITLE>RPC Model"
            f'</COMPONENT_TITLE><COMPONENT_PATH href="{rpc}"/></Component></Rational_Function_Model>'
            "</Geoposition_Models></Geoposition>"
        )
    date, clock = time.split("T")
    columns = split(shape[1])
    return (
        '<?xml version="1.0" encoding="UTF-8" standalone="no"?><Dimap_Document><Metadata_Identification>'
        '<METADATA_FORMAT version="2.15">DIMAP</METADATA_FORMAT><METADATA_PROFILE>S1_ORTHO</METADATA_PROFILE>'
        "</Metadata_Identification><Dataset_Identification><DATASET_TYPE>RASTER_ORTHO</DATASET_TYPE>"
        "</Dataset_Identification><Dataset_Content><SURFACE_AREA>1</SURFACE_AREA></Dataset_Content>"
        f"{place}<Processing_Information><Product_Settings><PROCESSING_LEVEL>{'SENSOR' if rpc else 'ORTHO'}"
        f"</PROCESSING_LEVEL><SPECTRAL_PROCESSING>{mode}</SPECTRAL_PROCESSING></Product_Settings></Processing_Information>"
        "<Raster_Data><Data_Access><DATA_FILE_ORGANISATION>BAND_COMPOSITE</DATA_FILE_ORGANISATION>"
        f'<DATA_FILE_FORMAT version="1.0">image/tiff</DATA_FILE_FORMAT><DATA_FILE_TILES>true</DATA_FILE_TILES>{files}'
        f"</Data_Access><Raster_Dimensions><NROWS>{shape[0]}</NROWS><NCOLS>{shape[1]}</NCOLS>"
        f"<NBANDS>{sum(len(bands) for _, bands in groups)}</NBANDS><Tile_Set><NTILES>2</NTILES><Regular_Tiling>"
        f'<NTILES_SIZE nrows="{shape[0]}" ncols="{columns[0][1]}"/><NTILES_COUNT ntiles_R="1" ntiles_C="2"/>'
        "<OVERLAP_COL>0</OVERLAP_COL></Regular_Tiling></Tile_Set></Raster_Dimensions><Raster_Encoding>"
        "<DATA_TYPE>INTEGER</DATA_TYPE><NBITS>16</NBITS><SIGN>UNSIGNED</SIGN></Raster_Encoding><Raster_Display>"
        f"{index}<Special_Value><SPECIAL_VALUE_TEXT>NODATA</SPECIAL_VALUE_TEXT><SPECIAL_VALUE_COUNT>0"
        "</SPECIAL_VALUE_COUNT></Special_Value><Special_Value><SPECIAL_VALUE_TEXT>SATURATED</SPECIAL_VALUE_TEXT>"
        "<SPECIAL_VALUE_COUNT>4095</SPECIAL_VALUE_COUNT></Special_Value></Raster_Display></Raster_Data>"
        f"<Dataset_Sources><Source_Identification><SOURCE_ID>DS</SOURCE_ID><Strip_Source><MISSION>{satellite[0]}</MISSION>"
        f"<MISSION_INDEX>{satellite[1]}</MISSION_INDEX><INSTRUMENT>X</INSTRUMENT><IMAGING_DATE>{date}</IMAGING_DATE>"
        f"<IMAGING_TIME>{clock}</IMAGING_TIME></Strip_Source></Source_Identification></Dataset_Sources></Dimap_Document>"
    )


def dimap_image(
    folder: Path,
    satellite: tuple[str, str],
    mode: str,
    bands: Sequence[Sequence[str]],
    data: np.ndarray,
    ratio: int,
    number: int,
    time: str = "2018-01-01T10:00:00.5Z",
) -> Path:
    """One image `IMG_..._00N/` of two tiles per group of bands, with its DIM document, which is returned."""
    short = {"PAN": "P"}.get(mode, mode)
    name = f"{satellite[0]}{satellite[1]}_{short}_201801011000005_ORT_1234567-00{number}"
    where = folder / f"IMG_{satellite[0]}{satellite[1]}_{short}_00{number}"
    where.mkdir(parents=True, exist_ok=True)
    groups, start = [], 0
    for group in bands:
        tag = f"_{''.join(b[0] for b in group)}" if len(bands) > 1 else ""
        names = [f"IMG_{name}{tag}_R1C{i}.TIF" for i in (1, 2)]
        for file, (a, b) in zip(names, split(data.shape[2]), strict=True):
            part = data[start : start + len(group), :, a:b]
            write_raster(where / file, part, grid(ratio) @ Affine.translation(a, 0))
        groups.append((names, group))
        start += len(group)
    document = where / f"DIM_{name}.XML"
    document.write_text(dimap_document(satellite, mode, groups, data.shape[1:], grid(ratio), time))
    return document


def volume(folder: Path, documents: Sequence[Path], name: str = "VOL_PHR.XML") -> Path:
    """The volume document of a delivery."""
    rows = "".join(
        "<Component><COMPONENT_TITLE>x</COMPONENT_TITLE><COMPONENT_TYPE>DIMAP</COMPONENT_TYPE>"
        f'<COMPONENT_PATH href="{path.relative_to(folder).as_posix()}"/></Component>'
        for path in documents
    )
    (folder / name).write_text(
        '<?xml version="1.0" encoding="UTF-8"?><Dimap_Document><Metadata_Identification>'
        '<METADATA_FORMAT version="2.15">DIMAP</METADATA_FORMAT></Metadata_Identification>'
        f"<Dataset_Content><Dataset_Components>{rows}"
        "</Dataset_Components></Dataset_Content></Dimap_Document>"
    )
    return folder / name


def pleiades(
    folder: Path, bands: str = "B2 B1 B0 B3", mode: str = "MS", ms_time: str = "2018-01-01T10:00:00.5Z"
) -> Path:
    """A Pleiades bundle."""
    pan, ms = pixels(len(bands.split()))
    satellite = ("PHR", "1A")
    documents = [
        dimap_image(folder, satellite, "PAN", [["P"]], pan, 1, 1),
        dimap_image(folder, satellite, mode, [bands.split()], ms, 4, 2, ms_time),
    ]
    volume(folder, documents)
    return folder
