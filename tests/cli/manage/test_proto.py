"""`majordomus proto`: text that protoc takes, on stdout or in a file, or one line of complaint."""

from __future__ import annotations

import pytest

from tests.cli.shell import Shell

PEOPLE = """
from __future__ import annotations

from typing import Annotated

from majordomus.messages import Record, record, uint32

from places import Place


@record
class Person:
    name: Annotated[str, 1]
    age: Annotated[uint32, 2]
    home: Annotated[Place | None, 3] = None


class Pet(Record):
    owner: Annotated[Person, 1]


other = 5
"""
PLACES = """
from typing import Annotated

from majordomus.messages import record


@record
class Place:
    \"\"\"Somewhere.\"\"\"
    city: Annotated[str, 1]
"""
HEAD = """\
// Made by majordomus from the annotations of Python classes.
// Numbers are `optional` so that zeros are written: readers may rely on their being there.

syntax = "proto3";

package {package};

// Somewhere.
message Place {{
  string city = 1;
}}

message Person {{
  string name = 1;
  optional uint32 age = 2;
  Place home = 3;
}}
"""
PET = """
message Pet {
  Person owner = 1;
}
"""


@pytest.fixture
def modules(shell: Shell) -> Shell:
    shell.write("people.py", PEOPLE)
    shell.write("places.py", PLACES)
    return shell


def test_module_is_printed_with_what_its_records_contain(modules: Shell) -> None:
    done = modules.run("proto", "people")
    assert (done.code, done.err) == (0, "")
    assert done.out.decode() == HEAD.format(package="people") + PET


def test_one_record_alone_is_written_into_a_file(modules: Shell) -> None:
    done = modules.run("proto", "people:Person", "--package", "my.app", "-o", "out.proto")
    assert (done.code, done.out, done.err) == (0, b"", "")
    assert (modules.folder / "out.proto").read_text() == HEAD.format(package="my.app")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("nowhere", "no module 'nowhere' in "),
        ("people:Nope", "people has no record Nope (it has Person, Pet)"),
        ("people:Place", "people has no record Place (it has Person, Pet)"),
        ("empty", "empty has no records: decorate a class with @record"),
        ("broken", "broken cannot be imported: ConfigurationError: Bad.a has no tag"),
        (":x", "':x': expected MODULE or MODULE:NAME"),
    ],
)
def test_module_without_what_is_asked_for_is_one_line(
    modules: Shell, target: str, said: str
) -> None:
    modules.write("empty.py", "")
    modules.write(
        "broken.py",
        "from majordomus.messages import record\n@record\nclass Bad:\n    a: int\n",
    )
    done = modules.run("proto", target)
    assert (done.code, done.out) == (2, b"")
    assert done.err.startswith(f"majordomus proto: {said}")
    assert done.err.count("\n") == 1
