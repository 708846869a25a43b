"""The snapshot of a broker is read by questions that do no I/O."""

from __future__ import annotations

import asyncio
import json

import pytest

from majordomus.core.broker import mmi
from majordomus.errors import Forbidden, MajordomusError, NotSupported
from majordomus.observe.snapshot import SECTIONS, read, read_async
from tests.core.broker_harness import BrokerHarness, number

C, W = b"client-c", b"worker-w"


class Asked:
    """The answers of a machine, as a client gets them."""

    def __init__(self) -> None:
        self.harness = BrokerHarness()
        self.questions: list[list[bytes]] = []

    def __call__(self, body: list[bytes]) -> list[bytes]:
        self.questions.append(body)
        return mmi.answer(self.harness.machine.registry, b"mmi.metrics", list(body), 1000.0)


def test_sections_are_read_page_by_page() -> None:
    asked = Asked()
    for n in range(120):
        asked.harness.worker(b"worker-%03d" % n, b"service-%03d" % n)
    asked.harness.request(C, 2, b"x", service=b"service-007")
    asked.harness.answer(b"worker-007", number(1))
    found = read(asked, SECTIONS)
    assert [row.name for row in found.services] == [f"service-{n:03d}" for n in range(120)]
    assert found.services[7].answered == 1
    assert len(found.workers) == 120
    assert [row.id for row in found.clients] == [C.hex()]
    assert found.broker.now["services"] == 120
    assert len(asked.questions) == 1 + 4 + 2 + 2


def test_reading_ends_at_the_bound_of_rows() -> None:
    asked = Asked()
    for n in range(120):
        asked.harness.worker(b"worker-%03d" % n)
    assert len(read(asked, ["workers"], most=50).workers) == 100


def test_asyncio_reads_the_same() -> None:
    asked = Asked()
    asked.harness.worker(W)

    async def ask(body: list[bytes]) -> list[bytes]:
        return asked(body)

    found = asyncio.run(read_async(ask, SECTIONS))
    assert [row.services for row in found.workers] == [["echo"]]


def broker_row(**changes: object) -> bytes:
    asked = Asked()
    return json.dumps(json.loads(asked([b"broker"])[1]) | changes).encode()


def test_fields_of_a_later_broker_are_ignored() -> None:
    answers = {
        b"broker": [b"200", broker_row(new_key=[1, 2])],
        b"workers": [
            b"200",
            b'{"v":1,"rows":[["77",["echo"],"serving",1,0,null,0.0,"mdp03","","new"]],"x":1}',
        ],
    }
    found = read(lambda body: answers[body[0]], ["workers"])
    assert found.workers[0].services == ["echo"]


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        ([b"501"], NotSupported, "does not answer mmi.metrics"),
        ([b"403"], Forbidden, "refuses mmi.metrics"),
        ([], MajordomusError, "refuses mmi.metrics"),
        ([b"200"], MajordomusError, "is no snapshot"),
        ([b"200", b"{"], MajordomusError, "is no snapshot"),
        ([b"200", b'{"v":1}'], MajordomusError, "is no snapshot"),
        ([b"200", broker_row(v=2)], NotSupported, "has version 2"),
        ([b"200", broker_row(forgotten=[1])], MajordomusError, "is no snapshot"),
    ],
)
def test_answer_that_is_no_snapshot_is_an_error_that_says_so(
    answer: list[bytes], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        read(lambda body: answer)
