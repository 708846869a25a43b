"""The pages about messages and records: their programs run, and their tables are complete."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import zmq
import zmq.auth
import zmq.utils.z85

from majordomus.messages import Frame, Message
from majordomus.messages.frame import NUMBERS
from tests.docs_runner import run_page

DOCS = Path(__file__).parents[2] / "docs"
TABLE = (DOCS / "czmq.md").read_text("utf-8")


def _names(text: str) -> list[str]:
    return text.split()


PASCAL = _names(
    """
TZContext.Create TZContext.Free TZContext.Shadow
TZFrame.Create TZFrame.Free TZFrame.Clone TZFrame.Size TZFrame.Data TZFrame.ToBytes TZFrame.Equals
TZFrame.ToHexString TZFrame.AsInteger TZFrame.AsSingle TZFrame.AsDouble TZFrame.AsString
TZMessage.Create TZMessage.Free TZMessage.Clone TZMessage.FrameCount TZMessage.First
TZMessage.Frames[0] TZMessage.Next TZMessage.Frames[I] TZMessage.Push TZMessage.PushEmptyFrame
TZMessage.PushInteger TZMessage.PushSingle TZMessage.PushDouble TZMessage.PushEnum
TZMessage.PushString TZMessage.PushBytes TZMessage.PushMemory TZMessage.PushProtocolBuffer
TZMessage.Pop TZMessage.PopInteger TZMessage.PopSingle TZMessage.PopDouble TZMessage.PopEnum
TZMessage.PopString TZMessage.PopBytes TZMessage.PopProtocolBuffer TZMessage.Peek
TZMessage.PeekInteger TZMessage.PeekSingle TZMessage.PeekDouble TZMessage.PeekEnum
TZMessage.PeekString TZMessage.PeekBytes TZMessage.PeekProtocolBuffer TZMessage.Unwrap
TZSocket.Send TZSocket.Receive TZSocket.Create TZSocket.Free TZSocket.Bind TZSocket.Unbind
TZSocket.Connect TZSocket.Disconnect TZSocket.Poll TZSocket.Linger TZSocket.IsCurveServer
TZSocket.SetCurvePublicKey TZSocket.SetCurveSecretKey TZSocket.SetCurveServerKey
TZCertificate.Create() TZCertificate.Create(Filename) TZCertificate.Free TZCertificate.Save
TZCertificate.Apply TZCertificate.PublicKey TZCertificate.SecretKey TZCertificate.PublicTxt
TZCertificate.SecretTxt TZSocketType EZMQError
"""
)
CZMQ = _names(
    """
zctx_new zctx_destroy zframe_new zframe_destroy zframe_dup zframe_size zframe_data zframe_eq
zframe_strhex zmsg_new zmsg_destroy zmsg_dup zmsg_size zmsg_first zmsg_next zmsg_prepend
zmsg_pushmem zmsg_pop zmsg_unwrap zmsg_send zsocket_new zsocket_destroy zsocket_bind
zsocket_connect zmq_connect zmq_disconnect zmq_poll zsocket_set_linger zsocket_set_curve_server
zsocket_set_curve_serverkey zcert_new zcert_load zcert_destroy zcert_save zcert_apply
"""
)


@pytest.mark.parametrize("page", ["messages", "records", "czmq"])
def test_program_of_a_page_runs_and_gives_the_results_that_the_page_shows(
    page: str, tmp_path: Path
) -> None:
    run_page(DOCS / f"{page}.md", tmp_path)


@pytest.mark.parametrize("name", [*PASCAL, *CZMQ])
def test_every_name_of_pascalzmq_and_czmq_is_in_the_table(name: str) -> None:
    assert f"`{name}`" in TABLE


def test_every_name_of_majordomus_in_the_table_exists() -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        known: dict[str, Any] = {
            "Message": Message,
            "Frame": Frame,
            "zmq": zmq,
            "context": context,
            "socket": socket,
            "poller": zmq.Poller(),
        }
        names = set(re.findall(r"`([A-Za-z]+(?:\.\w+)+)[`(]", TABLE))
        ours = [name for name in names if name.partition(".")[0] in known]
        assert len(ours) > 60
        for name in ours:
            _resolve(name, known)


def _resolve(name: str, known: dict[str, Any]) -> None:
    first, *rest = name.split(".")
    value = known[first]
    for part in rest:
        if isinstance(value, zmq.Socket | zmq.Context) and hasattr(zmq, part.upper()):
            return  # a socket option: some can be set but not read
        assert part in dir(value) or hasattr(value, part), name
        value = getattr(value, part, None)


def test_every_kind_of_number_can_be_pushed_popped_and_peeked() -> None:
    for kind in NUMBERS:
        for verb in ("push", "pop", "peek"):
            method = getattr(Message, f"{verb}_{kind}")
            assert method.__name__ == f"{verb}_{kind}"
            assert method.__doc__
