"""`majordomus doctor`: what it looks at, and that something broken makes it fail."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator

import pytest
import zmq

from majordomus.cli.inspect import doctor
from majordomus.net.zmq import select as wires
from tests.cli.shell import Shell


def test_doctor_looks_at_everything_a_broker_needs_and_finds_it_here(shell: Shell) -> None:
    done = shell.run("doctor", "--json")
    assert (done.code, done.err) == (0, "")
    report = json.loads(done.out)
    assert report["ok"] is True
    found = {check["check"]: check["value"] for check in report["checks"]}
    assert list(found) == [
        "python",
        "majordomus",
        "pyzmq",
        "msgspec",
        "protobuf",
        "click",
        "rich",
        "libzmq",
        "CURVE",
        "plain TCP",
        "encrypted TCP",
        "rules",
        "tcp sockets",
        "ipc sockets",
        "descriptors",
        "monotonic clock",
        "wall clock",
        "ipc folder",
        "shared memory",
        "localhost",
    ]
    assert found["libzmq"] == zmq.zmq_version()
    assert (found["plain TCP"] == "served by our own ZMTP") == wires.OWN_ZMTP
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert f"hard {hard:,}" in found["descriptors"]


@pytest.mark.skipif(not wires.OWN_ZMTP, reason="our own ZMTP is not built or not wanted")
def test_doctor_states_why_libzmq_serves_encrypted_endpoints(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wires, "CURVE_PROBLEM", "pyzmq has no libsodium that can be called: x")
    (found,) = (one for one in doctor.wire() if one.check == "encrypted TCP")
    assert found.state == doctor.NOTE
    assert found.value == "served by libzmq: pyzmq has no libsodium that can be called: x"


def test_doctor_prints_a_table(shell: Shell) -> None:
    done = shell.run("doctor")
    lines = done.out.decode().splitlines()
    assert lines[0].split() == ["CHECK", "STATE", "VALUE"]
    assert [line.split()[:2] for line in lines if line.startswith("python")] == [["python", "ok"]]


def test_doctor_with_something_broken_fails_and_names_it(shell: Shell) -> None:
    shell.write("sitecustomize.py", "import tempfile\ntempfile.tempdir = '/nowhere'\n")
    path = f"{shell.folder}:{shell.environment['PYTHONPATH']}"
    done = shell.run("doctor", "--json", PYTHONPATH=path)
    assert (done.code, done.err) == (1, "majordomus doctor: broken: ipc sockets, ipc folder\n")
    report = json.loads(done.out)
    assert report["ok"] is False
    broken = [check for check in report["checks"] if check["state"] == "broken"]
    assert broken[1] == {
        "check": "ipc folder",
        "state": "broken",
        "value": "/nowhere: No such file or directory",
    }


def test_doctor_on_a_read_only_file_system_prints_its_table(shell: Shell) -> None:
    shell.write(
        "sitecustomize.py",
        "import tempfile\n"
        "def none():\n"
        "    raise FileNotFoundError(2, 'No usable temporary directory found')\n"
        "tempfile._get_default_tempdir = none\n",
    )
    path = f"{shell.folder}:{shell.environment['PYTHONPATH']}"
    done = shell.run("doctor", "--json", PYTHONPATH=path)
    assert (done.code, done.err) == (1, "majordomus doctor: broken: ipc sockets, ipc folder\n")
    found = {one["check"]: one for one in json.loads(done.out)["checks"]}
    assert found["ipc folder"]["value"] == "No usable temporary directory found"
    assert found["tcp sockets"]["state"] == "ok"
    assert "localhost" in found


def test_check_that_fails_itself_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> Iterator[doctor.Finding]:
        yield doctor.Finding("first", doctor.OK, "")
        raise RuntimeError("no")

    monkeypatch.setattr(doctor, "CHECKS", (fails, doctor.names))
    assert [(one.check, one.state) for one in doctor.examine()[:2]] == [
        ("first", doctor.OK),
        ("fails", doctor.BROKEN),
    ]
    assert doctor.examine()[2].check == "localhost"


def test_peers_allowed_by_a_descriptor_limit() -> None:
    assert doctor.peers_for(20_000) == 19_900
    assert doctor.peers_for(50) == 0
    assert doctor.peers_for(resource.RLIM_INFINITY) == resource.RLIM_INFINITY


def test_socket_that_does_not_work_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_endpoint: str, patience: int = 0) -> float:
        raise OSError("no route")

    monkeypatch.setattr(doctor, "_round_trip", refuse)
    assert [(finding.check, finding.state, finding.value) for finding in doctor.sockets()] == [
        ("tcp sockets", doctor.BROKEN, "no route"),
        ("ipc sockets", doctor.BROKEN, "no route"),
    ]


def test_tcp_that_libzmq_serves_is_a_note_with_the_reason(shell: Shell) -> None:
    checks = json.loads(shell.run("doctor", "--json", MAJORDOMUS_WIRE="pyzmq").out)["checks"]
    (found,) = [check for check in checks if check["check"] == "plain TCP"]
    assert found["state"] == "note"
    assert found["value"] == (
        "served by libzmq, with several times the CPU time: MAJORDOMUS_WIRE asks for it"
    )


def test_wire_that_is_forced_and_unknown_is_broken(shell: Shell) -> None:
    done = shell.run("doctor", MAJORDOMUS_WIRE="copper")
    assert (done.code, done.err) == (1, "majordomus doctor: broken: plain TCP\n")
