"""The walk: hop after hop, each tried only if all before it are well."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from seance.carrier import RelayAddress
from seance.doctor import approach, inside
from seance.doctor.findings import Finding, Hop, Mark, Report, Trouble
from seance.doctor.ground import Ground, Orders
from seance.tunnel.local_server import LocalServer

__all__ = ["walk"]

NO_TIME_SECONDS = 0.0002
"""Below this nobody was asked: the hop before has told."""

STEPS: dict[Hop, Callable[[Ground], Awaitable[Finding]]] = {
    Hop.URL: approach.url,
    Hop.DNS: approach.dns,
    Hop.TCP: approach.tcp,
    Hop.TLS: approach.tls,
    Hop.PROXY: approach.proxy,
    Hop.RELAY: approach.relay,
    Hop.TOKEN: inside.token,
    Hop.AGENT: inside.agent,
    Hop.LOCAL: inside.local,
    Hop.TUNNEL: inside.tunnel,
    Hop.SYNC: inside.sync,
}


async def walk(
    reactor: Any,  # noqa: ANN401  # Twisted's reactors have no common type
    orders: Orders,
    on_finding: Callable[[Finding], None] = lambda _: None,
) -> Report:  # no common type
    """Walk until the end, or until a hop fails. Cancelling drops whatever is under way.

    Args:
        reactor: Twisted's reactor.
        orders: What to look at.
        on_finding: Called with each finding as it is made.

    Returns:
        What was found.

    Raises:
        ConfigError: The relay's URL or the local server's address cannot be read.
    """
    report = Report(orders.hops, orders.relay, orders.room, on_finding)
    ground = Ground(
        reactor,
        orders,
        report,
        relay=None if orders.relay is None else RelayAddress.from_url(orders.relay),
        local=None if orders.local is None else LocalServer.from_text(orders.local),
    )
    try:
        for hop in report.hops:
            began = time.perf_counter()
            try:
                report.note(await STEPS[hop](ground))
            except Trouble as trouble:
                seconds = time.perf_counter() - began
                took = seconds if seconds > NO_TIME_SECONDS else None
                where = trouble.hop or hop
                report.note(Finding(where, Mark.FAILED, trouble.sentence, trouble.advice, took))
                break
    finally:
        if ground.talk is not None:
            ground.talk.abort()
    return report
