"""What each figure means and which fault it misses, for the page."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Word:
    """One figure: label, whether a larger value is better, digits, what it means and where it misleads, in HTML."""

    label: str
    larger: bool
    digits: int
    means: str
    caution: str


WORDS = {
    "hqnr": Word(
        "HQNR", True, 4, "Colour and detail in one figure, (1 − D<sub>λ</sub>)(1 − D<sub>s</sub>).",
        "Can be won by not sharpening: read it with D<sub>ρ</sub>.",
    ),
    "d_lambda": Word(
        "D<sub>λ</sub>", False, 4, "Colour at the scale of the MS, against the MS.",
        "Misses anything finer than an MS pixel.",
    ),
    "d_s": Word(
        "D<sub>s</sub>", False, 4, "Whether bands relate to PAN as they do at the coarse scale.",
        "Mild on a blurred result; hard on bands that PAN does not predict.",
    ),
    "hqnr_inner": Word("HQNR*", True, 4, "HQNR without the blocks along the border.", ""),
    "hqnr_table": Word("HQNR, table", True, 4, "HQNR by the MTF of the sensor table.", ""),
    "d_lambda_table": Word(
        "D<sub>λ</sub>, table", False, 4, "D<sub>λ</sub> by the MTF of the sensor table.",
        "Wrong where the table is: rewards the blur or the contrast that the table expects.",
    ),
    "d_rho": Word(
        "D<sub>ρ</sub>", False, 4, "Sharpness: local correlation of each band with PAN.",
        "Misses colour altogether: PAN copied to every band scores 0.",
    ),
    "r_ergas": Word(
        "R-ERGAS", False, 3, "The result brought back to the MS grid, against the MS: error of all bands.",
        "Misses anything finer than an MS pixel.",
    ),
    "r_ergas_table": Word("R-ERGAS, table", False, 3, "R-ERGAS by the MTF of the sensor table.", ""),
    "r_sam": Word(
        "R-SAM", False, 3, "The same, as the angle between spectra in degrees.", "Misses brightness and fine detail."
    ),
    "r_q2n": Word("R-Q2n", True, 4, "The same, structure and colour together.", "Misses fine detail."),
    "ergas": Word("ERGAS", False, 3, "Error of all bands against the reference.", "Does not tell colour from detail."),
    "sam": Word(
        "SAM", False, 3, "Angle between spectra, in degrees, against the reference.",
        "Misses brightness, so most lost detail.",
    ),
    "q2n": Word(
        "Q2n", True, 4, "Structure and colour together, against the reference.",
        "Counts flat blocks as much as busy ones.",
    ),
    "scc": Word(
        "SCC", True, 4, "Fine detail against the reference.", "Misses colour, and how strong the detail is."
    ),
    "psnr": Word("PSNR", True, 2, "Decibels against the reference.", "Ruled by the bands with the largest values."),
    "ssim": Word("SSIM", True, 4, "Local structure against the reference.", "Misses the relation between bands."),
    "overshoot": Word(
        "Overshoot", False, 3,
        "Mean distance from the range of the reference nearby, in per cent of the band’s deviation: halos and mottle.",
        "Misses blur.",
    ),
}  # fmt: skip
