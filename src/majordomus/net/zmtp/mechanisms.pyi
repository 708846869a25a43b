from collections.abc import Callable

from majordomus.net.zmtp.boxes import Boxes

MALFORMED: str
REFUSED: str
WRONG_KEY: str
FORGED: str
STALE_COOKIE: str
NULL_NAME: bytes
PLAIN_NAME: bytes
CURVE_NAME: bytes
ACCEPTED: int
TEMPORARY: int
DENIED: int
FAULT: int

WORKING: int
ASKING: int
DONE: int
FAILED: int

def ready(kind: bytes, identity: bytes = b"") -> bytes: ...
def refusal(body: bytes) -> str: ...

class Mechanism:
    name: bytes
    as_server: bool
    strict: bool
    stage: int
    failure: str | None
    credentials: tuple[bytes, ...] | None
    identity: bytes
    kind: bytes
    bundles: bool
    boxes: Boxes | None
    cost: int
    longest: int
    def begin(self) -> bytes: ...
    def receive(self, command: bytes, now: float) -> bytes: ...
    def decide(self, status: int) -> bytes: ...
    def finish(self) -> bytes: ...

class Null(Mechanism):
    def __init__(self, kind: bytes, identity: bytes = b"", *, asks: bool = False) -> None: ...

class PlainServer(Mechanism):
    def __init__(self, kind: bytes, identity: bytes = b"") -> None: ...

class PlainClient(Mechanism):
    def __init__(
        self, user: bytes, password: bytes, kind: bytes, identity: bytes = b""
    ) -> None: ...

class CurveKeys:
    def __init__(
        self, public: bytes, secret: bytes, random: Callable[[int], bytes] | None = None
    ) -> None: ...

class CurveServer(Mechanism):
    def __init__(self, keys: CurveKeys, kind: bytes, identity: bytes = b"") -> None: ...

class CurveClient(Mechanism):
    def __init__(
        self,
        server: bytes,
        public: bytes,
        secret: bytes,
        kind: bytes,
        identity: bytes = b"",
        *,
        bundles: bool = True,
        random: Callable[[int], bytes] | None = None,
        first_nonce: int = 1,
    ) -> None: ...
