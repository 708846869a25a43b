"""How many connections each address has, and how many of them have sent no message yet.

Every connection is accepted at first. One that exceeds the limit of its address is ended as soon as
the listener has read its beginning. The address of an ipc connection of our own ZMTP is its Unix
user, as `uid:1000`; connections of libzmq by ipc and inproc have none and are not counted.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from majordomus import system
from majordomus.core.broker.state.identity import UNIX_USER
from majordomus.errors import ConfigurationError

if TYPE_CHECKING:
    from majordomus.core.broker.settings import BrokerSettings

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

UNFINISHED: Final = 3.5
"""Seconds after which a connection that says nothing has its handshake behind it: libzmq gives it
3."""


@lru_cache(maxsize=1024)
def neighbourhood(host: str) -> str:
    """An IPv4 address, or the /64 of an IPv6 address: what one customer of a provider gets."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    mapped = getattr(address, "ipv4_mapped", None)
    if mapped is not None:
        return str(mapped)
    if address.version == 6:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


class _Address:
    __slots__ = ("connections", "name", "new")

    def __init__(self, name: str) -> None:
        self.name = name
        self.connections = 0
        self.new: dict[int, float] = {}
        """The descriptors that may still be in their handshakes, and since when, oldest first."""

    def forget_old(self, before: float) -> None:
        """Who began until then has the handshake done, or libzmq has ended it."""
        new = self.new
        while new:
            fd = next(iter(new))
            if new[fd] > before:
                return
            del new[fd]


def exempt_networks(text: str) -> list[Network]:
    """The networks of `exempt_addresses`. Raises: ConfigurationError."""
    try:
        return [ipaddress.ip_network(one, strict=False) for one in text.split()]
    except ValueError as error:
        raise ConfigurationError(f"exempt_addresses: {error}") from None


def descriptor_share(share: float) -> int:
    """This share of the descriptors that the process may open, as a number of connections."""
    limit, _ = system.descriptor_limits()
    return sys.maxsize if limit == system.UNLIMITED else max(1, int(limit * share))


def crowd_of(settings: BrokerSettings) -> Crowd:
    """The connections of one socket with the bounds of `settings`. Raises: ConfigurationError."""
    return Crowd(
        settings.max_address_connections,
        settings.max_address_handshakes,
        descriptor_share(settings.address_share),
        exempt_networks(settings.exempt_addresses),
    )


class Crowd:
    """The connections of one socket. `most` and `most_new` are bounds for one address, and so is
    `share`, a share of the descriptors: loopback, Unix users and the addresses in `exempt` may have
    more."""

    def __init__(
        self,
        most: int,
        most_new: int,
        share: int = sys.maxsize,
        exempt: Sequence[Network] = (),
    ) -> None:
        self._most, self._most_new = most, most_new
        self._share, self._exempt = share, exempt
        self._addresses: dict[str, _Address] = {}
        self._of: dict[int, _Address] = {}
        self._silent: set[int] = set()

    def accepted(self, fd: int, host: str, now: float) -> str:
        """A connection is there, from `host`. Why it is one too many; "" when it is not."""
        self.ended(fd)
        if not host:
            return ""
        name = neighbourhood(host)
        address = self._addresses.get(name)
        if address is None:
            address = self._addresses[name] = _Address(name)
        self._of[fd] = address
        self._silent.add(fd)
        address.connections += 1
        address.new[fd] = now
        address.forget_old(now - UNFINISHED)
        if address.connections > self._most:
            return "too-many-connections"
        if address.connections > self._share and not self._is_exempt(host):
            return "too-many-connections"
        if len(address.new) > self._most_new:
            return "too-many-handshakes"
        return ""

    def _is_exempt(self, host: str) -> bool:
        if host.startswith(UNIX_USER):
            return True
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        return address.is_loopback or any(address in network for network in self._exempt)

    def spoke(self, fd: int) -> None:
        """The first message of a connection has come: its handshake is done."""
        self._silent.discard(fd)
        if fd in self._of:
            self._of[fd].new.pop(fd, None)

    def silent(self, fd: int) -> bool:
        """Whether nothing has come by `fd` yet."""
        return fd in self._silent

    def ended(self, fd: int) -> None:
        """A connection has ended. May be repeated."""
        self._silent.discard(fd)
        address = self._of.pop(fd, None)
        if address is None:
            return
        address.new.pop(fd, None)
        address.connections -= 1
        if not address.connections:
            del self._addresses[address.name]
