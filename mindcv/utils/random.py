"""Random streams that are identified by integers. A draw depends only on its key, not on the process or the time.

Decisions 0042 and 0067 describe the draws that use such streams.
"""

from __future__ import annotations

import numpy as np

__all__ = ["stream"]


def stream(*key: int) -> np.random.Generator:
    """Return a NumPy generator that depends only on the integers of `key` (each >= 0).

    Equal keys give the same numbers in any process, thread and run. Keys that differ in any integer or in their length
    give independent numbers. The source is NumPy's `SeedSequence`.
    """
    # The length is part of the seed, because SeedSequence treats [1] and [1, 0] as equal.
    return np.random.default_rng((len(key), *key))
