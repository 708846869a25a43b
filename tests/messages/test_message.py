"""Message: a stack of frames, its errors, and sending it over sockets of every type."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zmq
import zmq.asyncio
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from majordomus.errors import FrameError
from majordomus.messages import Message
from majordomus.messages.frame import NUMBERS
from tests.messages.samples import Person, PhoneNumber, PhoneType

FRAMES = st.lists(st.binary(max_size=9), max_size=12)


# -- a stack


def test_last_pushed_frame_is_popped_first() -> None:
    message = Message()
    message.push(b"last")
    message.push_str("middle")
    message.push(b"first")
    assert message.frames == [b"first", b"middle", b"last"]
    assert [message.pop(), message.pop_str(), message.pop()] == [b"first", "middle", b"last"]
    assert len(message) == 0


@given(FRAMES)
def test_pushing_all_frames_backwards_makes_the_same_message(frames: list[bytes]) -> None:
    message = Message()
    for frame in reversed(frames):
        message.push(frame)
    assert message == Message(frames)
    assert [message.pop() for _ in frames] == frames


@pytest.mark.parametrize("kind", [*NUMBERS, "int"])
def test_number_is_pushed_peeked_and_popped(kind: str) -> None:
    message = Message([b"rest"])
    getattr(message, f"push_{kind}")(5)
    assert len(message.frames[0]) == NUMBERS["int32" if kind == "int" else kind].size
    assert getattr(message, f"peek_{kind}")() == 5
    assert getattr(message, f"pop_{kind}")() == 5
    assert message.frames == [b"rest"]


def test_enum_and_record_are_pushed_peeked_and_popped() -> None:
    message = Message()
    person = Person("Erik", 1, "", [PhoneNumber("5")])
    message.push_record(person)
    message.push_enum(PhoneType.WORK)
    message.push_enum(700, 2)
    assert message.frames[:2] == [b"\xbc\x02", b"\x02"]
    assert message.peek_enum(size=2) == message.pop_enum(size=2) == 700
    assert message.peek_enum(PhoneType) is message.pop_enum(PhoneType) is PhoneType.WORK
    assert message.peek_record(Person) == message.pop_record(Person) == person
    assert not message


def test_protobuf_message_is_pushed_and_popped_as_a_record() -> None:
    message = Message()
    message.push_record(Timestamp(seconds=5))
    assert message.pop_record(Timestamp) == Timestamp(seconds=5)


def test_bytes_of_any_buffer_become_bytes() -> None:
    message = Message([bytearray(b"a"), memoryview(b"b")])
    message.push(bytearray(b"c"))
    message.append(memoryview(b"d"))
    message[1] = bytearray(b"A")
    assert message.frames == [b"c", b"A", b"b", b"d"]
    assert all(type(frame) is bytes for frame in message)


@pytest.mark.parametrize("wrong", [5, "text", None, 1.5, ["x"]])
def test_frame_that_is_not_bytes_is_rejected(wrong: Any) -> None:
    with pytest.raises(TypeError):
        Message([wrong])
    with pytest.raises(TypeError):
        Message().push(wrong)


@pytest.mark.parametrize("wrong", [b"ab", "ab", bytearray(b"ab")])
def test_message_made_from_a_single_frame_is_rejected(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"Message\(\[data\]\)"):
        Message(wrong)


# -- envelopes


def test_unwrap_reverses_wrap() -> None:
    message = Message([b"body"])
    message.wrap(b"address")
    assert message.frames == [b"address", b"", b"body"]
    assert message.unwrap() == b"address"
    assert message.frames == [b"body"]


def test_unwrap_pops_the_next_frame_only_if_it_is_empty() -> None:
    assert Message([b"a", b"b"]).unwrap() == b"a"
    lonely = Message([b"a"])
    assert lonely.unwrap() == b"a"
    with pytest.raises(FrameError):
        lonely.unwrap()
    message = Message([b"x"])
    message.push_empty()
    assert message.frames == [b"", b"x"]


# -- errors


@pytest.mark.parametrize(
    ("pop", "expected"),
    [
        ("pop", "a frame"),
        ("peek", "a frame"),
        ("pop_str", "UTF-8"),
        ("pop_int", r"4 \(int32\)"),
        ("peek_uint64", r"8 \(uint64\)"),
        ("pop_double", r"8 \(double\)"),
        ("unwrap", "a frame"),
    ],
)
def test_pop_from_an_empty_message_raises(pop: str, expected: str) -> None:
    message = Message([b"x"])
    message.pop()
    with pytest.raises(FrameError, match=f"frame 1: the message has no more.*{expected}") as caught:
        getattr(message, pop)()
    assert (caught.value.position, caught.value.size) == (1, None)


@pytest.mark.parametrize(
    ("pop", "frame", "text"),
    [
        (Message.pop_int, b"abc", "frame 2: 3 bytes, expected 4 (int32)"),
        (Message.peek_int8, b"", "frame 2: 0 bytes, expected 1 (int8)"),
        (Message.pop_single, b"abcdefgh", "frame 2: 8 bytes, expected 4 (single)"),
        (Message.pop_str, b"a\xff", "frame 2: 2 bytes, expected UTF-8"),
        (lambda m: m.pop_enum(PhoneType), b"ab", "frame 2: 2 bytes, expected 1 (PhoneType)"),
        (lambda m: m.pop_enum(size=4), b"ab", "frame 2: 2 bytes, expected 4 (enum)"),
        (lambda m: m.pop_record(Person), b"\x0a\x05", "frame 2: 2 bytes, expected Person: "),
        (lambda m: m.pop_record(Timestamp), b"\x0a", "frame 2: 1 bytes, expected Timestamp: "),
    ],
)
def test_pop_of_a_wrong_frame_names_its_position_and_changes_nothing(
    pop: Callable[[Message], Any], frame: bytes, text: str
) -> None:
    message = Message([b"0", b"1", frame, b"3"])
    message.pop()
    message.pop()
    with pytest.raises(FrameError) as caught:
        pop(message)
    assert str(caught.value).startswith(text)
    assert (caught.value.position, caught.value.size) == (2, len(frame))
    assert isinstance(caught.value, ValueError)
    assert message.frames == [frame, b"3"]


def test_push_of_a_value_that_does_not_fit_changes_nothing() -> None:
    message = Message([b"x"])
    with pytest.raises(FrameError, match="300 does not fit int8"):
        message.push_int8(300)
    with pytest.raises(FrameError):
        message.push_record(5)
    assert message.frames == [b"x"]


def test_position_in_errors_starts_again_at_zero_after_a_push() -> None:
    message = Message([b"a", b"b"])
    message.pop()
    message.push(b"c")
    with pytest.raises(FrameError, match="frame 0:"):
        message.pop_int()


# -- a sequence


def test_message_is_a_sequence_of_frames() -> None:
    message = Message([b"a", b"b", b"c"])
    message.append(b"d")
    message.append_str("ü")
    assert list(message) == [b"a", b"b", b"c", b"d", b"\xc3\xbc"]
    assert (message[0], message[-1]) == (b"a", b"\xc3\xbc")
    assert message[1:3] == Message([b"b", b"c"])
    assert b"b" in message
    assert message.size == 6
    assert message.remove(1) == b"b"
    del message[-1]
    assert message.frames == [b"a", b"c", b"d"]
    assert message.frame(1).to_hex() == "63"
    with pytest.raises(IndexError):
        message[5]


def test_messages_with_equal_frames_are_equal() -> None:
    assert Message([b"a"]) == Message([b"a"])
    assert Message([b"a"]) != Message([b"a", b""])
    assert Message([b"a"]) != [b"a"]
    with pytest.raises(TypeError):
        hash(Message())


@pytest.mark.parametrize("make", [Message.clone, copy.copy, copy.deepcopy])
def test_clone_has_its_own_list_of_frames(make: Callable[[Message], Message]) -> None:
    message = Message([b"a", b"b"])
    clone = make(message)
    clone.pop()
    assert (message.frames, clone.frames) == ([b"a", b"b"], [b"b"])


def test_str_repr_and_hex_show_the_frames() -> None:
    message = Message([b"hello", b"", b"\x00\x01", b"x" * 100])
    assert str(message) == (
        f"--------------------------------------\n[005] hello\n[000]\n[002] 0001\n[100] {'x' * 70}…"
    )
    assert repr(message) == f"<Message of 4 frames, 107 bytes: [hello, ∅, 0001, {'x' * 32}…]>"
    assert message[:3].hex() == "68656c6c6f - 0001"
    assert str(Message([b""] * 150)).endswith("… and 50 more frames")
    assert repr(Message([b"a"] * 9)).endswith("a, …]>")


# -- sockets


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    with zmq.Context() as made:
        made.linger = 0
        yield made


@pytest.fixture
def pair(context: zmq.Context[Any]) -> Iterator[Callable[[int, int], tuple[Any, Any]]]:
    """Two sockets, bound and connected over inproc."""
    made: list[zmq.Socket[Any]] = []

    def connect(one: int, other: int) -> tuple[Any, Any]:
        first, second = context.socket(one), context.socket(other)
        made.extend((first, second))
        for each in made:
            each.rcvtimeo = each.sndtimeo = 5_000
            each.linger = 0
        first.bind("inproc://pair")
        if other == zmq.SUB:
            second.subscribe(b"")
        second.connect("inproc://pair")
        if other == zmq.SUB and one == zmq.XPUB:
            assert first.recv() == b"\x01"
        return first, second

    yield connect
    for each in made:
        each.close()


BODY = Message([b"one", b"", b"three"])


@pytest.mark.parametrize("checksum", [False, True])
@pytest.mark.parametrize(
    ("sender", "receiver"),
    [(zmq.PUSH, zmq.PULL), (zmq.XPUB, zmq.SUB), (zmq.PAIR, zmq.PAIR), (zmq.DEALER, zmq.DEALER)],
)
def test_message_is_sent_one_way_over_sockets_of_any_type(
    pair: Callable[[int, int], tuple[Any, Any]], sender: int, receiver: int, checksum: bool
) -> None:
    out, back = pair(sender, receiver)
    BODY.send(out, checksum=checksum)
    assert Message.receive(back, checksum=checksum) == BODY
    assert len(BODY) == 3  # sending keeps the frames


@pytest.mark.parametrize("checksum", [False, True])
@pytest.mark.parametrize("requester", [zmq.REQ, zmq.DEALER])
def test_message_and_its_reply_pass_a_router(
    pair: Callable[[int, int], tuple[Any, Any]], requester: int, checksum: bool
) -> None:
    router, peer = pair(zmq.ROUTER, requester)
    BODY.send(peer, checksum=checksum)
    request = Message.receive(router, checksum=checksum)  # an empty frame does not change the hash
    address = request.unwrap() if requester == zmq.REQ else request.pop()
    assert request == BODY
    if requester == zmq.REQ:
        request.wrap(address)
    else:
        request.push(address)
    request.send(router, checksum=checksum)
    reply = Message.receive(peer, checksum=checksum)
    assert reply == BODY


@pytest.mark.parametrize("checksum", [False, True])
def test_message_and_its_reply_pass_req_and_rep_sockets(
    pair: Callable[[int, int], tuple[Any, Any]], checksum: bool
) -> None:
    rep, req = pair(zmq.REP, zmq.REQ)
    BODY.send(req, checksum=checksum)
    Message.receive(rep, checksum=checksum).send(rep, checksum=checksum)
    assert Message.receive(req, checksum=checksum) == BODY


def test_closing_hash_on_the_wire_is_pascalzmqs(
    pair: Callable[[int, int], tuple[Any, Any]],
) -> None:
    """The vector "abc" + "de" of docs/spec/delphi.md; the hash leaves out the routing id."""
    router, dealer = pair(zmq.ROUTER, zmq.DEALER)
    Message([b"abc", b"de"]).send(dealer, checksum=True)
    address, *frames = router.recv_multipart()
    assert frames == [b"abc", b"de", bytes.fromhex("4d455432")]
    Message([address, b"abc", b"de"]).send(router, checksum=True)
    assert dealer.recv_multipart() == [b"abc", b"de", bytes.fromhex("4d455432")]


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ([b"abc", b"de", b"\x00\x00\x00\x00"], "closing hash is 00000000, expected 4d455432"),
        ([b"abc", b"de", b"\x4d\x45\x54"], "not a closing hash"),
        ([b"abc"], "not a closing hash"),
    ],
)
def test_wrong_closing_hash_raises(
    pair: Callable[[int, int], tuple[Any, Any]], frames: list[bytes], expected: str
) -> None:
    push, pull = pair(zmq.PUSH, zmq.PULL)
    push.send_multipart(frames)
    with pytest.raises(FrameError, match=expected):
        Message.receive(pull, checksum=True)


def test_message_without_frames_cannot_be_sent(
    pair: Callable[[int, int], tuple[Any, Any]],
) -> None:
    push, _ = pair(zmq.PUSH, zmq.PULL)
    with pytest.raises(FrameError, match="without frames"):
        Message().send(push)


def test_flags_and_errors_of_sockets_are_pyzmqs(
    pair: Callable[[int, int], tuple[Any, Any]],
) -> None:
    _, pull = pair(zmq.PUSH, zmq.PULL)
    with pytest.raises(zmq.Again):
        Message.receive(pull, zmq.DONTWAIT)


def test_message_is_sent_over_asyncio_sockets() -> None:
    async def exchange() -> Message:
        with (
            zmq.asyncio.Context() as context,
            context.socket(zmq.PUSH) as push,
            context.socket(zmq.PULL) as pull,
        ):
            push.bind("inproc://async")
            pull.connect("inproc://async")
            await BODY.send(push, checksum=True)
            return await Message.receive_async(pull, checksum=True)

    assert asyncio.run(asyncio.wait_for(exchange(), 10)) == BODY


def test_push_of_bytes_as_text_names_the_right_method() -> None:
    with pytest.raises(TypeError, match="push_str takes text, not bytes; use push for bytes"):
        Message().push_str(b"x")  # type: ignore[arg-type]
