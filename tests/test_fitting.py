"""What of the settings is told by the images: how large crops are, and what is white."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from simgan_aug.cli import main
from simgan_aug.config import Data
from simgan_aug.data import Source, fitted
from simgan_aug.data.fitting import SMALLEST
from simgan_aug.runfolder import read_info

sides = st.integers(1, 400)
sizes = st.lists(st.tuples(sides, sides), min_size=1, max_size=9)


def source(*shapes, highest=0):
    images = [np.zeros((*shape, 3), np.uint8) for shape in shapes]
    return Source(images=images, names=[str(n) for n in range(len(shapes))], highest=highest)


@pytest.mark.parametrize(
    ("synthetic", "real", "crop"),
    [
        ((480, 640), (480, 640), (64, 64)),
        ((48, 48), (480, 640), (48, 48)),
        ((480, 640), (35, 55), (35, 55)),
        ((35, 640), (480, 55), (35, 55)),
        ((20, 100), (20, 100), (32, 64)),
    ],
)
def test_a_crop_is_no_larger_than_the_images_of_either_side(synthetic, real, crop):
    assert fitted(Data(), source(synthetic), source(real)).crop == crop


def test_a_few_small_images_do_not_make_all_crops_small():
    mostly_large = source((100, 100), (100, 100), (20, 20))

    assert fitted(Data(), mostly_large, mostly_large).crop == (64, 64)


@given(sizes, sizes, st.tuples(st.integers(8, 300), st.integers(8, 300)))
def test_a_crop_never_grows_and_shrinks_no_further_than_it_has_to(synthetic, real, crop):
    asked = Data(crop=crop)

    made = fitted(asked, source(*synthetic), source(*real))

    medians = np.floor([np.median(synthetic, axis=0), np.median(real, axis=0)]).min(axis=0)
    for side, wanted, median in zip(made.crop, crop, medians, strict=True):
        assert side <= wanted
        assert side == min(wanted, max(SMALLEST, median))
    assert fitted(made, source(*synthetic), source(*real)) == made


@pytest.mark.parametrize(
    ("scale", "side"), [((1.0, 1.2), 48), ((0.5, 2.0), 48), ((1.2, 2.0), 57), ((2.0, 2.0), 64)]
)
def test_images_hold_as_much_more_as_they_are_to_be_enlarged_at_least(scale, side):
    small = source((48, 48))

    assert fitted(Data(scale=scale), small, small).crop == (side, side)


def test_a_run_goes_on_with_the_crops_that_it_was_begun_with(folders, capsys, monkeypatch):
    run = [*folders, "--synthetic", "renders", "--real", "photos"]
    with monkeypatch.context() as earlier:
        earlier.setattr("simgan_aug.data.fitted", lambda config, *sides: config)
        assert main(run) == 0
    assert read_info(Path("run"))["config"]["data"]["crop"] == [64, 64]

    assert main(["train", "--resume", "--steps", "3", "--device", "cpu", "--out", "run"]) == 0

    assert read_info(Path("run"))["config"]["data"]["crop"] == [64, 64]
    assert "smaller than data.crop (64x64): enlarged" in capsys.readouterr().err


def test_white_is_all_bits_that_either_side_uses_unless_it_is_said():
    dark, bright = source((64, 64), highest=900), source((64, 64), highest=3000)

    assert fitted(Data(), dark, bright).white == 4095
    assert fitted(Data(white=5000), dark, bright).white == 5000
    assert fitted(Data(), source((64, 64)), source((64, 64))).white == 0


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "renders", "photos/renders"):
        (tmp_path / name).mkdir()
        for number in range(3):
            pixels = np.random.default_rng(number).integers(0, 256, (36, 44, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    (tmp_path / "small.toml").write_text(
        "[refiner]\nfeatures = 8\nblocks = 1\n[discriminator]\nfeatures = 8\n"
        '[training]\nbatch_size = 2\nhistory = 2\nprecision = "fp32"\n'
    )
    return ["train", "--config", "small.toml", "--steps", "1", "--device", "cpu", "--out", "run"]


def test_train_says_how_large_crops_are_and_keeps_that_for_a_resumed_run(folders, capsys):
    assert main([*folders, "--synthetic", "renders", "--real", "photos"]) == 0

    said = capsys.readouterr().err
    assert "note: crops are 36x44, the median image of a side (data.crop: 64x64)" in said
    assert "smaller than data.crop" not in said
    assert main(["train", "--resume", "--steps", "2", "--device", "cpu", "--out", "run"]) == 0
    assert "crops are" not in capsys.readouterr().err
    assert read_info(Path("run"))["config"]["data"]["crop"] == [36, 44]


def test_train_says_where_the_tones_of_both_sides_are_alike(folders, capsys):
    given = [*folders, "--synthetic", "renders", "--real", "photos"]
    for number in range(3, 8):  # the same on both sides
        pixels = np.random.default_rng(number).integers(0, 256, (36, 44, 3), dtype=np.uint8)
        for name in ("photos", "renders"):
            Image.fromarray(pixels).save(Path(name, f"{number}.png"))
    assert main(given) == 0

    alike = "note: synthetic images and photos hardly differ in tone: it goes 0% of tone.share"
    assert alike in capsys.readouterr().err
    for path in Path("renders").iterdir():
        Image.fromarray(np.asarray(Image.open(path)) // 2).save(path)
    assert main([*given, "--out", "other"]) == 0
    assert "hardly differ in tone" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("synthetic", "real", "both"),
    [
        ("renders", "photos", None),
        ("photos/renders", "photos", "photos/renders"),
        ("photos", "photos", "photos"),
        ("photos", "photos/renders", "photos/renders"),
        ("renders/0.png", "photos", None),
    ],
)
def test_images_that_are_taken_for_both_sides_are_warned_of(folders, capsys, synthetic, real, both):
    assert main([*folders, "--synthetic", synthetic, "--real", real]) == 0

    said = capsys.readouterr().err
    assert (f"the images of {both} are taken for synthetic ones and for photos" in said) == (
        both is not None
    )
    assert said.count("taken for") == (both is not None)
