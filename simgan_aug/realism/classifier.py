"""A classifier two-sample test (Lopez-Paz and Oquab, arXiv:1610.06545), cross-validated by groups.

How often can a small classifier tell which of two sets an image is from? Half of the time, if
they are alike. Images that belong together (video frames, forms of one image) lie in one fold: else
it would know its test images already, and be too good; or, with one of them in each set, have
learnt the wrong answer, and be worse than chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from simgan_aug.errors import ConfigError
from simgan_aug.realism.resampling import (
    LEAST,
    Distance,
    Draws,
    Pair,
    interval,
    labels_of,
    resample,
)
from simgan_aug.realism.scale import scale_of

Array = np.ndarray[Any, Any]

FOLDS = 5

PENALTY = 1e-3
"""Weight of the squared weights beside the mean log loss; features have a length of about 1."""


@dataclass(frozen=True)
class TwoSampleTest:
    """How well a classifier tells two sets apart; 0.5: not at all, 1: always."""

    accuracy: Distance
    """Share of right answers, mean over the two sets."""
    auc: Distance
    """Share of pairs, one image of each set, that it orders right; ties count half."""


def two_sample_test(
    first: Tensor,
    second: Tensor,
    groups: Pair | None = None,
    folds: int = FOLDS,
    resamples: int = 200,
    seed: int = 0,
) -> TwoSampleTest:
    """How well a logistic regression tells two sets of features apart, in images it has not seen.

    Args:
        first, second: (N, F) and (M, F), one row an image.
        groups: of the first and the second set, one for each image; a group lies in one fold.
        folds: that the groups are divided into, each the test of what the others have taught.
        resamples: of the groups, for the interval. The classifiers stay as they are meanwhile, so
            that it is widened for what other images would have taught them, as Nadeau and Bengio
            (Machine Learning 52, 2003) have it: by 1.5 for 5 folds.
        seed: of folds and resamples.

    Raises:
        DataError: fewer than 8 images, or groups, on a side.
        ConfigError: folds that are not 2 to 8.
    """
    if not 2 <= folds <= LEAST:
        raise ConfigError(f"folds must be 2 to {LEAST}, got {folds}")
    labels = labels_of(groups, len(first), len(second))
    accuracy, auc = answer_draws(first, second, labels, folds, resamples, seed)
    return TwoSampleTest(interval([accuracy]), interval([auc]))


def answer_draws(
    first: Tensor,
    second: Tensor,
    labels: Array,
    folds: int = FOLDS,
    resamples: int = 200,
    seed: int = 0,
) -> tuple[Draws, Draws]:
    """Accuracy and AUC as draws; labels (N + M,) as from `labels_of`."""
    rng = np.random.default_rng(seed)
    points = torch.cat([first, second]).double()
    side = np.repeat([0, 1], [len(first), len(second)])
    fold = _folds(labels, side, folds, rng)
    scores = np.zeros(len(side))
    for number in range(folds):
        test = torch.from_numpy(fold == number)
        scores[fold == number] = _answers(points[~test], side[fold != number], points[test])
    drawn = resample(labels, len(first), resamples, rng)
    weights = np.vstack([np.ones(len(side)), drawn])  # the first row is the estimate itself
    values = _accuracy(scores, side, weights), _auc(scores, side, fold, weights)
    return _widened(values[0], folds), _widened(values[1], folds)


def _folds(labels: Array, side: Array, folds: int, rng: np.random.Generator) -> Array:
    """The fold of each image, (N + M,): large groups first, each where its sides have the least."""
    sizes = np.zeros((int(labels.max()) + 1, 2))
    np.add.at(sizes, (labels, side), 1)
    sizes /= np.maximum(sizes.sum(0), 1)
    order = rng.permutation(len(sizes))
    order = order[np.argsort(-sizes.sum(1)[order], kind="stable")]
    loads, found = np.zeros((folds, 2)), np.zeros(len(sizes), dtype=np.int64)
    for group in order:
        found[group] = int(np.argmin(loads @ sizes[group]))
        loads[found[group]] += sizes[group]
    chosen: Array = found[labels]
    return chosen


def _answers(points: Tensor, side: Array, test: Tensor) -> Array:
    """Logits of "second" for the test points, of a classifier taught by the other ones."""
    mean, spread = scale_of(points)
    spread = spread * points.shape[1] ** 0.5
    weight, bias = _fit((points - mean) / spread, torch.from_numpy(side).double())
    answers: Array = ((test - mean) / spread @ weight + bias).numpy()
    return answers


@torch.enable_grad()
def _fit(points: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (F,) and bias of a logistic regression in which both sides count the same."""
    weight = torch.zeros(points.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros((), dtype=torch.float64, requires_grad=True)
    share = side.mean()
    counts = torch.where(side > 0, 0.5 / share, 0.5 / (1 - share))
    solver = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        cost = F.binary_cross_entropy_with_logits(points @ weight + bias, side, weight=counts)
        cost = cost + PENALTY / 2 * weight.square().sum()
        cost.backward()  # type: ignore[no-untyped-call]
        return cost

    solver.step(loss)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()


def _accuracy(scores: Array, side: Array, weights: Array) -> Array:
    right = np.where(side == 1, scores > 0, scores < 0) + 0.5 * (scores == 0)
    parts = [
        (weights[:, side == one] * right[side == one]).sum(1) / weights[:, side == one].sum(1)
        for one in (0, 1)
    ]
    mean: Array = (parts[0] + parts[1]) / 2
    return mean


def _auc(scores: Array, side: Array, fold: Array, weights: Array) -> Array:
    """Within folds, for each has a classifier of its own."""
    right, pairs = np.zeros(len(weights)), np.zeros(len(weights))
    for number in np.unique(fold):
        first = (fold == number) & (side == 0)
        second = (fold == number) & (side == 1)
        gap = scores[second][None, :] - scores[first][:, None]
        wins = (gap > 0) + 0.5 * (gap == 0)
        right += ((weights[:, first] @ wins) * weights[:, second]).sum(1)
        pairs += weights[:, first].sum(1) * weights[:, second].sum(1)
    with np.errstate(invalid="ignore"):  # a draw without any pair is left out later
        share: Array = right / pairs
    return share


def _widened(values: Array, folds: int) -> Draws:
    """The estimate, which is the first value, and the other ones spread around it."""
    spread = (1 + folds / (folds - 1)) ** 0.5
    return Draws(float(values[0]), (values[0] + spread * (values[1:] - values[0])).clip(0, 1))
