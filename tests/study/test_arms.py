"""Arms: names, one's own sources, and what each makes of images."""

import dataclasses
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import write_toy
from PIL import Image

from simgan_aug.errors import ConfigError, DataError, ImageError
from simgan_aug.inference import ImageRefiner
from simgan_aug.study import forms, references
from simgan_aug.study.arms import BASELINES, REFINERS, arms_of
from simgan_aug.study.labelled import open_labelled
from simgan_aug.study.refiners import command_words, config_of, run_command
from simgan_aug.study.split import read_photos, read_split
from simgan_aug.study.tasks import task_of


def finish(work):
    """What a generator returns."""
    while True:
        try:
            next(work)
        except StopIteration as done:
            return done.value


@pytest.fixture
def split(tmp_path):
    path = write_toy(tmp_path / "synthetic", 20, seed=0)
    return read_split(
        open_labelled(path, None, 100), task_of("segment"), (32, 32), ("disc", "square"), True
    )


@pytest.fixture
def images(tmp_path):
    return tmp_path / "synthetic" / "images"


@pytest.fixture
def photos(tmp_path):
    write_toy(tmp_path / "real", 20, seed=1, level=120)
    return read_photos(tmp_path / "real" / "images", (32, 32), 100)


def test_without_a_wish_all_arms_run_and_the_oracle_where_there_are_labels():
    assert [arm.name for arm in arms_of((), False)] == [*BASELINES, *REFINERS]
    assert [arm.name for arm in arms_of((), True)] == [*BASELINES, *REFINERS, "oracle"]


def test_raw_is_always_among_the_arms():
    assert [arm.name for arm in arms_of(("default",), False)] == ["raw", "default"]


def test_what_an_own_arm_is_follows_from_its_source(tmp_path):
    (tmp_path / "a.toml").touch()
    (tmp_path / "b.safetensors").touch()

    arms = arms_of(
        (f"a={tmp_path}/a.toml", f"b={tmp_path}/b.safetensors", f"c={tmp_path}", "d=cmd:x {out}"),
        False,
    )

    assert [arm.kind for arm in arms] == ["raw", "config", "refiner", "folder", "command"]
    assert arms[4].source == "x {out}"


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("histogram", r"no arm named 'histogram' \(known: "),
        ("raw,hm", r"no arm named 'raw,hm' .*give --arms once for each"),
        ("jiter", "did you mean 'jitter'"),
        ("mine=nowhere", "mine: no such folder: 'nowhere'"),
        ("mine=nowhere.toml", "mine: no such file"),
        ("mine=", "mine: no such folder: ''"),
        ("hm=.", "'hm' is a built-in arm"),
        ("a/b=.", "expected NAME=SOURCE with a name of letters"),
        ("oracle", "say with --real-labels"),
    ],
)
def test_a_wrong_arm_is_told_with_the_way_out(wanted, message):
    with pytest.raises(ConfigError, match=message):
        arms_of((wanted,), False)


def test_two_arms_of_one_name_are_refused():
    with pytest.raises(ConfigError, match="raw given twice"):
        arms_of(("raw", "raw"), False)


@pytest.mark.parametrize("kind", ["fda", "hm", "pda"])
def test_reference_photos_are_drawn_by_the_seed_for_each_image_and_form(
    split, images, photos, kind
):
    first = finish(references.referred(kind, split, images, photos, 2, 0))

    assert np.array_equal(first, finish(references.referred(kind, split, images, photos, 2, 0)))
    assert not np.array_equal(first, finish(references.referred(kind, split, images, photos, 2, 1)))
    assert not np.array_equal(first[0], first[1])
    assert first.shape == (2, *split.images.shape)


@pytest.mark.parametrize("kind", ["hm", "pda"])
def test_levels_come_near_to_those_of_the_photos(split, images, photos, kind):
    before = np.abs(split.images.mean((0, 1, 2)) - photos.images.mean((0, 1, 2)))

    made = finish(references.referred(kind, split, images, photos, 1, 0))[0]

    assert (np.abs(made.mean((0, 1, 2)) - photos.images.mean((0, 1, 2))) < before / 2).all()


def test_colour_matching_gives_mean_and_deviation_of_the_photos(split, images, photos):
    noise = np.random.default_rng(0).integers(90, 160, split.images.shape, dtype=np.uint8)

    made = finish(references.coloured(dataclasses.replace(split, images=noise), images, photos))[0]

    assert made.mean((0, 1, 2)) == pytest.approx(photos.images.mean((0, 1, 2)), abs=1)
    assert made.std((0, 1, 2)) == pytest.approx(photos.images.std((0, 1, 2)), rel=0.02)


@pytest.fixture
def crops(tmp_path):
    path = write_toy(tmp_path / "synthetic", 20, seed=0)
    return read_split(
        open_labelled(path, None, 100), task_of("keypoints"), (24, 24), ("disc", "square"), False
    )


def as_photos(folder):
    """The synthetic images themselves as the real ones."""
    return read_photos(folder, (32, 32), 100)


@pytest.mark.parametrize(("most", "least"), [(references.MOST, 0.01), (20 * 20, 2)])
def test_crops_are_cut_from_whole_images_that_were_made_like_whole_photos(
    crops, images, monkeypatch, most, least
):
    monkeypatch.setattr(references, "MOST", most)
    photo = as_photos(images).rows(np.array([0]))
    row = [view.name for view in crops.views].index("0.png")

    made = finish(references.referred("hm", crops, images, photo, 1, 0))[0]

    # A whole image with its own histogram is itself; a crop of it would have had another one.
    off = np.abs(made[row].astype(int) - crops.images[row]).mean()
    assert off < least


def test_colours_of_crops_are_matched_by_whole_images(crops, images):
    made = finish(references.coloured(crops, images, as_photos(images)))[0]

    assert np.abs(made.astype(int) - crops.images).mean() < 3  # the same images: nothing to match


def test_bars_are_changed_by_no_arm(tmp_path, photos):
    path = write_toy(tmp_path / "other", 20, seed=0)
    looks = task_of("segment")
    wide = read_split(open_labelled(path, None, 100), looks, (48, 32), ("disc", "square"), True)

    images = tmp_path / "other" / "images"
    for work in (
        references.coloured(wide, images, photos),
        references.referred("hm", wide, images, photos, 1, 0),
    ):
        assert (finish(work)[0][:, :, :8] == 128).all()


def test_what_lies_outside_of_labels_can_be_kept(split, images, photos):
    made = finish(references.referred("hm", split, images, photos, 2, 0))

    kept = forms.kept_outside(made.copy(), split)

    outside = split.maps == 0
    assert np.array_equal(kept[1][outside], split.images[outside])
    assert np.array_equal(kept[1][~outside], made[1][~outside])


def test_a_folder_with_the_same_images_is_raw(tmp_path, split):
    made = finish(forms.from_folder(split, tmp_path / "synthetic" / "images"))

    assert np.array_equal(made[0], split.images)


def test_the_output_of_refine_is_a_folder_too(tmp_path, split):
    shutil.copytree(tmp_path / "synthetic" / "images", tmp_path / "refined" / "images")

    assert np.array_equal(finish(forms.from_folder(split, tmp_path / "refined"))[0], split.images)


def test_a_folder_that_lacks_an_image_is_refused_and_says_which(tmp_path, split):
    shutil.copytree(tmp_path / "synthetic" / "images", tmp_path / "mine")
    (tmp_path / "mine" / "7.png").unlink()

    with pytest.raises(DataError, match=r"20 synthetic ones, 1 are missing, the first is '7.png'"):
        finish(forms.from_folder(split, tmp_path / "mine"))


@pytest.mark.parametrize("side", [16, 64])
def test_an_image_of_another_size_than_the_labelled_one_is_refused(tmp_path, split, side):
    shutil.copytree(tmp_path / "synthetic" / "images", tmp_path / "mine")
    Image.new("RGB", (side, side)).save(tmp_path / "mine" / "7.png")

    with pytest.raises(ImageError, match=rf"7.png: expected 32x32 px .* got {side}x{side}"):
        finish(forms.from_folder(split, tmp_path / "mine"))


def test_a_refiner_gives_each_form_seeds_of_its_own(tmp_path, split, refiner_file):
    refiner = ImageRefiner.load(refiner_file, "cpu", precision="fp32")

    def make(seed):
        return finish(forms.refined(split, tmp_path / "synthetic" / "images", refiner, 2, seed))

    made = make(0)
    assert np.array_equal(made, make(0))
    assert not np.array_equal(made[0], split.images)
    noisy = getattr(refiner.network, "noise_channels", 0) > 0
    assert np.array_equal(made[0], made[1]) != noisy
    assert np.array_equal(made, make(1)) != noisy


def test_mixed_shows_about_half_refined_and_others_the_next_epoch(split):
    made = 255 - split.images[None]
    feed, rows = forms.mixed(made, split.images, 0), np.arange(20)

    refined = [
        np.array([np.array_equal(a, b) for a, b in zip(feed(rows, epoch), made[0], strict=True)])
        for epoch in range(20)
    ]

    assert 0.4 < np.mean(refined) < 0.6
    assert not np.array_equal(refined[0], refined[1])
    assert np.array_equal(feed(rows[5:9], 3), feed(rows, 3)[5:9])  # whatever the batch


def test_strength_lies_between_raw_and_refined(split):
    made = split.images[None] // 2
    shown = forms.of_strength(made, split.images, 0)(np.arange(20), 0)

    assert (shown <= split.images).all()
    assert (shown >= made[0]).all()
    shares = [1 - a.mean() / b.mean() for a, b in zip(shown, split.images, strict=True)]
    assert max(shares) - min(shares) > 0.2


def test_drift_is_how_far_pictures_under_labels_have_moved(split):
    assert forms.drift(split, split.images).px == 0
    moved = forms.drift(split, np.roll(split.images, 3, axis=2))
    assert moved.px == pytest.approx(3, abs=0.3)
    assert 0 < moved.located <= moved.labels == 20


def test_drift_is_in_px_of_the_files(split):
    region = (0, 0, 128, 128)
    large = tuple(view._replace(region=region, whole=(128, 128)) for view in split.views)
    fourfold = dataclasses.replace(split, views=large)

    moved = forms.drift(fourfold, np.roll(split.images, 3, axis=2))

    assert moved.px == pytest.approx(12, abs=1.2)


def grown_on(split, count):
    """Shapes of the first canvases painted on above and below, as far as there is room."""
    made = split.images.copy()
    for row, (label,) in enumerate(split.labels[:count]):
        x, y, width, height = (round(side) for side in label.box)
        colour = made[row, y + height // 2, x + 2]
        made[row, max(0, y - 6) : y, x : x + width] = colour
        made[row, y + height : y + height + 6, x : x + width] = colour
    return made


def test_labels_that_look_larger_than_their_boxes_are_counted(split):
    grown, told = forms.grown(split, grown_on(split, 15))

    assert forms.grown(split, split.images).number == 0
    assert 15 <= told <= 20
    assert 8 <= grown <= 15  # some shapes leave little room, or little ground to be told from


def test_labels_are_looked_at_where_they_lie_on_a_canvas_with_bars(split):
    def barred(images):
        return np.pad(images, ((0, 0), (16, 16), (0, 0), (0, 0)), constant_values=114)

    lower = tuple((each._replace(box=np.add(each.box, (0, 16, 0, 0))),) for (each,) in split.labels)
    tall = dataclasses.replace(split, images=barred(split.images), labels=lower)
    made = grown_on(split, 15)

    assert forms.grown(tall, barred(made)) == forms.grown(split, made)


COPY = "import shutil, sys; shutil.copytree(sys.argv[1], sys.argv[2], dirs_exist_ok=True)"


def test_a_command_is_run_once_and_its_folder_is_used(tmp_path, split):
    script = tmp_path / "copy it.py"
    script.write_text(COPY + f"; open({str(tmp_path / 'log')!r}, 'a').write('x')")
    command = f"{shlex.quote(sys.executable)} {shlex.quote(str(script))} {{images}} {{out}}"
    values = {"images": str(tmp_path / "synthetic" / "images")}

    for _ in range(2):
        out = run_command(command, values, tmp_path / "made", os.listdir)

    assert np.array_equal(finish(forms.from_folder(split, out))[0], split.images)
    assert (tmp_path / "log").read_text() == "x"


def test_a_command_that_fails_says_why_and_leaves_nothing_behind(tmp_path):
    command = f"{sys.executable} -c 'import sys; sys.exit(\"no GPU here\")' {{out}}"

    with pytest.raises(DataError, match=r"failed with exit code 1: no GPU here \(all of it: "):
        run_command(command, {}, tmp_path / "made", os.listdir)

    assert not (tmp_path / "made").exists()


def test_a_command_that_cannot_be_started_is_told(tmp_path):
    with pytest.raises(ConfigError, match="not-a-program: cannot be run: No such file"):
        run_command("not-a-program {out}", {}, tmp_path / "made", os.listdir)


def test_a_placeholder_is_one_word_whatever_it_holds():
    words = command_words("run --in={images} {out}", {"images": "a b; rm -rf c", "out": "d e"})

    assert words == ["run", "--in=a b; rm -rf c", "d e"]


def test_an_aborted_command_takes_along_what_it_has_started(tmp_path, monkeypatch):
    started, real = tmp_path / "pid", subprocess.Popen.wait

    def aborted(process, timeout=None):
        monkeypatch.setattr(subprocess.Popen, "wait", real)
        while not (started.exists() and started.read_text().strip()):
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "wait", aborted)
    command = f"sh -c 'sleep 60 & echo $! > {started}; wait' {{out}}"

    with pytest.raises(KeyboardInterrupt):
        run_command(command, {}, tmp_path / "made", os.listdir)

    state = Path(f"/proc/{started.read_text().strip()}/stat")
    deadline = time.monotonic() + 10
    while state.exists() and " Z " not in state.read_text():  # dead, though nobody may have asked
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_fills_a_placeholder_is_not_filled_itself():
    values = {"images": "/data/{out}/i", "out": "made"}

    assert command_words("run {images} {out} {else}", values) == [
        "run", "/data/{out}/i", "made", "{else}"
    ]  # fmt: skip


@pytest.mark.parametrize("command", ["", "run it", "run 'it {out}"])
def test_a_command_without_a_place_for_images_is_refused(command):
    with pytest.raises(ConfigError, match="cmd:"):
        command_words(command, {})


def test_the_papers_arm_is_its_preset_with_a_smaller_batch():
    (paper,) = (arm for arm in arms_of(("paper",), False) if arm.kind == "paper")

    whole, short = config_of(paper, None, None), config_of(paper, None, 100)

    assert (whole.refiner.name, whole.loss.name) == ("resnet", "cross_entropy")
    assert whole.training.batch_size == 8
    assert (short.training.steps, short.training.refiner_warmup) == (150, 100)


def test_a_config_of_ones_own_is_checked_before_anything_runs(tmp_path):
    (tmp_path / "a.toml").write_text('[refiner]\nfeatures = "many"\n')
    (arm,) = (arm for arm in arms_of((f"a={tmp_path}/a.toml",), False) if arm.is_own)

    with pytest.raises(ConfigError, match=r"a.toml: \[refiner\]"):
        config_of(arm, None, None)
