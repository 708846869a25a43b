"""Builds the native wire; everything else is declared in pyproject.toml.

It takes a C compiler and nothing else. Where there is none the install goes on without it
(`optional`), says so in its output, and the twin on pyzmq serves: docs/adr/0003-native-wire.md.
MAJORDOMUS_ABI3=1 makes one wheel for every CPython from 3.11 on.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

ABI3 = bool(os.environ.get("MAJORDOMUS_ABI3"))
OLDEST = "0x030B0000"


def extension(source: Path) -> Extension:
    return Extension(
        ".".join(source.relative_to("src").with_suffix("").parts),
        [str(source)],
        define_macros=[("Py_LIMITED_API", OLDEST)] if ABI3 else [],
        py_limited_api=ABI3,
    )


extensions = cythonize(
    [extension(source) for source in sorted(Path("src").rglob("*.pyx"))],
    build_dir="build/cython",
    language_level=3,
)
for made in extensions:
    made.optional = True  # cythonize makes them anew and forgets it

setup(
    ext_modules=extensions,
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if ABI3 else {},
)
