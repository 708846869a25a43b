"""The five dialects as their pages write them, frame by frame, without our codecs: the messages of
clients and workers, and those that they must receive."""

from __future__ import annotations

from majordomus.protocol import delphi, mdp03, spec
from majordomus.protocol.spec import Dialect, Frame

MDP01, MDP02, MDP02D, DELPHI, MDP03 = Dialect
ALL = tuple(Dialect)
KNOWS_PARTS = (MDP02, MDP02D, MDP03)


def _closed(*frames: Frame) -> list[Frame]:
    return [*frames, delphi.digest(list(frames))]


def ready(dialect: Dialect, service: Frame, capacity: int = 1) -> list[Frame]:
    """A worker's READY; only MDP/0.3 has a capacity."""
    return {
        MDP01: [b"", b"MDPW01", b"\x01", service],
        MDP02: [b"MDPW02", b"\x01", service],
        MDP02D: [b"", b"MDPW02", b"\x01", service],
        DELPHI: _closed(b"", b"\x01", service),
        MDP03: [mdp03.pack(spec.READY, code=capacity, service=service)],
    }[dialect]


def ask(dialect: Dialect, service: Frame, body: list[Frame], id: int = 1) -> list[Frame]:
    """A client's request, with no frame of body where `body` is empty."""
    return {
        MDP01: [b"", b"MDPC01", service, *body],
        MDP02: [b"MDPC02", b"\x01", service, *body],
        MDP02D: [b"", b"MDPC02", b"\x02", service, *body],
        DELPHI: _closed(b"", b"\x05", service, *body),
        MDP03: [mdp03.pack(spec.REQUEST, id=id, service=service), *body],
    }[dialect]


def asked(
    dialect: Dialect, address: Frame, body: list[Frame], number: int, service: Frame, client: Frame
) -> list[Frame]:
    """The REQUEST that a worker receives.

    It carries `address` in the older dialects, and `number`, `service` and `client` in MDP/0.3.
    """
    some = body or [b""]
    return {
        MDP01: [b"", b"MDPW01", b"\x02", address, b"", *some],
        MDP02: [b"MDPW02", b"\x02", address, b"", *some],
        MDP02D: [b"", b"MDPW02", b"\x02", address, b"", *some],
        DELPHI: _closed(b"", b"\x05", address, b"", *some),
        MDP03: [
            mdp03.pack(spec.REQUEST, id=number, ttl=60000, service=service, address=client),
            *body,
        ],
    }[dialect]


def part(dialect: Dialect, address: Frame, body: list[Frame], number: int) -> list[Frame]:
    """A worker's PARTIAL."""
    return {
        MDP02: [b"MDPW02", b"\x03", address, b"", *body],
        MDP02D: [b"", b"MDPW02", b"\x03", address, b"", *body],
        MDP03: [mdp03.pack(spec.PARTIAL, id=number), *body],
    }[dialect]


def end(
    dialect: Dialect, service: Frame, address: Frame, body: list[Frame], number: int
) -> list[Frame]:
    """A worker's REPLY or FINAL."""
    return {
        MDP01: [b"", b"MDPW01", b"\x03", address, b"", *body],
        MDP02: [b"MDPW02", b"\x04", address, b"", *body],
        MDP02D: [b"", b"MDPW02", b"\x04", address, b"", *body],
        DELPHI: _closed(b"", b"\x04", service, address, b"", *body),
        MDP03: [mdp03.pack(spec.FINAL, code=200, id=number), *body],
    }[dialect]


def part_heard(dialect: Dialect, service: Frame, body: list[Frame], id: int = 1) -> list[Frame]:
    """The PARTIAL that a client receives, if its dialect has one."""
    some = body or [b""]
    return {
        MDP02: [b"MDPC02", b"\x02", service, *some],
        MDP02D: [b"", b"MDPC02", b"\x03", *some],
        MDP03: [mdp03.pack(spec.PARTIAL, id=id), *body],
    }[dialect]


def end_heard(
    dialect: Dialect, service: Frame, body: list[Frame], worker: Frame, id: int = 1
) -> list[Frame]:
    """The FINAL with status 200 that a client receives."""
    some = body or [b""]
    return {
        MDP01: [b"", b"MDPC01", service, *some],
        MDP02: [b"MDPC02", b"\x03", service, *some],
        MDP02D: [b"", b"MDPC02", b"\x04", *some],
        DELPHI: _closed(b"", b"\x05", service, *some),
        MDP03: [mdp03.pack(spec.FINAL, code=200, id=id, address=worker), *body],
    }[dialect]


def farewell(dialect: Dialect) -> list[Frame]:
    """The DISCONNECT that a worker receives."""
    return {
        MDP01: [b"", b"MDPW01", b"\x05"],
        MDP02: [b"MDPW02", b"\x06"],
        MDP02D: [b"", b"MDPW02", b"\x06"],
        DELPHI: _closed(b"", b"\x03"),
        MDP03: [mdp03.pack(spec.DISCONNECT)],
    }[dialect]


def leave(dialect: Dialect, service: Frame) -> list[Frame]:
    """A worker's DISCONNECT."""
    return {
        MDP01: [b"", b"MDPW01", b"\x05"],
        MDP02: [b"MDPW02", b"\x06"],
        MDP02D: [b"", b"MDPW02", b"\x06"],
        DELPHI: _closed(b"", b"\x03", service),
        MDP03: [mdp03.pack(spec.DISCONNECT)],
    }[dialect]
