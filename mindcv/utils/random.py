"""Random streams named by integers, so that a draw depends on what it is for and not on who drew it, or when.

Decisions 0042 and 0067 say what is drawn in this way.
"""

from __future__ import annotations

import numpy as np

__all__ = ["stream"]


def stream(*key: int) -> np.random.Generator:
    """A NumPy generator that is a function of the integers of `key` (each >= 0) alone.

    Two equal keys give the same numbers in any process, thread or run; keys that differ anywhere, in length too, give
    independent numbers. Source: NumPy's `SeedSequence`.
    """
    # The length goes in as well: SeedSequence takes [1] and [1, 0] for the same entropy.
    return np.random.default_rng((len(key), *key))
