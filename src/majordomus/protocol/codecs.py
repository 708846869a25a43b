"""The table of the legacy codecs lives here, and nothing else does."""

from __future__ import annotations

from majordomus.protocol import delphi, mdp01, mdp02, mdp02d
from majordomus.protocol.command import Codec
from majordomus.protocol.spec import Dialect

LEGACY: dict[Dialect, Codec] = {
    codec.dialect: codec for codec in (mdp01.CODEC, mdp02.CODEC, mdp02d.CODEC, delphi.CODEC)
}
"""Every dialect but MDP/0.3. Delphi is the verified codec; `delphi.UNVERIFIED` is the other."""
