from collections.abc import Sequence

CONNECTION_OPENED: int
HANDSHAKE_DONE: int
CONNECTION_ENDED: int
HANDSHAKE_FAILED: int
NOT_ZMTP: str
ANOTHER_MECHANISM: str
MALFORMED: str
BROKEN_OFF: str
ID_IN_USE: str
ENDLESS: str
TOO_LARGE: str
UNFINISHED: str
UNREACHED: str
REFUSED: str

class Engine:
    other_mechanism: bytes | None
    @property
    def fd(self) -> int: ...
    def abandon(self) -> None: ...
    def events(self) -> Sequence[tuple[int, int, bytes | None, str]]: ...
