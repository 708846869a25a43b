"""The layout of MDP/0.2 (RFC 18, docs/spec/mdp-0.2.md)."""

from __future__ import annotations

from majordomus.protocol import spec
from majordomus.protocol.command import Codec
from majordomus.protocol.rfc import Layout, RfcCodec

LAYOUT = Layout(
    dialect=spec.Dialect.MDP02,
    delimited=False,
    client=spec.MDP02_CLIENT,
    worker=spec.MDP02_WORKER,
    client_commands=spec.MDP02_CLIENT_COMMANDS,
    worker_commands=spec.MDP02_WORKER_COMMANDS,
    replies_name_service=True,
)

CODEC: Codec = RfcCodec(LAYOUT)
