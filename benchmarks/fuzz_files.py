"""The sound files that `fuzz.py` damages: scenes with their sidecars, weights, checkpoints and manifests."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from damage import SAFETENSORS, TEXT, TIFF, XML, Damage
from rasterio.rpc import RPC
from rasterio.shutil import copy as copy_raster
from rasterio.transform import Affine

from crossdiff_cli.model.crossdiff import Architecture, CrossDiff
from crossdiff_cli.model.weights import load, save
from crossdiff_cli.training.checkpoint import State
from crossdiff_cli.training.checkpoint import resume as resume_checkpoint
from crossdiff_cli.training.checkpoint import save as save_checkpoint
from crossdiff_cli.training.scenes import load_scenes, resolve

_GRID = Affine(0.5, 0, 500000, 0, -0.5, 5000000)
_SMALL = Architecture(widths=(8, 8, 8), blocks=(1, 1, 1), decoder_width=8, head_widths=(8, 8, 8))
_IMD = (
    'version = "AA";\nbandId = "Multi";\npanSharpenAlgorithm = "None";\n'
    + "".join(
        f"BEGIN_GROUP = BAND_{b}\n\tULLon = 15.0;\n\tabsCalFactor = 1e-02;\nEND_GROUP = BAND_{b}\n" for b in "BGRN"
    )
    + 'BEGIN_GROUP = IMAGE_1\n\tsatId = "WV04";\n\tcloudCover = 0.1;\n\tfirstLineTime = 2018-01-01T10:00:00.0Z;\n'
    "END_GROUP = IMAGE_1\nEND;\n"
)
_MTL = (
    'GROUP = LANDSAT_METADATA_FILE\n  GROUP = IMAGE_ATTRIBUTES\n    SPACECRAFT_ID = "LANDSAT_9"\n'
    "    CLOUD_COVER = 1.0\n"
    "  END_GROUP = IMAGE_ATTRIBUTES\nEND_GROUP = LANDSAT_METADATA_FILE\nEND\n"
)
_DIMAP = (
    '<?xml version="1.0" encoding="UTF-8"?><Dimap_Document><Metadata_Identification>'
    '<METADATA_FORMAT version="2.0">DIMAP</METADATA_FORMAT></Metadata_Identification>'
    "<Dataset_Content><Dataset_Components/></Dataset_Content><Processing_Information><Product_Settings>"
    "<SPECTRAL_PROCESSING>MS</SPECTRAL_PROCESSING></Product_Settings></Processing_Information><Raster_Data><Data_Access>"
    '<DATA_FILE_FORMAT>image/tiff</DATA_FILE_FORMAT><Data_Files><Data_File tile_R="1" tile_C="1">'
    '<DATA_FILE_PATH href="ms.tif"/></Data_File></Data_Files></Data_Access><Raster_Dimensions><NROWS>32</NROWS>'
    "<NCOLS>32</NCOLS><NBANDS>4</NBANDS></Raster_Dimensions><Raster_Encoding><NBITS>12</NBITS></Raster_Encoding>"
    "<Raster_Display><Raster_Index_List>"
    + "".join(
        f"<Raster_Index><BAND_ID>B{b}</BAND_ID><BAND_INDEX>{i}</BAND_INDEX></Raster_Index>"
        for i, b in enumerate((2, 1, 0, 3), 1)
    )
    + "</Raster_Index_List></Raster_Display></Raster_Data><Dataset_Sources><Source_Identification><Strip_Source>"
    "<MISSION>PHR</MISSION><MISSION_INDEX>1A</MISSION_INDEX></Strip_Source></Source_Identification></Dataset_Sources>"
    "</Dimap_Document>"
)
_AUX = (
    '<PAMDataset><SRS>EPSG:32633</SRS><Metadata domain="IMAGERY"><MDI key="SATELLITEID">WV02</MDI></Metadata>'
    '<PAMRasterBand band="1"><NoDataValue>7</NoDataValue><Description>Blue</Description><ColorInterp>Blue</ColorInterp>'
    '<Metadata domain="IMAGERY"><MDI key="CENTRAL_WAVELENGTH_UM">0.48</MDI><MDI key="FWHM_UM">0.06</MDI></Metadata>'
    "</PAMRasterBand></PAMDataset>"
)
_RPB = (
    'satId = "WV04";\nbandId = "P";\nSpecId = "RPC00B";\nBEGIN_GROUP = IMAGE\n\terrBias = 1.0;\n\terrRand = 0.1;\n'
    "\tlineOffset = 64;\n\tsampOffset = 64;\n\tlatOffset = 45.0;\n\tlongOffset = 15.0;\n\theightOffset = 100;\n"
    "\tlineScale = 64;\n\tsampScale = 64;\n\tlatScale = 0.1;\n\tlongScale = 0.1;\n\theightScale = 500;\n"
    + "".join(
        f"\t{name} = (\n" + ",\n".join(["\t\t\t0.1"] * 20) + ");\n"
        for name in ("lineNumCoef", "lineDenCoef", "sampNumCoef", "sampDenCoef")
    )
    + "END_GROUP = IMAGE\nEND;\n"
)


@dataclass(frozen=True)
class Original:
    """Files that belong together, and how they are used."""

    kind: str
    files: Mapping[str, bytes]
    victims: tuple[str, ...]
    """Those of `files` that are damaged, one at a time."""
    damages: tuple[Damage, ...]
    weight: float = 1.0
    """Share of the cases, relative to the others."""
    ms: tuple[str, ...] = ("ms.tif",)
    options: tuple[str, ...] = ()
    command: str | None = None
    """None for `info` or `sharpen`."""
    read: Callable[[Path], Any] | None = field(default=None)
    """Called instead of a command."""

    def arguments(self, folder: Path, command: str) -> list[str]:
        """Command line."""
        scene = [str(folder / name) for name in ("pan.tif", *self.ms)]
        if command == "info":
            return ["-q", "info", *scene, *self.options]
        weights = folder / "weights.safetensors"
        out = [
            "-o",
            str(folder / "result" / "out.tif"),
            "--weights",
            str(weights),
            "--tile",
            "256",
            "--precision",
            "fp32",
        ]
        return ["-q", "sharpen", *scene, *self.options, *out, "--device", "cpu"]


def originals(folder: Path) -> list[Original]:
    """Write every kind of file once and read it into memory."""
    rng = np.random.default_rng(0)
    truth = rng.uniform(100, 900, (4, 16, 16)).repeat(8, 1).repeat(8, 2) + rng.normal(0, 10, (4, 128, 128))
    pan = truth.mean(axis=0, keepdims=True)
    ms = truth.reshape(4, 32, 4, 32, 4).mean(axis=(2, 4))
    torch.manual_seed(0)
    model = CrossDiff(_SMALL).eval()
    torch.nn.init.normal_(model.head.out.kernels.out.weight, std=0.05)
    save(model, folder / "weights.safetensors", {"note": "random"}, dtype=torch.float32)
    weights = {"weights.safetensors": (folder / "weights.safetensors").read_bytes()}

    def scene(dtype: str = "uint16", **profile: Any) -> dict[str, bytes]:
        return {
            "pan.tif": _tiff(folder, pan.astype(dtype), _GRID, **profile),
            "ms.tif": _tiff(folder, ms.astype(dtype), _GRID @ Affine.scale(4), **profile),
            **weights,
        }

    plain = scene()
    both = ("pan.tif", "ms.tif")
    vhr = ("--sensor", "vhr")
    tiled = {"tiled": True, "blockxsize": 64, "blockysize": 64}
    found = [
        Original("strips", plain, both, TIFF, 3, options=vhr),
        Original(
            "deflate tiles", scene(compress="deflate", predictor=2, nodata=0, **tiled), both, TIFF, 3, options=vhr
        ),
        Original("float", scene("float32", compress="deflate", predictor=3, nodata=-9999, **tiled), both, TIFF, 2),
        Original("lzw strips", scene(compress="lzw", blockysize=16, interleave="band"), both, TIFF, 2, options=vhr),
        Original("bytes, zstd", scene("uint8", compress="zstd"), both, TIFF, 1, options=vhr),
        Original("packbits", scene("int16", compress="packbits"), both, TIFF, 1, options=vhr),
        Original("jpeg", scene("uint8", compress="jpeg", interleave="pixel", **tiled), both, TIFF, 1, options=vhr),
        Original("BigTIFF", scene(bigtiff="YES"), both, TIFF, 1, options=vhr),
        Original("far apart", _warped(folder, plain), both, TIFF, 1, options=vhr),
        *_odd_pixels(folder, plain, pan, ms, both, vhr),
    ]
    found += _rich(folder, plain, vhr)
    found += _sidecars(plain)
    found += _vrts(plain, vhr)
    return found + _not_rasters(folder, plain, weights)


def _odd_pixels(
    folder: Path,
    plain: dict[str, bytes],
    pan: np.ndarray,
    ms: np.ndarray,
    both: tuple[str, ...],
    options: tuple[str, ...],
) -> list[Original]:
    """Fill that nothing declares, a constant PAN, integers near the limit of float32, an MS stored from the south."""
    grid = _GRID @ Affine.scale(4)

    def changed(dtype: str, fill: float, **profile: Any) -> bytes:
        data = ms.astype(dtype)
        data[:, :, :6] = fill
        return _tiff(folder, data, grid, **profile)

    mirrored = grid @ Affine.translation(0, 32) @ Affine.scale(1, -1)
    turned = _tiff(folder, (ms[:, ::-1] / 4).astype("uint8"), mirrored, photometric="RGB", alpha="UNSPECIFIED")
    kinds = {
        "fill -3.4e38": changed("float32", -3.4028234663852886e38),
        "fill -9999": changed("float64", -9999.0),
        "fill -32768": changed("int16", -32768),
        "fill 65535": changed("uint16", 65535),
        "nodata in few digits": changed("float32", -3.4028234663852886e38, nodata=-3.402823e38),
        "large integers": changed("int32", 2**24 + 1),
        "from the south, alpha": turned,
    }
    constant = {**plain, "pan.tif": _tiff(folder, np.full_like(pan, 255).astype("uint8"), _GRID)}
    return [
        Original(kind, {**plain, "ms.tif": data}, both, TIFF, 0.6, options=options) for kind, data in kinds.items()
    ] + [Original("constant PAN", constant, both, TIFF, 0.6, options=options)]


def _rich(folder: Path, plain: dict[str, bytes], options: tuple[str, ...]) -> list[Original]:
    """A COG, an internal mask, RPCs and ground control points, band files."""
    (folder / "a.tif").write_bytes(plain["ms.tif"])
    copy_raster(str(folder / "a.tif"), str(folder / "cog.tif"), driver="COG", blocksize=128)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(folder / "a.tif", "r+") as file:
        valid = np.full((32, 32), 255, "uint8")
        valid[:5] = 0
        file.write_mask(valid)
        file.build_overviews([2, 4])
    masked = (folder / "a.tif").read_bytes()
    (folder / "b.tif").write_bytes(plain["pan.tif"])
    with rasterio.open(folder / "b.tif", "r+") as file:
        file.rpcs = RPC(
            height_off=10, height_scale=500, lat_off=45, lat_scale=0.1, long_off=15, long_scale=0.1, line_off=64,
            line_scale=64, samp_off=64, samp_scale=64, line_num_coeff=[0.1] * 20, line_den_coeff=[1.0] + [0.0] * 19,
            samp_num_coeff=[0.2] * 20, samp_den_coeff=[1.0] + [0.0] * 19,
        )  # fmt: skip
    with rasterio.open(folder / "cog.tif") as file:
        bands, grid = file.read(), file.transform
    names = ("po_1_blu_0.tif", "po_1_grn_0.tif", "po_1_red_0.tif", "po_1_nir_0.tif")
    parts = {name: _tiff(folder, bands[i : i + 1], grid, nodata=0) for i, name in enumerate(names)}
    cog = {**plain, "ms.tif": (folder / "cog.tif").read_bytes()}
    return [
        Original("COG", cog, ("ms.tif",), TIFF, 1, options=options),
        Original("mask, overviews", {**plain, "ms.tif": masked}, ("ms.tif",), TIFF, 1, options=options),
        Original("RPC", {**plain, "pan.tif": (folder / "b.tif").read_bytes()}, ("pan.tif",), TIFF, 1, options=options),
        Original("band files", {**plain, **parts}, names, TIFF, 1, ms=names),
    ]


def _sidecars(plain: dict[str, bytes]) -> list[Original]:
    texts = {
        "ms.IMD": (_IMD, TEXT), "ms_MTL.txt": (_MTL, TEXT), "ms.xml": (_DIMAP, XML), "DIM_ms.XML": (_DIMAP, XML),
        "ms.tif.aux.xml": (_AUX, XML), "pan.RPB": (_RPB, TEXT), "pan.IMD": (_IMD.replace("Multi", "P"), TEXT),
        "ms.tfw": ("2.0\n0.0\n0.0\n-2.0\n500001.0\n4999999.0\n", TEXT), "ms.prj": ("EPSG:32633", TEXT),
        "ms.tif.msk": ("no mask", TEXT), "ms.tif.ovr": ("no overview", TEXT),
    }  # fmt: skip
    return [
        Original(f"sidecar {name}", {**plain, name: text.encode()}, (name,), damages, 0.6)
        for name, (text, damages) in texts.items()
    ] + [
        Original("opened DIMAP", {**plain, "DIM.XML": _DIMAP.encode()}, ("DIM.XML",), XML, 1, ms=("DIM.XML",)),
    ]


def _vrts(plain: dict[str, bytes], options: tuple[str, ...]) -> list[Original]:
    bands = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{i}"><NoDataValue>0</NoDataValue><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">ms.tif</SourceFilename><SourceBand>{i}</SourceBand>'
        '<SrcRect xOff="0" yOff="0" xSize="32" ySize="32"/><DstRect xOff="0" yOff="0" xSize="32" ySize="32"/>'
        "</SimpleSource></VRTRasterBand>"
        for i in range(1, 5)
    )
    vrt = (
        '<VRTDataset rasterXSize="32" rasterYSize="32"><SRS>EPSG:32633</SRS><GeoTransform>500000, 2, 0, 5000000, 0, -2'
        f"</GeoTransform>{bands}</VRTDataset>"
    )
    return [Original("VRT", {**plain, "ms.vrt": vrt.encode()}, ("ms.vrt",), XML, 2, ms=("ms.vrt",), options=options)]


def _not_rasters(folder: Path, plain: dict[str, bytes], weights: dict[str, bytes]) -> list[Original]:
    layer = torch.nn.Linear(3, 3)
    parameters = dict(layer.named_parameters())
    run = {"kind": "test"}

    def state() -> State:
        return State(
            parameters, {n: p.detach().clone() for n, p in parameters.items()}, torch.optim.Adam(layer.parameters())
        )

    save_checkpoint(folder / "run.checkpoint", 3, run, state())
    state_of_run = {"run.checkpoint": (folder / "run.checkpoint").read_bytes()}
    entry = {"name": "a", "files": {"pan": "pan.tif", "ms": "ms.tif", "reference": "ms.tif"}, "sensor": "vhr"}
    entries = [{**entry, "bands": ["B", "G", "R", "NIR"], "split": "train"}, {**entry, "split": "validation"}]
    manifest = {"scenes.json": json.dumps(entries, indent=1).encode()}
    name = ("weights.safetensors",)
    return [
        Original("weights", weights, name, SAFETENSORS, 3, read=lambda f: load(f / name[0])),
        Original("weights of sharpen", plain, name, SAFETENSORS, 0.3, command="sharpen", options=("--sensor", "vhr")),
        Original(
            "checkpoint", state_of_run, tuple(state_of_run), SAFETENSORS,
            read=lambda f: resume_checkpoint(f / "run.checkpoint", run, state()),
        ),
        Original(
            "manifest", {**plain, **manifest}, tuple(manifest), TEXT, 2,
            read=lambda f: load_scenes(resolve([str(f / "scenes.json")], "train")),
        ),
    ]  # fmt: skip


def _warped(folder: Path, plain: dict[str, bytes]) -> dict[str, bytes]:
    """The same scene with its MS in another CRS."""
    with rasterio.MemoryFile(plain["ms.tif"]) as memory, memory.open() as source:
        with rasterio.vrt.WarpedVRT(source, crs="EPSG:4326", nodata=0) as vrt:
            copy_raster(vrt, folder / "away.tif", driver="GTiff")
    return {**plain, "ms.tif": (folder / "away.tif").read_bytes()}


def _tiff(folder: Path, data: np.ndarray, transform: Affine, **profile: Any) -> bytes:
    options = {"driver": "GTiff", "count": data.shape[0], "height": data.shape[1], "width": data.shape[2]}
    options |= {"dtype": data.dtype, "photometric": "MINISBLACK", "alpha": "NO", "crs": "EPSG:32633"} | profile
    with rasterio.open(folder / "new.tif", "w", transform=transform, **options) as file:
        file.write(data)
    return (folder / "new.tif").read_bytes()
