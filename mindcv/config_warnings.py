"""Options that are allowed and probably not what the user meant."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

__all__ = ["suspicions"]


def suspicions(config: Any, names: Collection[str]) -> list[str]:
    """A sentence for each suspicious choice among the options `names` of a config."""
    return []
