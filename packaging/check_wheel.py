"""Install a wheel in a fresh virtual environment without a compiler, and try it.

    python packaging/check_wheel.py dist/majordomus-*.whl [--most-seconds 10]

What is checked: the wheel has the modules of the source and no others; the install ends within
`--most-seconds`; `majordomus doctor` reports our own ZMTP and the compiled rules (`--pure`: the
plain ones); `majordomus demo` passes. The environment's PATH holds its own programs and nothing
else, so that a compiler cannot be found.

The install is measured from a folder of wheels, which holds majordomus and what it needs. The
download that fills this folder is measured apart: it is the time of the index and the network.

Prints each part of the seconds and the sizes of the wheel and of what it installed. Exit status 1
with one line when a check fails.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MIB: Final = 1024 * 1024
SOURCE: Final = Path(__file__).parent.parent / "src"
CODE: Final = (".py", ".so", ".pyd")
NOT_PACKED: Final = (".pyx", ".pxd", ".c")
"""The source of extensions, which no install needs."""


class CheckFailedError(Exception):
    """A check of the wheel failed; the text says which."""


@dataclass(frozen=True)
class Cost:
    """How long a command took, and for how long it used a processor."""

    seconds: float
    processor: float
    """What other programs do on the machine meanwhile changes it little. It is 0 on Windows."""

    def __str__(self) -> str:
        return f"{self.seconds:.1f} s ({self.processor:.1f} s of processor time)"


@dataclass(frozen=True)
class Install:
    """What each part of an install cost."""

    download: Cost
    """pip reads the index, chooses the versions and downloads the wheels of the dependencies."""
    dependencies: Cost
    """pip starts and installs the dependencies from the folder."""
    majordomus: Cost
    """pip starts and installs majordomus from the folder."""
    bytecode: Cost
    """The part of `majordomus` in which pip compiles the modules to bytecode, measured again."""

    @property
    def seconds(self) -> float:
        """What the install takes where the wheels are on the disk."""
        return self.dependencies.seconds + self.majordomus.seconds

    def __str__(self) -> str:
        return (
            f"installed in {self.seconds:.1f} s: dependencies {self.dependencies}, "
            f"majordomus {self.majordomus}, of which bytecode {self.bytecode}; "
            f"before it, index and downloads {self.download}"
        )


def timed(command: list[str], environment: dict[str, str]) -> Cost:
    """What `command` cost. Raises: CheckFailedError when it fails."""
    before, used = time.monotonic(), os.times()
    run(command, environment)
    after = os.times()
    processor = (
        after.children_user - used.children_user + after.children_system - used.children_system
    )
    return Cost(time.monotonic() - before, processor)


def run(command: list[str], environment: dict[str, str]) -> str:
    """The output of `command`. Raises: CheckFailedError when it fails."""
    done = subprocess.run(  # noqa: S603 - programs of the environment that was made here
        command, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    if done.returncode:
        raise CheckFailedError(f"{' '.join(command)} failed: {done.stdout}{done.stderr}".strip())
    return done.stdout


def size_of(folder: Path) -> int:
    """Bytes of all files below `folder`, without the bytecode that an install writes."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return sum(path.stat().st_size for path in files)


def check_modules(wheel: Path) -> None:
    """Compare the modules of `wheel` with those of the source. Raises: CheckFailedError.

    A build folder keeps the modules of an older source, and setuptools packs them again.
    """
    with zipfile.ZipFile(wheel) as packed:
        names = [Path(name) for name in packed.namelist() if name.startswith("majordomus/")]
    if surplus := sorted(str(name) for name in names if name.suffix in NOT_PACKED):
        raise CheckFailedError(f"no install needs these files: {', '.join(surplus)}")
    modules = {name.parent / name.name.partition(".")[0] for name in names if name.suffix in CODE}
    found = [path.relative_to(SOURCE) for path in (SOURCE / "majordomus").rglob("*.py*")]
    source = {path.with_suffix("") for path in found if path.suffix in (".py", ".pyx")}
    plain = {path.with_suffix("") for path in found if path.suffix == ".py"}
    if old := sorted(map(str, modules - source)):
        raise CheckFailedError(f"not in the source, remove the build folder: {', '.join(old)}")
    if missing := sorted(map(str, plain - modules)):
        raise CheckFailedError(f"not in the wheel: {', '.join(missing)}")


def install(wheel: Path, python: str, wheels: Path, environment: dict[str, str]) -> Install:
    """Install `wheel` for `python`, its dependencies by way of the folder `wheels`.

    Raises: CheckFailedError.
    """
    pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    download = [*pip, "download", "--only-binary", ":all:", "--dest", str(wheels), str(wheel)]
    install = [*pip, "install", "--no-index", "--no-deps"]
    downloaded = timed(download, environment)
    others = [str(path) for path in sorted(wheels.glob("*.whl")) if path.name != wheel.name]
    return Install(
        download=downloaded,
        dependencies=timed([*install, *others], environment),
        majordomus=timed([*install, str(wheel)], environment),
        bytecode=timed(
            [python, "-m", "compileall", "-q", "-f", str(package_of(python, environment))],
            environment,
        ),
    )


def package_of(python: str, environment: dict[str, str]) -> Path:
    """The folder of the package that `python` imports."""
    return Path(
        run([python, "-c", "import majordomus; print(majordomus.__path__[0])"], environment).strip()
    )


def check(wheel: Path, most_seconds: float, pure: bool) -> None:
    """Install `wheel` and try it. Raises: CheckFailedError."""
    check_modules(wheel)
    with tempfile.TemporaryDirectory(prefix="wheel-") as folder:
        home = Path(folder, "venv")
        venv.create(home, with_pip=True, symlinks=os.name != "nt")
        programs = home / ("Scripts" if os.name == "nt" else "bin")
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("MAJORDOMUS_", "PYTHONPATH", "CC", "CXX"))
        }
        environment |= {"PATH": str(programs), "NO_COLOR": "1"}
        python = str(programs / "python")

        installed = install(wheel, python, Path(folder, "wheels"), environment)
        if installed.seconds > most_seconds:
            raise CheckFailedError(f"over {most_seconds:g} s: {installed}")

        report = run([str(programs / "majordomus"), "doctor", "--json"], environment)
        states = {one["check"]: one for one in json.loads(report)["checks"]}
        rules = states["rules"]["value"]
        if rules.startswith("compiled") is pure:
            raise CheckFailedError(f"doctor reports the rules as: {rules}")
        run([str(programs / "majordomus"), "demo"], environment)

        print(
            f"{wheel.name}: {wheel.stat().st_size / MIB:.1f} MiB, "
            f"{size_of(package_of(python, environment)) / MIB:.1f} MiB on disk; {installed}; "
            f"rules: {rules.split(',')[0]}; demo passed"
        )


def main() -> int:
    """Check the wheel that the command line names."""
    parser = argparse.ArgumentParser(description="Install and try a wheel of majordomus.")
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--most-seconds", type=float, default=10.0)
    parser.add_argument("--pure", action="store_true", help="expect rules in plain Python")
    given = parser.parse_args()
    try:
        check(given.wheel, given.most_seconds, given.pure)
    except CheckFailedError as error:
        print(f"check_wheel: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
