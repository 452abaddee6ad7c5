"""Every setting of the commands: one default and one description each; standard library only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from crossdiff_cli.errors import OptionError

Bounds = tuple[float, float, float, float]
"""Left, bottom, right, top."""
Precision = Literal["auto", "fp32", "bf16", "int8"]
Backend = Literal["auto", "strips", "whole", "reference"]
Extent = Literal["intersection", "pan"]
Driver = Literal["GTiff", "COG"]
PredictionType = Literal["x0", "eps"]
"""What a diffusion network predicts: x_0, as its difference from x_t, or the noise."""
Branch = Literal["both", "p2m", "m2p"]
Mtf = Literal["auto", "table"] | tuple[float, ...]
"""Nyquist gains of the MS bands: estimated on the scene where it shows them, those of the sensor, or one for each band
in file order (one alone holds for all)."""
PanMtf = Literal["auto", "table"] | float
"""Nyquist gain of the PAN: estimated on the scene where it shows it, else that of the sensor; or the gain itself."""


def _check_gain(gain: float) -> None:
    """Raise `OptionError` for a Nyquist gain that no sensor has."""
    if not 0.01 <= gain <= 0.99:
        raise OptionError("a Nyquist gain is out of range", found=gain, expected="0.01 to 0.99")


@dataclass(frozen=True, slots=True)
class PairOptions:
    """What the files of a pair do not say."""

    sensor: str = "auto"
    """Key of the sensor, or a TOML file that defines one; `auto` identifies it."""
    bands: tuple[str, ...] | None = None
    """Names of the MS bands in file order."""
    bidx: tuple[int, ...] | None = None
    """Numbers of the MS bands to use, from 1; one MS file only."""
    nodata: float | Literal["none"] | None = None
    """Value of missing pixels; `none` takes every number for data: no nodata value and no fill is looked at."""

    @property
    def ignore_nodata(self) -> bool:
        """Whether every number is data."""
        return self.nodata == "none"

    @property
    def nodata_value(self) -> float | None:
        """The value of missing pixels that replaces what the files declare; None where they are asked."""
        return None if self.nodata is None or self.nodata == "none" else float(self.nodata)


@dataclass(frozen=True, slots=True)
class EstimateOptions:
    """What is estimated on a scene."""

    align: bool = True
    """Estimate the offset between PAN and MS and correct it."""
    noise: bool = True
    """Estimate the sensor noise and suppress detail below it."""
    aliasing: bool = True
    """Take out of the MS the fluctuations of single pixels that the PAN does not show."""
    mtf: Mtf = "auto"
    pan_mtf: PanMtf = "auto"

    def __post_init__(self) -> None:
        """Refuse gains that no sensor has.

        Raises:
            OptionError: a Nyquist gain that does not lie between 0 and 1.
        """
        if not isinstance(self.mtf, str):
            for gain in self.mtf:
                _check_gain(gain)
        if not isinstance(self.pan_mtf, str):
            _check_gain(self.pan_mtf)


@dataclass(frozen=True, slots=True)
class NetworkOptions:
    """Which network fuses, and how."""

    weights: Path | None = None
    """Weight file; None for the head adapted to the sensor if it is named and there is one, else the bundled `all`."""
    fine_tune_steps: int = 0
    """Steps for which the fusion head is fine-tuned on the scene first."""
    iterations: int = 2
    """Iterations of back-projection onto the MS; 0 for none."""


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """What is written."""

    extent: Extent = "intersection"
    """Area of the result: where PAN and MS overlap, or the whole PAN with nodata outside."""
    bounds: Bounds | None = None
    """Part of that area; the pixels are those of the whole result."""
    bounds_crs: str | None = None
    """CRS of `bounds`; None for that of the PAN."""
    bands: tuple[str, ...] | None = None
    """Bands to write, in this order; the fusion uses all bands."""
    dtype: str | None = None
    """Data type; None for that of the MS."""
    driver: Driver = "GTiff"
    """Format."""
    creation: Mapping[str, str] = field(default_factory=dict)
    """Creation options of the driver."""
    overwrite: bool = False
    """Replace an existing result."""
    stac: bool = False
    """Also write a STAC item beside the result."""

    def __post_init__(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            OptionError: a CRS of bounds without bounds.
        """
        if self.bounds_crs is not None and self.bounds is None:
            raise OptionError("--bounds-crs needs --bounds")


@dataclass(frozen=True, slots=True)
class RuntimeOptions:
    """Where and how fast it is computed; the result does not depend on it but for rounding."""

    device: str = "auto"
    """`auto`, `cpu`, `cuda[:i]`, or several with commas between."""
    precision: Precision = "auto"
    """Arithmetic of the network; `auto` is the fastest that the device has."""
    backend: Backend = "auto"
    """How the network is computed; `auto` is `whole` on a GPU, else `strips`."""
    tile: int | None = None
    """Side of a tile in PAN pixels, a multiple of 256; None for what the memory at hand allows."""
    readers: int = 2
    """Threads that read ahead."""
    worker: int = 0
    """Number of this process among those of this machine that sharpen at once: which GPU `auto` and `cuda` mean."""
    progress: bool = False
    """Show a progress bar on the standard error."""


@dataclass(frozen=True, slots=True)
class SharpenOptions:
    """Everything about sharpening besides the files."""

    pair: PairOptions = field(default_factory=PairOptions)
    estimate: EstimateOptions = field(default_factory=EstimateOptions)
    network: NetworkOptions = field(default_factory=NetworkOptions)
    output: OutputOptions = field(default_factory=OutputOptions)
    runtime: RuntimeOptions = field(default_factory=RuntimeOptions)


@dataclass(frozen=True, slots=True)
class DegradeOptions:
    """Everything about making a Wald pair besides the files."""

    pair: PairOptions = field(default_factory=PairOptions)
    estimate: EstimateOptions = field(default_factory=EstimateOptions)
    """With `align`, the PAN is degraded at the registered place of the MS, so that degraded PAN and reference are
    aligned; `mtf` and `pan_mtf` are those by which MS and PAN are degraded."""
    overwrite: bool = False
    """Replace the files of an earlier run."""


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """How many scenes are run."""

    jobs: int = 1
    """Scenes at once, in processes of this machine that share its cores."""
    scheduler: str | None = None
    """Address of a dask.distributed scheduler, instead of processes of this machine."""
    skip_existing: bool = False
    """Skip scenes whose result is there: it is complete."""
    timeout: float | None = None
    """Seconds after which a scene is given up, in processes of this machine."""
    fail_fast: bool = False
    """Begin no further scene after one has failed."""


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """How long a training stage lasts and on how many windows per step; the defaults are those of `pretrain`."""

    steps: int = 2000
    patch: int = 96
    """Side of a window in PAN pixels, a multiple of the network's stride."""
    batch: int = 4
    """Windows per scene and step."""
    groups: int = 4
    """Scenes per step."""
    rate: float = 5e-4
    """Peak learning rate of AdamW."""
    seed: int = 0
    checkpoint_every: int = 250
    """Steps between checkpoints."""


@dataclass(frozen=True, slots=True)
class AdaptTrainingOptions(TrainingOptions):
    """The budget with the defaults of `adapt`."""

    steps: int = 400
    rate: float = 1e-3
    checkpoint_every: int = 100


@dataclass(frozen=True, slots=True)
class SceneSources:
    """The scenes of a training stage."""

    scenes: tuple[str, ...] = ()
    """Manifests, folders, and PAN and MS files in turn."""
    held_out: tuple[str, ...] = ()
    """Manifests whose split `validation` is held out; the manifests of `scenes` when empty."""
    sensor: str | None = None
    """Sensor of the scenes that do not name theirs; None identifies it."""
    bands: tuple[str, ...] | None = None
    """Names of the MS bands in file order, of the scenes that do not name theirs."""
    strict: bool = False
    """Whether a scene that cannot be read ends the run."""
    resimulate: int = 0
    """Number of simulated sensors through which each sharpened scene is resimulated."""


@dataclass(frozen=True, slots=True)
class DefinitionOptions:
    """A new sensor."""

    wavelengths: tuple[tuple[float, float], ...] | None = None
    """Centre and width of each MS band in nm; None takes the usual ones of the band names."""
    mtf: tuple[float, ...] | None = None
    """Nyquist gain of each MS band, or one for all."""
    pan_range: tuple[tuple[float, float], ...] | None = None
    """Edges of the PAN band in nm, as a list of one range; None is 450 to 800 nm."""
    pan_mtf: float | None = None
    """Nyquist gain of the PAN."""


@dataclass(frozen=True, slots=True)
class PretrainOptions:
    """Stage 1: how the encoders are pretrained."""

    budget: TrainingOptions = field(default_factory=TrainingOptions)
    prediction_type: PredictionType = "x0"
    branch: Branch = "both"
    """Which encoder is trained."""
    condition_dropout: float = 0.1
    """Share of samples whose condition is replaced by its mean."""
    weights: Path | None = None
    """Weights to start from, with their architecture; None for untrained encoders."""
    device: str = "auto"
    precision: Precision = "auto"


@dataclass(frozen=True, slots=True)
class LossWeights:
    """Weight of each loss term of stage 2; a term of weight 0 is not computed."""

    spectral: float = 1.0
    """`losses.spectral_loss`: the degraded result against the MS."""
    structural: float = 0.0
    """`losses.structural_loss`: local correlation with the PAN. The shipped head was trained with 0.6; in further
    training it lowers HQNR on held-out windows (benchmarks/adapting.md)."""
    supervised: float = 1.0
    """Mean absolute error one ratio down, where the MS is the reference (Wald)."""
    qnr: float = 0.0
    """`losses.qnr_loss`, the loss of the paper."""


@dataclass(frozen=True, slots=True)
class AdaptOptions:
    """Stage 2: how the fusion head is fitted."""

    budget: TrainingOptions = field(default_factory=AdaptTrainingOptions)
    weights: Path | None = None
    """Encoders, and the head to start from; None for the bundled `all`."""
    features: Literal["p2m", "both"] | None = None
    """Encoders whose features the head takes; None for those of the weights."""
    stage: bool = True
    """Whether a head that is fitted to scenes of one sensor gets a stage for its bands (`model.sensor_stage`)."""
    restart: bool = False
    """Whether to start from an untrained head."""
    select: bool = True
    """Whether a quarter of each scene is held out and the best head on it kept; else the last head is kept."""
    force: bool = False
    """Whether a better head may be overwritten."""
    losses: LossWeights = field(default_factory=LossWeights)
    device: str = "auto"
