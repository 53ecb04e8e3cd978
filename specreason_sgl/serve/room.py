"""How many solves a pair has room for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from specreason_sgl.evaluation.modes import room_for
from specreason_sgl.serve.solves import RUNNING
from specreason_sgl.settings import Settings

if TYPE_CHECKING:
    from specreason_sgl.api import OpenPair


def places(pair: OpenPair) -> int:
    """How many solves run at the same time: as many as the servers' caches hold, of the usual length."""
    usual = Settings.model_validate(pair.defaults)
    infos = [server.server_info() for server in pair]
    return min(RUNNING, room_for(infos, usual.budget + usual.answer_tokens))
