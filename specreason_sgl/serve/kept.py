"""The endpoint that `specreason up` keeps beside the model servers: the process that their tree starts."""

from __future__ import annotations

import time
import traceback
from typing import Any

from specreason_sgl.api import OpenPair
from specreason_sgl.engine.watch import WAIT_S
from specreason_sgl.errors import SpecReasonError
from specreason_sgl.lang.scope import Scope
from specreason_sgl.serve.menu import menu
from specreason_sgl.serve.room import places
from specreason_sgl.serve.running import listening, serve
from specreason_sgl.serve.service import Service
from specreason_sgl.serve.solves import Solves
from specreason_sgl.servers import EMBEDDED
from specreason_sgl.servers.opening import PairOptions, connect
from specreason_sgl.servers.pairs import Address

POLL_S = 0.1


def main(told: dict[str, Any]) -> None:
    """Serve a pair on this machine until the signal to stop.

    Args:
        told: ``label``, ``base`` and ``small`` (each with ``url`` and ``api_key``), ``port`` and ``key``.
    """
    base, small = (Address(told[role]["url"], told[role].get("api_key")) for role in ("base", "small"))
    service = Service(told["label"], menu())
    scope = Scope()

    def begin() -> None:
        while not (base.answers() and small.answers()):
            time.sleep(POLL_S)
        named = PairOptions(base=base.url, small=small.url, name=told["label"], wait_for_server_s=WAIT_S)
        options = PairOptions() if told["label"] == EMBEDDED else named
        try:
            connected = connect(base, small, options, scope)
            pair = OpenPair(connected.base, connected.small, connected.others, options, scope)
            service.serve(Solves(pair, running=places(pair)))
        except SpecReasonError as error:
            service.why_not = str(error)
            traceback.print_exc()

    serve(service, listening("127.0.0.1", told["port"]), told["key"], begin=begin)
