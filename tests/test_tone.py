import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simgan_aug import tone

seeds = st.integers(0, 2**31)
channel_counts = st.integers(1, 4)


def photo(channels, seed, size=(24, 20)):
    """Colours that go together, well inside of [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    colours = torch.randn(channels, *size, generator=generator)
    mixed = torch.einsum(
        "oc,chw->ohw", torch.randn(channels, channels, generator=generator), colours
    )
    return 0.5 + 0.25 * mixed / mixed.abs().max()


def covariance(image):
    return torch.cov(image.flatten(1).double(), correction=0).reshape(len(image), len(image))


def test_the_tone_of_a_grey_image_is_its_mean_and_its_deviation():
    image = photo(1, 0)

    mean, deviation = tone.tone_of(image)[0].double()

    assert mean.item() == pytest.approx(image.mean().item(), abs=1e-4)
    assert deviation.item() ** 2 == pytest.approx(image.var().item() + tone.FLOOR, rel=0.01)


@settings(deadline=None, max_examples=30)
@given(seed=seeds, channels=channel_counts)
def test_an_image_takes_the_mean_and_the_covariance_of_the_photo(seed, channels):
    image, reference = photo(channels, seed), 0.5 + 0.8 * (photo(channels, seed) - 0.5).roll(1, 2)

    toned = tone.matched(image, tone.tone_of(reference))

    assert torch.allclose(toned.mean((1, 2)), reference.mean((1, 2)), atol=2e-3)
    assert torch.allclose(covariance(toned), covariance(reference), atol=1e-3)


@settings(deadline=None, max_examples=30)
@given(seed=seeds, channels=channel_counts, share=st.floats(0, 1))
def test_an_image_in_its_own_tone_is_itself(seed, channels, share):
    image = photo(channels, seed)

    assert torch.allclose(tone.matched(image, tone.tone_of(image), share), image, atol=1e-5)


@settings(deadline=None, max_examples=50)
@given(seed=seeds, channels=channel_counts, share=st.floats(0, 1))
def test_no_contrast_is_turned_around_or_raised_more_than_the_gain(seed, channels, share):
    source, target = tone.tone_of(photo(channels, seed)), tone.tone_of(photo(channels, seed + 1))

    gains = torch.linalg.eigvalsh(tone.transport(source, target, share)[:, 1:].double())

    assert gains.min() >= 1 / tone.GAIN - 1e-5
    assert gains.max() <= tone.GAIN + 1e-5


@settings(deadline=None, max_examples=30)
@given(seed=seeds, channels=channel_counts, share=st.floats(0, 1))
def test_a_share_of_the_way_is_a_blend_of_both_ends(seed, channels, share):
    image, reference = photo(channels, seed), tone.tone_of(photo(channels, seed + 1))
    source = tone.tone_of(image)

    part = tone.transport(source, reference, share)

    whole, none = tone.transport(source, reference), tone.transport(source, reference, 0)
    assert torch.allclose(part, torch.lerp(none, whole, share), atol=1e-5)
    assert torch.allclose(tone.recoloured(image, none), image, atol=1e-6)


def test_a_flat_image_takes_the_mean_of_the_photo():
    reference = photo(3, 0)

    toned = tone.matched(torch.full((3, 8, 8), 0.9), tone.tone_of(reference))

    assert torch.allclose(toned, reference.mean((1, 2))[:, None, None].expand_as(toned), atol=1e-3)


def test_a_grey_image_of_three_channels_can_be_toned():
    grey = photo(1, 0).expand(3, -1, -1)

    toned = tone.matched(grey, tone.tone_of(photo(3, 1)))

    assert toned.isfinite().all()
    order = grey[0].flatten().argsort()
    for channel in toned:
        rises = channel.flatten()[order].diff()
        assert (rises >= -1e-5).all() or (rises <= 1e-5).all()


def test_one_map_goes_for_all_of_an_image():
    image, reference = photo(3, 0), tone.tone_of(photo(3, 1))
    change = tone.transport(tone.tone_of(image), reference)

    parts = [tone.recoloured(part, change) for part in image.split(7, dim=1)]

    assert torch.equal(torch.cat(parts, dim=1), tone.recoloured(image, change))


def test_what_is_not_seen_has_no_tone():
    image, seen = photo(3, 0), torch.zeros(24, 20, dtype=torch.bool)
    seen[:10] = True
    hidden = torch.where(seen, image, torch.tensor(1.0))

    assert torch.equal(tone.tone_of(hidden, seen), tone.tone_of(image[:, :10]))


def test_where_nothing_is_seen_all_counts():
    image = photo(3, 0)

    nothing = tone.tone_of(image, torch.zeros(24, 20, dtype=torch.bool))

    assert torch.equal(nothing, tone.tone_of(image))


def test_a_detail_between_the_points_of_the_grid_is_seen():
    image = torch.zeros(1, 600, 600)
    seen = torch.zeros(600, 600, dtype=torch.bool)
    image[:, 4, 4], seen[4, 4] = 0.75, True

    assert tone.tone_of(image, seen)[0, 0].item() == pytest.approx(0.75, abs=1e-3)


def test_the_tone_of_a_large_image_is_near_that_of_all_its_pixels():
    image = photo(3, 0, (700, 900))

    mean, root = tone.tone_of(image).double().split([1, 3], dim=1)

    assert torch.allclose(mean[:, 0], image.double().mean((1, 2)), atol=2e-3)
    assert torch.allclose(root @ root, covariance(image) + tone.FLOOR * torch.eye(3), atol=1e-3)


def test_rows_that_alternate_do_not_deceive_the_grid():
    image = torch.zeros(1, 800, 800)
    image[:, ::2] = 1

    assert tone.tone_of(image)[0, 0].item() == pytest.approx(0.5, abs=0.01)


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(-(2**70), 2**70), photos=st.integers(1, 9))
def test_a_seed_always_picks_the_same_photo_of_the_bank(seed, photos):
    bank = torch.arange(photos).view(-1, 1, 1).expand(-1, 3, 4)

    first, second = tone.pick(bank, seed), tone.pick(bank, seed)

    assert torch.equal(first, second)
    assert 0 <= int(first[0, 0]) < photos


def test_seeds_reach_every_photo_of_the_bank():
    bank = torch.arange(8).view(-1, 1, 1).expand(-1, 3, 4)

    picked = {int(tone.pick(bank, seed)[0, 0]) for seed in range(200)}

    assert picked == set(range(8))
