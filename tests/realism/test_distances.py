"""Each distance alone: what it measures, and what near-duplicates do to it."""

import numpy as np
import pytest
import torch

from simgan_aug.errors import ConfigError, DataError, ImageError
from simgan_aug.realism import (
    colour_distance,
    colours,
    features,
    filters,
    kid,
    near_duplicates,
    power_spectrum,
    spectrum_distance,
    thumbnail,
    two_sample_test,
)


def points(count, seed, shift=0.0, width=6):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(shift, 1, (count, width)))


def nearly(these, seed):
    """The same points but for a little noise."""
    return these + 0.01 * points(len(these), seed, width=these.shape[1])


def noise(sigma, shape, seed=0):
    rng = np.random.default_rng(seed)
    return (128 + rng.normal(0, sigma, shape)).clip(0, 255).round().astype(np.uint8)


class TestClassifier:
    def test_two_halves_of_one_set_are_told_apart_by_chance_only(self):
        found = two_sample_test(points(100, 2), points(100, 3))

        assert found.accuracy.low < 0.5 < found.accuracy.high
        assert found.auc.low < 0.5 < found.auc.high

    def test_chance_lies_in_the_interval_as_often_as_it_says(self):
        tests = [two_sample_test(points(40, s), points(40, 99 + s), seed=s) for s in range(40)]

        covered = sum(test.auc.low <= 0.5 <= test.auc.high for test in tests)

        assert covered >= 34

    def test_sets_far_apart_are_told_apart_always(self):
        found = two_sample_test(points(40, 0), points(40, 1, shift=9))

        assert found.accuracy.value == 1.0
        assert found.auc.value == 1.0

    def test_the_auc_of_two_normal_sets_is_the_one_that_theory_gives(self):
        found = two_sample_test(points(2000, 0, width=1), points(2000, 1, shift=1, width=1))

        assert found.auc.value == pytest.approx(0.7602, abs=0.02)  # Phi(1 / sqrt(2))

    def test_sets_of_unequal_size_still_have_chance_at_one_half(self):
        found = two_sample_test(points(300, 0), points(40, 1))

        assert found.accuracy.value == pytest.approx(0.5, abs=0.12)

    @pytest.mark.parametrize(("grouped", "honest"), [(False, False), (True, True)])
    def test_bursts_within_a_set_leak_unless_grouped(self, grouped, honest):
        first, second = points(16, 0, width=40), points(16, 1, width=40)
        first = torch.cat([nearly(first, seed) for seed in range(6)])
        second = torch.cat([nearly(second, seed + 9) for seed in range(6)])
        burst = np.tile(np.arange(16), 6)

        found = two_sample_test(first, second, (burst, burst + 16) if grouped else None)

        assert (found.accuracy.low <= 0.5) == honest

    @pytest.mark.parametrize(("grouped", "honest"), [(False, False), (True, True)])
    def test_twins_across_the_sets_teach_the_wrong_answer_unless_grouped(self, grouped, honest):
        first = points(60, 0, width=40)
        twin = np.arange(60)

        found = two_sample_test(first, nearly(first, 1), (twin, twin) if grouped else None)

        assert (found.accuracy.high >= 0.5) == honest

    def test_a_seed_gives_the_same_answer(self):
        pair = points(30, 0), points(30, 1, shift=0.3)

        assert two_sample_test(*pair, seed=3) == two_sample_test(*pair, seed=3)
        assert two_sample_test(*pair, seed=3) != two_sample_test(*pair, seed=4)

    @pytest.mark.parametrize("folds", [1, 9])
    def test_folds_out_of_range_are_refused(self, folds):
        with pytest.raises(ConfigError, match="folds must be 2 to 8"):
            two_sample_test(points(30, 0), points(30, 1), folds=folds)


class TestKid:
    def test_groups_of_one_image_change_nothing(self):
        pair = points(30, 0), points(40, 1, shift=0.2)

        assert kid(*pair, groups=(range(30), range(30, 70))) == kid(*pair)

    def test_bursts_bias_it_unless_grouped(self):
        ungrouped, grouped = [], []
        for seed in range(20):
            first, second = points(12, 2 * seed), points(12, 2 * seed + 1)
            sets = [torch.cat([nearly(part, k) for k in range(4)]) for part in (first, second)]
            burst = np.tile(np.arange(12), 4)
            ungrouped.append(kid(*sets, resamples=2).value)
            grouped.append(kid(*sets, resamples=2, groups=(burst, burst + 12)).value)

        error = np.std(grouped) / 20**0.5
        assert abs(np.mean(grouped)) < 3 * error
        assert np.mean(ungrouped) > 3 * error

    def test_twins_across_the_sets_make_them_nearer_than_equal_unless_grouped(self):
        first = points(60, 0, width=40)
        second, twin = nearly(first, 1), np.arange(60)

        assert kid(first, second).high < 0
        grouped = kid(first, second, groups=(twin, twin))
        assert abs(grouped.value) < 0.01

    def test_fewer_than_eight_groups_say_nothing(self):
        same = np.arange(40) % 7

        with pytest.raises(DataError, match="needs 8 groups of images on each side, got 7 and 40"):
            kid(points(40, 0), points(40, 1), groups=(same, np.arange(40) + 7))

    def test_a_group_is_needed_for_each_image(self):
        with pytest.raises(DataError, match="one group for each of 10 and 12 images, got 10 and 9"):
            kid(points(10, 0), points(12, 1), groups=(range(10), range(9)))


class TestFeatures:
    def test_a_large_image_has_the_features_that_a_small_one_would(self, monkeypatch):
        image = noise(20, (70, 50, 3))
        whole = features([image], 3)

        monkeypatch.setattr(filters, "STRIP", 500)

        assert torch.allclose(features([image], 3), whole, rtol=1e-5, atol=1e-6)


class TestSpectrum:
    @pytest.mark.parametrize("shape", [(64, 64), (40, 90), (300, 700)])
    def test_white_noise_has_its_deviation_in_db_at_every_size(self, shape):
        spectrum = power_spectrum(noise(10, shape))

        assert np.nanmean(spectrum[2:]) == pytest.approx(20, abs=0.7)

    def test_a_wave_is_seen_at_its_frequency(self):
        across = np.arange(128) / 4  # a quarter of a cycle per px
        wave = np.tile(128 + 50 * np.sin(2 * np.pi * across), (128, 1)).astype(np.uint8)

        spectrum = power_spectrum(wave)

        assert np.nanargmax(spectrum) == 15  # 16 / 64

    def test_what_a_small_image_cannot_show_is_not_told(self):
        spectrum = power_spectrum(noise(10, (16, 16)))

        assert np.isnan(spectrum[:7]).all()
        assert np.isfinite(spectrum[7:]).all()

    def test_sets_of_other_sizes_are_compared_where_both_can_be_seen(self):
        small = np.stack([power_spectrum(noise(10, (20, 20), s)) for s in range(60)])
        large = np.stack([power_spectrum(noise(10, (80, 120), s)) for s in range(20)])

        assert spectrum_distance(small, large).value < 0.5

    def test_noise_of_twice_the_deviation_is_six_db_away(self):
        calm = np.stack([power_spectrum(noise(10, (48, 48), s)) for s in range(20)])
        rough = np.stack([power_spectrum(noise(20, (48, 48), s)) for s in range(20)])

        distance = spectrum_distance(rough, calm)

        assert distance.value == pytest.approx(6.02, abs=0.3)
        assert distance.low < distance.value < distance.high

    def test_an_image_too_small_is_refused(self):
        with pytest.raises(ImageError, match="16 px or more on each side, got 40x15"):
            power_spectrum(noise(10, (15, 40)))


class TestColour:
    def shares(self, images):
        return np.stack([colours(image) for image in images])

    def test_a_shift_of_all_channels_is_as_many_levels(self, textures):
        images = textures(20, 0)
        lighter = [image + np.uint8(10) for image in images]

        distance = colour_distance(self.shares(lighter), self.shares(images))

        assert distance.value == pytest.approx(10, abs=0.01)

    def test_grey_images_are_told_from_coloured_ones_of_the_same_channels(self, textures):
        grey = [image.mean(2).astype(np.uint8) for image in textures(30, 0)]
        mixed = [np.stack([grey[k], grey[k - 1], grey[k - 2]], 2) for k in range(30)]

        assert colour_distance(self.shares(mixed), self.shares(grey)).low > 3

    def test_where_a_colour_is_does_not_count(self, textures):
        images = textures(10, 0)
        turned = [image[::-1, ::-1] for image in images]

        assert colour_distance(self.shares(turned), self.shares(images)).value == 0.0

    def test_depth_and_an_alpha_channel_do_not_count(self):
        image = noise(40, (20, 20, 3))
        deep = image.astype(np.uint16) * 257
        clear = np.dstack([image, np.zeros((20, 20), np.uint8)])

        assert np.array_equal(colours(deep), colours(image))
        assert np.array_equal(colours(clear), colours(image))


class TestNearDuplicates:
    def groups(self, images):
        return near_duplicates(np.stack([thumbnail(image) for image in images]))

    def test_forms_of_one_image_belong_together_and_others_do_not(self, textures):
        images = textures(20, 0, grain=30)
        darker = [(image * 0.6).astype(np.uint8) for image in images]
        grainy = [
            (i + (noise(1, i.shape, 9) - 128.0)).clip(0, 255).astype(np.uint8) for i in images
        ]

        labels = self.groups(images + darker + grainy)

        assert np.array_equal(labels, np.tile(np.arange(20), 3))

    def test_likeness_is_passed_on_along_a_chain(self):
        along = np.linspace(0, 2.2, 12)[:, None]
        turning = np.hstack([np.cos(along), np.sin(along)]).astype(np.float32)

        labels = near_duplicates(turning[np.random.default_rng(0).permutation(12)], likeness=0.97)

        assert set(labels) == {0}

    @pytest.mark.parametrize(("likeness", "groups"), [(0.99, 1), (0.95, 2)])
    def test_only_what_is_nearly_the_same_belongs_together(self, likeness, groups):
        first, other = np.eye(2, 576, dtype=np.float32)
        second = likeness * first + (1 - likeness**2) ** 0.5 * other

        assert len(set(near_duplicates(np.stack([first, second])))) == groups

    def test_images_far_apart_in_the_list_are_found(self):
        rng = np.random.default_rng(0)
        many = rng.normal(size=(600, 576)).astype(np.float32)
        many /= np.linalg.norm(many, axis=1, keepdims=True)
        many[599] = many[3]

        labels = near_duplicates(many)

        assert labels[599] == 3
        assert len(set(labels)) == 599

    def test_flat_images_are_like_nothing(self):
        labels = self.groups([np.full((20, 20, 3), level, np.uint8) for level in (10, 10, 200)])

        assert len(set(labels)) == 3
