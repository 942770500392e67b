"""Which photo's tone an image takes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simgan_aug import tone
from simgan_aug.bank import FEW, SIDE, TOLERANCE, Bank, reach
from simgan_aug.inference import ImageRefiner
from simgan_aug.networks import UnshuffleRefiner


def flat(*levels, channels=3):
    """Tones of flat images of these grey levels."""
    values = torch.tensor(levels, dtype=torch.float32) / 255
    return values.view(-1, 1, 1).expand(-1, channels, tone.QUANTILES).contiguous()


def taken(bank, own, count=4000):
    """The share of seeds by which an image takes each photo of a bank of flat ones."""
    picked = bank.pick(bank.drawn(range(count)), None if own is None else own.expand(count, -1, -1))
    return torch.stack([(picked == each).all(dim=(1, 2)).float().mean() for each in bank.tones])


TONES = st.lists(st.integers(0, 255), min_size=1, max_size=9)


@settings(deadline=None, max_examples=60)
@given(photos=TONES, own=st.integers(0, 255), seed=st.integers(-(2**70), 2**70))
def test_an_image_always_takes_the_tone_of_one_photo_by_a_seed(photos, own, seed):
    tones = flat(*photos)

    for bank in (Bank(tones), Bank(tones).balanced(flat(own))):
        (first,), (second,) = (bank.pick(bank.drawn([seed]), flat(own)) for _ in range(2))
        assert torch.equal(first, second)
        assert any(torch.equal(first, each) for each in tones)


def test_without_a_bias_any_photo_is_as_likely_whatever_the_image():
    bank = Bank(flat(0, 50, 200, 255))

    assert taken(bank, None).tolist() == pytest.approx([0.25] * 4, abs=0.03)


@settings(deadline=None, max_examples=60)
@given(photos=TONES, images=TONES)
def test_all_images_together_take_every_photo_as_often_as_any_other(photos, images):
    tones, own = flat(*photos), flat(*images)

    share = Bank(tones).balanced(own).logits(own).softmax(1).mean(0)

    assert torch.allclose(share * len(photos), torch.ones_like(share), atol=0.02)


def test_images_take_the_tone_of_photos_that_are_like_them():
    tones = flat(20, 25, 200, 205)
    bank = Bank(tones).balanced(flat(18, 30, 190, 220))

    assert taken(bank, flat(22))[2:].sum() == 0
    assert taken(bank, flat(210))[:2].sum() == 0
    assert taken(bank, flat(22))[:2].min() > 0.2  # and there is a choice


def test_images_that_are_alike_take_any_photo():
    tones = flat(0, 90, 170, 255)

    bank = Bank(tones).balanced(flat(128, 128))

    assert taken(bank, flat(128)).tolist() == pytest.approx([0.25] * 4, abs=0.03)


def test_the_brightest_images_take_the_brightest_photos_however_dark_all_photos_are():
    tones = flat(10, 30, 50, 70)
    bank = Bank(tones).balanced(flat(130, 170, 210, 250))

    assert taken(bank, flat(130)).argmax() == 0
    assert taken(bank, flat(250)).argmax() == 3


def test_within_the_tolerance_photos_are_about_as_likely():
    tones = flat(100, 100 + TOLERANCE)

    near, far = taken(Bank(tones, torch.zeros(2)), flat(100)).tolist()

    assert far / near == pytest.approx(np.exp(-0.5), abs=0.04)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32), count=st.integers(2, 6), channels=st.sampled_from([1, 3, 4]))
def test_an_image_in_a_batch_takes_what_it_takes_alone(seed, count, channels):
    generator = torch.Generator().manual_seed(seed)

    def drawn(size):
        return tone.tones_of(torch.rand(size, channels, 5, 6, generator=generator) ** 2)

    tones, own = drawn(7), drawn(count)
    bank = Bank(tones).balanced(own)
    together = bank.pick(bank.drawn(range(count)), own)

    for row in range(count):
        assert torch.equal(bank.pick(bank.drawn([row]), own[row : row + 1])[0], together[row])


def test_images_that_are_nearly_alike_take_the_same_photo_by_the_same_seed():
    tones = flat(*range(0, 250, 2))
    bank = Bank(tones).balanced(tones)

    one, other = (bank.pick(bank.drawn(range(1000)), flat(level)) for level in (120, 121))

    assert (one == other).all(dim=(1, 2)).float().mean() > 0.9


def test_frames_that_have_one_seed_take_one_photo_however_they_differ():
    frames = torch.stack([torch.full((3, 6, 6), level / 255) for level in range(20, 201, 20)])

    for budget in (1, 1024):
        refine = refiner(LIGHT_AND_DARK, max_workspace_mb=budget)
        refine.network.bytes_per_pixel = 2**20 // 36 // 3  # three frames at once
        made = refine(frames, seed=[7] * 10)

        assert (made - made[0]).abs().max() < 0.01
        assert len(refine(frames, seed=range(10)).mean((1, 2, 3)).round(decimals=2).unique()) == 2


def test_images_of_a_list_take_each_its_own_whatever_their_seed():
    frames = [torch.full((3, 6, 6), level / 255) for level in (20, 200)]

    dark, light = refiner(LIGHT_AND_DARK)(frames, seed=[7, 7])

    assert dark.max() < 0.1 < 0.7 < light.min()


def scenes(count, seed, mean=128.0, spread=50.0):
    """Tones of flat images of random levels."""
    levels = torch.randn(count, generator=torch.Generator().manual_seed(seed)) * spread + mean
    return flat(*levels.clamp(0, 255).tolist())


def test_a_match_goes_hardly_anywhere_where_both_sides_have_the_same_tones():
    found = [reach(scenes(256, seed), scenes(256, seed + 100)) for seed in range(12)]

    assert np.mean(found) < 0.4
    assert min(found) == 0


@pytest.mark.parametrize("seed", range(4))
def test_a_match_goes_nearly_the_whole_way_where_tones_are_apart(seed):
    assert reach(scenes(256, seed, 200, 10), scenes(256, seed + 100, 100, 10)) > 0.95


def test_frames_that_follow_on_each_other_do_not_pass_for_a_difference():
    frames = [scenes(64, seed).repeat_interleave(4, dim=0) for seed in range(24)]

    assert np.mean([reach(*pair) for pair in zip(frames[::2], frames[1::2], strict=True)]) < 0.5


MANY = st.lists(st.integers(0, 255), min_size=1, max_size=24)


@settings(deadline=None, max_examples=60)
@given(images=MANY, photos=MANY)
def test_a_match_goes_neither_back_nor_beyond(images, photos):
    found = reach(flat(*images), flat(*photos))

    assert 0 <= found <= 1
    if min(len(images), len(photos)) < FEW:
        assert found == 1


@pytest.mark.parametrize("part", [0.0, 0.3, 1.0])
def test_an_image_goes_as_far_as_the_bank_reaches(part):
    image = np.full((5, 5, 3), 100, np.uint8)

    made = refiner(Bank(flat(200), torch.zeros(1), part))(image)

    assert np.allclose(made, 100 + 100 * part, atol=1)


def refiner(bank, **options):
    """One that draws nothing and matches wholly: what comes out is the tone that is taken."""
    return ImageRefiner(
        UnshuffleRefiner(3, 2, 4, 1), 3, bank, share=(1, 1), device="cpu", **options
    )


LIGHT_AND_DARK = Bank(flat(20, 200), torch.zeros(2))


@pytest.mark.parametrize("size", [(5, 7), (SIDE * 3 + 1, SIDE * 2)])
@pytest.mark.parametrize("kind", ["uint8", "float32", "tensor", "bgr", "grey"])
@pytest.mark.parametrize("match", ["after", "before"])
def test_a_refined_image_has_the_tone_of_a_photo_like_it(size, kind, match):
    refine, order = refiner(LIGHT_AND_DARK, match=match), "bgr" if kind == "bgr" else "rgb"
    for level in (20, 200):
        image = np.full((*size, 3), level, np.uint8)
        image[::7, ::3] += 9
        if kind == "float32":
            image = image.astype(np.float32) / 255
        elif kind == "tensor":
            image = torch.from_numpy(image).movedim(-1, 0)
        elif kind == "grey":
            image = image[..., 0]

        for seed in range(8):
            made = np.asarray(refine(image, seed=seed, channel_order=order), np.float64)

            assert np.allclose(made * (255 if kind == "float32" else 1), level, atol=1)


def test_what_alpha_hides_does_not_tell_the_tone():
    image = np.zeros((20, 20, 4), np.uint8)
    image[..., :3], image[:4, :, 3] = 200, 255
    image[4:, :, :3] = 0

    made = refiner(LIGHT_AND_DARK)(image)

    assert np.allclose(made[:4, :, :3], 200, atol=1)


def test_an_image_takes_the_same_photo_at_any_precision():
    generator = torch.Generator().manual_seed(0)
    tones = tone.tones_of(torch.rand(16, 3, 8, 8, generator=generator))
    images = (torch.rand(12, 3, 9, 9, generator=generator) * 255).to(torch.uint8)
    bank = Bank(tones).balanced(tones)

    one, other = (refiner(bank, precision=name)(images) for name in ("fp32", "bf16"))

    assert (one.int() - other.int()).abs().max() <= 2
