"""Unix sockets: who listens at a path, and what becomes of its file."""

from __future__ import annotations

import os
import socket as plain
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from majordomus import system
from majordomus.errors import ConfigurationError
from majordomus.net.zmtp import ipc

if sys.platform != "linux":
    pytest.skip("our own ZMTP is for Linux alone", allow_module_level=True)

LEFT_BEHIND = """
import os, socket, sys
made = socket.socket(socket.AF_UNIX)
made.bind(sys.argv[1])
made.listen()
os._exit(0)
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/socket"


def test_file_is_there_while_the_socket_listens_and_removed_afterwards(
    url: str, tmp_path: Path
) -> None:
    listener = ipc.listen(url)
    assert listener.url == url
    assert stat.S_ISSOCK((tmp_path / "socket").lstat().st_mode)
    ipc.connect(url).close()
    listener.close()
    listener.close()
    assert list(tmp_path.iterdir()) == []


def test_socket_with_a_listener_is_not_taken_over(url: str) -> None:
    listener = ipc.listen(url)
    try:
        with pytest.raises(ConfigurationError, match="another process listens there"):
            ipc.listen(url)
        ipc.connect(url).close()
    finally:
        listener.close()


def test_listener_whose_queue_is_full_is_not_taken_over(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with plain.socket(plain.AF_UNIX) as listening, plain.socket(plain.AF_UNIX) as waiting:
        listening.bind(path)
        listening.listen(0)
        waiting.connect(path)
        with pytest.raises(BlockingIOError):
            ipc.connect(f"ipc://{path}")
        with pytest.raises(ConfigurationError, match="another process listens there"):
            ipc.listen(f"ipc://{path}")


@pytest.mark.parametrize("kind", [plain.SOCK_DGRAM, plain.SOCK_SEQPACKET])
def test_socket_of_another_kind_in_use_is_not_taken_over(
    tmp_path: Path, kind: plain.SocketKind
) -> None:
    path = str(tmp_path / "log")
    with plain.socket(plain.AF_UNIX, kind) as used:
        used.bind(path)
        with pytest.raises(ConfigurationError, match="another process listens there"):
            ipc.listen(f"ipc://{path}")
        with plain.socket(plain.AF_UNIX, kind) as sender:
            if kind == plain.SOCK_DGRAM:
                sender.sendto(b"still there", path)
                assert used.recv(100) == b"still there"
    ipc.listen(f"ipc://{path}").close()


def test_socket_file_of_a_process_that_is_gone_is_replaced(url: str, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    subprocess.run([sys.executable, "-c", LEFT_BEHIND, str(path)], check=True)
    assert stat.S_ISSOCK(path.lstat().st_mode)
    with pytest.raises(ConnectionRefusedError):
        ipc.connect(url)
    listener = ipc.listen(url)
    ipc.connect(url).close()
    listener.close()
    assert not path.exists()


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_file_that_is_no_socket_stays_and_is_an_error(url: str, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "socket"
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("elsewhere")
    before = path.lstat()
    with pytest.raises(ConfigurationError, match="a file that is not a socket has this path"):
        ipc.listen(url)
    assert path.lstat() == before


def test_file_that_has_replaced_ours_is_not_removed(url: str, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    listener = ipc.listen(url)
    path.unlink()
    heir = ipc.listen(url)
    listener.close()
    ipc.connect(url).close()
    heir.close()
    assert not path.exists()


def test_file_is_removed_although_the_process_has_changed_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    listener = ipc.listen("ipc://./relative")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    listener.close()
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]


def test_of_many_that_bind_at_once_where_a_stale_socket_is_one_alone_listens(
    url: str, tmp_path: Path
) -> None:
    subprocess.run([sys.executable, "-c", LEFT_BEHIND, str(tmp_path / "socket")], check=True)
    made: list[ipc.UnixListener] = []
    refused: list[str] = []
    together = threading.Barrier(8)

    def bind() -> None:
        together.wait()
        try:
            made.append(ipc.listen(url))
        except ConfigurationError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=bind) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert refused == [f"cannot bind {url}: another process listens there"] * 7
    ipc.connect(url).close()
    made[0].close()


def test_wildcard_is_a_socket_in_a_folder_of_its_own_that_goes_with_it() -> None:
    listener = ipc.listen("ipc://*")
    path = Path(listener.url.removeprefix("ipc://"))
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    ipc.connect(listener.url).close()
    listener.close()
    assert not path.parent.exists()


def test_abstract_name_has_no_file_and_is_taken_once(tmp_path: Path) -> None:
    url = f"ipc://@majordomus-test-{os.getpid()}-{tmp_path.name}"
    listener = ipc.listen(url)
    assert listener.url == url
    ipc.connect(url).close()
    with pytest.raises(ConfigurationError, match="Address already in use"):
        ipc.listen(url)
    listener.close()
    with pytest.raises(ConnectionRefusedError):
        ipc.connect(url)
    ipc.listen(url).close()


def test_mode_of_the_file_is_that_of_the_umask(url: str, tmp_path: Path) -> None:
    before = os.umask(0o117)
    try:
        listener = ipc.listen(url)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "socket").stat().st_mode) == 0o660
    listener.close()


def test_path_that_cannot_be_bound_is_named_with_the_reason(tmp_path: Path) -> None:
    url = f"ipc://{tmp_path}/missing/socket"
    with pytest.raises(ConfigurationError) as caught:
        ipc.listen(url)
    assert str(caught.value) == f"cannot bind {url}: No such file or directory"


def test_folder_that_another_process_keeps_locked_is_an_error(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ipc, "LOCK_WAIT", 0.05)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        assert not system.is_locked(descriptor)
        with pytest.raises(ConfigurationError, match="another process binds in the same folder"):
            ipc.listen(url)
    finally:
        os.close(descriptor)
    ipc.listen(url).close()
