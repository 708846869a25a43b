"""The table of the legacy codecs."""

from __future__ import annotations

from majordomus.protocol import delphi, mdp01, mdp02, mdp02d
from majordomus.protocol.command import Codec
from majordomus.protocol.spec import Dialect

LEGACY: dict[Dialect, Codec] = {
    codec.dialect: codec for codec in (mdp01.CODEC, mdp02.CODEC, mdp02d.CODEC, delphi.CODEC)
}
"""All dialects except MDP/0.3. The Delphi codec requires the hash, unlike `delphi.UNVERIFIED`."""
