"""CrossDiff: pansharpening by cross-predictive diffusion encoders and an adapted fusion head."""

__version__ = "0.1.0"
