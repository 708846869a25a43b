"""What a router may send to a dealer of ours: beyond five times its bound the connection ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from majordomus.net.bodies import Cut
from tests.net.zmtp.test_zmtp import Router, begin, kind, make, receive_until, zmtp

__all__ = ["kind", "make"]

LARGE = b"x" * 600_000


def opened(router: Router, bound: int) -> Any:
    dealer = begin(router.url, router.kind)
    dealer.bound(bound)
    receive_until(dealer, lambda _: router.turn() or dealer.open)
    assert router.router.has_peer(b"\1me")
    dealer.events()
    return dealer


@pytest.mark.parametrize(
    "frames",
    [
        [LARGE],
        [b"", *[b"x" * 60_000] * 10],
        [b"x" * 3000] * 200,
        [b""] * 8000,
        [b"", LARGE, b"rest"],
    ],
    ids=["large", "sum", "small", "frames", "middle"],
)
def test_message_far_beyond_the_bound_ends_the_connection(
    make: Callable[..., Router], frames: list[bytes]
) -> None:
    router = make()
    dealer = opened(router, 100_000)
    router.router.send([(b"\1me", [b"before"]), (b"\1me", frames), (b"\1me", [b"behind"])])
    got = receive_until(dealer, lambda _: router.turn() or not dealer.open)
    assert got[0] == [b"before"]
    assert [type(message[-1]) for message in got[1:]] in ([], [Cut])
    ((what, _, _, why),) = dealer.events()
    assert what == zmtp.CONNECTION_ENDED
    assert why in (zmtp.TOO_LARGE, zmtp.ENDLESS)
    assert dealer.receive(10) == []
    dealer.close()


def test_message_a_little_beyond_the_bound_is_cut_and_the_connection_stays(
    make: Callable[..., Router],
) -> None:
    router = make()
    dealer = opened(router, 100_000)
    router.router.send([(b"\1me", [b"", b"x" * 200_000, b"rest"]), (b"\1me", [b"behind"])])
    cut, behind = receive_until(dealer, lambda got: router.turn() or len(got) == 2)
    assert ([*cut[:-1]], type(cut[-1])) == ([b""], Cut)
    assert behind == [b"behind"]
    assert dealer.truncated == 1
    dealer.close()


def test_message_within_the_bound_is_received(make: Callable[..., Router]) -> None:
    router = make()
    dealer = opened(router, 700_000)
    sent = [[LARGE], [b"", LARGE], [b"x" * 300_000] * 2] * 2
    router.router.send([(b"\1me", frames) for frames in sent])
    assert receive_until(dealer, lambda got: router.turn() or len(got) == len(sent)) == sent
    dealer.close()
