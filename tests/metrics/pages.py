"""Parses the metrics page with prometheus_client's parser."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

__all__ = ["families", "series", "value"]


def families(text: str) -> dict[str, Any]:
    """Return the metrics of a page by name."""
    return {family.name: family for family in text_string_to_metric_families(text)}


def series(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return every value of a page by name and labels."""
    found: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in found, f"{key} occurs twice"
            found[key] = sample.value
    return found


def value(text: str, name: str, **labels: str) -> float:
    """Return one value."""
    return series(text)[name, tuple(sorted(labels.items()))]
