"""The layout of MDP/0.1 (RFC 7, docs/spec/mdp-0.1.md)."""

from __future__ import annotations

from majordomus.protocol import spec
from majordomus.protocol.command import Codec
from majordomus.protocol.rfc import Layout, RfcCodec

LAYOUT = Layout(
    dialect=spec.Dialect.MDP01,
    delimited=True,
    client=spec.MDP01_CLIENT,
    worker=spec.MDP01_WORKER,
    client_commands=spec.MDP01_CLIENT_COMMANDS,
    worker_commands=spec.MDP01_WORKER_COMMANDS,
    replies_name_service=True,
)

CODEC: Codec = RfcCodec(LAYOUT)
