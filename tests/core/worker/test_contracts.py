"""A worker states the hash of a contract in READY, and sends the bytes when it is asked."""

from __future__ import annotations

from typing import Any

import pytest

from majordomus.contracts.model import Contract, hash_of, to_bytes
from majordomus.protocol import metadata, spec
from tests.core.session_harness import WorkerScript

DATA = to_bytes(Contract(version="1"))
HASH = hash_of(DATA)
FIELDS = {"flags": spec.METADATA, "service": b"echo", "metadata": metadata.pack({"contract": HASH})}


def script_of(**settings: Any) -> WorkerScript:
    script = WorkerScript(contracts={b"echo": DATA}, **settings)
    script.connect()
    script.welcome()
    return script


def test_ready_states_the_hash() -> None:
    assert script_of().said() == [("READY", {**FIELDS, "code": 1})]


def test_ready_states_weight_and_hash() -> None:
    [(name, fields)] = script_of(weight=2.0).said()
    assert name == "READY"
    assert metadata.unpack(fields["metadata"]) == {"weight": 2.0, "contract": HASH}


def test_worker_that_is_asked_sends_the_bytes() -> None:
    script = script_of()
    script.said()
    script.say(spec.CONTRACT, **FIELDS)
    assert script.said() == [("CONTRACT", FIELDS, DATA)]


def test_worker_without_that_contract_answers_without_a_body() -> None:
    script = script_of()
    script.said()
    other = metadata.pack({"contract": "0" * 64})
    script.say(spec.CONTRACT, **{**FIELDS, "metadata": other})
    assert script.said() == [("CONTRACT", {**FIELDS, "metadata": other})]
    script.say(spec.CONTRACT, **{**FIELDS, "service": b"other"})
    assert script.said() == [("CONTRACT", {**FIELDS, "service": b"other"})]


@pytest.mark.parametrize("field", [b"\x81", b"\x81\xa8contract\x05"])
def test_malformed_question_is_counted(field: bytes) -> None:
    script = script_of()
    script.said()
    script.say(spec.CONTRACT, **{**FIELDS, "metadata": field})
    assert script.said() == []
    assert sum(script.session.invalid.values()) == 1


def test_service_that_is_added_has_a_contract_of_its_own() -> None:
    script = script_of()
    script.said()
    script.session.add_service(b"more", script.now, DATA)
    script.turn()
    assert script.said() == [("READY", {**FIELDS, "service": b"more", "code": 1})]
