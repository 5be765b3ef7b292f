"""What the maps of a network's stages are like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional, Union

__all__ = ["FeatureInfo"]


class FeatureInfo(list):
    """A list with a dictionary for each map, as MindCV has it, and timm's methods to read one entry of each.

    A dictionary holds `chs` (channels), `reduction` (of the image's side) and `name` (of the stage's parameters). The
    methods take an index, several, or None for all maps.
    """

    def channels(self, idx: Optional[Union[int, Sequence[int]]] = None) -> Union[int, list[int]]:
        """Channels of the maps."""
        return self.get("chs", idx)

    def reduction(self, idx: Optional[Union[int, Sequence[int]]] = None) -> Union[int, list[int]]:
        """How often a map's side goes into the image's."""
        return self.get("reduction", idx)

    def module_name(self, idx: Optional[Union[int, Sequence[int]]] = None) -> Union[str, list[str]]:
        """What the names of the stages' parameters begin with."""
        return self.get("name", idx)

    def get(self, key: str, idx: Optional[Union[int, Sequence[int]]] = None) -> Any:
        """The entry `key` of the maps."""
        if idx is None:
            return [entry[key] for entry in self]
        return self[idx][key] if isinstance(idx, int) else [self[i][key] for i in idx]
