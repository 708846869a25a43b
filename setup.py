"""Builds our own ZMTP and compiles the rules; everything else is declared in pyproject.toml.

It takes a C compiler and nothing else. Where there is none the install goes on without them, says
so in its output, and pyzmq and the rules in plain Python serve:
docs/adr/0011-own-zmtp.md, docs/adr/0008-compiled-rules.md.

The rules are the modules that have a `.pxd` beside them. An editable install or `build_ext
--inplace` never compiles them: what is edited is what runs.
MAJORDOMUS_ABI3=1 makes one wheel for every CPython from 3.11 on, with the wire compiled and the
rules in Python; MAJORDOMUS_RULES=python leaves the rules as they are. MAJORDOMUS_DEBUG=1 keeps the
debug information.
"""

import os
import re
import sys
from pathlib import Path

from Cython.Build import cythonize
from Cython.Compiler import Options
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ABI3 = bool(os.environ.get("MAJORDOMUS_ABI3"))
OLDEST = "0x030B0000"
RULES = not ABI3 and os.environ.get("MAJORDOMUS_RULES") != "python"
DEBUG_INFO = "-g" if os.environ.get("MAJORDOMUS_DEBUG") else "-g0"
"""CPython passes -g to the compiler. Debug information is four fifths of an extension's size (33 of
40 MB for all of them), and a quarter of the time that it takes to compile."""
DIRECTIVES = {
    "annotation_typing": False,  # the types are in the .pxd, and nowhere else
    "auto_pickle": False,
    "binding": True,
    "embedsignature": False,
    "boundscheck": True,
    "wraparound": True,
}


FREE_LIST = re.compile(r"@cython\.freelist\((\d+)\)")
Options.get_directive_defaults().setdefault("freelist", 0)  # without one it is no known directive
OPTIMIZED = ["-O3", *(["-fno-plt"] if sys.platform == "linux" else [])]
"""Without a PLT every call of the interpreter is an instruction shorter: a hundred a request."""


def name_of(source: Path) -> str:
    return ".".join(source.relative_to("src").with_suffix("").parts)


def extension(source: Path) -> Extension:
    return Extension(
        name_of(source),
        [str(source)],
        define_macros=[("Py_LIMITED_API", OLDEST)] if ABI3 else [],
        py_limited_api=ABI3,
        extra_compile_args=[] if sys.platform == "win32" else [*OPTIMIZED, DEBUG_INFO],
    )


def free_list(one: Extension) -> int:
    """The largest number in a `@cython.freelist` of its .pxd; 0 without one.

    Cython reads the decorator in a .pxd and then drops it: the directives of a class are those of
    its .py. So it becomes a directive of the whole module.
    """
    declared = Path(one.sources[0]).with_suffix(".pxd")
    if not declared.exists() or declared.with_suffix(".pyx").exists():
        return 0
    return max(map(int, FREE_LIST.findall(declared.read_text("utf-8"))), default=0)


LINUX_ONLY = {
    "stream",
    "dealer",
    "router",
    "engine",
    "mechanisms",
    "sodium",
    "boxes",
}  # it waits by epoll
WIRES = [
    extension(path)
    for path in sorted(Path("src").rglob("*.pyx"))
    if sys.platform == "linux" or path.stem not in LINUX_ONLY
]
# Their .pxd is for the others to use: what Python uses is their .py.
INLINE = {
    "arithmetic",
    "deadline",
    "eager_steps",
    "links",
    "octets",
    "prefetch_hints",
    "spec",
    "sums",
}
COMPILED = [
    extension(path.with_suffix(".py"))
    for path in sorted(Path("src").rglob("*.pxd"))
    if path.stem not in INLINE and path.with_suffix(".py").exists()
]
RULE_NAMES = {rule.name for rule in COMPILED}


class Build(build_ext):
    """Compiles the rules for a real install only, and then all of them or none: a compiled module
    knows the others' types by their layout."""

    def finalize_options(self):
        super().finalize_options()
        if self.inplace or self.editable_mode or not RULES:
            self.extensions = [one for one in self.extensions if one.name not in RULE_NAMES]
        self.parallel = self.parallel or os.cpu_count() or 1

    def build_extensions(self):
        self.extensions = self.cythonized(self.extensions)
        super().build_extensions()
        rules = [one for one in self.extensions if one.name in RULE_NAMES]
        made = [Path(self.get_ext_fullpath(one.name)) for one in rules]
        lacking = [path.name for path in made if not path.exists()]
        if lacking:
            for path in made:
                path.unlink(missing_ok=True)
            self.warn(f"the rules stay in plain Python: {', '.join(lacking)} could not be built")

    def cythonized(self, extensions):
        made = []
        for kept in sorted(set(map(free_list, extensions))):
            made += cythonize(
                [one for one in extensions if free_list(one) == kept],
                build_dir="build/cython",
                language_level=3,
                nthreads=os.cpu_count() or 1,
                compiler_directives={**DIRECTIVES, "freelist": kept},
            )
        for one in made:
            one.optional = True  # cythonize makes them anew and forgets it
            one._needs_stub = False
        return made


setup(
    ext_modules=WIRES + COMPILED,
    cmdclass={"build_ext": Build},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if ABI3 else {},
)
