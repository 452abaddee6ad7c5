"""Rasters on disk: the only room that imports rasterio."""
