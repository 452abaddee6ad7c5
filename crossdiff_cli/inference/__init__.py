"""Tiled inference: one network bound to a scene, on every device."""
