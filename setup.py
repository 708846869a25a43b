"""Builds the native modules; everything else is declared in pyproject.toml."""

from pathlib import Path

from Cython.Build import cythonize
from setuptools import setup

sources = [str(path) for path in sorted(Path("src").rglob("*.pyx"))]
setup(ext_modules=cythonize(sources, language_level=3))
