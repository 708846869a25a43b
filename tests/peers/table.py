"""The class of the raw client and the raw worker of each dialect, by the dialect's name."""

from __future__ import annotations

from collections.abc import Callable

from tests.peers import delphi, mdp03, rfc
from tests.peers.loop import Client, Worker

CLIENTS: dict[str, Callable[[str], Client]] = {
    "mdp01": rfc.Mdp01Client,
    "mdp02": rfc.Mdp02Client,
    "mdp02d": rfc.Mdp02dClient,
    "delphi": delphi.DelphiClient,
    "mdp03": mdp03.Mdp03Client,
}
WORKERS: dict[str, type[Worker]] = {
    "mdp01": rfc.Mdp01Worker,
    "mdp02": rfc.Mdp02Worker,
    "mdp02d": rfc.Mdp02dWorker,
    "delphi": delphi.DelphiWorker,
    "mdp03": mdp03.Mdp03Worker,
}
