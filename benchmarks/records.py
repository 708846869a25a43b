"""Records, messages and typed bodies beside what else there is; every figure of one run.

    python benchmarks/records.py [--rounds N]

The record has five fields, one of them a record and one a list of records. All competitors write
the same bytes. pure-protobuf and betterproto2 take part when they can be imported. Each figure is
CPU time, the best of many short rounds, and the competitors take turns within a round, so that a
busy machine disturbs all of them alike.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import time
from collections.abc import Callable
from typing import Annotated, Any

from majordomus.messages import Message, decoder_for, encoder_for, record, uint32
from majordomus.net.bodies import to_frames

CALLS = 200  # in a row, between two looks at the clock
Figures = dict[str, float]


@record
class Phone:
    number: Annotated[str, 1]
    type: Annotated[uint32, 2] = 0


@record
class Person:
    name: Annotated[str, 1]
    id: Annotated[int, 2]
    email: Annotated[str | None, 3]
    main: Annotated[Phone, 4]
    others: Annotated[list[Phone], 5]


VALUES = ("Erik van Bilsen", 42, "erik@example.com", ("555-1", 1), ("555-2", 2))


def measure(functions: dict[str, Callable[[], object]], rounds: int) -> Figures:
    """Nanoseconds of CPU of one call of each: the best round."""
    best = dict.fromkeys(functions, float("inf"))
    for function in functions.values():
        function()
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.thread_time()
            for _ in range(CALLS):
                function()
            best[name] = min(best[name], (time.thread_time() - start) / CALLS * 1e9)
    return best


# -- the competitors: name → (encode a new object, decode, decode and read every field)

Competitor = tuple[Callable[[], bytes], Callable[[bytes], Any], Callable[[bytes], Any]]


def read_all(person: Any) -> None:
    """Every field once; all competitors have the same names."""
    person.name, person.id, person.email  # noqa: B018
    person.main.number, person.main.type  # noqa: B018
    for phone in person.others:
        phone.number, phone.type  # noqa: B018


def both(decode: Callable[[bytes], Any]) -> tuple[Callable[[bytes], Any], Callable[[bytes], Any]]:
    return decode, lambda data: read_all(decode(data))


def records() -> Competitor:
    name, id_, email, main, other = VALUES

    def encode() -> bytes:
        return Person(name, id_, email, Phone(*main), [Phone(*other)]).to_bytes()  # type: ignore[attr-defined]

    return encode, *both(Person.from_bytes)  # type: ignore[attr-defined]


def upb_by_keyword(person: Any, phone: Any) -> Competitor:
    name, id_, email, (number, type_), (number2, type2) = VALUES

    def encode() -> bytes:
        message = person(
            name=name,
            id=id_,
            email=email,
            main=phone(number=number, type=type_),
            others=[phone(number=number2, type=type2)],
        )
        return message.SerializeToString()  # type: ignore[no-any-return]

    def decode(data: bytes) -> Any:
        message = person()
        message.ParseFromString(data)
        return message

    return encode, *both(decode)


def upb_by_attribute(person: Any) -> Competitor:
    name, id_, email, (number, type_), (number2, type2) = VALUES

    def encode() -> bytes:
        message = person()
        message.name = name
        message.id = id_
        message.email = email
        main = message.main
        main.number = number
        main.type = type_
        other = message.others.add()
        other.number = number2
        other.type = type2
        return message.SerializeToString()  # type: ignore[no-any-return]

    return encode, *both(person.FromString)


def pure_protobuf() -> Competitor:
    from pure_protobuf.annotations import Field, ZigZagInt, uint
    from pure_protobuf.message import BaseMessage

    phone = dataclasses.make_dataclass(
        "Phone",
        [("number", Annotated[str, Field(1)], ""), ("type", Annotated[uint, Field(2)], uint(0))],
        bases=(BaseMessage,),
    )
    person = dataclasses.make_dataclass(
        "Person",
        [
            ("name", Annotated[str, Field(1)], ""),
            ("id", Annotated[ZigZagInt, Field(2)], ZigZagInt(0)),
            ("email", Annotated[str | None, Field(3)], None),
            ("main", Annotated[phone, Field(4)], dataclasses.field(default_factory=phone)),
            (
                "others",
                Annotated[list[phone], Field(5)],  # type: ignore[valid-type]
                dataclasses.field(default_factory=list),
            ),
        ],
        bases=(BaseMessage,),
    )
    name, id_, email, main, other = VALUES

    def encode() -> bytes:
        made = person(name, ZigZagInt(id_), email, phone(*main), [phone(*other)])
        return bytes(made)

    return encode, *both(person.loads)  # type: ignore[attr-defined]


def betterproto2() -> Competitor:
    import betterproto2 as better

    phone = dataclasses.make_dataclass(
        "Phone",
        [
            ("number", str, better.field(1, better.TYPE_STRING)),
            ("type", int | None, better.field(2, better.TYPE_UINT32, optional=True)),
        ],
        bases=(better.Message,),
        eq=False,
        repr=False,
    )
    person = dataclasses.make_dataclass(
        "Person",
        [
            ("name", str, better.field(1, better.TYPE_STRING)),
            ("id", int | None, better.field(2, better.TYPE_SINT64, optional=True)),
            ("email", str | None, better.field(3, better.TYPE_STRING, optional=True)),
            ("main", phone | None, better.field(4, better.TYPE_MESSAGE, optional=True)),
            ("others", list[phone], better.field(5, better.TYPE_MESSAGE, repeated=True)),  # type: ignore[valid-type]
        ],
        bases=(better.Message,),
        eq=False,
        repr=False,
    )
    name, id_, email, main, other = VALUES

    def make(values: Any) -> Any:
        return phone(number=values[0], type=values[1])

    def encode() -> bytes:
        made = person(name=name, id=id_, email=email, main=make(main), others=[make(other)])
        return bytes(made)

    return encode, *both(person.parse)  # type: ignore[attr-defined]


def competitors() -> dict[str, Competitor]:
    message = Person.__record__.message  # type: ignore[attr-defined]
    phone = type(message().main)
    found = {
        "majordomus record": records(),
        "upb, by attribute": upb_by_attribute(message),
        "upb, by keyword": upb_by_keyword(message, phone),
    }
    if importlib.util.find_spec("pure_protobuf"):
        found["pure-protobuf"] = pure_protobuf()
    if importlib.util.find_spec("betterproto2"):
        found["betterproto2"] = betterproto2()
    return found


# -- what is printed


def print_table(title: str, figures: Figures) -> None:
    ours = next(iter(figures.values()))
    print(f"\n{title}")
    for name, figure in figures.items():
        print(f"  {name:<22} {figure:>9.0f} ns   × {figure / ours:6.2f}")


def print_goal(what: str, figure: float, goal: float, *, least: bool = False) -> None:
    met = figure >= goal if least else figure <= goal
    word = "at least" if least else "at most"
    print(f"  {'met   ' if met else 'MISSED'} {what}: {figure:.2f}, {word} {goal:g}")


def compare(rounds: int) -> None:
    found = competitors()
    data = records()[0]()
    for name, (encode, decode, _) in found.items():
        assert encode() == data, f"{name} writes other bytes"
        assert decode(data).main.number == "555-1", name
    print(f"5 fields, {len(data)} bytes; best of {rounds} rounds of {CALLS} calls")
    made = {name: one[0] for name, one in found.items()}
    encoded = measure(made, rounds)
    decoded = measure({name: bind(one[1], data) for name, one in found.items()}, rounds)
    read = measure({name: bind(one[2], data) for name, one in found.items()}, rounds)
    print_table("make and encode", encoded)
    print_table("decode", decoded)
    print_table("decode and read every field", read)
    print("\nrecord ÷ upb, and others ÷ record")
    for what, figures in (("encode", encoded), ("decode", decoded), ("decode and read", read)):
        ours, fastest, slower, *others = figures.values()
        print_goal(f"{what}, to upb by attribute", ours / fastest, 3)
        print_goal(f"{what}, to upb by keyword", ours / slower, 3)
        for name, other in zip(list(figures)[3:], others, strict=True):
            print_goal(f"{what}, {name} to record", other / ours, 3, least=True)


def bind(decode: Callable[[bytes], Any], data: bytes) -> Callable[[], Any]:
    return lambda: decode(data)


def five_frames() -> None:
    message = Message()
    message.push_int(5)
    message.push_str("hello")
    message.push_double(1.5)
    message.push_int64(7)
    message.push(b"abc")
    message.pop()
    message.pop_int64()
    message.pop_double()
    message.pop_str()
    message.pop_int()


def through_a_handler(frames: list[bytes]) -> list[bytes]:
    """A body taken as a Message and given back as one."""
    return to_frames(Message(frames))


def messages(rounds: int) -> None:
    frames = [b"hello"]
    figures = measure(
        {
            "push+pop of 5 frames": five_frames,
            "Message through a handler": lambda: through_a_handler(frames),
            "raw bytes through a handler": lambda: to_frames(frames[0]),
        },
        rounds,
    )
    five, message, raw = figures.values()
    print("\nmessages")
    for name, figure in figures.items():
        print(f"  {name:<28} {figure:>7.0f} ns")
    print_goal("push and pop of five typed frames, µs", five / 1_000, 5)
    print_goal("a Message beyond raw bytes in a handler, µs", (message - raw) / 1_000, 1)


def bodies(rounds: int) -> None:
    decode, encode = decoder_for(Person), encoder_for(Person)
    frames = [records()[0]()]
    person = decode(frames)
    figures = measure(
        {
            "decode and validate": lambda: decode(frames, "application/protobuf"),
            "encode": lambda: encode(person),
        },
        rounds,
    )
    print("\ntyped bodies of handlers")
    for name, figure in figures.items():
        print(f"  {name:<28} {figure:>7.0f} ns")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=200)
    rounds = parser.parse_args().rounds
    compare(rounds)
    messages(rounds)
    bodies(rounds)


if __name__ == "__main__":
    main()
