"""Whatever peers without rights do at a plain TCP endpoint, all of it at once: the broker stays
below its stated size (docs/limits.md).

The limits are the defaults divided by eight, and so is the stated size. The long form, with the
defaults themselves, is `make chaos` (benchmarks/floods.py).
"""

from __future__ import annotations

import msgspec
import pytest
from benchmarks import floods

from majordomus.core.broker.settings import BrokerSettings
from majordomus.net.zmq import select as wires

SCALE = 8
SCALED = [
    name
    for name in BrokerSettings.__struct_fields__
    if name.startswith("max_") and name.endswith("_bytes")
]
DEFAULTS = msgspec.structs.asdict(BrokerSettings())
LARGEST = floods.LARGEST // SCALE
SECONDS = 4.0

pytestmark = pytest.mark.skipif(
    not wires.OWN_ZMTP, reason="the bounds hold where our own ZMTP serves"
)


def test_defaults_stay_below_the_stated_size() -> None:
    """The table of docs/limits.md."""
    account = DEFAULTS["max_held_bytes"] * 5 // 4
    buffers = 2 * DEFAULTS["max_unsent_bytes"] + DEFAULTS["max_unfinished_bytes"]
    assert account + buffers <= floods.STATED * 3 // 4


def test_broker_stays_below_its_stated_size_whatever_peers_without_rights_do() -> None:
    flags = [f"--set={name}={DEFAULTS[name] // SCALE}" for name in SCALED]
    flags += [f"--set=max_message={LARGEST}"]
    half = DEFAULTS["max_held_bytes"] // SCALE // 2
    found = floods.measure(
        floods.HOLDERS, SECONDS, *flags, calls=False, largest=LARGEST, grown=half
    )
    assert found.most - found.before > half, "the floods do not flood"
    assert found.most < floods.STATED // SCALE
