import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from simgan_aug.errors import ConfigError
from simgan_aug.networks import (
    PaperPatch,
    Patch,
    ResNetRefiner,
    UnshuffleRefiner,
    condition,
    halo,
    memory_per_pixel,
    unshuffle,
)
from simgan_aug.networks.contract import with_tone
from simgan_aug.networks.resnet import reflected

REFINERS = {
    "eyes": lambda: ResNetRefiner(3, features=4),
    "hands": lambda: ResNetRefiner(3, kernel=7, features=4, blocks=10),
    "unshuffle2": lambda: UnshuffleRefiner(3, 2, 8, 2, noise_channels=0),
    "unshuffle4": lambda: UnshuffleRefiner(3, 4, 8, 1, noise_channels=0),
    "with a map": lambda: UnshuffleRefiner(3, 4, 8, 1, noise_channels=0, pixel_features=4),
}
DISCRIMINATORS = {
    "eyes": lambda: PaperPatch(3, "eyes"),
    "hands": lambda: PaperPatch(3, "hands"),
    "patch": lambda: Patch(3, 8),
    "spectral": lambda: Patch(3, 8, spectral=True),
}
STRIDES = {"eyes": 4, "hands": 32, "patch": 4, "spectral": 4}  # products of the published strides


@pytest.fixture(params=REFINERS)
def refiner(request):
    torch.manual_seed(0)
    return awake(REFINERS[request.param]()).eval()


@pytest.fixture(params=DISCRIMINATORS)
def discriminator(request):
    torch.manual_seed(0)
    return DISCRIMINATORS[request.param]().eval()


def awake(network):
    """The network with a head that is not zero, so that it does something."""
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.2)
    return network


def measured_field(network, side, axis):
    """Px along an axis that one output in the middle reads: NaN spreads to all that reads it."""
    shape = (side, 1, 4, side) if axis == 3 else (side, 1, side, 4)
    images = torch.zeros(shape, dtype=torch.float64)
    for place in range(side):
        images[place].select(axis - 1, place).fill_(math.nan)
    with torch.no_grad():
        out = awake(network).double().eval()(images)
    reached = out[:, 0, out.shape[2] // 2, out.shape[3] // 2].isnan().nonzero().flatten()
    first, last = int(reached[0]), int(reached[-1])
    assert first > 0  # else the image was too small to tell
    assert last < side - 1
    assert len(reached) == last - first + 1
    return len(reached)


@pytest.mark.parametrize("axis", [2, 3])
@pytest.mark.parametrize(
    ("network", "published", "side"),
    [
        (ResNetRefiner(1, features=2), 19, 40),
        (ResNetRefiner(1, kernel=7, features=1, blocks=10), 127, 140),
        (PaperPatch(1, "eyes"), 23, 48),
        (PaperPatch(1, "hands"), 71, 192),
        (Patch(1, 2), 26, 48),
        (Patch(1, 2, spectral=True), 26, 48),
    ],
)
def test_the_stated_receptive_field_is_the_measured_and_the_published_one(
    network, published, side, axis
):
    measured = measured_field(network, side, axis)

    assert measured == network.receptive_field == published


@pytest.mark.parametrize("axis", [2, 3])
@pytest.mark.parametrize(("factor", "blocks"), [(2, 1), (2, 2), (2, 3), (4, 1), (4, 2)])
def test_unshuffle_sees_its_block_and_one_more_each_way_for_every_convolution(factor, blocks, axis):
    network = UnshuffleRefiner(1, factor, 2, blocks, noise_channels=0)

    measured = measured_field(network, 64, axis)

    # One 3x3 convolution at the input and two in a block, each a block of pixels each way; and the
    # block that the pixel's neighbour lies in.
    assert measured == network.receptive_field == factor * (4 + 4 * blocks)


@pytest.mark.parametrize("factor", [2, 4])
def test_the_halo_covers_the_field_and_lies_on_the_grid(factor):
    network = UnshuffleRefiner(1, factor, 2, 3)

    margin = halo(network)

    assert margin % factor == 0
    assert 2 * margin + factor >= network.receptive_field


def test_a_network_that_declares_nothing_sees_the_whole_image_and_costs_a_wide_guess():
    network = nn.Conv2d(3, 3, 1)

    assert halo(network) is None
    assert memory_per_pixel(network) >= memory_per_pixel(ResNetRefiner(3))


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (1, 9), (3, 3), (5, 7), (8, 8), (17, 4)])
def test_a_refiner_keeps_every_size(refiner, size):
    images = torch.rand(2, 3, *size) * 2 - 1

    refined = refiner(images)

    assert refined.shape == images.shape
    assert refined.isfinite().all()
    assert not torch.equal(refined, images)


@pytest.mark.parametrize("size", [(4, 4), (5, 7), (9, 4), (33, 35)])
def test_a_discriminator_gives_one_map_of_logits_for_odd_and_small_sizes(discriminator, size):
    logits = discriminator(torch.rand(2, 3, *size) * 2 - 1)

    assert logits.shape[:2] == (2, 1)
    assert min(logits.shape[2:]) >= 1
    assert logits.isfinite().all()


@pytest.mark.parametrize("form", ["eyes", "hands"])
def test_the_papers_discriminators_take_a_single_pixel(form):
    assert PaperPatch(1, form)(torch.zeros(1, 1, 1, 1)).shape == (1, 1, 1, 1)


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (4, 4), (7, 13)])
@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("max_change", [0, 8])
def test_an_untrained_unshuffle_is_the_exact_identity(factor, size, max_change):
    network = UnshuffleRefiner(3, factor, 8, 2, takes_reference=True, max_change=max_change)
    images = torch.rand(2, 3, *size) * 2 - 1

    refined = network(images, noise=torch.randn(2, 1, *size), reference=torch.rand(2, 3, 64))

    assert torch.equal(refined, images)


@pytest.mark.parametrize("name", ["eyes", "hands", "patch"])
def test_logits_are_unbounded_and_take_both_signs(name):
    network = DISCRIMINATORS[name]()
    last = network.layers[-1]
    images = torch.rand(2, 3, 32, 32) * 2 - 1

    with torch.no_grad():
        last.weight *= 1000
        logits = network(images)
        last.weight *= -1
        last.bias *= -1
        opposite = network(images)

    assert logits.abs().max() > 10
    assert torch.allclose(opposite, -logits)


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_a_discriminator_is_fully_convolutional(name):
    network, stride = DISCRIMINATORS[name]().double().eval(), STRIDES[name]
    margin = -(-network.receptive_field // 2 // stride) + 1  # logits that see an edge
    count = 2 * margin + 3
    side = stride * count
    images = torch.rand(1, 3, side, side, dtype=torch.float64) * 2 - 1

    whole = network(images)
    without_first = network(images[:, :, stride:, stride:])

    kept, moved = slice(margin, -margin), slice(margin + 1, -margin)
    assert whole.shape[2:] == (count, count)
    assert without_first.shape[2:] == (count - 1, count - 1)
    assert torch.allclose(whole[..., moved, moved], without_first[..., kept, kept], atol=1e-12)


def test_a_refined_image_does_not_depend_on_its_batch_mates(refiner):
    images = torch.rand(3, 3, 12, 12, dtype=torch.float64) * 2 - 1
    refiner = refiner.double().train()

    together = refiner(images)
    alone = refiner(images[1:2])

    assert torch.allclose(together[1:2], alone, atol=1e-12)


@pytest.mark.parametrize("name", ["eyes", "hands", "patch"])
def test_logits_do_not_depend_on_batch_mates(name):
    images = torch.rand(3, 3, 36, 36, dtype=torch.float64) * 2 - 1
    discriminator = DISCRIMINATORS[name]().double().train()

    together = discriminator(images)
    alone = discriminator(images[1:2])

    assert torch.allclose(together[1:2], alone, atol=1e-12)


def test_spectral_normalisation_bounds_the_gain_of_every_layer():
    torch.manual_seed(0)
    network = Patch(3, 8, spectral=True)
    for _ in range(30):  # power iterations
        network(torch.zeros(1, 3, 8, 8))

    gains = [
        torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2).item()
        for layer in network.eval().layers
        if isinstance(layer, nn.Conv2d)
    ]

    assert gains == pytest.approx([1.0] * 5, abs=0.05)


def test_the_papers_logit_is_that_of_the_softmax_over_two_maps():
    network = PaperPatch(1, "eyes")
    images = torch.rand(2, 1, 35, 55) * 2 - 1

    probability = torch.softmax(network.layers(images), dim=1)[:, :1]

    assert torch.allclose(torch.sigmoid(network(images)), probability, atol=1e-6)


def test_noise_changes_the_result_once_the_head_is_not_zero():
    torch.manual_seed(0)
    network = awake(UnshuffleRefiner(3, 2, 8, 1, noise_channels=2))
    images = torch.zeros(1, 3, 8, 8)

    first, second = (network(images, noise=torch.randn(1, 2, 8, 8)) for _ in range(2))

    assert not torch.allclose(first, second, atol=1e-4)


def test_the_reference_changes_the_result_where_it_is_taken():
    torch.manual_seed(0)
    network = awake(UnshuffleRefiner(3, 2, 8, 1, noise_channels=0, takes_reference=True))
    images = torch.zeros(1, 3, 8, 8)

    dark, light = (network(images, reference=torch.full((1, 3, 64), v)) for v in (-1.0, 1.0))

    assert not torch.allclose(dark, light, atol=1e-4)


def test_a_discriminator_sees_the_tone_beside_the_image_where_it_takes_one():
    torch.manual_seed(0)
    network, images = Patch(3, 8, takes_reference=True), torch.zeros(2, 3, 8, 8)

    dark, light = (network(with_tone(images, torch.full((2, 3, 64), v))) for v in (-1.0, 1.0))

    assert dark.shape == (2, 1, 2, 2)
    assert not torch.allclose(dark, light, atol=1e-4)


def test_a_tone_lies_beside_every_pixel_and_leaves_the_image_as_it_is():
    images, reference = torch.rand(2, 3, 4, 5), torch.rand(2, 3, 64).sort().values

    beside = with_tone(images, reference)

    assert torch.equal(beside[:, :3], images)
    tones = beside[:, 3:].unflatten(1, (3, -1))  # (B, C, levels, H, W)
    assert torch.equal(tones, tones[..., :1, :1].expand_as(tones))
    assert torch.allclose(tones[..., 0, 0].mean(2), reference.mean(2))  # equal shares of the ranks
    assert (tones[..., 0, 0].diff() >= 0).all()


@pytest.mark.parametrize("max_change", [0.5, 8, 255])
def test_max_change_bounds_the_change_in_grey_levels(max_change):
    torch.manual_seed(0)
    network = UnshuffleRefiner(3, 2, 8, 1, noise_channels=0, max_change=max_change)
    nn.init.normal_(network.head.weight, std=1000)
    images = torch.rand(1, 3, 16, 16) * 2 - 1

    levels = (network(images) - images).abs() * 255 / 2

    assert levels.max() <= max_change + 1e-3
    assert levels.max() > 0.9 * max_change  # the bound is reached, not undercut


def test_a_bounded_change_that_is_small_is_left_as_it_is():
    torch.manual_seed(0)
    options = {"noise_channels": 0, "pixel_features": 4}
    bounded = awake(UnshuffleRefiner(3, 2, 8, 1, max_change=255, **options))
    with torch.no_grad():
        for drawn in (bounded.head.weight, bounded.head.bias, bounded.pixels.drawn.weight):
            drawn *= 0.01
    free = UnshuffleRefiner(3, 2, 8, 1, **options)
    free.load_state_dict(bounded.state_dict())
    images = torch.rand(1, 3, 8, 8) * 0.02 - 0.01

    assert torch.allclose(bounded(images), free(images), atol=1e-5)


@pytest.mark.parametrize("factor", [2, 4])
def test_every_pixel_goes_through_the_same_map(factor):
    torch.manual_seed(0)
    refiner = UnshuffleRefiner(3, factor, 8, 1, pixel_features=8)
    pixels = refiner.pixels
    with torch.no_grad():
        pixels.drawn.weight.normal_()
        pixels.around.weight.zero_()
    images, noise = torch.rand(2, 3, 13, 22) * 2 - 1, torch.randn(2, 1, 13, 22)

    shown = pixels.seen(torch.cat([images, noise], dim=1))
    drawn = pixels.GAIN * pixels.drawn(F.relu(shown))

    expected = images + unshuffle._smoothed(drawn)
    inside = refiner(images, noise)[..., :-1, :-1]  # the last is smoothed with what pads to a block
    assert torch.allclose(inside, expected[..., :-1, :-1], atol=1e-5)


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("factor", [2, 4])
def test_a_map_by_rows_of_a_block_is_the_map_by_blocks_in_values_and_gradients(
    monkeypatch, factor, form
):
    torch.manual_seed(0)
    pixels = unshuffle.PixelMap(4, 3, 8, 6, factor)
    with torch.no_grad():
        pixels.drawn.weight.normal_()
    folded = torch.randn(2, 4 * factor**2, 5, 7).contiguous(memory_format=form)
    around = torch.randn(2, 8, 5, 7).contiguous(memory_format=form)
    head = nn.Conv2d(8, 3 * factor**2, 1)

    def made():
        pixels.zero_grad()
        head.zero_grad()
        with FlopCounterMode(display=False) as counter:
            drawn = pixels(folded, around, head.weight, head.bias)
        drawn.square().mean().backward()
        gradients = [w.grad.clone() for w in (*pixels.parameters(), *head.parameters())]
        return counter.get_total_flops(), [drawn, *gradients]

    few, by_rows = made()
    monkeypatch.setattr(unshuffle, "is_traced", lambda: True)
    many, by_blocks = made()

    assert few < many
    assert len(by_rows) == 7
    assert all(map(torch.allclose, by_rows, by_blocks, [1e-4] * 7, [1e-5] * 7))


def test_what_lies_around_a_pixel_shifts_its_map():
    torch.manual_seed(0)
    refiner = UnshuffleRefiner(3, 4, 8, 1, noise_channels=0, pixel_features=8)
    with torch.no_grad():
        refiner.pixels.drawn.weight.normal_()
    images = torch.zeros(1, 3, 32, 32)
    lit = images.clone()
    lit[..., :4] = 1

    far, near = (refiner(lit) - refiner(images))[0, :, 16, [24, 6]].abs().amax(0).tolist()

    assert far == 0
    assert near > 1e-3


def test_a_map_for_each_pixel_can_be_left_out():
    assert UnshuffleRefiner(3, pixel_features=0).pixels is None


def test_a_network_gets_what_it_declares_and_nothing_else():
    noise, reference = torch.zeros(1, 1, 4, 4), torch.zeros(1, 3, 64)
    takes_both = UnshuffleRefiner(3, takes_reference=True)

    assert condition(nn.Identity(), noise, reference) == {}
    assert condition(UnshuffleRefiner(3), noise, reference) == {"noise": noise}
    assert condition(takes_both, noise, reference) == {"noise": noise, "reference": reference}


def test_a_network_that_takes_a_reference_says_so_where_there_is_none():
    network = UnshuffleRefiner(3, noise_channels=0, takes_reference=True)

    with pytest.raises(ConfigError, match=r"tone\.photos"):
        condition(network, None, None)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (UnshuffleRefiner, {"factor": 3}),
        (UnshuffleRefiner, {"factor": 0}),
        (UnshuffleRefiner, {"channels": 0}),
        (UnshuffleRefiner, {"channels": 65}),
        (UnshuffleRefiner, {"features": 0}),
        (UnshuffleRefiner, {"features": 10**9}),
        (UnshuffleRefiner, {"blocks": 0}),
        (UnshuffleRefiner, {"blocks": 10**9}),
        (UnshuffleRefiner, {"noise_channels": -1}),
        (UnshuffleRefiner, {"noise_channels": 10**9}),
        (UnshuffleRefiner, {"max_change": -1}),
        (UnshuffleRefiner, {"max_change": 256}),
        (UnshuffleRefiner, {"max_change": math.nan}),
        (ResNetRefiner, {"kernel": 4}),
        (ResNetRefiner, {"kernel": -1}),
        (ResNetRefiner, {"kernel": 10**9 + 1}),
        (ResNetRefiner, {"channels": 0}),
        (ResNetRefiner, {"features": 0}),
        (ResNetRefiner, {"blocks": 0}),
        (ResNetRefiner, {"blocks": 10**9}),
        (PaperPatch, {"channels": 0}),
        (PaperPatch, {"form": "faces"}),
        (Patch, {"channels": 0}),
        (Patch, {"features": 0}),
        (Patch, {"features": 10**9}),
    ],
)
def test_a_constructor_rejects_an_impossible_value_and_names_it(make, options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        make(**options)


@pytest.mark.parametrize("factor", [2, 4])
def test_weights_are_held_in_the_order_of_pixel_unshuffle(factor):
    torch.manual_seed(0)
    network = UnshuffleRefiner(3, factor, 8, 1, noise_channels=1)
    nn.init.normal_(network.head.weight)
    images, noise = torch.randn(2, 3, 16, 24), torch.randn(2, 1, 16, 24)

    refined = network(images, noise)

    inputs = F.pixel_unshuffle(torch.cat([images, noise], dim=1), factor)
    change = network.head(network.blocks(F.relu(network.first(inputs))))
    weights = torch.tensor([1, 2, 1]) / 4
    kernel = torch.outer(weights, weights).expand(3, 1, 3, 3)
    change = F.pad(F.pixel_shuffle(change, factor), (1, 1, 1, 1), mode="replicate")
    assert torch.allclose(refined, images + F.conv2d(change, kernel, groups=3), atol=1e-4)


def test_what_is_added_has_no_checkerboard_whatever_the_head():
    torch.manual_seed(0)
    network = UnshuffleRefiner(1, 2, 8, 1, noise_channels=0)
    nn.init.normal_(network.head.weight)
    flat = torch.zeros(1, 1, 16, 16)
    board = torch.tensor([[1.0, -1], [-1, 1]]).tile(7, 7)

    change = network(flat)[0, 0, 1:-1, 1:-1]  # the border repeats its edge

    assert change.abs().max() > 0.01
    assert (change * board).mean().abs() < 1e-6


# The same bits, faster.


@pytest.mark.parametrize("channels", [1, 3, 4, 6])
@pytest.mark.parametrize("size", [(1, 1), (2, 9), (17, 12)])
def test_refining_gives_the_bits_that_training_sees(channels, size):
    torch.manual_seed(0)
    refiner = awake(UnshuffleRefiner(channels, 2, 8, 1))
    images, noise = torch.rand(2, channels, *size), torch.randn(2, 1, *size)
    for form in (images, images.contiguous(memory_format=torch.channels_last)):
        trained = refiner(form, noise)

        with torch.no_grad():
            refined = refiner(form, noise)

        assert torch.equal(refined, trained.detach())


@pytest.mark.parametrize("factor", [2, 4])
def test_blocks_of_pixels_become_channels_place_first_and_come_back(factor):
    images = torch.rand(2, 3, 2 * factor, 5 * factor)
    expected = F.pixel_unshuffle(images, factor).unflatten(1, (3, factor**2)).transpose(1, 2)

    blocks = unshuffle._unshuffle(images, factor)

    assert torch.equal(blocks, expected.flatten(1, 2))
    assert torch.equal(unshuffle._shuffle(blocks, factor), images)


def test_the_three_stages_are_what_the_refiner_adds():
    refiner = awake(UnshuffleRefiner(3, 2, 8, 1))
    images, noise = torch.rand(2, 3, 9, 12), torch.randn(2, 1, 9, 12)

    folded = refiner.fold(images, noise)
    added = refiner.unfold(refiner.core(folded), images)

    assert folded.shape == (2, 4 * 4, 5, 6)
    assert torch.equal(images + added, refiner(images, noise))


def test_half_the_bits_are_mirrored_as_they_are():
    images = torch.rand(1, 4, 5, 6).bfloat16()

    with torch.autocast("cpu", torch.bfloat16):
        mirrored = reflected(images, 1)

    assert mirrored.dtype == torch.bfloat16
    assert torch.equal(mirrored, F.pad(images, (1, 1, 1, 1), mode="reflect"))


@pytest.mark.parametrize("make", REFINERS.values(), ids=REFINERS)
def test_a_mirrored_margin_would_change_pixels_near_the_border(make):
    torch.manual_seed(0)
    refiner, image = awake(make()), torch.rand(1, 3, 24, 40)

    alone = refiner(image)
    padded = refiner(F.pad(image, (0, 8, 0, 8), "reflect"))[..., :24, :40]

    assert (padded - alone)[..., 16:, 32:].abs().max() > 1e-3


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's compiler
@pytest.mark.parametrize("factor", [2, 4])
def test_an_unshuffle_refiner_can_be_compiled(factor):
    torch.manual_seed(0)
    refiner = awake(UnshuffleRefiner(3, factor, 8, 1)).eval().requires_grad_(False)
    images, noise = torch.rand(1, 3, 17, 24), torch.randn(1, 1, 17, 24)

    compiled = torch.compile(refiner, dynamic=False)(images, noise)

    assert torch.allclose(compiled, refiner(images, noise), atol=1e-5)
