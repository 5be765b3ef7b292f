"""Greedy soups: which of several checkpoints to average, decided on validation images.

Source: Wortsman et al., "Model soups", arXiv 2203.05482, recipe 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["GreedySoup", "choose_greedily"]


@dataclass(frozen=True)
class GreedySoup:
    """The result of `choose_greedily`.

    Attributes:
        order: indices of the checkpoints in descending order of their scores.
        kept: indices of the checkpoints in the soup, in the order in which they joined it.
        score: score of the soup.
    """

    order: tuple[int, ...]
    kept: tuple[int, ...]
    score: int


def choose_greedily(scores: Sequence[int], score_with: Callable[[int], int], keep: Callable[[int], None]) -> GreedySoup:
    """Choose the checkpoints of a greedy soup.

    The checkpoints are tried in descending order of their scores; of equal scores, the earlier one comes first. The
    first is in the soup. Each further one joins if the score of the soup does not fall.

    Args:
        scores: score of each checkpoint by itself, where higher is better.
        score_with: function that returns the score of the mean of the soup and one more checkpoint.
        keep: function that adds a checkpoint to the soup.
    """
    order = sorted(range(len(scores)), key=lambda index: (-scores[index], index))
    kept, best = [order[0]], scores[order[0]]
    keep(order[0])
    for index in order[1:]:
        score = score_with(index)
        if score >= best:
            keep(index)
            kept.append(index)
            best = score
    return GreedySoup(tuple(order), tuple(kept), best)
