"""The health check at the public address: whether the relay accepts connections, and its time.

Load balancers send GET or HEAD for ``/health``, in HTTP/1.0 or 1.1. HAProxy's ``option httpchk`` without
arguments sends ``OPTIONS / HTTP/1.0``, so OPTIONS is answered at both addresses with the same status. The
time is for ``seance doctor``, which compares it with its own clock when a token or a certificate is not yet
or no longer valid. Nothing else is public; figures are at the admin port.
"""

from __future__ import annotations

from email.utils import formatdate

from seance.heads import Request, plain_response
from seance.heads.refusals import ALLOW_HEALTH
from seance.relay.refusals import refusal

__all__ = ["health_response", "is_health_check", "without_body"]


def is_health_check(request: Request) -> bool:
    """Return whether a request of any method is for the health check."""
    path = request.target.partition(b"?")[0]
    return path == b"/health" or (path == b"/" and request.method == b"OPTIONS")


def health_response(request: Request, *, is_draining: bool) -> bytes:
    """Return the whole answer; write it and close.

    Args:
        request: One for which `is_health_check` is true.
        is_draining: Whether the relay is stopping.

    Raises:
        Refusal: 405, the method is not GET, HEAD or OPTIONS.
    """
    if request.method not in (b"GET", b"HEAD", b"OPTIONS"):
        raise refusal("method.health")
    date = (b"Date", formatdate(usegmt=True).encode())
    fields = (date, ALLOW_HEALTH) if request.method == b"OPTIONS" else (date,)
    status, body = (503, "draining") if is_draining else (200, "OK")
    response = plain_response(status, body, headers=fields)
    return without_body(response) if request.method == b"HEAD" else response


def without_body(response: bytes) -> bytes:
    """Return the head of a whole answer, which is what HEAD gets."""
    return response[: response.index(b"\r\n\r\n") + 4]
