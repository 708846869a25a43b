from collections.abc import Sequence

NEW: int
GREETED_WELL: int
GONE_AWAY: int
TURNED_AWAY: int
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

def ready(kind: bytes, identity: bytes = b"") -> bytes: ...

class Engine:
    @property
    def fd(self) -> int: ...
    def abandon(self) -> None: ...
    def news(self) -> Sequence[tuple[int, int, bytes | None, str]]: ...
