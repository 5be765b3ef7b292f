"""Describes the feature maps of a network's stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional, Union

__all__ = ["FeatureInfo"]


class FeatureInfo(list):
    """A list with one dictionary for each feature map, as in MindCV. It has timm's methods to read the entries.

    A dictionary holds these entries:

    - `chs`: number of channels of the map.
    - `reduction`: side of the image divided by the side of the map.
    - `name`: prefix of the names of the stage's parameters.

    The methods take the index of a map, a sequence of indices, or None for all maps.
    """

    def channels(self, idx: Optional[Union[int, Sequence[int]]] = None) -> Union[int, list[int]]:
        """Return the number of channels of the maps."""
        return self.get("chs", idx)

    def reduction(self, idx: Optional[Union[int, Sequence[int]]] = None) -> Union[int, list[int]]:
        """Return the ratio of the image's side to the side of each map."""
        return self.get("reduction", idx)

    def module_name(self, idx: Optional[Union[int, Sequence[int]]] = None) -> Union[str, list[str]]:
        """Return the prefixes of the names of the stages' parameters."""
        return self.get("name", idx)

    def get(self, key: str, idx: Optional[Union[int, Sequence[int]]] = None) -> Any:
        """Return the entry `key` of the maps: one value for one index, a list otherwise."""
        if idx is None:
            return [entry[key] for entry in self]
        return self[idx][key] if isinstance(idx, int) else [self[i][key] for i in idx]
