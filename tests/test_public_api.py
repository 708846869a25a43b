"""What is public is listed here: who changes it changes this test, and the changelog."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest

import majordomus
from majordomus import Request, errors

PUBLIC = {
    "Action",
    "AsyncClient",
    "AsyncServiceConversation",
    "AsyncWorker",
    "Broker",
    "BrokerSettings",
    "Certificate",
    "Client",
    "Depends",
    "Discard",
    "Event",
    "Forward",
    "Frame",
    "HandlerMiddleware",
    "HookReply",
    "HookRequest",
    "Message",
    "Middleware",
    "Redirect",
    "Reject",
    "Replace",
    "Reply",
    "Request",
    "Router",
    "SendTo",
    "ServiceConversation",
    "Strategy",
    "Worker",
}
ERRORS = {
    "BadRequest",
    "BrokerLost",
    "Cancelled",
    "ConfigurationError",
    "Conflict",
    "DeadlineExceeded",
    "DoNotRetry",
    "Expired",
    "Forbidden",
    "FrameError",
    "HandlerFailed",
    "LocalProtocolError",
    "MajordomusError",
    "NotFound",
    "NotSupported",
    "ProtocolError",
    "RecordError",
    "RemoteProtocolError",
    "StatusError",
    "TooLarge",
    "TooManyRequests",
    "Unauthenticated",
    "Unavailable",
    "WorkerLost",
}


def test_public_names_are_these() -> None:
    assert sorted(majordomus.__all__) == sorted(PUBLIC | ERRORS)


def test_every_error_of_the_tree_is_public() -> None:
    tree = {
        name
        for name, found in vars(errors).items()
        if isinstance(found, type) and issubclass(found, errors.MajordomusError)
    }
    assert tree == ERRORS


def test_version_is_that_of_the_distribution() -> None:
    assert majordomus.__version__ == metadata.version("majordomus")
    assert "__version__" in dir(majordomus)


@pytest.mark.parametrize("name", sorted(PUBLIC | ERRORS))
def test_public_name_is_there_under_that_name(name: str) -> None:
    assert getattr(majordomus, name).__name__ == name


def test_public_names_are_listed_for_completion() -> None:
    assert set(majordomus.__all__) <= set(dir(majordomus))


def test_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Brokr'"):
        _ = majordomus.Brokr  # type: ignore[attr-defined]


def loaded_by(statement: str) -> set[str]:
    names = "m for m in sys.modules if m.startswith(('majordomus', 'zmq'))"
    script = f"import sys; {statement}; print(*[{names}])"
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    return set(done.stdout.split())


def test_import_alone_loads_nothing_else() -> None:
    assert loaded_by("import majordomus") == {"majordomus"}


def test_errors_and_settings_are_there_without_zeromq() -> None:
    found = loaded_by("from majordomus import BrokerSettings, NotFound")
    assert not [name for name in found if name.startswith("zmq")]
    assert "majordomus.core.broker.settings" in found


def test_message_is_there_without_sockets_and_rules() -> None:
    assert not [
        name
        for name in loaded_by("from majordomus import Message")
        if ".net" in name or ".core" in name
    ]


def test_request_offers_its_public_names_and_no_verb_of_the_engine() -> None:
    request = Request("echo", [b"x"])
    assert [name for name in dir(request) if not name.startswith("_")] == [
        *("attempt", "body", "broker_metadata", "cancelled", "client", "deadline", "frames"),
        *(
            "id",
            "key",
            "metadata",
            "once",
            "parts",
            "remaining",
            "reply_later",
            "service",
            "text",
            "user",
        ),
        "wait_cancelled",
    ]
