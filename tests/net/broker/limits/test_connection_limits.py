"""How many connections an address may have."""

from __future__ import annotations

import pytest

from majordomus.errors import ConfigurationError
from majordomus.net.broker.limits.connection_limits import (
    UNFINISHED,
    Crowd,
    descriptor_share,
    exempt_networks,
    neighbourhood,
)


class Net:
    """Connections of one address, unless it is said which."""

    def __init__(self, most: int = 3, most_new: int = 100) -> None:
        self.crowd = Crowd(most, most_new)

    def accept(self, fd: int, host: str = "10.0.0.1", now: float = 0.0) -> str:
        return self.crowd.accepted(fd, host, now)


def test_connection_beyond_the_bound_of_its_address_is_one_too_many() -> None:
    net = Net(most=3)
    assert [net.accept(fd) for fd in (1, 2, 3, 4)] == ["", "", "", "too-many-connections"]
    assert net.accept(5, "10.0.0.2") == ""


def test_connection_that_ended_makes_room() -> None:
    net = Net(most=2)
    net.accept(1)
    net.accept(2)
    net.crowd.ended(1)
    assert net.accept(3) == ""
    assert net.accept(4) == "too-many-connections"


def test_descriptor_that_is_used_again_without_news_of_its_end_counts_once() -> None:
    net = Net(most=2)
    net.accept(1)
    assert net.accept(1) == ""
    assert net.accept(2) == ""


def test_connections_that_said_nothing_are_bounded_on_their_own() -> None:
    net = Net(most=100, most_new=2)
    assert [net.accept(fd) for fd in (1, 2, 3)] == ["", "", "too-many-handshakes"]


def test_connection_that_spoke_is_new_no_longer() -> None:
    net = Net(most=100, most_new=2)
    net.accept(1)
    net.accept(2)
    net.crowd.spoke(2)
    assert net.accept(3) == ""
    assert net.accept(4) == "too-many-handshakes"


def test_silent_connection_is_new_only_as_long_as_a_handshake_may_take() -> None:
    net = Net(most=100, most_new=2)
    net.accept(1)
    net.accept(2)
    assert net.accept(3, now=UNFINISHED - 0.1) == "too-many-handshakes"
    assert net.accept(4, now=UNFINISHED) == ""
    assert net.crowd.silent(1)


def test_connections_of_this_machine_without_an_address_are_not_counted() -> None:
    net = Net(most=1)
    assert [net.accept(fd, "") for fd in (1, 2, 3)] == ["", "", ""]
    assert not net.crowd.silent(1)


def test_nothing_is_kept_of_addresses_that_left() -> None:
    net = Net()
    for fd in range(1000):
        net.accept(fd, f"10.0.{fd // 250}.{fd % 250}")
        net.crowd.ended(fd)
    assert not net.crowd._addresses
    assert not net.crowd._silent
    assert not net.crowd._of


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::2", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("elsewhere", "elsewhere"),
    ],
)
def test_address_of_ipv6_is_its_network(host: str, name: str) -> None:
    assert neighbourhood(host) == name


@pytest.mark.parametrize(
    ("host", "answer"),
    [
        ("10.0.0.1", "too-many-connections"),
        ("10.1.2.3", ""),
        ("127.0.0.1", ""),
        ("::1", ""),
        ("::ffff:127.0.0.1", ""),
        ("2001:db8::1", ""),
        ("2001:db9::1", "too-many-connections"),
    ],
)
def test_address_may_take_no_more_than_its_share_of_the_descriptors(host: str, answer: str) -> None:
    crowd = Crowd(100, 100, share=2, exempt=exempt_networks("10.1.0.0/16 2001:db8::/32"))
    assert [crowd.accepted(fd, host, 0.0) for fd in (1, 2, 3)] == ["", "", answer]


def test_share_is_one_of_the_limit_of_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda what: (1000, 20_000))
    assert descriptor_share(0.5) == 500
    monkeypatch.setattr(resource, "getrlimit", lambda what: (resource.RLIM_INFINITY, 0))
    assert descriptor_share(0.5) > 1_000_000


def test_address_that_is_none_is_an_error_at_the_start() -> None:
    with pytest.raises(ConfigurationError, match="exempt_addresses: 'gateway' does not appear"):
        exempt_networks("gateway")
