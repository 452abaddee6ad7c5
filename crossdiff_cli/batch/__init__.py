"""Many scenes, unattended: each one fails alone."""
