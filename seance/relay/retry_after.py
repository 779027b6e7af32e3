"""The ``Retry-After`` of refusals that a client may repeat soon."""

from __future__ import annotations

from typing import Final

__all__ = ["RETRY_AFTER"]

RETRY_AFTER: Final = (b"Retry-After", b"2")
"""Seconds. Short, because an agent that reconnects is back within one or two."""
