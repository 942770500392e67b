"""What the two players minimise: adversarial terms, self-regularization, feature transforms psi.

An adversarial loss sees logits of "refined" per patch: target 1 for refined, 0 for real (paper, eq.
2; the reverse of the usual GAN). Reductions are means over images and patches, so that a weight
means the same at every image size, unless `reduction="paper_sum"` asks for the sums that the paper
prints.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from simgan_aug.errors import ConfigError, ImageError
from simgan_aug.graphs import recordable
from simgan_aug.twice import Twice

FAINT = 0.04
"""Change a px, of a range of 2, that is grain and no edge: 5 levels of 255."""

Critic = Callable[[Tensor], Tensor]
"""A discriminator: (B, C, H, W) in [-1, 1] -> (B, 1, h, w) logits.

One with a true attribute `independent` may be shown real and refined images at once."""

FeatureTransform = Callable[[Tensor], Tensor]
"""psi in ||psi(x~) - psi(x)||_1: (B, C, H, W) in [-1, 1] -> (B, F, h, w)."""


class AdversarialLoss(Protocol):
    """The two adversarial terms.

    A loss with a true attribute `pairs_real` gets a fresh real batch in its refiner's term too; any
    other must ignore `real` there.
    One with an attribute `reduction` of "sum" is a sum over images; of any other the mean over the
    shares of a batch is that over the batch.
    """

    def refiner(self, critic: Critic, refined: Tensor, real: Tensor) -> Tensor:
        """What the refiner minimises, a scalar with gradient to `refined`."""

    def discriminator(self, critic: Critic, refined: Tensor, real: Tensor) -> Tensor:
        """What the discriminator minimises, a scalar with gradient to its weights."""


class CrossEntropy:
    """Eq. 2 and 3: cross-entropy per local patch.

    Args:
        reduction: "mean" over images and patches, or "paper_sum", the sum that the paper prints.
        smoothing: target of real patches in the discriminator's term, 0 in the paper; 0.1 is
            one-sided label smoothing (Salimans et al., arXiv:1606.03498, section 3.4).
    """

    recordable = True

    def __init__(self, reduction: str = "mean", smoothing: float = 0.0) -> None:
        if reduction not in ("mean", "paper_sum"):
            raise ConfigError(f"reduction must be 'mean' or 'paper_sum', got {reduction!r}")
        if not 0 <= smoothing < 0.5:
            raise ConfigError(f"smoothing must lie in [0, 0.5), got {smoothing}")
        self.reduction = "sum" if reduction == "paper_sum" else "mean"
        self.smoothing = smoothing

    def refiner(self, critic: Critic, refined: Tensor, real: Tensor) -> Tensor:
        """- sum log(1 - D(R(x))) (eq. 3)."""
        return self._towards(critic(refined), 0.0)

    def discriminator(self, critic: Critic, refined: Tensor, real: Tensor) -> Tensor:
        """- sum log D(R(x)) - sum log(1 - D(y)) (eq. 2)."""
        on_refined, on_real, _ = _scores(critic, refined, real)
        return self._towards(on_refined, 1.0) + self._towards(on_real, self.smoothing)

    def _towards(self, logits: Tensor, target: float) -> Tensor:
        return F.binary_cross_entropy_with_logits(
            logits.float(),
            torch.full_like(logits, target, dtype=torch.float32),
            reduction=self.reduction,
        )


class LeastSquares:
    """Least squares on the logits (Mao et al., arXiv:1611.04076), with gradient penalties.

    Args:
        r1: weight of the penalty on real images (gamma; Mescheder et al., arXiv:1801.04406).
        r2: the same on refined images.
    """

    recordable = True

    def __init__(self, r1: float = 0.0, r2: float = 0.0) -> None:
        self.r1, self.r2 = _weights(r1, r2)

    def refiner(self, critic: Critic, refined: Tensor, real: Tensor) -> Tensor:
        """Mean of the squared logits of refined patches: 0 is real."""
        return critic(refined).float().square().mean()

    def discriminator(self, critic: Critic, refined: Tensor, real: Tensor) -> Tensor:
        """Squared distance of refined patches to 1 and of real ones to 0, plus penalties."""
        on_refined, on_real, penalty = _scores(critic, refined, real, self.r1, self.r2)
        return (on_refined - 1).square().mean() + on_real.square().mean() + penalty


class Relativistic:
    """Relativistic pairing with R1 and R2 (R3GAN, Huang et al., arXiv:2501.05441, section 2).

    Args:
        r1: weight of the gradient penalty on real images.
        r2: the same on refined images.
    """

    recordable = True
    pairs_real = True

    def __init__(self, r1: float = 0.1, r2: float = 0.1) -> None:
        self.r1, self.r2 = _weights(r1, r2)

    def refiner(self, critic: Critic, refined: Tensor, real: Tensor) -> Tensor:
        """softplus(refined - real), patch by patch and image by image as they come."""
        return F.softplus(critic(refined).float() - critic(real).float()).mean()

    def discriminator(self, critic: Critic, refined: Tensor, real: Tensor) -> Tensor:
        """softplus(real - refined), plus penalties."""
        on_refined, on_real, penalty = _scores(critic, refined, real, self.r1, self.r2)
        return F.softplus(on_real - on_refined).mean() + penalty


def gradient_penalty(scores: Tensor, images: Tensor) -> Tensor:
    """Squared gradient of a patch's logit, summed over pixels, mean over patches and images.

    Exact where patches do not overlap; so a weight means the same at every image size, which the
    usual gradient of the mean logit does not give.
    """
    (gradient,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return gradient.float().square().sum() / scores.numel()


def self_regularization(
    refined: Tensor,
    synthetic: Tensor,
    psi: FeatureTransform | None = None,
    weights: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Absolute change of features, the term that keeps labels true (paper, eq. 4).

    Args:
        refined, synthetic: (B, C, H, W) in [-1, 1].
        psi: feature transform; None is the identity.
        weights: (B, 1, H, W), how much a pixel's change counts; None: 1 everywhere.
        reduction: "mean" over all features, or "paper_sum", the L1 norm itself.

    Raises:
        ImageError: the shapes differ.
    """
    if refined.shape != synthetic.shape:
        raise ImageError(
            f"refined {tuple(refined.shape)} and synthetic {tuple(synthetic.shape)} differ in shape"
        )
    change = (psi(refined) - psi(synthetic)).abs() if psi else (refined - synthetic).abs()
    if weights is not None:
        weights = (
            weights
            if weights.shape[2:] == change.shape[2:]
            else F.adaptive_avg_pool2d(weights, (change.shape[2], change.shape[3]))
        )
        change = change * weights
    return change.sum() if reduction == "paper_sum" else change.mean()


def mean_weight(paper_weight: float, values: int, patches: int) -> float:
    """lambda for mean reductions that equals a lambda for the paper's sums.

    Args:
        paper_weight: lambda of eq. 4 with sums.
        values: channels x height x width of an image.
        patches: height x width of the discriminator's map for it.
    """
    return paper_weight * values / patches


@recordable
def channel_mean(images: Tensor) -> Tensor:
    """psi: mean of the colour channels (paper v2, section 2.1), (B, 1, H, W)."""
    return images.mean(dim=1, keepdim=True)


@recordable
def blur(images: Tensor) -> Tensor:
    """psi: 5x5 binomial blur, which leaves fine grain free; (B, C, H, W)."""
    mode = "reflect" if min(images.shape[2:]) > 2 else "replicate"
    padded = F.pad(images, (2, 2, 2, 2), mode=mode)
    for axis in (3, 3, 2, 2):  # 1, 4, 6, 4, 1 is 1, 2, 1 twice
        inner = padded.shape[axis] - 2
        before, here, after = (padded.narrow(axis, start, inner) for start in range(3))
        padded = (before + after) / 4 + here / 2
    return padded


@recordable
def image_gradient(images: Tensor) -> Tensor:
    """psi: differences to the right and lower neighbour (paper v2, section 2.1), (B, 2C, H, W)."""
    right = F.pad(images, (0, 1, 0, 0), mode="replicate").diff(dim=3)
    down = F.pad(images, (0, 0, 0, 1), mode="replicate").diff(dim=2)
    return torch.cat([right, down], dim=1)


def imitation(learned: Tensor, taught: Tensor) -> Tensor:
    """What a student minimises: distance of values, and of their differences to their neighbours.

    The latter are contours, by which labels are held: without them 1 of 20 labels of hands moved by
    .54 px, with them by .47 (examples/study/RESULTS.md).

    Args:
        learned, taught: (B, C, H, W), what the student and its teacher make of the same images.
    """
    apart = learned - taught
    across = apart[..., 1:] - apart[..., :-1]
    down = apart[..., 1:, :] - apart[..., :-1, :]
    return sum((each.abs().mean() for each in (across, down)), start=apart.abs().mean())


@recordable
def edge_direction(images: Tensor) -> Tensor:
    """psi: edge directions by strength among neighbours, whatever their light; (B, 2, H, W).

    What `simgan_aug.displacement` measures, as a term to train with: it leaves tone and colour
    free, and grain fainter than `FAINT`, and holds contours where they are.
    """
    smooth = blur(images.float().contiguous())  # sums over channels are slow in channels_last
    across = F.pad(smooth, (1, 1, 0, 0), mode="replicate")
    down = F.pad(smooth, (0, 0, 1, 1), mode="replicate")
    x = (across[..., 2:] - across[..., :-2]) / 2
    y = (down[..., 2:, :] - down[..., :-2, :]) / 2
    xx, yy, xy = ((a * b).sum(1, keepdim=True) for a, b in ((x, x), (y, y), (x, y)))
    energy = xx + yy
    share = 1 / (energy + _around(energy) / 2 + FAINT**2)
    return torch.cat([xx - yy, 2 * xy], dim=1) * share


def _around(values: Tensor) -> Tensor:
    """Mean over the neighbours within 7 px that there are, or fewer in a small image."""
    height, width = values.shape[2:]
    reach = max(0, min(17, height, width) // 2 - 1)
    rows, columns = (_means(side, reach, values.device) for side in (height, width))
    with torch.autocast(values.device.type, enabled=False):
        return rows @ values @ columns.T


def _means(length: int, reach: int, device: torch.device) -> Tensor:
    """(length, length): times values, their means over all places at most `reach` away.

    Kept for a CPU; a GPU makes it as quickly, and a recording may outlive what is kept.
    """
    return (
        _kept_means(length, reach) if device.type == "cpu" else _made_means(length, reach, device)
    )


@functools.lru_cache(maxsize=8)
@torch.inference_mode(False)  # what is kept serves training too
def _kept_means(length: int, reach: int) -> Tensor:
    return _made_means(length, reach, torch.device("cpu"))


def _made_means(length: int, reach: int, device: torch.device) -> Tensor:
    places = torch.arange(length, device=device)
    near = ((places[:, None] - places).abs() <= reach).float()
    return near / near.sum(1, keepdim=True)


def _weights(r1: float, r2: float) -> tuple[float, float]:
    if not (0 <= r1 < math.inf and 0 <= r2 < math.inf):
        raise ConfigError(f"gradient penalties r1 and r2 must be 0 or more, got {r1} and {r2}")
    return r1, r2


def _scores(
    critic: Critic, refined: Tensor, real: Tensor, r1: float = 0, r2: float = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of both sides and the weighted penalties; of both at once where that is the same."""
    sizes = [len(refined), len(real)]
    sides, rates = [refined.detach(), real.detach()], [r2, r1]
    if getattr(critic, "independent", False) and r1 == r2:
        sides, rates = [torch.cat(sides)], [r1]
    for images, rate in zip(sides, rates, strict=True):
        images.requires_grad_(rate > 0)
    with Twice() if any(rates) else contextlib.nullcontext():
        logits = [critic(images).float() for images in sides]
    penalty = logits[0].new_zeros(())
    for images, scores, rate in zip(sides, logits, rates, strict=True):
        if rate:
            penalty = penalty + rate / len(sides) * gradient_penalty(scores, images)
    on_refined, on_real = torch.split(torch.cat(logits), sizes)
    return on_refined, on_real, penalty
