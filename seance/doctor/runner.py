"""The walk: hop after hop, each tried only if all before it are well."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from seance.carrier import RelayAddress
from seance.core.local_address import LocalAddress
from seance.doctor import network_checks, tunnel_checks
from seance.doctor.context import Context, DoctorOptions
from seance.doctor.findings import Finding, Hop, Mark, Report, Trouble

__all__ = ["walk"]

NO_TIME_SECONDS = 0.0002
"""Below this nobody was asked: the hop before has told."""

STEPS: dict[Hop, Callable[[Context], Awaitable[Finding]]] = {
    Hop.URL: network_checks.url,
    Hop.DNS: network_checks.dns,
    Hop.TCP: network_checks.tcp,
    Hop.TLS: network_checks.tls,
    Hop.PROXY: network_checks.proxy,
    Hop.RELAY: network_checks.relay,
    Hop.TOKEN: tunnel_checks.token,
    Hop.AGENT: tunnel_checks.agent,
    Hop.LOCAL: tunnel_checks.local,
    Hop.TUNNEL: tunnel_checks.tunnel,
    Hop.SYNC: tunnel_checks.sync,
}


async def walk(
    reactor: Any,  # noqa: ANN401  # Twisted's reactors have no common type
    orders: DoctorOptions,
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
    ground = Context(
        reactor,
        orders,
        report,
        relay=None if orders.relay is None else RelayAddress.from_url(orders.relay),
        local=None if orders.local is None else LocalAddress.from_text(orders.local),
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
