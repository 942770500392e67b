"""What the two refiners promise: where they are the identity, and what they cannot draw."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from simgan_aug_bilateral import BilateralRefiner, CurvesRefiner, thumbnail
from torch import nn

from simgan_aug import ImageRefiner, plugins
from simgan_aug.errors import ConfigError
from simgan_aug.testing import refiner_checks, train_briefly

REFINERS = {"bilateral": BilateralRefiner, "curves": CurvesRefiner}
SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))
LEVEL = 2 / 255  # of [-1, 1]


@pytest.fixture(params=REFINERS)
def make(request):
    return REFINERS[request.param]


def awake(network, seed=0):
    """The network as if trained: it changes colours by some 50 levels."""
    torch.manual_seed(seed)
    nn.init.normal_(network.head.weight, std=0.5)
    if isinstance(network, CurvesRefiner):
        nn.init.normal_(network.tables, std=0.3)
    return network.eval().requires_grad_(False)


def picture(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


FORMS = [(make, noise) for make in REFINERS.values() for noise in (0, 2)]


@pytest.mark.parametrize(
    "check",
    [
        check
        for make, noise in FORMS
        for check in refiner_checks(
            make, features=8, noise_channels=noise, takes_reference=bool(noise)
        )
    ],
)
def test_both_keep_the_contract(check):
    check()


def test_the_plugin_is_found_and_whole():
    (found,) = [each for each in plugins.plugins() if each.name == "bilateral"]

    assert (found.distribution, found.error) == ("simgan-aug-bilateral", "")
    assert found.parts["refiner"] == ["bilateral", "curves"]


@settings(max_examples=20, deadline=None)
@given(size=SIZES, channels=st.sampled_from([1, 3]), noise=st.integers(0, 2), toned=st.booleans())
@pytest.mark.parametrize("name", REFINERS)
def test_an_untrained_refiner_is_the_exact_identity_at_every_size(
    name, size, channels, noise, toned
):
    refiner = REFINERS[name](channels, noise_channels=noise, takes_reference=toned)
    images = picture(2, channels, *size)
    draws = picture(2, noise, *size) if noise else None
    reference = picture(2, channels, 64).sort(dim=2).values if toned else None

    assert torch.equal(refiner(images, draws, reference), images)


@settings(max_examples=20, deadline=None)
@given(size=SIZES, channels=st.sampled_from([1, 3]), seed=st.integers(0, 99))
def test_tables_keep_equal_colours_equal_throughout_the_image(size, channels, seed):
    few = picture(5, channels, seed=seed)
    drawn = torch.randint(5, size, generator=torch.Generator().manual_seed(seed))
    refiner = awake(CurvesRefiner(channels), seed)

    refined = refiner(few[drawn].permute(2, 0, 1)[None])[0]  # (C, H, W)

    for colour in range(5):
        of_one = refined[:, drawn == colour]
        if of_one.numel():
            assert (of_one - of_one[:, :1]).abs().max() < LEVEL / 1000


@settings(max_examples=20, deadline=None)
@given(size=SIZES, cells=st.integers(1, 5), channels=st.sampled_from([1, 3]))
def test_a_grid_lays_no_step_into_a_flat_area(size, cells, channels):
    refiner = awake(BilateralRefiner(channels, cells))
    flat = picture(1, channels, 1, 1).expand(1, channels, *size)

    refined = refiner(flat)

    spread = refined.amax((2, 3)) - refined.amin((2, 3))
    whole = refiner(picture(1, channels, 1, 1).expand(1, channels, 8 * cells, 8 * cells))
    spread = torch.maximum(spread, whole.amax((2, 3)) - whole.amin((2, 3))).max()
    for axis in (2, 3):
        steps = refined.diff(dim=axis).abs()
        assert steps.numel() == 0 or steps.max() <= spread * cells / size[axis - 2] + 1e-5


def test_a_grid_is_interpolated_by_place_and_brightness():
    refiner = awake(BilateralRefiner(3, cells=3, levels=5))
    images = picture(1, 3, 7, 10)
    grid = refiner.head(refiner.thumbnail(images, None, None)).view(3, 4, 5, 3, 3)

    refined = refiner(images)

    for row, column in np.ndindex(7, 10):
        colour = images[0, :, row, column]
        brightness = float(colour @ torch.tensor([0.299, 0.587, 0.114]))
        weights = [
            hats((row + 0.5) / 7 * 3 - 0.5, 3),
            hats((column + 0.5) / 10 * 3 - 0.5, 3),
            hats((brightness + 1) / 2 * 5 - 0.5, 5),
        ]
        affine = torch.einsum("oilyx,y,x,l->oi", grid, *weights)
        wanted = colour + affine[:, :3] @ colour + affine[:, 3]
        assert torch.allclose(refined[0, :, row, column], wanted, atol=1e-5)


def hats(place, count):
    """Weights of the knots around a place, both ends flat."""
    place = min(max(place, 0), count - 1)
    return torch.tensor([max(0.0, 1 - abs(place - knot)) for knot in range(count)])


def test_a_grey_image_goes_through_one_curve():
    refiner = awake(CurvesRefiner(1, levels=5))
    ramp = torch.linspace(-1, 1, 201)[None, None, None]

    change = (refiner(ramp) - ramp).flatten()

    knots = change[::50]
    wanted = np.interp(ramp.flatten(), np.linspace(-1, 1, 5), knots)
    assert np.abs(change.numpy() - wanted).max() < 1e-5
    assert knots.abs().min() > 0


def test_strips_change_nothing(make, monkeypatch):
    refiner, images = awake(make()), picture(2, 3, 37, 23)
    whole = refiner(images)

    monkeypatch.setattr(thumbnail, "STRIP", 230)

    assert torch.allclose(refiner(images), whole, atol=LEVEL / 1000)


@pytest.mark.parametrize("channels", [1, 3])
def test_bf16_is_at_most_a_level_apart(make, channels):
    refiner, images = awake(make(channels)), picture(2, channels, 48, 64)
    exact = refiner(images)

    with torch.autocast("cpu", torch.bfloat16):
        rough = refiner(images)

    assert (exact - images).abs().max() > 20 * LEVEL
    assert 0 < (exact - rough).abs().max() < LEVEL


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (64, 64)])
def test_pooled_noise_is_standard_normal_at_every_size(size):
    drawn = torch.randn(4000, 1, *size, generator=torch.Generator().manual_seed(0))

    numbers = thumbnail.pooled(drawn)

    assert numbers.shape == (4000, 1)
    assert abs(float(numbers.mean())) < 0.05
    assert abs(float(numbers.std()) - 1) < 0.05


def test_noise_gives_an_image_many_forms_each_of_one_colour_map():
    refiner = ImageRefiner(awake(CurvesRefiner(3, noise_channels=4)), 3, device="cpu")
    image = np.zeros((20, 30, 3), np.uint8)
    image[:, 15:] = 200

    forms = [refiner(image, seed=seed) for seed in range(4)]

    assert len({form.tobytes() for form in forms}) == 4
    assert all(len(np.unique(form.reshape(-1, 3), axis=0)) <= 2 for form in forms)


def test_a_reference_photo_sways_the_colours(make):
    refiner, images = awake(make(takes_reference=True)), picture(1, 3, 16, 16)
    dark, light = torch.full((1, 3, 64), -0.8), torch.full((1, 3, 64), 0.8)

    assert not torch.allclose(refiner(images, None, dark), refiner(images, None, light))


@pytest.mark.parametrize("channels", [2, 4])
def test_only_grey_and_rgb_are_taken(make, channels):
    with pytest.raises(ConfigError, match=f"1 .grey. or 3 .RGB., got {channels}"):
        make(channels)


@pytest.mark.parametrize(("name", "option"), [("bilateral", "cells"), ("curves", "tables")])
def test_a_hostile_checkpoint_cannot_ask_for_a_giant(name, option):
    with pytest.raises(ConfigError, match=f"{option} must lie between 1 and"):
        plugins.build("refiner", name, **{option: 10**6})


def test_a_4k_image_is_refined_in_less_memory_than_was_declared(make):
    refiner, pixels = awake(make()), 2160 * 3840
    images = picture(1, 3, 2160, 3840).contiguous(memory_format=torch.channels_last)
    refiner(images[..., :64, :])  # what is loaded once is not counted

    before, peak = memory_of(lambda: refiner(images))

    assert (
        peak - before < refiner.bytes_per_pixel * pixels + 32 * 2**20
    )  # a strip, whatever the size
    assert refiner.bytes_per_pixel * pixels < 512 * 2**20  # what the refine job has


def memory_of(work):
    """Resident bytes before, and at most during some work."""
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("memory is told by /proc")
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far

    def told(name):
        (line,) = [each for each in status.read_text().splitlines() if each.startswith(name)]
        return int(line.split()[1]) * 1024

    before = told("VmRSS")
    work()
    return before, told("VmHWM")


@pytest.mark.parametrize("name", REFINERS)
def test_one_trains_and_refines_by_its_name(name, tmp_path):
    file = train_briefly(tmp_path, refiner={"name": name, "features": 8})
    image = np.full((31, 45, 3), 100, np.uint8)

    refiner = ImageRefiner.load(file, device="cpu")

    assert refiner.network.head.weight.any()
    assert refiner(image).shape == image.shape
