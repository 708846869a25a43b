"""Which dialect a message is in is decided here, by its first frames alone.

docs/spec/recognition.md is its page. Total: any list of frames gives a dialect and the size of
its envelope, or `RemoteProtocolError`.
"""

from __future__ import annotations

from majordomus.errors import RemoteProtocolError
from majordomus.protocol import octets, spec
from majordomus.protocol.spec import Dialect, Frame

# A member of an enumeration is looked up by a call of Python's; these are at hand.
_DIALECT_03, _DIALECT_02 = Dialect.MDP03, Dialect.MDP02
_MDP03: tuple[Dialect, int] = (_DIALECT_03, 0)
_PLAIN = frozenset((spec.MDP02_CLIENT, spec.MDP02_WORKER))
_DELIMITED = {
    spec.MDP01_CLIENT: Dialect.MDP01,
    spec.MDP01_WORKER: Dialect.MDP01,
    spec.MDP02_CLIENT: Dialect.MDP02D,
    spec.MDP02_WORKER: Dialect.MDP02D,
    spec.DELPHI_READY: Dialect.DELPHI,
    spec.DELPHI_HEARTBEAT: Dialect.DELPHI,
    spec.DELPHI_DISCONNECT: Dialect.DELPHI,
    spec.DELPHI_WORKER_MESSAGE: Dialect.DELPHI,
    spec.DELPHI_CLIENT_MESSAGE: Dialect.DELPHI,
}
_LEGACY_NAMES = (b"MDPC", b"MDPW")
_LONGEST_KEY = 6
_CLIENT_HALVES = frozenset((spec.MDP01_CLIENT, spec.MDP02_CLIENT, spec.DELPHI_CLIENT_MESSAGE))
"""One frame tells the halves of a legacy dialect apart: what is not a client's is a worker's."""
_MDP03_WORKER = frozenset((spec.READY, spec.REJECT, spec.CAPACITY))
_MDP03_CLIENT = frozenset((spec.HELLO, spec.REQUEST, spec.CANCEL))


class UnsupportedVersion(RemoteProtocolError):
    """A first frame of `MDP` and a version byte that is not 3.

    A broker answers it by a DISCONNECT that lists the versions it speaks, rate-limited.
    """

    def __init__(self, version: int) -> None:
        super().__init__("unsupported-version", f"MDP version {version}")
        self.version = version


def recognise(frames: list[Frame]) -> tuple[Dialect, int]:
    """The dialect, and how many leading frames are the envelope that every reply must repeat.

    `frames[at:]` is what the dialect's reader takes. The envelope includes an ∅ only directly
    before an MDP/0.3 header. Raises: RemoteProtocolError, UnsupportedVersion.
    """
    if not frames:
        raise RemoteProtocolError("empty", "no frames")
    if octets.is_mdp03(frames[0]):
        return _MDP03
    for at in range(min(len(frames), spec.MAX_ENVELOPE_FRAMES + 1)):
        frame = frames[at]
        if not frame:
            return _behind_delimiter(frames, at)
        if octets.is_mdp03(frame):
            return _DIALECT_03, at
        if len(frame) > spec.MAX_ENVELOPE_FRAME:
            break
        if frame in _PLAIN:
            return _DIALECT_02, at
    raise _unrecognised(frames)


def client_or_worker(frames: list[Frame], dialect: Dialect, at: int) -> bool | None:
    """Whose half of the dialect a message for a broker is: True a worker's, False a client's.

    None when the frames alone do not tell: MDP/0.3 HEARTBEATs, PARTIALs and others come from both,
    and a truncated message from anyone. `dialect` and `at` are what `recognise` returned.
    """
    if dialect is Dialect.MDP02:
        return frames[at] not in _CLIENT_HALVES
    if dialect is not Dialect.MDP03:
        return frames[at + 1] not in _CLIENT_HALVES
    command = octets.command_of(frames[at])
    if command in _MDP03_WORKER:
        return True
    return False if command in _MDP03_CLIENT else None


def _behind_delimiter(frames: list[Frame], at: int) -> tuple[Dialect, int]:
    """The row of an ∅ at `at`: 0.1, delimited 0.2, Delphi, or an envelope's end before MDP/0.3."""
    if len(frames) <= at + 1:
        raise _unrecognised(frames)
    frame = frames[at + 1]
    if len(frame) <= _LONGEST_KEY:
        dialect = _DELIMITED.get(frame)
        if dialect is not None:
            return dialect, at
    if at and octets.is_mdp03(frame):
        return _DIALECT_03, at + 1
    raise _unrecognised(frames)


def _unrecognised(frames: list[Frame]) -> RemoteProtocolError:
    """Why no row fits. Only what no row takes is asked for its version: an envelope may start
    with any bytes, also with `MDP`."""
    first = frames[0]
    if first[:3] == b"MDP" and len(first) > 3 and first[:4] not in _LEGACY_NAMES:
        return UnsupportedVersion(first[3])
    return RemoteProtocolError("unrecognised")
