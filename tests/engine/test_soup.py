"""The greedy soup is compared with the recipe of the paper, written as a loop over sets."""

import numpy as np
import pytest

from mindcv.engine.soup import choose_greedily


def by_the_recipe(scores, score_of):
    """Return the ingredients of arXiv 2203.05482, recipe 1."""
    ingredients = []
    for index in sorted(range(len(scores)), key=lambda i: -scores[i]):
        if not ingredients or score_of([*ingredients, index]) >= score_of(ingredients):
            ingredients.append(index)
    return ingredients


@pytest.mark.parametrize("seed", range(20))
def test_choose_greedily_follows_the_recipe(seed):
    """The checkpoints are points, and a mean is the better the nearer it is to the origin."""
    points = np.random.default_rng(seed).normal(0, 3, (6, 2))

    def score_of(indices):
        return int(1000 - 100 * np.linalg.norm(points[list(indices)].mean(axis=0)))

    scores = [score_of([index]) for index in range(6)]
    kept = []
    found = choose_greedily(scores, lambda index: score_of([*kept, index]), kept.append)
    assert list(found.kept) == kept == by_the_recipe(scores, score_of)
    assert found.score == score_of(kept) >= max(scores)
    assert sorted(found.order) == list(range(6)) and [scores[i] for i in found.order] == sorted(scores, reverse=True)


def test_choose_greedily_keeps_a_checkpoint_with_which_the_score_stays():
    kept = []
    found = choose_greedily([5, 9, 9, 7], lambda index: {2: 9, 3: 8, 0: 9}[index], kept.append)
    assert found.order == (1, 2, 3, 0) and found.kept == (1, 2, 0) and found.score == 9
