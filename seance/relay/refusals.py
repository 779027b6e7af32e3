"""Refusals with a random ``Retry-After``; ``seance.heads`` has no source of randomness."""

from __future__ import annotations

from random import randint
from typing import TYPE_CHECKING

from seance.heads import refusals

if TYPE_CHECKING:
    from seance.errors import Refusal
    from seance.heads.fields import Fields
    from seance.heads.refusals import Retry

__all__ = ["refusal"]


def refusal(
    kind: str, *, retry: Retry | None = None, retry_seconds: int = 0, headers: Fields = (), **values: object
) -> Refusal:
    """Return one refusal of the table; see ``seance.heads.refusals.refusal``."""
    return refusals.refusal(
        kind, retry=retry, retry_seconds=retry_seconds, random=randint, headers=headers, **values
    )
