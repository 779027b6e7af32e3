"""Runs the checks in order, each only if all checks before it have passed."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from seance.carrier import RelayAddress
from seance.core.local_address import LocalAddress
from seance.doctor import network_checks, tunnel_checks
from seance.doctor.context import Context, DoctorOptions
from seance.doctor.findings import DoctorReport, Finding, Hop, HopFailed, HopStatus

__all__ = ["run_checks"]

MIN_SECONDS = 0.0002
"""A shorter duration is not reported: the check used the result of an earlier one and sent nothing."""

CHECKS: dict[Hop, Callable[[Context], Awaitable[Finding]]] = {
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


async def run_checks(
    reactor: Any,  # noqa: ANN401  # Twisted's reactors have no common type
    options: DoctorOptions,
    on_finding: Callable[[Finding], None] = lambda _: None,
) -> DoctorReport:
    """Check each hop until one fails. Cancelling closes all connections.

    Args:
        reactor: Twisted's reactor.
        options: What to check.
        on_finding: Called with each finding immediately.

    Returns:
        The findings.

    Raises:
        ConfigError: The relay's URL or the local server's address is invalid.
    """
    report = DoctorReport(options.hops, options.relay, options.room, on_finding)
    context = Context(
        reactor,
        options,
        report,
        relay=None if options.relay is None else RelayAddress.from_url(options.relay),
        local=None if options.local is None else LocalAddress.from_text(options.local),
    )
    try:
        for hop in report.hops:
            began = time.perf_counter()
            try:
                report.add(await CHECKS[hop](context))
            except HopFailed as failed:
                seconds = time.perf_counter() - began
                duration = seconds if seconds > MIN_SECONDS else None
                report.add(
                    Finding(failed.hop or hop, HopStatus.FAILED, failed.message, failed.advice, duration)
                )
                break
    finally:
        if context.connection is not None:
            context.connection.abort()
    return report
