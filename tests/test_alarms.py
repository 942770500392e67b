"""Alarms: each provoked, none raised by a change that is only strong."""

import dataclasses
import inspect
import json
import pathlib
import re

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from simgan_aug import plugins
from simgan_aug.alarms import check, check_growth, check_likeness, measures
from simgan_aug.bank import Bank
from simgan_aug.config import Config, Data, Part, Regularization, Tone, Training
from simgan_aug.data import Source, read_real, read_synthetic
from simgan_aug.data.handful import COUNT, SIDE, take_handful, take_labelled, take_photos
from simgan_aug.data.sources import read_boxes
from simgan_aug.displacement import REACH
from simgan_aug.losses import CrossEntropy, LeastSquares, Relativistic
from simgan_aug.networks import ResNetRefiner, UnshuffleRefiner
from simgan_aug.run import Inputs, Run

HANDS = pathlib.Path(__file__).parents[1] / "examples" / "data" / "hands"
INPUTS = Inputs(
    annotations=HANDS / "synthetic.json", images=HANDS / "synthetic", real=HANDS / "real"
)
NAMES = {
    "refiner changes nothing",
    "discriminator saturated",
    "collapsed to one texture",
    "checkerboard",
    "colours inverted",
    "labels drift",
}


UNLIKE = "unlike the photos"  # of which nothing is said before a game is over
LARGER = "labels grow"  # nor of this


@pytest.fixture(scope="module")
def hands():
    """(N, 64, 96, 3) renders, as many photos, and the boxes in the renders."""
    listed = json.loads(INPUTS.annotations.read_text())
    boxes = {label["image_id"]: [label["bbox"]] for label in listed["annotations"]}
    chosen = [listed["images"][row] for row in np.linspace(0, 299, 16).astype(int)]
    photos = sorted(INPUTS.real.iterdir())[::19][:16]
    return (
        np.stack([read(INPUTS.images / image["file_name"]) for image in chosen]),
        np.stack([read(path) for path in photos]),
        [boxes[image["id"]] for image in chosen],
    )


def read(path):
    with Image.open(path) as image:
        return np.asarray(image, dtype=np.float32) / 255


def each(change):
    return lambda images, photos: np.stack([change(image) for image in images])


def noisy(images, sigma, seed=0):
    return images + np.random.default_rng(seed).normal(0, sigma / 255, images.shape)


def jpeg(image, quality=50):
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    packed = cv2.imencode(".jpg", (image * 255).round().astype(np.uint8), options)[1]
    return cv2.imdecode(packed, cv2.IMREAD_COLOR) / 255


def matched(images, photos):
    """Each channel with the histogram of another photo's."""
    after = np.empty_like(images)
    for row, image in enumerate(images):
        for channel in range(3):
            wanted = np.sort(photos[(7 * row + 3) % 16, ..., channel], axis=None)
            ranks = image[..., channel].argsort(axis=None, kind="stable").argsort()
            after[row, ..., channel] = wanted[ranks].reshape(image.shape[:2])
    return after


def moved(image, x):
    matrix = np.float32([[1, 0, x], [0, 1, 0]])
    return cv2.warpAffine(image, matrix, (96, 64), borderMode=cv2.BORDER_REFLECT)


def board(side):
    rows, columns = np.mgrid[:64, :96] // side
    return ((rows + columns) % 2 * 2 - 1)[..., None] / 255


def texture():
    grain = np.random.default_rng(5).normal(size=(64, 96, 3))
    smooth = cv2.GaussianBlur(grain, (0, 0), 1.0)
    return smooth / smooth.std() / 255


HEALTHY = {
    "a dark tone": lambda images, photos: images**2,
    "a light tone": lambda images, photos: images**0.5,
    "a colour cast": lambda images, photos: images * [1, 0.6, 0.8] + [0, 0.15, 0.04],
    "little contrast": lambda images, photos: images * 0.3 + 0.4,
    "noise": lambda images, photos: noisy(images, 25),
    "blur": each(lambda image: cv2.GaussianBlur(image, (0, 0), 1.5)),
    "JPEG": each(jpeg),
    "the histogram of a photo": matched,
    "a camera": lambda images, photos: each(jpeg)(
        noisy(each(lambda image: cv2.GaussianBlur(image**1.5, (0, 0), 1))(images, photos), 8).clip(
            0, 1
        ),
        photos,
    ),
}

LOOKS = HEALTHY | {"a negative": lambda images, photos: 1 - images}

FAULTY = {
    "nothing": ("refiner changes nothing", lambda images, photos: images + 0.3 / 255),
    "a negative": ("colours inverted", lambda images, photos: 1 - images),
    "a negative of blue": (
        "colours inverted",
        lambda images, photos: np.concatenate([images[..., :2], 1 - images[..., 2:]], axis=3),
    ),
    "a dull negative under noise": (
        "colours inverted",
        lambda images, photos: noisy(0.8 - images * 0.6, 8),
    ),
    "a shift of 0.7 px": ("labels drift", each(lambda image: moved(image, 0.7))),
    "a shift of 2 px in noise": (
        "labels drift",
        lambda images, photos: noisy(each(lambda image: moved(image, 2))(images, photos), 12),
    ),
    "a shift out of reach": ("labels drift", each(lambda image: moved(image, 30))),
    "a checkerboard": ("checkerboard", lambda images, photos: images + 2 * board(1)),
    "a checkerboard under noise": (
        "checkerboard",
        lambda images, photos: noisy(images, 12) + 4 * board(1),
    ),
    "a checkerboard of 2 px": ("checkerboard", lambda images, photos: images + 3 * board(2)),
    "stripes every 4 px": (
        "checkerboard",
        lambda images, photos: images + 4 / 255 * np.sin(np.arange(96) * np.pi / 2)[:, None],
    ),
    "one texture": ("collapsed to one texture", lambda images, photos: images + 10 * texture()),
    "one texture under noise": (
        "collapsed to one texture",
        lambda images, photos: noisy(images, 10) + 10 * texture(),
    ),
    "one picture": (
        "collapsed to one texture",
        lambda images, photos: noisy(np.broadcast_to(photos[0], images.shape), 8),
    ),
    "grain alone": (
        "collapsed to one texture",
        lambda images, photos: noisy(np.full_like(images, 0.5), 20),
    ),
}


def names(alarms):
    return {alarm.name for alarm in alarms}


def changed(change, images, photos):
    return change(images, photos).astype(np.float32).clip(0, 1)


@pytest.mark.parametrize("cells", [False, True], ids=["boxes", "cells"])
@pytest.mark.parametrize("change", HEALTHY)
def test_a_strong_change_of_appearance_raises_no_alarm(hands, change, cells):
    images, photos, boxes = hands

    after = changed(HEALTHY[change], images, photos)

    assert check(images, after, () if cells else boxes, photos) == []


@pytest.mark.parametrize("cells", [False, True], ids=["boxes", "cells"])
@pytest.mark.parametrize("fault", FAULTY)
def test_a_fault_raises_its_alarm(hands, fault, cells):
    images, photos, boxes = hands
    name, change = FAULTY[fault]

    alarms = check(images, changed(change, images, photos), () if cells else boxes, photos)

    assert name in names(alarms)


@pytest.mark.parametrize("fault", ["a negative", "a shift of 0.7 px", "a checkerboard"])
def test_a_fault_raises_no_other_alarm(hands, fault):
    images, photos, boxes = hands
    name, change = FAULTY[fault]

    assert names(check(images, changed(change, images, photos), boxes, photos)) == {name}


@pytest.mark.parametrize("fault", FAULTY)
def test_a_message_names_settings_that_there_are(hands, fault):
    images, photos, boxes = hands
    name, change = FAULTY[fault]
    wide = np.ones(9), np.zeros(9)

    alarms = check(images, changed(change, images, photos), boxes, photos, wide)

    assert {name, "discriminator saturated"} <= names(alarms) <= NAMES
    for alarm in alarms:
        settings = re.findall(r"(\w+)\.([a-z]\w+)", alarm.message)
        assert settings
        assert all(is_setting(*setting) for setting in settings), alarm.message


def is_setting(table, key):
    makers = {
        "refiner": (UnshuffleRefiner, ResNetRefiner),
        "loss": (CrossEntropy, LeastSquares, Relativistic),
    }
    known = [field.name for field in dataclasses.fields(getattr(Config(), table))]
    for make in makers.get(table, ()):
        known += inspect.signature(make).parameters
    return key in known


def test_the_value_is_past_its_limit_in_the_units_of_the_message(hands):
    images, photos, boxes = hands
    shifted = changed(FAULTY["a shift of 0.7 px"][1], images, photos)

    (alarm,) = check(images, shifted, boxes, photos)

    assert alarm.value == pytest.approx(0.7, abs=0.05)
    assert alarm.value > alarm.limit
    assert f"{alarm.value:.1f} px" in alarm.message


def likeness(count=64):
    """So many renders and photos of the sample, and as many other photos."""
    renders, photos = (sorted((HANDS / side).iterdir()) for side in ("synthetic", "real"))
    chosen = renders[::4], photos[::4], photos[2::4]
    return [[read(path) for path in side[:count]] for side in chosen]


def test_renders_are_unlike_photos_and_photos_are_like_other_photos():
    renders, photos, others = likeness()

    (alarm,) = check_likeness(renders, photos)

    assert alarm.name == UNLIKE
    assert alarm.value > alarm.limit
    assert check_likeness(others, photos) == []
    assert abs(measures.unlikeness(others, photos)) < alarm.limit / 4


def test_one_odd_image_in_64_does_not_make_photos_unlike():
    _, photos, others = likeness()
    others[0] = np.zeros_like(others[0])

    assert check_likeness(others, photos) == []
    assert check_likeness(photos, others) == []


def test_likeness_is_nothing_on_average_between_photos_of_one_kind():
    _, photos, others = likeness(75)
    every = photos + others
    drawn = np.random.default_rng(0)

    found = []
    for _ in range(20):
        order = drawn.permutation(len(every))
        sides = [[every[row] for row in order[half::2]] for half in (0, 1)]
        found.append(measures.unlikeness(*sides))

    assert abs(np.mean(found)) < 0.02


@pytest.mark.parametrize(("count", "side"), [(31, 64), (64, 15)])
def test_likeness_is_not_told_of_few_or_tiny_images(count, side):
    renders, photos, _ = likeness()
    small = [image[:side, :side] for image in renders[:count]]

    assert check_likeness(small, photos) == []
    assert check_likeness(photos, small) == []
    assert measures.unlikeness(small, photos) is None


def test_a_message_of_likeness_names_settings_that_there_are():
    renders, photos, _ = likeness()

    (alarm,) = check_likeness(renders, photos)

    named = re.findall(r"(\w+)\.([a-z]\w+)", alarm.message)
    assert len(named) == 3
    assert all(is_setting(*each) for each in named)


@pytest.mark.parametrize("change", sorted({*HEALTHY} - {"the histogram of a photo"}))
def test_labels_have_not_grown_by_a_strong_change_of_appearance(hands, change):
    images, photos, boxes = hands

    assert check_growth(images, changed(HEALTHY[change], images, photos), boxes) == []


@pytest.mark.parametrize("change", ["a camera", "a negative"])
def test_labels_that_look_larger_than_their_boxes_are_told(hands, change):
    images, photos, boxes = hands
    larger = each(lambda image: cv2.erode(image, np.ones((15, 15))))(images, photos)  # dark hands

    (alarm,) = check_growth(images, changed(LOOKS[change], larger, photos), boxes)

    assert alarm.name == LARGER
    assert alarm.value > alarm.limit
    assert "of 16 labels" in alarm.message


def test_of_images_without_labels_no_growth_is_told(hands):
    images, _, _ = hands

    assert check_growth(images, images / 2, [[]] * len(images)) == []


def test_nobody_has_won_before_the_game_has_settled(hands):
    images, photos, boxes = hands

    early = check(images, images, boxes, photos, (np.ones(9), np.zeros(9)), settled=False)

    assert early == []


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), shift=st.floats(-3, 3))
def test_separation_is_the_share_of_pairs_in_order_for_any_rising_scale(seed, shift):
    rng = np.random.default_rng(seed)
    refined, real = rng.normal(shift, 1, (3, 1, 5, 5)).round(1), rng.normal(0, 1, (4, 7)).round(1)
    pairs = refined.ravel()[:, None] - real.ravel()

    found = measures.separation(refined, real)

    assert found == pytest.approx((pairs > 0).mean() + (pairs == 0).mean() / 2)
    assert measures.separation(np.exp(refined), np.exp(real)) == pytest.approx(found)


@pytest.mark.parametrize("levels", [2, 5])
def test_a_checkerboard_is_measured_in_grey_levels(levels):
    images = np.full((4, 80, 80, 3), 0.5, np.float32)
    after = noisy(images, 3) + levels * np.tile(board(1), (2, 1, 1))[:80, :80]

    assert measures.lattice(images, after) == pytest.approx(levels, rel=0.1)


def test_a_label_that_is_not_found_again_has_moved_out_of_reach(hands):
    images, photos, boxes = hands

    moves = measures.moves(images, photos * 0 + 0.5, boxes)

    assert moves == [REACH] * 16


def test_noise_alone_shares_no_texture(hands):
    images, _, _ = hands

    assert abs(measures.likeness(images, noisy(images, 10))) < 0.01


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=4),
    channels=st.sampled_from([1, 3]),
    flat=st.booleans(),
)
def test_images_of_any_size_can_be_checked(sizes, channels, flat):
    rng = np.random.default_rng(0)
    before = [rng.random((*size, channels), dtype=np.float32) * (not flat) for size in sizes]
    after = [rng.random(image.shape, dtype=np.float32) for image in before]

    alarms = check(before, after, [[(0, 0, 9, 9)] for _ in sizes], after)

    assert names(alarms) <= NAMES


# A run's handful


def sources():
    config = Data()
    synthetic = read_synthetic(INPUTS.synthetic_origins, config, {})
    return synthetic, read_real(INPUTS.real_origins, config, synthetic)


def test_the_handful_is_the_same_again_and_has_the_boxes_of_its_images(hands):
    images, _, boxes = hands
    synthetic, real = sources()

    first, again = (take_handful(synthetic, real, Config(), None, False) for _ in range(2))

    assert len(first.images) == len(first.real) == len(first.crops) == COUNT
    assert all(np.array_equal(*pair) for pair in zip(first.images, images, strict=True))
    assert [list(map(list, own)) for own in first.boxes] == boxes
    assert torch.equal(first.crops, again.crops)
    assert torch.equal(first.real_crops, again.real_crops)


def test_of_a_large_image_a_window_around_a_label_is_taken():
    synthetic, real = sources()
    large = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    boxes = [[600.0, 10.0, 100.0, 30.0], [0.0, 0.0, 30.0, 30.0]][::-1]
    synthetic = Source([large], ["a"], boxes=lambda indices: [boxes for _ in indices])

    handful = take_handful(synthetic, real, Config(), None, False)

    assert handful.images[0].shape == (SIDE, SIDE, 3)
    assert np.array_equal(handful.images[0], large[:SIDE, 640 - SIDE :] / np.float32(255))
    assert [list(box) for box in handful.boxes[0]] == [[600 - 640 + SIDE, 10, 40, 30]]


def test_likeness_is_told_by_windows_that_lie_alike_on_both_sides():
    _, real = sources()
    large = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    labelled = Source([large], ["a"], boxes=lambda indices: [[[600.0, 10.0, 40.0, 30.0]]])
    middle = large[240 - SIDE // 2 :, 320 - SIDE // 2 :][:SIDE, :SIDE] / np.float32(255)

    (image,), (boxes,) = take_labelled(labelled, Config(), None, 64, 0)
    (photo,) = take_photos(labelled, Config(), 64)

    assert np.array_equal(image, middle)
    assert np.array_equal(photo, middle)
    assert boxes == []
    assert len(take_photos(real, Config(), 3)) == 3


def test_images_come_in_the_tone_that_the_network_sees():
    synthetic, real = sources()
    bank = Bank(torch.linspace(0.4, 0.6, 64).expand(2, 3, 64))

    toned = take_handful(synthetic, real, Config(tone=Tone(match="before")), bank, False)
    plain = take_handful(synthetic, real, Config(tone=Tone(photos=2, match="never")), bank, False)

    assert min(image.min() for image in toned.images) > 0.39
    assert min(image.min() for image in plain.images) < 0.1


@pytest.mark.parametrize(
    "labels",
    ["null", '[{"image_id": [1], "bbox": [1, 2, 3, 4]}]', '[{"image_id": 5, "bbox": "none"}]', "7"],
)
def test_odd_labels_are_no_boxes_and_no_error(tmp_path, labels):
    path = tmp_path / "a.json"
    path.write_text(f'{{"images": [{{"id": 5, "file_name": "a.png"}}], "annotations": {labels}}}')

    assert read_boxes(path, ["a.png"]) == {"a.png": []}


# Real trainings that go wrong, and one that does not

SMALL = Config(
    refiner=Part(name="unshuffle", options={"features": 8, "blocks": 1}),
    discriminator=Part(name="patch", options={"features": 16}),
    data=Data(crop=(32, 32)),
    training=Training(steps=90, batch_size=8, history=16, precision="fp32"),
)


@pytest.fixture
def often(monkeypatch):
    """Looks so often that a training of seconds has several."""
    monkeypatch.setattr("simgan_aug.run.SAVE_EVERY", 30)
    monkeypatch.setattr("simgan_aug.alarms.watch.SETTLED", 30)


def rung(config, out):
    """Names of the alarms at the end of a run."""
    run = Run(config, INPUTS, out, device="cpu")
    list(run.steps())
    return names(run.alarms)


@pytest.mark.usefixtures("often")
def test_a_refiner_that_is_held_too_tightly_changes_nothing(tmp_path):
    held = dataclasses.replace(SMALL, regularization=Regularization(weight=1000))

    assert "refiner changes nothing" in rung(held, tmp_path / "out")


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("loss", ["cross_entropy", "least_squares", "relativistic"])
def test_a_discriminator_that_learns_too_fast_is_saturated(tmp_path, loss):
    rates = dataclasses.replace(
        SMALL.training, steps=180, refiner_rate=1e-6, discriminator_rate=1e-3
    )

    found = rung(dataclasses.replace(SMALL, loss=Part(name=loss), training=rates), tmp_path / "out")

    assert "discriminator saturated" in found


@pytest.mark.usefixtures("often")
def test_a_small_training_that_goes_well_wins_nothing_and_turns_nothing(tmp_path):
    found = rung(SMALL, tmp_path / "out")

    # An unshuffle network draws a checkerboard in its first steps, and few steps lead nowhere near.
    assert UNLIKE in found <= {"checkerboard", UNLIKE}


@pytest.mark.usefixtures("often")
def test_a_training_may_be_unlike_the_photos_until_its_game_is_over(tmp_path):
    run = Run(SMALL, INPUTS, tmp_path / "out", device="cpu")

    rang = [UNLIKE in names(run.alarms) for _ in run.steps()]

    assert rang == [False] * (len(rang) - 1) + [True]


class Faulty(nn.Module):
    """A refiner that does one thing to all images; its one weight hardly learns."""

    def __init__(self, channels, fault):
        super().__init__()
        self.fault = fault
        self.idle = nn.Parameter(torch.zeros(()))
        self.register_buffer("grain", torch.randn((3, 512, 512)) * 0.1)

    def forward(self, images):
        height, width = images.shape[2:]
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        refined = {
            "colours inverted": -images,
            "labels drift": images.roll(2, dims=3),
            "checkerboard": images + ((rows + columns) % 2 * 2 - 1) * 0.03,
            "collapsed to one texture": images + self.grain[:, :height, :width],
            LARGER: -nn.functional.max_pool2d(-images, 15, 1, 7),  # dark hands on a light backdrop
        }[self.fault]
        return refined + self.idle


@pytest.mark.usefixtures("often")
def test_a_refiner_whose_labels_grow_is_found_out_when_its_game_is_over(tmp_path, monkeypatch):
    part = plugins.RegisteredPart(Faulty, "builtin")
    monkeypatch.setitem(plugins.registry().parts["refiner"], "faulty", part)
    refiner = Part(name="faulty", options={"fault": LARGER})
    training = dataclasses.replace(SMALL.training, refiner_rate=1e-9)

    run = Run(
        dataclasses.replace(SMALL, refiner=refiner, training=training),
        INPUTS,
        tmp_path / "out",
        device="cpu",
    )
    rang = [LARGER in names(run.alarms) for _ in run.steps()]

    assert rang == [False] * (len(rang) - 1) + [True]


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize(
    "fault", ["colours inverted", "labels drift", "checkerboard", "collapsed to one texture"]
)
@pytest.mark.parametrize("photos", [0, 4])
def test_a_refiner_with_a_fault_is_found_out_in_a_run(tmp_path, monkeypatch, fault, photos):
    part = plugins.RegisteredPart(Faulty, "builtin")
    monkeypatch.setitem(plugins.registry().parts["refiner"], "faulty", part)
    training = dataclasses.replace(SMALL.training, steps=2, refiner_rate=1e-9)
    config = dataclasses.replace(
        SMALL,
        refiner=Part(name="faulty", options={"fault": fault}),
        tone=Tone(photos=photos),
        training=training,
    )

    assert rung(config, tmp_path / "out") == {fault}
