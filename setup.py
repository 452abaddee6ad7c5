"""The packages, found by their folders; everything else stands in pyproject.toml."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["crossdiff_cli*"]), "crossdiff_weights"])
