"""The broker asks one worker for each contract, and reports contracts that are incompatible."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from majordomus.contracts import model
from majordomus.contracts.model import BodyContract, Contract
from majordomus.core.broker import contracts as rules
from majordomus.protocol import metadata, spec
from tests.core.broker_harness import BrokerHarness


def text(properties: dict[str, Any], required: list[str]) -> bytes:
    schema = {"type": "object", "properties": properties, "required": required}
    return model.to_bytes(Contract(request=BodyContract(schema, ("application/json",))))


NAME: dict[str, Any] = {"type": "string"}
FIRST = text({"name": NAME}, ["name"])
WIDER = text({"name": NAME, "size": {"type": "integer"}}, ["name"])
OTHER = text({"name": {"type": "integer"}}, ["name"])


def ready(harness: BrokerHarness, worker: bytes, contract: bytes, service: bytes = b"s") -> None:
    field = metadata.pack({"contract": model.hash_of(contract)}) if contract else b""
    flags = spec.METADATA if field else 0
    harness.receive_03(worker, spec.READY, code=1, service=service, flags=flags, metadata=field)


def answer(harness: BrokerHarness, worker: bytes, contract: bytes, *body: bytes) -> None:
    field = metadata.pack({"contract": model.hash_of(contract)})
    harness.receive_03(
        worker, spec.CONTRACT, *body, service=b"s", flags=spec.METADATA, metadata=field
    )


def asked(harness: BrokerHarness) -> list[bytes]:
    """Who was asked for a contract since the last call."""
    return [one[0] for one in harness.messages() if one[1] == "CONTRACT"]


def mmi(harness: BrokerHarness, *body: bytes) -> list[bytes]:
    harness.messages()
    harness.request(b"client", 1, *body, service=b"mmi.contract")
    [(_, _, _, frames)] = harness.finals()
    return frames


def known(harness: BrokerHarness) -> dict[str, Any]:
    status, *data = mmi(harness, b"s")
    assert status == b"200"
    found: dict[str, Any] = msgspec.json.decode(data[0])
    return found


def test_one_of_many_equal_workers_is_asked_for_its_contract(harness: BrokerHarness) -> None:
    for number in range(50):
        ready(harness, b"w%d" % number, FIRST)
    assert asked(harness) == [b"w0"]
    answer(harness, b"w0", FIRST, FIRST)
    ready(harness, b"late", FIRST)
    assert asked(harness) == []
    assert known(harness) == {
        "contracts": [
            {"hash": model.hash_of(FIRST), "workers": 51, "contract": msgspec.json.decode(FIRST)}
        ],
        "conflict": "",
    }


def test_worker_without_a_contract_is_never_asked(harness: BrokerHarness) -> None:
    ready(harness, b"w", b"")
    assert asked(harness) == []
    assert known(harness) == {"contracts": [], "conflict": ""}


def test_text_that_is_no_hash_states_no_contract(harness: BrokerHarness) -> None:
    field = metadata.pack({"contract": "v1"})
    harness.receive_03(b"w", spec.READY, code=1, service=b"s", flags=spec.METADATA, metadata=field)
    assert asked(harness) == []


def test_another_worker_is_asked_when_the_asked_one_is_lost(harness: BrokerHarness) -> None:
    ready(harness, b"w0", FIRST)
    ready(harness, b"w1", FIRST)
    assert asked(harness) == [b"w0"]
    harness.receive_03(b"w0", spec.DISCONNECT)
    assert asked(harness) == [b"w1"]


@pytest.mark.parametrize("body", [(), (b"{}",), (OTHER,), (FIRST, FIRST), (b"\xff" * 70_000,)])
def test_answer_with_other_bytes_is_dropped_and_another_worker_asked(
    harness: BrokerHarness, body: tuple[bytes, ...]
) -> None:
    ready(harness, b"w0", FIRST)
    ready(harness, b"w1", FIRST)
    asked(harness)
    answer(harness, b"w0", FIRST, *body)
    assert asked(harness) == [b"w1"]
    assert harness.machine.registry.counts.dropped["bad-contract"] == 1


def test_answer_that_was_not_asked_for_is_dropped(harness: BrokerHarness) -> None:
    ready(harness, b"w0", FIRST)
    ready(harness, b"w1", FIRST)
    answer(harness, b"w1", FIRST, FIRST)
    assert harness.machine.registry.counts.dropped["unasked-contract"] == 1
    assert known(harness)["contracts"][0]["contract"] is None


def test_contract_is_charged_to_another_worker_when_its_owner_is_lost(
    harness: BrokerHarness,
) -> None:
    ready(harness, b"w0", FIRST)
    ready(harness, b"w1", FIRST)
    answer(harness, b"w0", FIRST, FIRST)
    harness.receive_03(b"w0", spec.DISCONNECT)
    assert known(harness)["contracts"][0]["workers"] == 1  # the invariants count the account
    harness.receive_03(b"w1", spec.DISCONNECT)
    assert not harness.machine.registry.contracts.by_hash


def test_incompatible_contracts_of_one_name_are_reported_once(harness: BrokerHarness) -> None:
    for worker, contract in ((b"w0", FIRST), (b"w1", OTHER), (b"w2", OTHER)):
        ready(harness, worker, contract)
        if worker != b"w2":
            answer(harness, worker, contract, contract)
    facts = [data for name, data in harness.facts if name == "contracts-differ"]
    assert [one["why"] for one in facts] == ["request.name: string became integer"]
    assert known(harness)["conflict"] == "request.name: string became integer"
    harness.receive_03(b"w1", spec.DISCONNECT)
    assert known(harness)["conflict"]
    harness.receive_03(b"w2", spec.DISCONNECT)
    assert known(harness)["conflict"] == ""


def test_compatible_contracts_of_one_name_are_not_reported(harness: BrokerHarness) -> None:
    for worker, contract in ((b"w0", FIRST), (b"w1", WIDER)):
        ready(harness, worker, contract)
        answer(harness, worker, contract, contract)
    assert not [name for name, _ in harness.facts if name == "contracts-differ"]
    assert known(harness)["conflict"] == ""


def test_worker_that_states_another_contract_replaces_its_own(harness: BrokerHarness) -> None:
    ready(harness, b"w", FIRST)
    answer(harness, b"w", FIRST, FIRST)
    ready(harness, b"w", OTHER)
    answer(harness, b"w", OTHER, OTHER)
    assert [one["hash"] for one in known(harness)["contracts"]] == [model.hash_of(OTHER)]
    ready(harness, b"w", b"")
    assert known(harness)["contracts"] == []


def test_broker_keeps_a_bounded_number_of_contracts_of_a_service(harness: BrokerHarness) -> None:
    for number in range(rules.MOST_OF_A_SERVICE + 3):
        contract = text({f"f{number}": NAME}, [])
        ready(harness, b"w%d" % number, contract)
    assert len(asked(harness)) == rules.MOST_OF_A_SERVICE
    assert harness.machine.registry.counts.dropped["too-many-contracts"] == 3


def test_contract_of_a_service_without_workers_is_404(harness: BrokerHarness) -> None:
    assert mmi(harness, b"s") == [b"404"]
    assert mmi(harness) == [b"400"]
