"""Scenarios as commented transcripts: what each peer says, and under it, indented, all that the
broker says then. ``python -m tests.core.transcript`` writes down what it says; read it before it is
committed.

A line is a comment (`#`), an action, or an expected message. Actions:

    broker SETTING=VALUE …                     settings; only as the first action
    PEER COMMAND FIELD=VALUE … [: FRAME | …]   MDP/0.3; `id=#3` is the broker's third number
    PEER DIALECT READY | HEARTBEAT | DISCONNECT SERVICE
    PEER DIALECT REQUEST SERVICE [: FRAME | …]
    PEER DIALECT PARTIAL | FINAL SERVICE ADDRESS [: FRAME | …]
    wait SECONDS
    drain · close                              the broker is told to
    cut PEER · full PEER · roomy PEER          its connection ends · its socket is full · is not

Messages of the broker are written the same way; those of the older dialects frame by frame, `∅` for
an empty one, without the hash of a Delphi message (test_legacy.py has these). `@PEER` is the handle
of a client, `#3` also the address of the third dispatch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from majordomus.protocol import metadata, spec
from majordomus.protocol.codecs import LEGACY
from majordomus.protocol.spec import Dialect, Frame
from tests.core.broker_harness import BrokerHarness, Message, number

FOLDER = Path(__file__).parent / "transcripts"
COMMANDS = {name: command for command, name in spec.COMMAND_NAMES.items()}
NUMBERS = ("flags", "code", "id", "ttl")
FLAGS = (
    "METADATA",
    "MORE",
    "ONCE",
    "ONE_WAY",
    "FAIL_FAST",
    "DURABLE",
    "BROKER_METADATA",
    "CRITICAL",
)


class Transcript:
    """One scenario, and the harness in which it is played."""

    def __init__(self, make_harness: Callable[..., BrokerHarness]) -> None:
        self.make_harness = make_harness
        self._harness: BrokerHarness | None = None

    @property
    def harness(self) -> BrokerHarness:
        if self._harness is None:
            self._harness = self.make_harness()
        return self._harness

    def play(self, text: str) -> str:
        """The same transcript, with what the broker really said."""
        lines: list[str] = []
        for line in text.splitlines():
            if line.startswith("    "):
                continue
            lines.append(line)
            if line and not line.startswith("#"):
                lines += [f"    {said}" for said in self.do(line)]
        return "\n".join(lines) + "\n"

    def do(self, line: str) -> Iterator[str]:
        """One action; what the broker says then."""
        head, _, tail = line.partition(" : ")
        body = [self._frame(text) for text in tail.split(" | ")] if tail else []
        who, *words = head.split()
        if who == "broker":
            settings = dict(word.split("=") for word in words)
            self._harness = self.make_harness(**{k: json.loads(v) for k, v in settings.items()})
        elif who == "wait":
            self.harness.pass_time(float(words[0]))
        elif who in ("drain", "close"):
            getattr(self.harness.machine, who)(self.harness.now)
            self.harness.turn()
        elif who in ("cut", "full", "roomy"):
            self._socket(who, words[0].encode())
        elif words[0] in LEGACY:
            self.harness.receive(who.encode(), *self._legacy(Dialect(words[0]), words[1:], body))
        else:
            fields = dict(self._field(word) for word in words[1:])
            self.harness.receive_03(who.encode(), COMMANDS[words[0]], *body, **fields)
        for word in self.harness.messages():
            yield self._told(word)

    def _socket(self, what: str, peer: bytes) -> None:
        if what == "cut":
            self.harness.lose_connection(peer)
        elif what == "full":
            self.harness.full.add(peer)
        else:
            self.harness.full.discard(peer)
            self.harness.unreachable.discard(peer)

    def _field(self, word: str) -> tuple[str, Any]:
        name, _, value = word.partition("=")
        if name == "flags":
            return name, sum(getattr(spec, flag) for flag in value.split("+"))
        if name == "metadata":
            return name, metadata.pack(json.loads(value))
        if name in NUMBERS:
            return name, number(int(value[1:])) if value.startswith("#") else int(value)
        return name, self._frame(value)

    def _legacy(self, dialect: Dialect, words: list[str], body: list[Frame]) -> list[Frame]:
        command, service, *rest = words
        codec, name = LEGACY[dialect], service.encode()
        if command == "REQUEST":
            return codec.c2b_request(name, body)
        if command == "READY":
            return codec.w2b_ready(name)
        if command == "HEARTBEAT":
            return codec.w2b_heartbeat(name, None)
        if command == "DISCONNECT":
            return codec.w2b_disconnect(name)
        write = codec.w2b_partial if command == "PARTIAL" else codec.w2b_final
        return write(name, self._frame(rest[0]), body)

    def _frame(self, text: str) -> Frame:
        if text == "∅":
            return b""
        if text.startswith("@"):
            return self.harness.handles[text[1:].encode()]
        if re.fullmatch("#[0-9]+", text):
            return number(int(text[1:])).to_bytes(8, "big")
        return text.encode()

    # what the broker says, in the same words

    def _told(self, word: Message) -> str:
        if not (isinstance(word[1], str) and word[1] in COMMANDS):
            is_delphi = not word[1] and len(word[2]) == 1
            frames = word[1:-1] if is_delphi else word[1:]
            return word[0].decode() + " : " + " | ".join(map(self._shown, frames))
        peer, command, fields, body = word
        told = [f"{name}={self._value(name, value, fields)}" for name, value in fields.items()]
        tail = " : " + " | ".join(map(self._shown, body)) if body else ""
        return " ".join([peer.decode(), command, *told]) + tail

    def _value(self, name: str, value: Any, fields: dict[str, Any]) -> str:
        if name == "flags":
            return "+".join(flag for flag in FLAGS if value & getattr(spec, flag))
        if name == "metadata":
            maps = metadata.split(value, fields["flags"])
            return "".join(json.dumps(each, separators=(",", ":")) for each in maps if each)
        if name == "id" and value & spec.BROKER_ID_BIT:
            return f"#{value ^ spec.BROKER_ID_BIT}"
        return str(value) if name in NUMBERS else self._shown(value)

    def _shown(self, frame: Frame) -> str:
        for peer, known in self.harness.handles.items():
            if frame == known:
                return "@" + peer.decode()
        if len(frame) == 8 and frame[0] == 0x80:
            return f"#{int.from_bytes(frame[1:], 'big')}"
        if not frame:
            return "∅"
        text = frame.decode(errors="replace")
        return text if text.isprintable() else "0x" + frame.hex()


def main() -> None:
    """Write every transcript anew."""
    for path in sorted(FOLDER.glob("*.txt")):
        path.write_text(Transcript(BrokerHarness).play(path.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
