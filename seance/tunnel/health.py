"""What the public address answers to ``/health``: whether it takes connections, and what time it is here.

The time is for whoever looks into why a token or a certificate is not yet good, or no longer: ``seance
doctor`` compares its clock with it. No other answer of ours has one. More is told at the admin address alone.
"""

from __future__ import annotations

from email.utils import formatdate

from seance.heads import plain_response

__all__ = ["health_response"]


def health_response(*, is_draining: bool) -> bytes:
    """Return the whole answer; write it and close.

    Args:
        is_draining: Whether the relay is stopping.
    """
    date = ((b"Date", formatdate(usegmt=True).encode()),)
    if is_draining:
        return plain_response(503, "draining", headers=date)
    return plain_response(200, "OK", headers=date)
