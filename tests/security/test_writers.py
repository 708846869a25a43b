"""Files and folders that every user can write decide nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from majordomus.errors import ConfigurationError
from majordomus.security import acl, keys, tokens


@pytest.mark.parametrize("load", [acl.load, keys.load, tokens.read_public])
def test_file_that_every_user_can_write_is_refused(
    load: Callable[[Path], object], tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_text("")
    path.chmod(0o646)
    with pytest.raises(ConfigurationError, match="can be written by other users: chmod go-w"):
        load(path)


@pytest.mark.parametrize("load", [keys.load, lambda path: tokens.Checker(folder=path)])
def test_folder_to_which_every_user_can_add_is_refused(
    load: Callable[[Path], object], tmp_path: Path
) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    path.chmod(0o1777)
    with pytest.raises(ConfigurationError, match="can be written by other users: chmod go-w"):
        load(path)
