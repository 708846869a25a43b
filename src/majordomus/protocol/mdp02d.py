"""The layout of MDP/0.2 with delimiters, as the PyPI package `majortomo` uses it.

docs/spec/mdp-0.2-delimited.md defines it.
"""

from __future__ import annotations

from majordomus.protocol import spec
from majordomus.protocol.command import Codec
from majordomus.protocol.rfc import Layout, RfcCodec

LAYOUT = Layout(
    dialect=spec.Dialect.MDP02D,
    delimited=True,
    client=spec.MDP02_CLIENT,
    worker=spec.MDP02_WORKER,
    client_commands=spec.MDP02D_CLIENT_COMMANDS,
    worker_commands=spec.MDP02_WORKER_COMMANDS,
    replies_name_service=False,
)

CODEC: Codec = RfcCodec(LAYOUT)
