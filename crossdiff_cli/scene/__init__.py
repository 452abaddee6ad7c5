"""Rasters on disk: the only rooms that know rasterio."""
