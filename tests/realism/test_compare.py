"""Distances beside their floor and their ceiling, from folders or lists."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from simgan_aug.cli.realism import realism
from simgan_aug.errors import ConfigError, DataError, ImageError
from simgan_aug.realism import WARNING, compare

FAST = {"repeats": 1, "resamples": 40}


def by_name(comparison):
    return {measure.name: measure for measure in comparison.measures}


def save(folder, images, ending="png"):
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:03}.{ending}")
    return folder


@pytest.fixture(scope="module")
def sets(textures):
    """Synthetic, real, and refined half of the way."""
    synthetic = textures(30, 1, tint=40, grain=20)
    refined = [(image * 0.85).astype(np.uint8) for image in synthetic]
    return synthetic, textures(60, 0), refined


@pytest.fixture(scope="module")
def found(sets):
    return compare(*sets, **FAST)


def test_real_is_the_floor_and_synthetic_the_ceiling(found):
    measures = by_name(found)

    assert all(m.floor.low <= m.floor.value <= m.floor.high for m in measures.values())
    assert measures["classifier accuracy"].floor.low < 0.5 < measures["classifier AUC"].floor.high
    assert all(measure.ceiling.low > measure.floor.high for measure in measures.values())


def test_half_of_the_way_lies_between(found):
    for name in ("KID", "spectrum", "colour"):
        measure = by_name(found)[name]
        assert measure.floor.value < measure.refined.value < measure.ceiling.value
        assert 0 < measure.closed < 1


def test_the_share_closed_is_that_of_the_gap(found):
    colour = by_name(found)["colour"]

    gap = colour.ceiling.value - colour.floor.value
    assert colour.closed == pytest.approx((colour.ceiling.value - colour.refined.value) / gap)


def test_where_there_is_no_gap_the_share_cannot_be_told(textures):
    found = compare(textures(30, 2), textures(60, 0), textures(30, 3), **FAST)

    assert [m.closed for m in found.measures if m.name != "spectrum"] == [None] * 4


def test_as_many_images_stand_on_each_side(textures):
    found = compare(textures(20, 2), textures(60, 0), **FAST)

    assert found.counts["compared"] == 20
    assert found.counts == found.counts | {"synthetic": 20, "real": 60, "refined": 0}


def test_without_refined_images_nothing_is_said_of_them(textures):
    found = compare(textures(20, 2), textures(40, 0), **FAST)

    assert {(m.refined, m.closed) for m in found.measures} == {(None, None)}


def test_a_seed_gives_the_same_numbers(sets, found):
    again = compare(*sets, **FAST)
    other = compare(*sets, **FAST, seed=1)

    assert again == found
    assert other != found


def test_bursts_of_real_photos_fool_the_floor_unless_they_are_found(textures):
    bursts = [image for image in textures(20, 5, grain=25) for _ in range(6)]
    rng = np.random.default_rng(0)
    bursts = [(i + rng.normal(0, 1, i.shape)).clip(0, 255).astype(np.uint8) for i in bursts]

    alone, found = (
        compare(textures(60, 1), bursts, groups=groups, repeats=4, resamples=40)
        for groups in ("none", "similar")
    )

    assert (alone.counts["groups"], found.counts["groups"]) == (180, 80)
    # With a picture's twins on both sides, halves of 20 pictures are too much alike, and 120 files
    # claim to know more than 20 pictures tell.
    assert by_name(alone)["spectrum"].floor.value < 0.6 * by_name(found)["spectrum"].floor.value
    alone, found = (by_name(each)["KID"].floor for each in (alone, found))
    assert alone.high - alone.low < 0.5 * (found.high - found.low)


def test_groups_can_be_told_by_hand(textures):
    groups = {"synthetic": range(20), "real": [number // 2 for number in range(40)]}

    found = compare(textures(20, 1), textures(40, 0), groups=groups, **FAST)

    # The numbers are the user's: synthetic 0 to 19 are in the groups of real images 0 to 39.
    assert found.counts["groups"] == 20


def test_a_refined_image_belongs_to_its_synthetic_one(sets):
    synthetic, real, _ = sets

    found = compare(synthetic, real, sets[0][::-1], groups="none", **FAST)

    assert found.counts["groups"] == 30 + 60


def test_folders_are_read_and_forms_known_by_name(sets, found, tmp_path):
    synthetic, real, refined = sets
    folders = (
        save(tmp_path / "synthetic", synthetic),
        save(tmp_path / "real", real, "bmp"),
        save(tmp_path / "refined", refined, "tiff"),
    )

    assert compare(*folders, **FAST) == found


def test_refined_images_without_a_name_in_common_are_drawn_alone(sets, tmp_path):
    synthetic, real, refined = sets
    renamed = save(tmp_path / "refined", refined)
    for path in sorted(renamed.iterdir()):
        path.rename(path.with_name("other-" + path.name))

    found = compare(
        synthetic, real, [str(p) for p in sorted(renamed.iterdir())], groups="none", **FAST
    )

    assert found.counts["groups"] == 30 + 60 + 30
    assert by_name(found)["colour"].closed > 0


def test_a_limit_draws_the_forms_of_the_images_it_draws(sets):
    found = compare(*sets, limit=16, groups="none", **FAST)

    assert found.counts == {
        "synthetic": 16,
        "real": 16,
        "refined": 16,
        "groups": 32,
        "compared": 8,
        "paired": 16,
    }


def test_images_of_a_folder_can_be_a_group(textures, tmp_path):
    for number in range(20):
        save(tmp_path / "real" / f"video{number}", textures(3, number))

    found = compare(
        save(tmp_path / "synthetic" / "a", textures(8, 50)).parent,
        tmp_path / "real",
        groups={"synthetic": range(8), "real": range(100, 160)},
        **FAST,
    )
    assert found.counts["groups"] == 68
    with pytest.raises(DataError, match="8 groups of synthetic images, got 8 images in 1"):
        compare(tmp_path / "synthetic", tmp_path / "real", groups="folder", **FAST)


def test_images_of_many_sizes_grey_or_coloured_can_be_compared(textures):
    grey = [image[..., 0] for image in textures(16, 0, shape=(40, 30, 1))]
    mixed = textures(16, 1, shape=(16, 50, 3)) + textures(16, 2, shape=(33, 17, 3))

    found = compare(grey, mixed, **FAST)

    assert all(np.isfinite(m.ceiling.value) for m in found.measures)


@pytest.mark.parametrize("features", ["identity", "image_gradient"])
def test_features_of_a_registered_transform_can_be_taken(sets, features):
    found = compare(*sets, features=features, **FAST)

    kid = by_name(found)["KID"]
    assert found.features == features
    assert kid.floor.high < kid.refined.value < kid.ceiling.value


def test_the_json_form_is_whole_and_plain(found):
    plain = json.loads(json.dumps(found.as_json()))

    assert set(plain) == {"measures", "counts", "features", "warning"}
    assert [set(m) for m in plain["measures"]] == [
        {"name", "unit", "floor", "refined", "ceiling", "closed"}
    ] * 5
    assert set(plain["measures"][0]["floor"]) == {"value", "low", "high"}
    assert plain["warning"] == WARNING


def test_too_few_real_images_are_refused_before_any_is_read(textures):
    with pytest.raises(DataError, match="at least 16 real images, for two halves, got 15"):
        compare(textures(20, 0), ["missing.png"] * 15)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"groups": "simlar"}, "no way of grouping named 'simlar'.*did you mean 'similar'"),
        ({"features": "identty"}, "no feature space named 'identty'.*did you mean 'identity'"),
        ({"features": "resnet18"}, "did you mean 'resnet18:FILE'"),
        ({"limit": 0}, "must be 1 or more, got 0"),
        ({"groups": {"real": range(40)}}, "some for the synthetic images, got only: real"),
        ({"groups": {"real": range(9), "synthetic": range(20)}}, "for each real image, got 9"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(textures, settings, message):
    with pytest.raises((ConfigError, DataError), match=message):
        compare(textures(20, 0), textures(40, 1), **settings)


def test_an_image_that_cannot_be_measured_is_named(textures, tmp_path):
    small = [np.zeros((9, 30, 3), np.uint8)] * 8
    folder = save(tmp_path / "synthetic", small)

    with pytest.raises(ImageError, match=r"000\.png: expected an image of 16 px"):
        compare(folder, textures(16, 0))
    with pytest.raises(ImageError, match="image 0 of the list: expected an image of 16 px"):
        compare(small, textures(16, 0))


@pytest.fixture
def options(sets, tmp_path):
    named = zip(("synthetic", "real", "refined"), sets, strict=True)
    folders = {name: str(save(tmp_path / name, images)) for name, images in named}
    return [part for name, folder in folders.items() for part in (f"--{name}", folder)]


def test_the_command_prints_every_measure_and_what_none_of_them_says(options):
    ran = CliRunner().invoke(realism, [*options, "--repeats", "1"], catch_exceptions=False)

    assert ran.exit_code == 0
    for word in ("classifier", "KID", "spectrum", "colour", "floor", "ceiling"):
        assert word in ran.stdout
    assert "30 synthetic, 60 real, 30 refined images" in ran.stdout
    assert ran.stdout.rstrip().endswith(WARNING)


def test_the_command_takes_the_folder_that_refine_has_written(options, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "refined").rename(out / "images")
    (out / "run.json").write_text("{}")
    options[-1] = str(out)

    ran = CliRunner().invoke(realism, [*options, "--repeats", "1", "--json"])

    assert json.loads(ran.stdout)["counts"]["paired"] == 30


def test_the_command_says_that_no_name_is_shared(options, tmp_path):
    for path in sorted((tmp_path / "refined").iterdir()):
        path.rename(path.with_name("other-" + path.name))

    ran = CliRunner().invoke(realism, [*options, "--repeats", "1"], catch_exceptions=False)

    assert "note: no refined image is named as a synthetic one" in ran.stdout


def test_the_command_prints_the_json_form(options, sets):
    ran = CliRunner().invoke(realism, [*options, "--repeats", "1", "--json"])

    expected = compare(*sets, repeats=1).as_json()
    assert json.loads(ran.stdout) == expected
