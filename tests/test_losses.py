import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from simgan_aug.config import Config, Regularization
from simgan_aug.errors import ConfigError, ImageError
from simgan_aug.losses import (
    CrossEntropy,
    LeastSquares,
    Relativistic,
    blur,
    channel_mean,
    edge_direction,
    gradient_penalty,
    image_gradient,
    mean_weight,
    self_regularization,
)
from simgan_aug.run import regularization

seeds = st.integers(0, 2**31)
maps = st.tuples(st.integers(1, 4), st.just(1), st.integers(1, 5), st.integers(1, 5))


def drawn(shape, seed, scale=3.0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def as_logits(images):
    """A critic whose input already is its answer."""
    return images


def probabilities(logits):
    return 1 / (1 + torch.exp(-logits.double()))


@settings(deadline=None, max_examples=50)
@given(shape=maps, seed=seeds)
def test_the_discriminators_term_is_eq_2_as_printed(shape, seed):
    refined, real = drawn(shape, seed), drawn(shape, seed + 1)

    loss = CrossEntropy(reduction="paper_sum").discriminator(as_logits, refined, real)

    on_refined, on_real = probabilities(refined), probabilities(real)
    printed = -on_refined.log().sum() - (1 - on_real).log().sum()
    assert loss.item() == pytest.approx(printed.item(), rel=1e-4, abs=1e-4)


@settings(deadline=None, max_examples=50)
@given(shape=maps, seed=seeds)
def test_the_refiners_term_is_eq_3_as_printed(shape, seed):
    refined, real = drawn(shape, seed), drawn(shape, seed + 1)

    loss = CrossEntropy(reduction="paper_sum").refiner(as_logits, refined, real)

    printed = -(1 - probabilities(refined)).log().sum()
    assert loss.item() == pytest.approx(printed.item(), rel=1e-4, abs=1e-4)


@settings(deadline=None, max_examples=50)
@given(shape=maps, seed=seeds, weight=st.floats(0, 10))
def test_the_refiners_loss_is_eq_4_as_printed(shape, seed, weight):
    refined, synthetic = drawn(shape, seed), drawn(shape, seed + 1)

    adversarial = CrossEntropy(reduction="paper_sum").refiner(as_logits, refined, synthetic)
    regularization = self_regularization(refined, synthetic, reduction="paper_sum")

    printed = -(1 - probabilities(refined)).log().sum()
    printed += weight * (refined.double() - synthetic.double()).abs().sum()
    assert (adversarial + weight * regularization).item() == pytest.approx(
        printed.item(), rel=1e-4, abs=1e-4
    )


@settings(deadline=None, max_examples=50)
@given(
    batch=st.integers(1, 4),
    channels=st.integers(1, 3),
    patch=st.integers(1, 4),
    across=st.integers(1, 4),
    weight=st.floats(1e-3, 10),
    seed=seeds,
)
def test_mean_weight_makes_means_proportional_to_the_printed_sums(
    batch, channels, patch, across, weight, seed
):
    side = patch * across
    refined, synthetic = (drawn((batch, channels, side, side), seed + i) for i in (0, 1))
    kernel = drawn((1, channels, patch, patch), seed + 2, scale=0.1)

    def loss(reduction, factor):
        adversarial = CrossEntropy(reduction).refiner(
            lambda images: F.conv2d(images, kernel, stride=patch), refined, synthetic
        )
        return adversarial + factor * self_regularization(refined, synthetic, reduction=reduction)

    converted = mean_weight(weight, channels * side * side, across * across)

    # One constant factor, the number of patches, is between them: the minimiser is the same.
    expected = loss("paper_sum", weight).item() / (batch * across * across)
    assert loss("mean", converted).item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (4, 1, 3, 5)])
def test_an_undecided_discriminator_costs_two_log_two(shape):
    undecided = torch.zeros(shape)

    loss = CrossEntropy().discriminator(as_logits, undecided, undecided)

    assert loss.item() == pytest.approx(2 * math.log(2))


@pytest.mark.parametrize("loss", [CrossEntropy(), LeastSquares(), Relativistic(r1=0, r2=0)])
def test_a_mean_does_not_depend_on_batch_and_image_size(loss):
    refined, real = drawn((2, 1, 3, 3), 0), drawn((2, 1, 3, 3), 1)
    larger_refined, larger_real = (images.repeat(3, 1, 4, 5) for images in (refined, real))

    for term in (loss.refiner, loss.discriminator):
        small = term(as_logits, refined, real)
        large = term(as_logits, larger_refined, larger_real)
        assert large.item() == pytest.approx(small.item(), rel=1e-5)


def test_self_regularization_does_not_depend_on_batch_and_image_size():
    refined, synthetic = drawn((2, 3, 4, 4), 0), drawn((2, 3, 4, 4), 1)

    small = self_regularization(refined, synthetic)
    large = self_regularization(refined.repeat(2, 1, 3, 5), synthetic.repeat(2, 1, 3, 5))

    assert large.item() == pytest.approx(small.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("loss", "refined_score", "real_score"),
    [
        (CrossEntropy(), math.inf, -math.inf),
        (CrossEntropy("paper_sum"), math.inf, -math.inf),
        (LeastSquares(), 1.0, 0.0),
        (Relativistic(r1=0, r2=0), math.inf, -math.inf),
    ],
)
def test_a_trained_discriminator_gives_refined_label_one_and_real_zero(
    loss, refined_score, real_score
):
    critic = nn.Conv2d(1, 1, 1)
    refined, real = torch.full((2, 1, 2, 2), 0.7), torch.full((2, 1, 2, 2), -0.4)
    optimizer = torch.optim.SGD(critic.parameters(), lr=0.2)

    for _ in range(300):
        optimizer.zero_grad()
        loss.discriminator(critic, refined, real).backward()
        optimizer.step()

    on_refined, on_real = critic(refined).mean().item(), critic(real).mean().item()
    if math.isinf(refined_score):
        assert on_refined > on_real + 3
    else:
        assert (on_refined, on_real) == pytest.approx((refined_score, real_score), abs=0.02)


@pytest.mark.parametrize("loss", [CrossEntropy(), LeastSquares(), Relativistic()])
def test_the_refiner_descends_towards_real(loss):
    refined = torch.full((2, 1, 2, 2), 0.5, requires_grad=True)
    real = torch.zeros(2, 1, 2, 2)

    loss.refiner(as_logits, refined, real).backward()

    assert (refined.grad > 0).all()  # downhill, the score of "refined" falls


@pytest.mark.parametrize("loss", [CrossEntropy(), LeastSquares(r1=1, r2=1), Relativistic()])
def test_the_discriminators_term_reaches_its_weights(loss):
    critic = nn.Conv2d(1, 1, 1)

    loss.discriminator(critic, torch.ones(2, 1, 3, 3), torch.zeros(2, 1, 3, 3)).backward()

    assert critic.weight.grad.abs().sum() > 0


@settings(deadline=None, max_examples=30)
@given(shape=maps, seed=seeds, smoothing=st.floats(0, 0.4))
def test_smoothing_moves_the_target_of_real_patches_alone(shape, seed, smoothing):
    refined, real = drawn(shape, seed), drawn(shape, seed + 1)
    smooth = CrossEntropy("paper_sum", smoothing)

    loss = smooth.discriminator(as_logits, refined, real)

    on_refined, on_real = probabilities(refined), probabilities(real)
    expected = -on_refined.log().sum()
    expected -= (smoothing * on_real.log() + (1 - smoothing) * (1 - on_real).log()).sum()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-4)
    hard = CrossEntropy("paper_sum").refiner(as_logits, refined, real)
    assert smooth.refiner(as_logits, refined, real).item() == hard.item()


def test_least_squares_is_zero_at_its_labels_and_one_undecided():
    ones, zeros = torch.ones(2, 1, 3, 3), torch.zeros(2, 1, 3, 3)
    loss = LeastSquares()

    assert loss.discriminator(as_logits, ones, zeros).item() == 0
    assert loss.discriminator(as_logits, zeros, zeros).item() == 1
    assert loss.refiner(as_logits, zeros, ones).item() == 0
    assert loss.refiner(as_logits, 2 * ones, ones).item() == 4


@settings(deadline=None, max_examples=30)
@given(shape=maps, seed=seeds)
def test_equal_scores_cost_log_two_in_the_relativistic_loss(shape, seed):
    images, loss = drawn(shape, seed), Relativistic(r1=0, r2=0)

    assert loss.refiner(as_logits, images, images).item() == pytest.approx(math.log(2))
    assert loss.discriminator(as_logits, images, images).item() == pytest.approx(math.log(2))


def test_the_relativistic_terms_are_each_others_mirror():
    refined, real, loss = drawn((2, 1, 3, 3), 0), drawn((2, 1, 3, 3), 1), Relativistic(r1=0, r2=0)

    for_refiner = loss.refiner(as_logits, refined, real)
    for_discriminator = loss.discriminator(as_logits, real, refined)  # the sides exchanged

    assert for_refiner.item() == pytest.approx(for_discriminator.item())


@settings(deadline=None, max_examples=30)
@given(
    batch=st.integers(1, 3),
    patch=st.integers(1, 4),
    across=st.integers(1, 4),
    scale=st.floats(0, 3),
)
def test_the_gradient_penalty_of_a_linear_critic_is_its_squared_norm(batch, patch, across, scale):
    kernel = drawn((1, 2, patch, patch), seed=0) * scale
    side = patch * across
    images = torch.rand(batch, 2, side, side, requires_grad=True)

    penalty = gradient_penalty(F.conv2d(images, kernel, stride=patch), images)

    assert penalty.item() == pytest.approx(kernel.square().sum().item(), rel=1e-4, abs=1e-12)


@pytest.mark.parametrize("make", [LeastSquares, Relativistic])
def test_penalties_add_half_their_weight_times_the_squared_gradient(make):
    kernel = drawn((1, 1, 2, 2), seed=0)
    norm = kernel.square().sum().item()
    refined, real = drawn((2, 1, 6, 6), 1), drawn((2, 1, 6, 6), 2)

    def loss(r1, r2):
        term = make(r1=r1, r2=r2).discriminator
        return term(lambda images: F.conv2d(images, kernel, stride=2), refined, real).item()

    bare = loss(0, 0)
    assert loss(3, 0) - bare == pytest.approx(1.5 * norm, rel=1e-3)
    assert loss(0, 5) - bare == pytest.approx(2.5 * norm, rel=1e-3)
    assert loss(3, 5) - bare == pytest.approx(4.0 * norm, rel=1e-3)


@pytest.mark.parametrize(("r1", "r2", "side"), [(1, 0, "real"), (0, 1, "refined")])
def test_r1_looks_at_real_images_and_r2_at_refined_ones(r1, r2, side):
    images = {"refined": torch.full((1, 1, 2, 2), 1.0), "real": torch.full((1, 1, 2, 2), 3.0)}

    def critic(x):
        return x**2 / 2  # its gradient is the image itself

    with_penalty = LeastSquares(r1, r2).discriminator(critic, **images)
    bare = LeastSquares().discriminator(critic, **images)

    expected = 0.5 * images[side].square().mean().item()
    assert (with_penalty - bare).item() == pytest.approx(expected)


@pytest.mark.parametrize("make", [LeastSquares, Relativistic])
def test_a_penalty_reaches_the_weights_of_the_critic(make):
    critic = nn.Conv2d(1, 1, 1, bias=False)
    same = torch.zeros(1, 1, 2, 2)  # at zero the score is zero: what is left is the penalty

    make(r1=4, r2=0).discriminator(critic, same, same).backward()

    assert critic.weight.grad.item() == pytest.approx(4 * critic.weight.item(), rel=1e-5)


@pytest.mark.parametrize("loss", [LeastSquares(1, 1), Relativistic(1, 1)])
def test_a_discriminators_term_leaves_its_images_as_they_were(loss):
    refined, real = torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)

    loss.discriminator(nn.Conv2d(1, 1, 1), refined, real)

    assert not refined.requires_grad
    assert not real.requires_grad


def test_only_the_relativistic_loss_asks_for_real_images_in_the_refiners_term():
    asks = [getattr(loss, "pairs_real", False) for loss in (CrossEntropy, LeastSquares)]

    assert asks == [False, False]
    assert Relativistic.pairs_real


@pytest.mark.parametrize("loss", [CrossEntropy(), LeastSquares()])
def test_a_loss_that_does_not_pair_ignores_real_images_in_the_refiners_term(loss):
    refined = drawn((2, 1, 3, 3), 0)

    first, second = (loss.refiner(as_logits, refined, drawn((2, 1, 3, 3), s)) for s in (1, 2))

    assert first.item() == second.item()


def test_half_precision_logits_are_weighed_in_single_precision():
    logits = torch.full((1, 1, 2, 2), 20.0, dtype=torch.bfloat16)

    loss = CrossEntropy().refiner(as_logits, logits, logits)

    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(20.0, rel=1e-6)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["r1", "r2"])
@pytest.mark.parametrize("make", [LeastSquares, Relativistic])
def test_an_impossible_penalty_is_rejected(make, name, value):
    with pytest.raises(ConfigError, match=name):
        make(**{name: value})


@pytest.mark.parametrize(
    "options", [{"reduction": "sum"}, {"smoothing": -0.1}, {"smoothing": 0.5}, {"smoothing": 1.0}]
)
def test_cross_entropy_rejects_an_impossible_value(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        CrossEntropy(**options)


def test_no_change_costs_nothing():
    images = drawn((2, 3, 4, 4), 0)

    assert self_regularization(images, images.clone()).item() == 0


def test_self_regularization_rejects_different_shapes():
    with pytest.raises(ImageError, match=r"\(1, 3, 4, 4\).*\(1, 1, 4, 4\)"):
        self_regularization(torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 4, 4))


def test_weights_decide_where_a_change_counts():
    synthetic = torch.zeros(1, 3, 4, 4)
    refined = synthetic.clone()
    refined[..., :2] = 1.0  # left half
    refined[..., 2:] = 0.5  # right half
    weights = torch.zeros(1, 1, 4, 4)
    weights[..., 2:] = 2.0

    loss = self_regularization(refined, synthetic, weights=weights)

    assert loss.item() == pytest.approx((0 * 1.0 + 2 * 0.5) / 2)


def test_weights_of_one_change_nothing():
    refined, synthetic = drawn((2, 3, 4, 6), 0), drawn((2, 3, 4, 6), 1)

    weighted = self_regularization(refined, synthetic, weights=torch.ones(2, 1, 4, 6))

    assert weighted.item() == pytest.approx(self_regularization(refined, synthetic).item())


def test_weights_follow_features_to_their_resolution():
    refined, synthetic = torch.ones(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    weights = torch.zeros(1, 1, 4, 4)
    weights[..., :2, :2] = 3.0  # one of four 2x2 blocks

    def halved(images):
        return F.avg_pool2d(images, 2)

    loss = self_regularization(refined, synthetic, psi=halved, weights=weights)

    assert loss.item() == pytest.approx(3 / 4)


@settings(deadline=None, max_examples=20)
@given(seed=seeds)
def test_psi_replaces_the_images_by_their_features(seed):
    refined, synthetic = drawn((2, 3, 5, 5), seed), drawn((2, 3, 5, 5), seed + 1)

    loss = self_regularization(refined, synthetic, psi=channel_mean, reduction="paper_sum")

    expected = (refined.double().mean(1) - synthetic.double().mean(1)).abs().sum()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-4)


def test_the_gradient_of_an_image_does_not_see_a_uniform_cast():
    synthetic = drawn((1, 3, 5, 5), 0, scale=0.2)

    loss = self_regularization(synthetic + 0.25, synthetic, psi=image_gradient)

    assert loss.item() == pytest.approx(0, abs=1e-6)


def test_the_mean_of_channels_does_not_see_an_exchange_of_channels():
    synthetic = drawn((1, 3, 5, 5), 0)

    loss = self_regularization(synthetic.flip(1), synthetic, psi=channel_mean)

    assert loss.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (3, 3), (8, 9)])
def test_blur_keeps_a_constant_image(size):
    images = torch.full((2, 3, *size), 0.3)

    assert torch.allclose(blur(images), images, atol=1e-6)


def test_blur_spreads_a_point_by_the_binomial_weights():
    images = torch.zeros(1, 1, 9, 9)
    images[..., 4, 4] = 1.0
    row = torch.tensor([math.comb(4, k) / 16 for k in range(5)])

    blurred = blur(images)

    assert torch.allclose(blurred[0, 0, 2:7, 2:7], torch.outer(row, row), atol=1e-6)
    assert blurred.sum().item() == pytest.approx(1.0)


def test_the_gradient_of_a_ramp_is_its_slope():
    rows, columns = torch.meshgrid(torch.arange(5.0), torch.arange(6.0), indexing="ij")
    ramp = (0.1 * columns - 0.2 * rows).expand(2, 3, 5, 6)

    right, down = image_gradient(ramp).chunk(2, dim=1)  # (2, 3, 5, 6) each

    assert torch.allclose(right[..., :-1], torch.tensor(0.1), atol=1e-6)
    assert torch.allclose(down[..., :-1, :], torch.tensor(-0.2), atol=1e-6)
    assert not right[..., -1].any()  # the last neighbour is the pixel itself
    assert not down[..., -1, :].any()


def drawing(x=0, size=48):
    """A bright square on a dark ground, from column 14 + x on; (1, 3, size, size) in [-1, 1]."""
    image = torch.full((1, 3, size, size), -0.6)
    image[..., 14:34, 14 + x : 34 + x] = 0.5
    return image


def change(one, other):
    return (edge_direction(one) - edge_direction(other)).abs().mean().item()


def test_edge_directions_leave_tone_free_and_hold_contours():
    image = drawing()
    recoloured = image * torch.tensor([0.6, -0.5, 0.9])[:, None, None] + 0.1

    assert change(image, drawing(1)) > 5 * change(image, recoloured)
    assert change(image, drawing(3)) > change(image, drawing(1))
    assert change(image, image) == 0


def test_grain_that_is_faint_counts_little():
    image, grain = drawing(), torch.randn(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))

    assert change(image, image + 0.02 * grain) < change(image, drawing(1)) / 3


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (5, 40), (17, 17), (33, 20)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_edge_directions_of_any_size_have_finite_gradients(shape, channels):
    images = torch.zeros(2, channels, *shape, requires_grad=True)

    directions = edge_direction(images)
    directions.abs().sum().backward()

    assert directions.shape == (2, 2, *shape)
    assert images.grad.isfinite().all()


def test_contours_are_a_term_of_their_own():
    held = Regularization(weight=0.0, contours=2.0)
    term = regularization(dataclasses.replace(Config(), regularization=held))

    assert term(drawing(1), drawing(), None).item() == pytest.approx(
        2 * change(drawing(1), drawing())
    )
