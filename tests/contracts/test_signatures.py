"""Signatures of handlers: contract, stub, call, and the same value back.

`make contracts` runs 1,000 of them and prints how many there were of each kind, and why the others
were refused when they were added.
"""

from __future__ import annotations

import os
import types
import typing
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from majordomus import ConfigurationError, Request, Worker
from majordomus.contracts import catalog, stubs
from majordomus.messages.bodies import decoder_for, encoder_for
from majordomus.testing import TestBroker
from tests.contracts.signatures import Signature, signatures

EXAMPLES = 1000 if os.environ.get("CONTRACTS") == "full" else 60
SERVED: Counter[str] = Counter()
REFUSED: Counter[str] = Counter()


def handler_of(signature: Signature) -> Any:
    """A handler that returns its argument, of this signature."""

    def function(value, request=None):  # type: ignore[no-untyped-def]
        return value

    async def coroutine(value, request=None):  # type: ignore[no-untyped-def]
        return value

    def generator(value, request=None):  # type: ignore[no-untyped-def]
        yield value

    async def async_generator(value, request=None):  # type: ignore[no-untyped-def]
        yield value

    made = {
        "function": function,
        "coroutine": coroutine,
        "generator": generator,
        "async generator": async_generator,
    }[signature.shape]
    annotation = signature.kind.annotation
    returns = annotation
    if signature.shape == "generator":
        returns = typing.Iterator[annotation]
    elif signature.shape == "async generator":
        returns = typing.AsyncIterator[annotation]
    made.__annotations__ = {"value": annotation, "return": returns}
    if signature.request != "no":
        made.__annotations__["request"] = Request
    return made


def stub_of(worker: Worker) -> types.ModuleType:
    """The module of the stubs of a worker."""
    [(name, text)] = stubs.modules(catalog.of_handlers(worker.handlers)).items()
    module = types.ModuleType(f"stub_{name}")
    import sys

    sys.modules[module.__name__] = module
    exec(compile(text, f"{name}.py", "exec", dont_inherit=True), module.__dict__)  # noqa: S102
    return module


def round_trip(broker: TestBroker, worker: Worker, signature: Signature, value: Any) -> Any:
    """The value as it comes back from a call by the stub."""
    annotation = signature.kind.annotation
    module: Any = stub_of(worker)
    hints = typing.get_type_hints(module.G.echo, include_extras=True)
    takes, returns = hints["body"], hints["return"]
    if signature.shape.endswith("generator"):
        (returns,) = typing.get_args(returns)
    sent = encoder_for(annotation)(value)
    given = decoder_for(takes)(sent.frames, sent.type)
    notes = module.connect(broker.client())
    reply = notes.echo(given)
    if signature.shape.endswith("generator"):
        [reply] = list(reply)
    back = encoder_for(returns)(reply)
    return decoder_for(annotation)(back.frames, back.type)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate] if EXAMPLES > 60 else list(Phase),
    suppress_health_check=list(HealthCheck),
)
@given(signature=signatures(), data=st.data())
def test_value_comes_back_or_the_signature_is_refused(
    signature: Signature, data: st.DataObject
) -> None:
    worker = Worker()
    try:
        worker.add("g.echo", handler_of(signature))
    except ConfigurationError as error:
        assert str(error)
        REFUSED[f"{signature.kind.name}: {str(error).partition(': ')[2] or error}"] += 1
        return
    value = data.draw(signature.kind.values)
    with TestBroker() as broker:
        broker.add(worker)
        assert round_trip(broker, worker, signature, value) == value
    SERVED[signature.kind.name] += 1


def test_most_signatures_are_served() -> None:
    served, refused = sum(SERVED.values()), sum(REFUSED.values())
    if not served:
        pytest.skip("runs after the test above")
    print(f"\n{served} signatures served: {dict(SERVED.most_common())}")
    print(f"{refused} refused at add:")
    for reason, count in REFUSED.most_common():
        print(f"  {count} {reason}")
    assert served >= 0.8 * (served + refused)
