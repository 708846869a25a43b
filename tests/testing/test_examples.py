"""The services of examples/ are tested as their users would: on the virtual clock, and with a real
broker, by the same functions."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from majordomus.testing import TestBroker

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(example: str, program: str) -> Any:
    """A program of an example, as a module of its own."""
    path = EXAMPLES / example / f"{program}.py"
    spec = importlib.util.spec_from_file_location(f"example_{example}_{program}", path)
    assert spec is not None and spec.loader is not None
    module: types.ModuleType = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_hello_greets_naps_and_counts(any_broker: TestBroker) -> None:
    any_broker.add(load("hello", "worker").worker)
    client = any_broker.client()
    assert client.call("hello", b"world").body == b"hello, world"
    assert client.call("nap", b"0.01").body == b"slept"
    assert [part.body for part in client.stream("count", b"3")] == [b"1", b"2", b"3"]


async def test_hello_naps_side_by_side(test_broker: TestBroker) -> None:
    import asyncio

    began = test_broker.time.now
    worker = load("hello", "worker").worker
    run = worker._new_run_at(test_broker._new_url(worker))
    serving = asyncio.create_task(run.serve(signals=False))
    client = test_broker.async_client()
    naps = await asyncio.gather(*[client.call("nap", b"60", timeout=90) for _ in range(50)])
    assert [nap.body for nap in naps] == [b"slept"] * 50
    assert 60 <= test_broker.time.now - began < 62
    run.stop(drain=True)
    await serving


def test_prices_are_answered_and_published(any_broker: TestBroker) -> None:
    module = load("prices", "feed")
    any_broker.add(module.worker)
    assert any_broker.client().call("price", "gold").text == "2400.00"


def test_chat_passes_on_what_a_member_says(any_broker: TestBroker) -> None:
    any_broker.add(load("chat", "worker").worker)
    with any_broker.client().open("chat", "garden/ann", timeout=60) as ann:
        assert next(ann).text == "welcome to garden, ann"
        with any_broker.client().open("chat", "garden/bob", timeout=60) as bob:
            assert next(bob).text == "welcome to garden, bob"
            assert next(ann).text == "bob comes"
            bob.send("good morning")
            assert next(ann).text == "bob: good morning"
            bob.finish()
            assert [part.text for part in bob] == ["bob: good morning"]
        assert next(ann).text == "bob goes"


@pytest.mark.parametrize("attempts", [1, 3])
def test_fan_out_asks_every_shard(any_broker: TestBroker, attempts: int) -> None:
    from majordomus import Request, Worker

    shard = load("fan-out", "shard")
    for letters in ("ab", "cd"):
        worker = Worker()
        mine = [word for word in shard.WORDS if word[0] in letters]

        @worker.service("words")
        def words(request: Request, mine: list[str] = mine) -> list[str]:
            return [word for word in mine if request.text in word]

        any_broker.add(worker)
    for _ in range(attempts):
        assert any_broker.client().call("words", "o", to=b"").status == 200
