"""Recognise the dialect of a message by its first frames (docs/spec/recognition.md).

Total: for any frames the result is a dialect and the size of the envelope, or RemoteProtocolError.
"""

from __future__ import annotations

from majordomus.errors import RemoteProtocolError
from majordomus.protocol import octets, spec
from majordomus.protocol.spec import Dialect, Frame

# Reading a member of an Enum is a Python call. This runs for every message.
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
"""The frames that mark a client's half of a legacy dialect. Any other frame is a worker's."""
_MDP03_WORKER = frozenset((spec.READY, spec.REJECT, spec.CAPACITY))
_MDP03_CLIENT = frozenset((spec.HELLO, spec.REQUEST, spec.CANCEL))


class UnsupportedVersion(RemoteProtocolError):
    """The first frame is `MDP` and a version byte other than 3.

    A broker answers with a DISCONNECT that lists its versions. The answer is rate-limited.
    """

    def __init__(self, version: int) -> None:
        super().__init__("unsupported-version", f"MDP version {version}")
        self.version = version


def recognise(frames: list[Frame]) -> tuple[Dialect, int]:
    """The dialect, and the number of leading frames that are the envelope.

    Every reply repeats the envelope. The remaining frames are for the dialect's reader. An empty
    frame belongs to the envelope only directly before an MDP/0.3 header.

    Raises: RemoteProtocolError, UnsupportedVersion.
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
    """Whether a worker (True) or a client (False) has sent a message to a broker.

    None when the frames do not show it: workers and clients send HEARTBEAT, PARTIAL and others in
    MDP/0.3, and a message may be truncated. `dialect` and `at` are the result of `recognise`.
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
    """The result for an empty frame at `at`.

    It begins MDP/0.1, delimited MDP/0.2 or Delphi, or it ends an envelope before MDP/0.3.
    """
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
    """The error for frames of no dialect.

    The version is checked last, because an envelope may start with any bytes, also with `MDP`.
    """
    first = frames[0]
    if first[:3] == b"MDP" and len(first) > 3 and first[:4] not in _LEGACY_NAMES:
        return UnsupportedVersion(first[3])
    return RemoteProtocolError("unrecognised")
