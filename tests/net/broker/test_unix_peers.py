"""Peers by ipc: the kernel states their Unix user and process."""

from __future__ import annotations

import json
import logging
import os
import time
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest
import zmq

from majordomus import Broker, BrokerSettings, Client, Worker
from majordomus.errors import ConfigurationError, Unauthenticated
from majordomus.net.zmq import select as wires
from majordomus.protocol import mdp03, spec
from tests.net.conftest import QUICK

pytestmark = pytest.mark.skipif(
    not wires.OWN_ZMTP, reason="our own ZMTP is not built, or another wire was asked for"
)
LIMIT = 20.0


@pytest.fixture(params=["path", "abstract"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "path":
        return f"ipc://{tmp_path}/broker"
    return f"ipc://@majordomus-{os.getpid()}-{tmp_path.name}"


def test_broker_client_and_worker_of_ours_use_our_own_zmtp(url: str) -> None:
    with Broker(QUICK, bind=url) as broker, Client(url, timeout=LIMIT) as client:
        assert broker.endpoints == [url]
        worker = Worker(url)
        worker.service("double")(lambda request: request.body * 2)
        with worker:
            assert client.call("double", b"x" * 200_000).body == b"x" * 400_000
        assert json.loads(client.call("mmi.broker").frames[1])["wire"] == "zmtp"


def test_sockets_of_libzmq_are_served_by_ipc(url: str) -> None:
    context = zmq.Context.instance()
    with (
        Broker(QUICK, bind=url),
        context.socket(zmq.DEALER) as worker,
        context.socket(zmq.REQ) as client,
    ):
        for one in (worker, client):
            one.setsockopt(zmq.LINGER, 0)
            one.setsockopt(zmq.RCVTIMEO, int(1000 * LIMIT))
            one.connect(url)
        worker.send(mdp03.pack(spec.READY, code=1, service=b"echo"))
        assert mdp03.parse(worker.recv()).command == spec.WELCOME
        header = mdp03.pack(spec.REQUEST, id=1, ttl=20_000, service=b"echo")
        with context.socket(zmq.DEALER) as caller:
            caller.connect(url)
            caller.send_multipart([header, b"hello"])
            while mdp03.parse((frames := worker.recv_multipart())[0]).command != spec.REQUEST:
                pass
            id = mdp03.parse(frames[0]).id
            worker.send_multipart([mdp03.pack(spec.FINAL, code=200, id=id), frames[1]])
            assert caller.recv_multipart()[1:] == [b"hello"]


def test_client_and_worker_of_ours_use_a_broker_on_libzmqs_ipc(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from majordomus.net.broker import open_listener

    with monkeypatch.context() as patched:
        patched.setattr(open_listener, "is_own", lambda _, **__: False)
        broker = Broker(QUICK, bind=url)
        broker.start()
    with ExitStack() as stack:
        stack.callback(broker.stop)
        client = stack.enter_context(Client(url, timeout=LIMIT))
        assert json.loads(client.call("mmi.broker").frames[1])["wire"] == "pyzmq"
        worker = Worker(url)
        worker.service("echo")(lambda request: request.body)
        stack.enter_context(worker)
        assert client.call("echo", b"by libzmq").body == b"by libzmq"


def test_unix_user_of_a_connection_is_logged_with_its_process(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.INFO, logger="majordomus.broker"),
        Broker(QUICK, bind=url),
        Client(url, timeout=LIMIT) as client,
    ):
        client.ping()
    lines = [record.getMessage() for record in caplog.records]
    found = [line for line in lines if line.startswith("unix-peer ")]
    assert len(found) == 1
    assert found[0].endswith(f" uid={os.getuid()} pid={os.getpid()}")


@pytest.mark.parametrize("allowed", [True, False])
def test_rule_about_a_unix_user_decides_from_the_first_message_on(
    url: str, tmp_path: Path, allowed: bool
) -> None:
    uid = os.getuid() if allowed else os.getuid() + 1
    rules = tmp_path / "rights.toml"
    rules.write_text(f'[[rule]]\nallow = ["call", "manage"]\nusers = ["uid:{uid}"]\n')
    settings = msgspec.structs.replace(QUICK, acl=str(rules))
    with Broker(settings, bind=[url, "tcp://127.0.0.1:*"]) as broker:
        with Client(url, timeout=LIMIT) as client:
            if allowed:
                assert client.call("mmi.services").frames
            else:
                with pytest.raises(Unauthenticated):
                    client.call("mmi.services")
        with (
            Client(broker.endpoints[1], timeout=LIMIT) as elsewhere,
            pytest.raises(Unauthenticated),
        ):
            elsewhere.call("mmi.services")


def test_peer_by_ipc_stays_unauthenticated_for_rules_about_other_users(
    url: str, tmp_path: Path
) -> None:
    rules = tmp_path / "rights.toml"
    rules.write_text(
        '[[rule]]\nallow = ["manage"]\nusers = ["*"]\ngroups = ["*"]\n'
        '[[rule]]\nallow = ["call"]\nusers = [""]\n'
    )
    settings = msgspec.structs.replace(QUICK, acl=str(rules))
    with Broker(settings, bind=url), Client(url, timeout=LIMIT) as client:
        worker = Worker(url)
        client.call("mmi.service", b"nothing")  # "call" of the service that it names
        with pytest.raises(Unauthenticated):
            client.call("mmi.services")
        worker.stop()


def test_connections_of_one_unix_user_are_bounded_as_those_of_an_address(url: str) -> None:
    settings = BrokerSettings(max_address_connections=3)
    with ExitStack() as stack:
        stack.enter_context(Broker(settings, bind=url))
        client = stack.enter_context(Client(url, timeout=LIMIT))
        client.ping()
        for _ in range(2):
            stack.enter_context(Client(url, timeout=LIMIT)).ping()
        with Client(url, timeout=1.0) as one_too_many, pytest.raises(Exception):  # noqa: B017
            one_too_many.ping()
        assert "too-many-connections" in json.loads(client.call("mmi.stats").frames[1])["dropped"]


def test_second_broker_leaves_the_socket_of_the_first_alone(tmp_path: Path) -> None:
    url = f"ipc://{tmp_path}/broker"
    with Broker(QUICK, bind=url), Client(url, timeout=LIMIT) as client:
        with pytest.raises(ConfigurationError, match="another process listens there"):
            Broker(QUICK, bind=url).start()
        client.ping()
        with Client(url, timeout=LIMIT) as later:
            later.ping()


def test_client_waits_for_a_broker_that_binds_later_and_finds_it_again(url: str) -> None:
    with Client(url, timeout=LIMIT) as client:
        future = client.submit("mmi.services")
        time.sleep(0.2)
        for _ in range(2):
            with Broker(QUICK, bind=url):
                future.result(LIMIT)
                client.ping()
            future = client.submit("mmi.services")
        with Broker(QUICK, bind=url):
            future.result(LIMIT)
