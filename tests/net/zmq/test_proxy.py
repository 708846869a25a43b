"""The proxy: three patterns, control by commands and by methods, and idle without work."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import zmq

from majordomus.errors import (
    ConfigurationError,
    DeadlineExceeded,
    LocalProtocolError,
    MajordomusError,
)
from majordomus.net.zmq import sockets
from majordomus.net.zmq.proxy import Control, Proxy, Traffic
from majordomus.net.zmq.pump import Moved, make_pump
from tests.net.conftest import eventually

LOCAL = "tcp://127.0.0.1:*"
WITHIN = 20_000

Make = Callable[..., "zmq.Socket[bytes]"]


@pytest.fixture(params=["pyzmq", "native"], autouse=True)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every proxy here runs once with each pump, where the native one was built."""
    wanted: str = request.param
    if wanted == "native":
        pytest.importorskip("majordomus.net.zmq._pump", reason="the native pump is not built")
    else:
        monkeypatch.setitem(sys.modules, "majordomus.net.zmq._pump", None)
    return wanted


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes connected sockets, and closes them."""
    made: list[zmq.Socket[bytes]] = []

    def new(kind: int, url: str, hwm: int = 0) -> zmq.Socket[bytes]:
        socket = sockets.context().socket(kind)
        socket.set_hwm(hwm)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVTIMEO, WITHIN)
        socket.connect(url)
        made.append(socket)
        return socket

    yield new
    for socket in made:
        socket.close()


@pytest.fixture
def pipeline() -> Iterator[Proxy]:
    with Proxy("pull-push", LOCAL, LOCAL, LOCAL) as running:
        yield running


@pytest.fixture
def control(pipeline: Proxy) -> Iterator[Control]:
    with Control(pipeline.control, WITHIN / 1000) as made:
        yield made


def numbered(count: int) -> list[list[bytes]]:
    return [[b"%d" % number, b"", b"x" * (number % 50)] for number in range(count)]


class TestPatterns:
    def test_pull_push_keeps_every_message_and_its_order(self, pipeline: Proxy, make: Make) -> None:
        push = make(zmq.PUSH, pipeline.frontends[0])
        pull = make(zmq.PULL, pipeline.backends[0])
        sent = numbered(3000)
        for message in sent:
            push.send_multipart(message)
        assert [pull.recv_multipart() for _ in sent] == sent
        size = sum(len(part) for message in sent for part in message)
        found = (Traffic(3000, size, 0, 0), Traffic(0, 0, 3000, size), False)
        eventually(lambda: pipeline.statistics() == found, WITHIN / 1000)

    def test_router_dealer_brings_answers_to_the_requesting_peer(self, make: Make) -> None:
        with Proxy("router-dealer", LOCAL, LOCAL) as proxy:
            server = make(zmq.REP, proxy.backends[0])
            clients = [make(zmq.REQ, proxy.frontends[0]) for _ in range(3)]
            for number, client in enumerate(clients):
                client.send(b"%d" % number)
            for _ in clients:
                server.send(server.recv() + b"!")
            assert [client.recv() for client in clients] == [b"0!", b"1!", b"2!"]
            eventually(lambda: proxy.statistics().frontend[::2] == (3, 3), WITHIN / 1000)

    def test_xsub_xpub_passes_subscriptions_on_and_only_subscribed_messages(
        self, make: Make
    ) -> None:
        with Proxy("xsub-xpub", LOCAL, LOCAL) as proxy:
            publisher = make(zmq.XPUB, proxy.frontends[0])
            reader = make(zmq.SUB, proxy.backends[0])
            reader.setsockopt(zmq.SUBSCRIBE, b"eur")
            assert publisher.recv() == b"\x01eur"
            publisher.send_multipart([b"usd", b"1.1"])
            publisher.send_multipart([b"eur", b"0.9"])
            assert reader.recv_multipart() == [b"eur", b"0.9"]

    def test_proxies_may_be_chained(self, make: Make) -> None:
        with (
            Proxy("pull-push", LOCAL, LOCAL) as first,
            Proxy("pull-push", ">" + first.backends[0], [LOCAL, LOCAL]) as second,
        ):
            push = make(zmq.PUSH, first.frontends[0])
            pulls = [make(zmq.PULL, url) for url in second.backends]

            def both_have_some() -> bool:
                push.send(b"through both")
                return all(pull.poll(10) for pull in pulls)

            eventually(both_have_some, WITHIN / 1000)
            assert [pull.recv() for pull in pulls] == [b"through both"] * 2


class TestSteering:
    def test_paused_proxy_moves_nothing_and_loses_nothing(
        self, pipeline: Proxy, control: Control, make: Make
    ) -> None:
        push = make(zmq.PUSH, pipeline.frontends[0])
        pull = make(zmq.PULL, pipeline.backends[0])
        push.send(b"before")
        assert pull.recv() == b"before"
        control.pause()
        assert pipeline.paused
        for number in range(5):
            push.send(b"%d" % number)
        assert not pull.poll(200)
        found = control.statistics()
        assert (found.frontend.received, found.paused) == (1, True)  # it counts before it answers
        control.resume()
        assert [pull.recv() for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
        found = (Traffic(6, 11, 0, 0), Traffic(0, 0, 6, 11), False)
        assert control.statistics() == found

    def test_owner_pauses_and_resumes_from_any_thread(self, pipeline: Proxy, make: Make) -> None:
        push = make(zmq.PUSH, pipeline.frontends[0])
        pull = make(zmq.PULL, pipeline.backends[0])
        pipeline.pause()
        push.send(b"x")
        assert not pull.poll(100)
        pipeline.resume()
        assert pull.recv() == b"x"

    def test_terminate_ends_it_and_frees_its_endpoints(self) -> None:
        proxy = Proxy("pull-push", LOCAL, LOCAL, LOCAL)
        proxy.open()
        thread = threading.Thread(target=proxy.run)
        thread.start()
        with Control(proxy.control, WITHIN / 1000) as control:
            control.terminate()
        thread.join(WITHIN / 1000)
        assert not thread.is_alive()
        with Proxy("pull-push", proxy.frontends, proxy.backends, proxy.control):
            pass

    def test_commands_of_libzmq_are_executed_and_others_refused(
        self, pipeline: Proxy, make: Make
    ) -> None:
        request = make(zmq.REQ, pipeline.control)
        answers = []
        for command in (b"PAUSE", b"RESUME", b"STATE", b"STATISTICS", b"DANCE"):
            request.send(command)
            answers.append(request.recv_multipart())
        assert answers == [
            [b""],
            [b""],
            [b"active"],
            [bytes(8)] * 8,
            [b"there is no such command: DANCE"],
        ]
        request.send_multipart([b"a", b"b"])  # ends a proxy of libzmq
        assert request.recv_multipart() == [b"there is no such command: A B"]

    def test_our_control_steers_a_proxy_of_libzmq(self) -> None:
        with zmq.Context() as context:
            front, back, steer = (context.socket(kind) for kind in (zmq.PULL, zmq.PUSH, zmq.REP))
            port = steer.bind_to_random_port("tcp://127.0.0.1")
            ends = front, back, None, steer
            thread = threading.Thread(target=zmq.proxy_steerable, args=ends)
            thread.start()
            with Control(f"tcp://127.0.0.1:{port}", WITHIN / 1000) as control:
                control.pause()
                assert control.statistics() == (Traffic(), Traffic(), False)
                control.terminate()
            thread.join(WITHIN / 1000)
            for socket in (front, back, steer):
                socket.close(0)

    def test_control_of_an_endpoint_that_is_not_a_proxy_raises(self, make: Make) -> None:
        with sockets.context().socket(zmq.REP) as other:
            port = other.bind_to_random_port("tcp://127.0.0.1")
            with (
                Control(f"tcp://127.0.0.1:{port}", 0.05) as control,
                pytest.raises(DeadlineExceeded, match="no proxy answers"),
            ):
                control.pause()
            other.recv()
            other.send(b"what?")
            with Control(f"tcp://127.0.0.1:{port}", WITHIN / 1000) as control:
                thread = threading.Thread(target=lambda: (other.recv(), other.send(b"what?")))
                thread.start()
                with pytest.raises(MajordomusError, match="does not know PAUSE"):
                    control.pause()
                thread.join()


class TestRest:
    @pytest.mark.parametrize("paused", [False, True], ids=["nobody takes it", "paused"])
    def test_input_that_cannot_be_moved_keeps_no_processor_busy(
        self, pipeline: Proxy, make: Make, paused: bool
    ) -> None:
        push = make(zmq.PUSH, pipeline.frontends[0])
        pipeline.pause() if paused else pipeline.resume()
        for _ in range(10):
            push.send(b"x")
        time.sleep(0.1)  # it is there now
        before = time.process_time()
        time.sleep(1.0)
        assert time.process_time() - before < 0.2
        pipeline.resume()
        pull = make(zmq.PULL, pipeline.backends[0])
        assert [pull.recv() for _ in range(10)] == [b"x"] * 10

    def test_receiver_that_is_slow_slows_the_sender(self, make: Make) -> None:
        with Proxy("pull-push", "inproc://slow-front", "inproc://slow-back", hwm=10) as proxy:
            make(zmq.PULL, "inproc://slow-back", hwm=10)
            push = make(zmq.PUSH, "inproc://slow-front", hwm=10)
            push.setsockopt(zmq.SNDTIMEO, 500)
            with pytest.raises(zmq.Again):
                for _ in range(100):
                    push.send(b"x")
            assert proxy.statistics().backend.sent <= 20


class TestPump:
    def test_it_stops_at_its_limit_and_when_the_target_is_full(self, kind: str) -> None:
        names = (f"inproc://{kind}-pump-in", f"inproc://{kind}-pump-out")  # libzmq frees them late
        with (
            sockets.context().socket(zmq.PULL) as source,
            sockets.context().socket(zmq.PUSH) as target,
            sockets.context().socket(zmq.PUSH) as push,
            sockets.context().socket(zmq.PULL) as pull,
        ):
            for socket, name in ((source, names[0]), (target, names[1])):
                socket.setsockopt(zmq.LINGER, 0)
                socket.bind(name)
            push.connect(names[0])
            pump = make_pump(source, target)
            assert type(pump).__module__.endswith("._pump") is (kind == "native")
            assert pump.move(10) is Moved.FULL
            pull.connect(names[1])
            assert pump.move(10) is Moved.ALL
            for number in range(12):
                push.send_multipart([b"%d" % number, b"xx"])
            assert pump.move(10) is Moved.SOME
            assert (pump.messages, pump.bytes) == (10, 30)
            assert pump.move(10) is Moved.ALL
            assert [pull.recv_multipart()[0] for _ in range(12)] == [b"%d" % n for n in range(12)]

    def test_closed_socket_is_an_error_and_no_crash(self) -> None:
        with (
            sockets.context().socket(zmq.PULL) as source,
            sockets.context().socket(zmq.PUSH) as target,
        ):
            pump = make_pump(source, target)
            target.close()
            with pytest.raises(zmq.ZMQError):
                pump.move(1)
        with pytest.raises(zmq.ZMQError):
            make_pump(source, target).move(1)

    def test_large_messages_of_many_parts_pass_whole_and_are_counted(self, make: Make) -> None:
        parts = [b"x" * 70_000, b"", *(b"%d" % number for number in range(500))]
        with Proxy("pull-push", LOCAL, LOCAL) as proxy:
            push, pull = make(zmq.PUSH, proxy.frontends[0]), make(zmq.PULL, proxy.backends[0])
            for _ in range(20):
                push.send_multipart(parts)
            assert all(pull.recv_multipart() == parts for _ in range(20))
            counted = (0, 0, 20, 20 * sum(map(len, parts)))
            eventually(lambda: proxy.statistics().backend == counted, WITHIN / 1000)


class TestArguments:
    @pytest.mark.parametrize(
        ("arguments", "why"),
        [
            (("pub-sub", LOCAL, LOCAL), "there are xsub-xpub, pull-push, router-dealer"),
            (("pull-push", "udp://x", LOCAL), "is no endpoint"),
            (("pull-push", LOCAL, ">tcp://*:1"), "cannot be bound|not connected to"),
            (("pull-push", [], LOCAL), "at least one endpoint"),
        ],
    )
    def test_impossible_arguments_are_refused(self, arguments: tuple[str, ...], why: str) -> None:
        with pytest.raises(ConfigurationError, match=why):
            Proxy(*arguments)

    def test_endpoint_in_use_is_an_error_and_leaves_nothing_open(self) -> None:
        with Proxy("pull-push", LOCAL, LOCAL) as first:
            second = Proxy("pull-push", LOCAL, first.frontends)
            with pytest.raises(ConfigurationError, match="cannot bind"):
                second.open()
            with pytest.raises(LocalProtocolError):
                second.pause()
            with pytest.raises(LocalProtocolError):
                second.statistics()

    def test_negative_limit_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="hwm"):
            Proxy("pull-push", LOCAL, LOCAL, hwm=-1)
