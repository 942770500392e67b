"""The refine job: nothing lost, nothing half-written, nothing overwritten."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from faults.conftest import children
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from safetensors import safe_open
from safetensors.torch import save_file

from simgan_aug.checkpoint import load, save_checkpoint
from simgan_aug.cli import main
from simgan_aug.dataset import RefineJob, refine, verify
from simgan_aug.dataset.journal import read_lines
from simgan_aug.dataset.storage import LocalFolder
from simgan_aug.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    ImageError,
    OutputError,
    SimganAugError,
    is_out_of_memory,
)

AWKWARD = '{"images":[{"id":7,"file_name":"a/ü 1.png","width":20,"height":12,"x":1.50},\r\n'
AWKWARD += '{"id":9007199254740993,"file_name":"b.jpg","width":20,"height":12}],'
AWKWARD += '"annotations":[],"n":NaN}'


@pytest.fixture
def synthetic(tmp_path, image):
    """A COCO file that no JSON writer would give back, with its two images."""
    folder = tmp_path / "data" / "images"
    (folder / "a").mkdir(parents=True)
    Image.fromarray(image).save(folder / "a" / "ü 1.png")
    Image.fromarray(image).save(folder / "b.jpg", quality=95)
    (tmp_path / "data" / "ann.json").write_bytes(AWKWARD.encode())
    return tmp_path / "data" / "ann.json"


@pytest.fixture
def many(synthetic, image):
    """Arguments for a job of 30 images."""
    entries = [{"id": n, "file_name": f"many/{n}.png", "width": 20} for n in range(30)]
    (synthetic.parent / "images" / "many").mkdir()
    for entry in entries:
        Image.fromarray(image).save(synthetic.parent / "images" / entry["file_name"])
    path = synthetic.parent / "many.json"
    path.write_text(json.dumps({"images": entries}))
    return {"annotations": [path]}


@pytest.fixture
def listed(synthetic, job):
    """A job over a COCO file with these names, of images that are made if they are not there."""

    def make(*names, **settings):
        for name in names:
            path = synthetic.parent / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                pixels = np.random.default_rng(1).integers(0, 256, (12, 20, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(path)
        entries = [{"id": n, "file_name": name} for n, name in enumerate(names)]
        path = synthetic.parent / "listed.json"
        path.write_text(json.dumps({"images": entries, "annotations": []}))
        return job(**{"annotations": [path]} | settings)

    return make


@pytest.fixture
def job(synthetic, refiner_file, tmp_path):
    def make(**settings):
        out = settings.pop("out", tmp_path / "out")
        images = settings.pop("images", synthetic.parent / "images")
        annotations = settings.pop("annotations", [synthetic])
        refiner = settings.pop("refiner", refiner_file)
        return RefineJob(annotations, images, refiner, out, **{"workers": 0} | settings)

    return make


def run(job):
    """Outcomes of a job by name: their status."""
    return {outcome.name: outcome.status for outcome in job.run()}


def files(out):
    """The bytes of all files of a result but those in .simgan, by name."""
    paths = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    return {n: path.read_bytes() for n, path in paths.items() if not n.startswith(".simgan/")}


def report(out):
    return json.loads((out / "report.json").read_text())


def truncate(path):
    """Cut off an image's end; returns what it was."""
    content = path.read_bytes()
    path.write_bytes(content[:-200])
    return content


def test_annotations_come_out_byte_for_byte(synthetic, refiner_file, tmp_path):
    refine([synthetic], synthetic.parent / "images", refiner_file, tmp_path / "out", workers=0)

    assert (tmp_path / "out" / "ann.json").read_bytes() == AWKWARD.encode()


def test_images_keep_names_formats_and_sizes(job, tmp_path):
    done = run(job())

    assert done == {"a/ü 1.png": "done", "b.jpg": "done"}
    for name, kind in (("a/ü 1.png", "PNG"), ("b.jpg", "JPEG")):
        with Image.open(tmp_path / "out" / "images" / name) as image:
            assert (image.format, image.size) == (kind, (20, 12))


def test_refining_changes_pixels(job, image, tmp_path):
    list(job().run())

    refined = np.array(Image.open(tmp_path / "out" / "images" / "a" / "ü 1.png"))
    assert not np.array_equal(refined, image)


def test_strength_zero_gives_a_lossless_image_back(job, image, tmp_path):
    list(job(strength=0.0).run())

    kept = np.array(Image.open(tmp_path / "out" / "images" / "a" / "ü 1.png"))
    assert np.array_equal(kept, image)


def test_an_images_result_does_not_depend_on_its_neighbours(job, synthetic, refiner_file, tmp_path):
    alone = tmp_path / "alone.json"
    alone.write_text('{"images":[{"id":1,"file_name":"b.jpg"}]}')

    list(job().run())
    refine([alone], synthetic.parent / "images", refiner_file, tmp_path / "out2", workers=0)

    first, second = (tmp_path / out / "images" / "b.jpg" for out in ("out", "out2"))
    assert first.read_bytes() == second.read_bytes()


def test_annotations_appear_only_when_every_image_is_there(job, tmp_path):
    running = job().run()
    next(running)
    running.close()

    assert not (tmp_path / "out" / "ann.json").exists()


DAMAGES = {
    "gone": lambda path: path.unlink(),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))
@pytest.mark.parametrize("name", ["images/b.jpg", "pan/b.png"])
def test_what_a_finished_job_has_lost_is_made_anew(job, panoptic, tmp_path, name, damage):
    def again():
        return job(annotations=[panoptic], guard="image")

    run(again())
    before = files(tmp_path / "out")
    damage(tmp_path / "out" / name)

    mending = again()
    rest = run(mending)

    assert mending.recalled == 1
    assert rest == ({"b.jpg": "done"} if name == "images/b.jpg" else {})
    assert files(tmp_path / "out") == before
    assert verify(tmp_path / "out").complete
    assert again().recalled == 0


@pytest.mark.parametrize("where", ["in its place", "in another folder"])
def test_what_was_made_of_another_image_is_made_anew(job, synthetic, tmp_path, where):
    run(job())
    images = synthetic.parent / "images"
    if where == "in another folder":
        images = shutil.copytree(images, tmp_path / "others")
    other = np.random.default_rng(5).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    Image.fromarray(other).save(images / "a" / "ü 1.png")

    mending = job(images=images)
    rest = run(mending)

    assert (mending.recalled, rest) == (1, {"a/ü 1.png": "done"})
    expected = job(images=images, out=tmp_path / "fresh")
    run(expected)
    assert (
        files(tmp_path / "out")["images/a/ü 1.png"] == files(tmp_path / "fresh")["images/a/ü 1.png"]
    )
    assert job(images=images).recalled == 0


def test_images_that_are_the_same_in_another_folder_are_not_made_anew(job, synthetic, tmp_path):
    run(job())
    images = shutil.copytree(
        synthetic.parent / "images", tmp_path / "moved", copy_function=shutil.copyfile
    )

    again = job(images=images)

    assert (again.recalled, again.remaining()) == (0, [])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_refiner_that_is_written_anew_meanwhile_ends_the_job(
    job, refiner_file, tmp_path, workers
):
    mine = Path(shutil.copy(refiner_file, tmp_path / "mine.safetensors"))
    planned = job(refiner=mine, workers=workers)
    with safe_open(mine, "pt") as opened:
        weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        metadata = opened.metadata()
    save_file({name: each * 0.9 for name, each in weights.items()}, mine, metadata)

    with pytest.raises(SimganAugError, match="is not the refiner with which the job began"):
        run(planned)

    assert not (tmp_path / "out" / "ann.json").exists()


def test_annotations_vanish_while_what_was_lost_is_made_anew(job, tmp_path):
    run(job())
    (tmp_path / "out" / "images" / "b.jpg").unlink()

    running = job().run()
    next(running)
    running.close()

    assert not (tmp_path / "out" / "ann.json").exists()


def test_a_copy_that_was_lost_is_made_anew(job, synthetic, tmp_path):
    truncate(synthetic.parent / "images" / "b.jpg")
    run(job(on_error="copy"))
    before = files(tmp_path / "out")
    (tmp_path / "out" / "images" / "b.jpg").unlink()

    rest = run(job(on_error="copy"))

    assert (list(rest), files(tmp_path / "out")) == (["b.jpg"], before)


def test_an_image_that_was_left_out_is_not_looked_for(job, synthetic):
    truncate(synthetic.parent / "images" / "b.jpg")
    run(job(on_error="copy"))
    run(job(on_error="skip"))

    again = job(on_error="skip")

    assert (again.recalled, again.remaining()) == (0, [])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_second_run_completes_an_interrupted_one(job, tmp_path, many, workers):
    running = job(**many, workers=workers).run()
    next(running)
    running.close()
    present = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png")}

    rest = run(job(**many, workers=workers))

    assert 0 < len(present) < 30
    assert len(present) + len(rest) == 30
    assert present == {path: path.stat().st_mtime_ns for path in present}
    assert (tmp_path / "out" / "many.json").exists()


def test_what_a_worker_holds_is_finished_when_the_job_is_closed(job, many):
    first = job(**many, workers=1)
    running = first.run()
    next(running)
    running.close()

    assert verify(first.target.path).wrong == {"many.json": "missing"}
    assert first.journal.suspects() == set()
    assert not children(os.getpid())


def test_a_result_of_other_settings_is_not_mixed_in(job):
    list(job().run())

    with pytest.raises(ConfigError, match="another --out"):
        job(strength=0.5)


def test_settings_that_another_job_has_used_meanwhile_are_not_mixed_in(job, tmp_path):
    first, second = job(), job(strength=0.5)
    run(first)

    with pytest.raises((ConfigError, OutputError)):
        run(second)
    info = json.loads((tmp_path / "out" / "run.json").read_text())
    assert info["settings"]["strength"] == 1


def test_a_training_run_is_no_place_for_a_result(job, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text('{"config": {}, "inputs": {}}')

    with pytest.raises(ConfigError, match="holds a training run"):
        job()


def test_a_folder_of_something_else_is_not_touched(job, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")

    with pytest.raises(ConfigError, match="not empty"):
        job()


@pytest.mark.parametrize("out", ["data/images", "data/images/refined", "data"])
def test_folders_that_overlap_are_refused(job, tmp_path, out):
    with pytest.raises(ConfigError, match="overlap"):
        job(out=tmp_path / out)


def test_a_link_back_into_the_input_is_seen_as_overlap(job, synthetic, tmp_path):
    (tmp_path / "link").symlink_to(synthetic.parent / "images")

    with pytest.raises(ConfigError, match="overlap"):
        job(out=tmp_path / "link")


def test_a_missing_image_is_named_before_anything_is_written(job, synthetic, tmp_path):
    (synthetic.parent / "images" / "b.jpg").unlink()

    with pytest.raises(DataError, match=r"1 of 2 images are missing .*'b\.jpg'"):
        job()
    assert not (tmp_path / "out").exists()


def test_a_missing_image_folder_says_which_option_helps(job, tmp_path):
    with pytest.raises(DataError, match="--images"):
        job(images=tmp_path / "nowhere")


def test_a_size_other_than_the_annotations_say_is_an_error(job, synthetic):
    Image.new("RGB", (21, 12)).save(synthetic.parent / "images" / "b.jpg")

    wrong = r"b\.jpg: is 21x12, the annotations say 20x12: mend .* --allow-size-mismatch"
    with pytest.raises(ImageError, match=wrong):
        list(job().run())


def test_a_truncated_image_stops_the_job_and_leaves_no_file_for_it(job, synthetic, tmp_path):
    broken = synthetic.parent / "images" / "b.jpg"
    broken.write_bytes(broken.read_bytes()[:-200])

    with pytest.raises(ImageError, match=r"b\.jpg"):
        list(job().run())
    assert sorted(files(tmp_path / "out")) == ["images/a/ü 1.png", "run.json"]


def test_a_file_name_that_leads_out_is_refused(synthetic, refiner_file, tmp_path, image):
    Image.fromarray(image).save(tmp_path / "data" / "outside.png")
    synthetic.write_text('{"images":[{"id":1,"file_name":"../outside.png"}]}')

    with pytest.raises(DataError, match="leads out"):
        RefineJob([synthetic], synthetic.parent / "images", refiner_file, tmp_path / "out")


def test_two_annotation_files_may_share_images(synthetic, refiner_file, tmp_path):
    shutil.copy(synthetic, synthetic.parent / "more.json")
    both = [synthetic, synthetic.parent / "more.json"]

    out = tmp_path / "out"
    summary = refine(both, synthetic.parent / "images", refiner_file, out, workers=0)

    assert summary.refined == 2
    assert (tmp_path / "out" / "more.json").read_bytes() == synthetic.read_bytes()


def test_two_annotation_files_of_one_name_are_refused(synthetic, refiner_file, tmp_path):
    (tmp_path / "other").mkdir()
    shutil.copy(synthetic, tmp_path / "other" / "ann.json")

    with pytest.raises(ConfigError, match="same name"):
        RefineJob(
            [synthetic, tmp_path / "other" / "ann.json"],
            synthetic.parent / "images",
            refiner_file,
            tmp_path / "out",
        )


def test_the_record_says_what_the_images_were_made_from(job, tmp_path):
    list(job(strength=0.5, seed=3).run())

    info = json.loads((tmp_path / "out" / "run.json").read_text())
    expected = {"strength": 0.5, "seed": 3, "format": "keep", "quality": 95}
    assert info["settings"] == expected
    assert set(info["refiner"]) == {"sha256", "provenance"}


def test_a_file_in_the_way_of_the_folder_is_an_error(job, tmp_path):
    (tmp_path / "out").write_text("a file")

    with pytest.raises(ConfigError, match="is a file"):
        job()


def test_a_full_disk_leaves_no_torso(job, small_disk):
    with pytest.raises(OutputError, match="No space left"):
        list(job(out=small_disk / "out").run())

    assert not list(small_disk.rglob("*.tmp"))
    assert not (small_disk / "out" / "ann.json").exists()


# An image that fails.


@pytest.mark.parametrize("policy", ["copy", "skip"])
def test_an_image_that_fails_is_set_aside_and_the_others_are_refined(
    job, synthetic, tmp_path, policy
):
    truncate(synthetic.parent / "images" / "b.jpg")
    first = job(on_error=policy)

    found = {outcome.name: outcome for outcome in first.run()}

    assert {name: o.status for name, o in found.items()} == {"a/ü 1.png": "done", "b.jpg": "failed"}
    assert "b.jpg: not a readable image" in found["b.jpg"].error
    written = files(tmp_path / "out")
    assert written["ann.json"] == AWKWARD.encode()
    copied = {"copy": (synthetic.parent / "images" / "b.jpg").read_bytes(), "skip": None}
    assert written.get("images/b.jpg") == copied[policy]
    said = report(tmp_path / "out")
    assert (said["images"], said["refined"], [*said["failed"]]) == (2, 1, ["b.jpg"])
    what = {"copy": "; copied as it is", "skip": "; left out"}
    assert said["failed"]["b.jpg"] == found["b.jpg"].error + what[policy]
    assert first.summary().failed == said["failed"]


@pytest.mark.parametrize("format", ["keep", "png"])
def test_an_image_that_was_copied_and_now_is_left_out_is_gone(job, synthetic, tmp_path, format):
    truncate(synthetic.parent / "images" / "b.jpg")
    run(job(on_error="copy", format=format))

    run(job(on_error="skip", format=format))

    assert "images/b.jpg" not in files(tmp_path / "out")
    assert verify(tmp_path / "out").unknown == []


def test_an_image_that_was_left_out_can_be_copied_later(job, synthetic, tmp_path):
    truncate(synthetic.parent / "images" / "b.jpg")
    run(job(on_error="skip"))

    again = run(job(on_error="copy"))

    assert again == {"b.jpg": "failed"}
    assert "images/b.jpg" in files(tmp_path / "out")
    assert verify(tmp_path / "out").complete


@pytest.mark.parametrize("policy", ["copy", "skip"])
def test_under_the_same_policy_an_image_that_failed_is_not_tried_again(job, synthetic, policy):
    truncate(synthetic.parent / "images" / "b.jpg")
    run(job(on_error=policy))

    again = job(on_error=policy)

    assert run(again) == {}
    assert [*again.summary().failed] == ["b.jpg"]


@pytest.mark.parametrize("policy", ["copy", "skip"])
@pytest.mark.parametrize("format", ["keep", "png"])
def test_an_image_mended_since_is_refined_under_another_policy(
    job, synthetic, tmp_path, policy, format
):
    run(job(out=tmp_path / "whole", format=format))
    content = truncate(synthetic.parent / "images" / "b.jpg")
    run(job(on_error=policy, format=format))
    (synthetic.parent / "images" / "b.jpg").write_bytes(content)

    again = run(job(format=format))

    assert again == {"b.jpg": "done"}
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    assert verify(tmp_path / "out").complete


def test_annotations_vanish_while_an_image_that_was_set_aside_is_tried_again(
    job, synthetic, tmp_path
):
    truncate(synthetic.parent / "images" / "b.jpg")
    run(job(on_error="skip"))

    with pytest.raises(ImageError, match=r"b\.jpg"):
        run(job())

    assert "ann.json" not in files(tmp_path / "out")
    assert not verify(tmp_path / "out").complete


@pytest.mark.parametrize("policy", ["copy", "skip"])
def test_a_missing_image_is_left_out_under_either_policy(job, synthetic, tmp_path, policy):
    (synthetic.parent / "images" / "b.jpg").unlink()

    assert run(job(on_error=policy)) == {"a/ü 1.png": "done", "b.jpg": "failed"}
    assert report(tmp_path / "out")["failed"]["b.jpg"].endswith("no such image file; left out")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_job_that_an_image_has_stopped_holds_nothing_any_more(job, many, synthetic, workers):
    path = synthetic.parent / "images" / "many" / "3.png"
    content = truncate(path)

    with pytest.raises(ImageError, match=r"many/3\.png"):
        run(job(**many, workers=workers))
    path.write_bytes(content)
    again = job(**many, workers=workers)

    assert not children(os.getpid())
    assert again.journal.suspects() == set()
    assert "many/3.png" in run(again)


def test_another_size_than_stated_can_be_allowed(job, synthetic, tmp_path):
    Image.new("RGB", (21, 12)).save(synthetic.parent / "images" / "b.jpg")
    assert run(job(on_error="skip"))["b.jpg"] == "failed"

    assert run(job(allow_size_mismatch=True)) == {"b.jpg": "done"}
    with Image.open(tmp_path / "out" / "images" / "b.jpg") as refined:
        assert refined.size == (21, 12)


def test_an_image_of_more_pixels_than_allowed_fails(job):
    with pytest.raises(ImageError, match="20x12 is more than 239 pixels"):
        run(job(max_pixels=239))
    assert run(job(max_pixels=240)) == {"a/ü 1.png": "done", "b.jpg": "done"}


@pytest.mark.parametrize("size", ["NaN", "Infinity", "1e999", "-20", "1e30"])
def test_a_size_that_no_image_has_is_an_error_of_that_image(job, synthetic, size):
    images = f'{{"id":1,"file_name":"b.jpg","width":{size},"height":12}},{{"id":2,"file_name":"c"}}'
    synthetic.write_text(f'{{"images":[{images}]}}')
    shutil.copy(synthetic.parent / "images" / "b.jpg", synthetic.parent / "images" / "c")

    assert run(job(on_error="skip")) == {"b.jpg": "failed", "c": "done"}


@pytest.mark.parametrize("long", ["x" * 300 + ".png", "x/" * 3000 + "a.png"])
def test_a_name_that_no_file_can_have_is_missing_like_any_other(job, synthetic, long):
    images = [{"id": n, "file_name": name} for n, name in enumerate(["b.jpg", long])]
    synthetic.write_text(json.dumps({"images": images}))

    with pytest.raises(DataError, match="1 of 2 images are missing"):
        job()
    assert run(job(on_error="skip")) == {"b.jpg": "done", long: "failed"}


def test_what_is_no_file_is_set_aside_and_not_waited_for(synthetic, refiner_file, tmp_path):
    os.mkfifo(synthetic.parent / "images" / "pipe.png")
    synthetic.write_text('{"images":[{"id":1,"file_name":"pipe.png"}]}')
    where = ["--annotations", synthetic, "--refiner", refiner_file, "--out", tmp_path / "out"]
    command = [sys.executable, "-m", "simgan_aug.cli", "refine", *where, "--on-error", "skip"]

    code = subprocess.run([*command, "--workers", "0"], timeout=20, check=False).returncode

    assert code == 3


# Formats.

ENDINGS = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}


@pytest.mark.parametrize("format", ENDINGS)
def test_images_of_all_formats_become_one(listed, tmp_path, format):
    names = ["a.jpg", "b.JPEG", "c/d.png", "e.webp", "f.bmp", "g.tif", "h.0001.png"]
    run(listed(*names, format=format))

    entries = json.loads((tmp_path / "out" / "listed.json").read_text())["images"]
    for name, entry in zip(names, entries, strict=True):
        stem, ending = os.path.splitext(name)
        kept = format == "jpeg" and ending == ".JPEG"
        assert entry["file_name"] == (name if kept else stem + ENDINGS[format])
        with Image.open(tmp_path / "out" / "images" / entry["file_name"]) as refined:
            refined.load()
            assert (refined.format, refined.size) == (format.upper(), (20, 12))
    assert len(files(tmp_path / "out")) == len(names) + 3


def test_of_the_annotations_only_the_endings_change(job, tmp_path):
    run(job(format="png"))

    assert files(tmp_path / "out")["ann.json"] == AWKWARD.replace("b.jpg", "b.png").encode()


@pytest.mark.parametrize("policy", ["stop", "copy", "skip"])
def test_alpha_does_not_become_a_jpeg(listed, synthetic, tmp_path, policy):
    Image.new("RGBA", (20, 12), (1, 2, 3, 4)).save(synthetic.parent / "images" / "c.png")
    made = listed("c.png", "d.png", format="jpeg", on_error=policy)

    if policy == "stop":
        with pytest.raises(ImageError, match=r"c\.png: JPEG has no alpha"):
            run(made)
        return
    assert run(made) == {"c.png": "failed", "d.png": "done"}
    entries = json.loads((tmp_path / "out" / "listed.json").read_text())["images"]
    named = [entry["file_name"] for entry in entries]
    present = {name for name in files(tmp_path / "out") if name.startswith("images/")}
    assert present == {"images/d.jpg"} | ({"images/c.png"} if policy == "copy" else set())
    assert named == [{"copy": "c.png", "skip": "c.jpg"}[policy], "d.jpg"]


@pytest.mark.parametrize(
    ("names", "format"),
    [
        (["a.jpg", "a.png"], "png"),
        (["x/a.bmp", "x/a.tif"], "webp"),
        (["a.png", "./a.png"], "keep"),
        (["x/a.png", "x//a.png"], "keep"),
        (["./a.jpg", "a.png"], "png"),
        (["a.jpg.png/b.jpg", "a.jpg.png/../a.jpg.png/b.png"], "png"),
    ],
)
def test_names_that_would_be_one_file_are_refused_before_anything_is_written(
    listed, tmp_path, names, format
):
    with pytest.raises(DataError, match="would both be written to"):
        listed(*names, format=format)
    assert not (tmp_path / "out").exists()


def test_a_file_and_a_folder_of_one_name_are_refused_before_anything_is_written(
    listed, synthetic, tmp_path
):
    shutil.copy(synthetic.parent / "images" / "b.jpg", synthetic.parent / "images" / "c")

    with pytest.raises(DataError, match=r"c\.png"):
        listed("c", "c.png/b.jpg", format="png")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [".simgan", "run.json", "report.json", "images"])
def test_an_annotation_file_of_a_name_that_the_job_needs_is_refused(job, synthetic, name):
    shutil.copy(synthetic, synthetic.parent.parent / name)

    with pytest.raises(ConfigError, match=f"{name}, which the job needs"):
        job(annotations=[synthetic.parent.parent / name])


# Panoptic annotations.

PANOPTIC = '{"images":[{"id":1,"file_name":"b.jpg"}],"annotations":[{"segments_info":[{"id":1}],'
PANOPTIC += '"file_name":"b.png","image_id":1}]}'


@pytest.fixture
def panoptic(synthetic):
    """A panoptic file and its PNG."""
    path = synthetic.parent / "pan.json"
    path.write_text(PANOPTIC)
    (synthetic.parent / "pan").mkdir()
    Image.new("RGB", (20, 12), (140, 61, 49)).save(synthetic.parent / "pan" / "b.png")
    return path


@pytest.mark.parametrize("format", ["keep", "webp"])
def test_panoptic_masks_are_copied_verbatim(job, panoptic, tmp_path, format):
    run(job(annotations=[panoptic], format=format))

    written = files(tmp_path / "out")
    assert written["pan/b.png"] == (panoptic.parent / "pan" / "b.png").read_bytes()
    assert written["pan.json"].count(b'"b.png"') == 1
    assert verify(tmp_path / "out").complete


def test_panoptic_masks_may_lie_elsewhere(job, panoptic, tmp_path):
    (panoptic.parent / "pan").rename(tmp_path / "masks")

    run(job(annotations=[panoptic], panoptic=tmp_path / "masks"))

    mask = (tmp_path / "masks" / "b.png").read_bytes()
    assert files(tmp_path / "out")["pan/b.png"] == mask


@pytest.mark.parametrize("gone", ["pan", "pan/b.png"])
def test_missing_panoptic_masks_are_named_before_anything_is_written(job, panoptic, tmp_path, gone):
    (panoptic.parent / gone).rename(tmp_path / "gone")

    with pytest.raises(DataError, match=r"pan\.json is panoptic.*--panoptic"):
        job(annotations=[panoptic])
    assert not (tmp_path / "out").exists()


def test_panoptic_masks_never_replace_images(job, panoptic, tmp_path):
    annotations = panoptic.rename(panoptic.with_name("images.json"))
    annotations.write_text(PANOPTIC.replace("b.jpg", "b.png"))
    shutil.copy(panoptic.parent / "images" / "b.jpg", panoptic.parent / "images" / "b.png")

    with pytest.raises((ConfigError, DataError)):
        job(annotations=[annotations], panoptic=panoptic.parent / "pan")


def test_a_mask_that_a_killed_run_has_copied_is_verified_too(job, panoptic, tmp_path):
    first = job(annotations=[panoptic])
    for _ in first.run():  # as if killed after the copy and before its line
        first.target.write("pan/b.png", (panoptic.parent / "pan" / "b.png").read_bytes())

    (tmp_path / "out" / "pan" / "b.png").unlink()

    assert verify(tmp_path / "out").wrong == {"pan/b.png": "missing"}


# Several annotation files, and such as change.


def test_annotation_files_that_share_some_images_refine_each_once(job, synthetic, tmp_path):
    other = synthetic.parent / "other.json"
    shutil.copy(synthetic.parent / "images" / "b.jpg", synthetic.parent / "images" / "c.jpg")
    other.write_text(AWKWARD.replace("a/ü 1.png", "c.jpg"))
    both = [synthetic, other]

    done = [outcome.name for outcome in job(annotations=both).run()]

    assert sorted(done) == ["a/ü 1.png", "b.jpg", "c.jpg"]
    for path in both:
        assert files(tmp_path / "out")[path.name] == path.read_bytes()


@pytest.mark.parametrize("stated", ["", ', "width": null, "height": 12'])
def test_a_size_that_one_annotation_file_does_not_state_is_no_other_size(job, synthetic, stated):
    other = synthetic.parent / "other.json"
    other.write_text(f'{{"images":[{{"id":1,"file_name":"b.jpg"{stated}}}]}}')

    assert len(run(job(annotations=[synthetic, other]))) == 2


def test_an_image_that_is_listed_with_two_sizes_is_refused(job, synthetic, tmp_path):
    other = synthetic.parent / "other.json"
    other.write_text('{"images":[{"id":1,"file_name":"b.jpg","width":21,"height":12}]}')

    with pytest.raises(DataError, match=r"b\.jpg: listed as 20x12 and, in .*other\.json, as 21x12"):
        job(annotations=[synthetic, other])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("format", ["keep", "png"])
@pytest.mark.parametrize("change", ["", AWKWARD.replace("1.50", "1.51"), "no JSON", None])
def test_annotations_that_changed_meanwhile_do_not_appear(job, synthetic, tmp_path, format, change):
    running = job(format=format).run()
    next(running)
    if change is None:
        synthetic.unlink()
    else:
        synthetic.write_text(change)

    with pytest.raises(DataError, match=r"ann\.json"):
        list(running)
    assert "ann.json" not in files(tmp_path / "out")


def test_annotations_are_never_removed_where_they_are_read(job, synthetic, tmp_path):
    truncate(synthetic.parent / "images" / "b.jpg")
    run(job(on_error="skip"))
    written = tmp_path / "out" / "ann.json"

    with contextlib.suppress(ConfigError, DataError):
        run(job(annotations=[written], on_error="copy"))

    assert written.read_bytes() == AWKWARD.encode()


# The result as a whole.


def test_detectors_score_the_refined_labels_as_the_original_ones(
    synthetic, refiner_file, tmp_path, capsys
):
    images, labels = instances(synthetic.parent / "images")
    for label in labels:
        label["area"], label["bbox"] = area_and_box(label["segmentation"])
    content = {"images": images, "annotations": labels, "categories": [{"id": 1, "name": "a"}]}
    path = synthetic.parent / "instances.json"
    path.write_text(json.dumps(content))

    refine([path], synthetic.parent / "images", refiner_file, tmp_path / "out", workers=0)

    truth, refined = COCO(str(path)), COCO(str(tmp_path / "out" / "instances.json"))
    found = [
        {"image_id": a["image_id"], "category_id": 1, "bbox": a["bbox"], "score": 1.0}
        | {"segmentation": refined.annToRLE(a)}
        for a in refined.dataset["annotations"]
    ]
    for kind in ("bbox", "segm"):
        evaluation = COCOeval(truth, truth.loadRes(found), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        assert evaluation.stats[0] == pytest.approx(1.0), kind
    capsys.readouterr()
    for entry in refined.dataset["images"]:
        with Image.open(tmp_path / "out" / "images" / entry["file_name"]) as image:
            assert image.size == (entry["width"], entry["height"])


def instances(folder):
    """Images with polygons and both kinds of RLE."""
    (folder / "i").mkdir()
    images, labels = [], []
    for number in range(4):
        name = f"i/{number}.png"
        Image.new("RGB", (64, 48), (number * 60, 9, 9)).save(folder / name)
        images.append({"id": number, "file_name": name, "width": 64, "height": 48})
        mask = np.zeros((48, 64), dtype=np.uint8, order="F")
        mask[5 : 20 + number, 30:50] = 1
        runs = rle.encode(mask)
        packed = {"size": [48, 64], "counts": runs["counts"].decode()}
        polygon = [[2.5, 3, 20 + number, 4, 10, 30.25]]
        for shape in (polygon, packed):
            label = {"image_id": number, "category_id": 1, "iscrowd": 0, "segmentation": shape}
            labels.append(label | {"id": len(labels) + 1})
    return images, labels


def area_and_box(shape):
    if isinstance(shape, list):
        shape = rle.merge(rle.frPyObjects(shape, 48, 64))
    return float(rle.area(shape)), [float(side) for side in rle.toBbox(shape)]


def test_any_number_of_workers_gives_the_same_files(job, many, tmp_path):
    found = []
    for workers in (0, 1, 2):
        out = tmp_path / f"out{workers}"
        run(job(**many, workers=workers, out=out))
        found.append(files(out))

    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 33


def times(out):
    return {name: (out / name).stat().st_mtime_ns for name in files(out)}


def test_a_second_run_refines_nothing_and_touches_no_image(synthetic, refiner_file, tmp_path):
    arguments = ([synthetic], synthetic.parent / "images", refiner_file, tmp_path / "out")
    refine(*arguments, workers=0)
    before = times(tmp_path / "out")

    summary = refine(*arguments, workers=0)

    after = times(tmp_path / "out")
    assert (summary.refined, summary.present) == (0, 2)
    assert {n: t for n, t in after.items() if n.startswith("images/")}.items() <= before.items()


def test_a_complete_result_is_not_touched_by_a_second_run(job, tmp_path):
    run(job())
    before = times(tmp_path / "out")

    run(job())

    assert times(tmp_path / "out") == before


def test_a_refiner_of_other_content_is_not_mixed_in(job, refiner_file, tmp_path):
    run(job())
    other = load(refiner_file)
    with torch.no_grad():
        next(other.network.parameters()).mul_(1.01)
    save_checkpoint(tmp_path / "other.safetensors", other)

    with pytest.raises(ConfigError, match=r"\(refiner\); choose another --out"):
        job(refiner=tmp_path / "other.safetensors")


def test_a_refiner_that_was_moved_is_the_same_refiner(job, refiner_file, tmp_path):
    run(job())
    refiner_file.rename(tmp_path / "moved.safetensors")

    assert run(job(refiner=tmp_path / "moved.safetensors")) == {}


# Holding a result against its hashes.


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.fixture
def result(job, tmp_path):
    run(job())
    return tmp_path / "out"


def test_a_result_that_nobody_has_touched_is_complete(result):
    verdict = verify(result)

    assert verdict.complete
    assert (verdict.files, verdict.left) == (3, 0)
    assert (verdict.wrong, verdict.failed, verdict.unknown) == ({}, {}, [])


@pytest.mark.parametrize("name", ["images/b.jpg", "ann.json"])
@pytest.mark.parametrize(("damage", "what"), [(flip, "changed"), (os.unlink, "missing")])
def test_a_file_that_is_damaged_or_gone_is_named(result, name, damage, what):
    damage(result / name)

    verdict = verify(result)

    assert verdict.wrong == {name: what}
    assert not verdict.complete


@pytest.mark.parametrize("order", ["0", "~"])
def test_an_image_that_was_made_twice_is_right_whichever_line_is_read_first(result, order):
    """As after a power cut, or by two ranks, on a GPU that does not repeat itself."""
    lines = read_lines(LocalFolder(result))
    line = next(line for line in lines if line.output == "images/b.jpg")
    earlier = {"done": line.done, "name": line.name, "output": line.output, "size": line.size}
    content = json.dumps(earlier | {"sha256": "0" * 64}) + "\n"
    (result / ".simgan" / "journal" / f"{order}.jsonl").write_text(content)

    assert verify(result).complete


def test_a_stranger_among_the_images_is_named_and_does_no_harm(result):
    (result / "images" / "a" / "stranger.png").write_bytes(b"")

    assert verify(result).unknown == ["images/a/stranger.png"]
    assert verify(result).complete


@pytest.mark.parametrize("name", ["./b.jpg", "a/../b.jpg", ".//b.jpg", "a/c/../../b.jpg"])
def test_a_name_with_dots_leads_to_its_image_which_is_no_stranger(
    listed, synthetic, tmp_path, name
):
    (synthetic.parent / "images" / "a" / "c").mkdir()
    run(listed(name))

    verdict = verify(tmp_path / "out")

    assert verdict.complete
    assert verdict.unknown == []
    assert (tmp_path / "out" / "images" / name).is_file()


def test_an_interrupted_result_has_images_left_and_no_annotations(job, many, tmp_path):
    running = job(**many).run()
    next(running)
    running.close()
    there = len(list((tmp_path / "out").rglob("*.png")))

    verdict = verify(tmp_path / "out")

    assert verdict.left == 30 - there > 0
    assert verdict.wrong == {"many.json": "missing"}
    assert not verdict.complete


def test_a_folder_without_a_refine_run_cannot_be_verified(tmp_path):
    with pytest.raises(DataError, match="holds no refine run"):
        verify(tmp_path)


# The command line.


@pytest.fixture
def command(synthetic, refiner_file, tmp_path, capfd):
    """Runs `simgan-aug refine`; returns its exit code and all that it printed."""

    def refining(*options):
        where = ["--annotations", synthetic, "--refiner", refiner_file, "--out", tmp_path / "out"]
        return said("refine", *where, "--workers", 0, *options)

    def said(*words):
        code = main([str(word) for word in words])
        printed = capfd.readouterr()
        assert "Traceback" not in printed.out + printed.err
        return code, printed.out + printed.err

    refining.verify = lambda: said("refine", "--verify", tmp_path / "out")
    refining.said = said
    return refining


def test_a_job_that_is_done_says_where_the_result_is(command, tmp_path):
    code, said = command()

    assert code == 0
    assert f"images: {tmp_path / 'out' / 'images'}" in said
    assert f"annotations, byte for byte: {tmp_path / 'out' / 'ann.json'}" in said


def test_images_set_aside_have_an_exit_code_and_a_line(command, synthetic):
    truncate(synthetic.parent / "images" / "b.jpg")

    code, said = command("--on-error", "skip")

    assert code == 3
    assert "b.jpg: not a readable image" in said
    assert "left out" in said
    assert command("--on-error", "skip")[0] == 3
    assert command.verify()[0] == 3


def test_an_image_that_cannot_be_read_is_the_users_to_mend(command, synthetic):
    truncate(synthetic.parent / "images" / "b.jpg")

    code, said = command()

    assert code == 2
    assert "error: " in said
    assert "b.jpg: not a readable image" in said


@pytest.mark.parametrize("leave", ["--annotations", "--refiner", "--out"])
def test_a_missing_option_is_a_usage_error(command, leave):
    words = {"--annotations": "a.json", "--refiner": "r", "--out": "o"}
    del words[leave]

    code, said = command.said("refine", *(word for pair in words.items() for word in pair))

    assert code == 2
    assert "Usage: simgan-aug refine" in said
    assert leave in said


@pytest.mark.parametrize(
    "option",
    [["--format", "gif"], ["--on-error", "x"], ["--strength", "2"], ["--quality", "0"],
     ["--max-pixels", "0"], ["--max-pixels", "999999999"], ["--workers", "-1"],
     ["--engine", "torchrun"]],
    ids=" ".join,
)  # fmt: skip
def test_an_impossible_option_is_a_usage_error_and_writes_nothing(command, tmp_path, option):
    code, _ = command(*option)

    assert code == 2
    assert not (tmp_path / "out").exists()


def test_verifying_has_exit_codes_for_whole_and_damaged(command, tmp_path):
    command()
    assert command.verify()[0] == 0

    flip(tmp_path / "out" / "images" / "b.jpg")
    code, said = command.verify()

    assert code == 1
    assert f"changed: {tmp_path / 'out' / 'images' / 'b.jpg'}" in said


def test_verifying_what_is_no_result_is_a_mistake_of_the_user(command):
    code, said = command.verify()

    assert code == 2
    assert "holds no refine run" in said


def test_a_result_of_another_format_says_that_names_have_changed(command):
    code, said = command("--format", "png")

    assert code == 0
    assert "annotations, with other file_name endings" in said


def test_a_name_that_no_terminal_can_show_is_set_aside_like_any_other(
    synthetic, refiner_file, tmp_path
):
    (synthetic.parent / "images" / "\udcff.jpg").write_bytes(b"no image")
    images = '{"id":1,"file_name":"b.jpg"},{"id":2,"file_name":"\\udcff.jpg"}'
    synthetic.write_text(f'{{"images":[{images}]}}')
    where = ["--annotations", synthetic, "--refiner", refiner_file, "--out", tmp_path / "out"]
    command = [sys.executable, "-m", "simgan_aug.cli", "refine", *where, "--on-error", "skip"]

    environment = os.environ | {"PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [*command, "--workers", "0"], env=environment, capture_output=True, check=False
    )

    assert b"Traceback" not in done.stderr
    assert done.returncode == 3


def test_a_size_that_is_no_number_gives_no_traceback(command, synthetic):
    synthetic.write_text('{"images":[{"id":1,"file_name":"b.jpg","width":NaN,"height":12}]}')

    assert command()[0] == 2


def test_annotation_files_may_be_listed_in_another_order_when_a_job_goes_on(
    synthetic, refiner_file, tmp_path, image
):
    other = synthetic.with_name("a-first.json")
    other.write_text('{"images":[{"id":1,"file_name":"c.png","width":20,"height":12}]}')
    Image.fromarray(image).save(synthetic.parent / "images" / "c.png")
    where = (synthetic.parent / "images", refiner_file, tmp_path / "out")
    running = RefineJob([synthetic, other], *where, workers=0).run()
    next(running)
    running.close()

    summary = refine([other, synthetic], *where, workers=0)

    assert summary.refined + summary.present == 3
    assert sum(path.is_file() for path in (tmp_path / "out" / "images").rglob("*")) == 3


@pytest.mark.parametrize(
    "name", ["../images/b.jpg", "link/../../data/images/b.jpg", "a/../../x.png"]
)
def test_a_name_that_leaves_the_folder_and_comes_back_is_refused(listed, synthetic, name):
    (synthetic.parent / "images" / "link").symlink_to(synthetic.parent / "images" / "a")

    with pytest.raises(DataError, match="leads out"):
        listed(name)


@pytest.mark.parametrize("name", [".simgan", "images"])
def test_a_link_in_the_result_that_leads_out_of_it_is_refused(job, synthetic, tmp_path, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).symlink_to(synthetic.parent / "images")

    with pytest.raises(ConfigError, match="is a link that leads out of"):
        job()
    assert sorted(os.listdir(synthetic.parent / "images")) == ["a", "b.jpg"]


def test_an_image_that_was_set_aside_as_a_killer_is_not_tried_again_at_once(job, tmp_path):
    journal = tmp_path / "out" / ".simgan" / "journal" / "before.jsonl"
    journal.parent.mkdir(parents=True)
    journal.write_text('{"died": 0, "error": "signal 9"}\n' * 2)

    outcomes = list(job(on_error="skip").run())

    assert [(outcome.number, outcome.status) for outcome in outcomes] == [
        (0, "failed"),
        (1, "done"),
    ]


def test_a_refiner_may_be_named_as_its_plugin_ships_it(synthetic, tmp_path):
    with pytest.raises(CheckpointError, match="nowhere"):
        RefineJob([synthetic], synthetic.parent / "images", "nowhere", tmp_path / "out")


@pytest.mark.parametrize("error", ["CUDA error: an illegal memory access was encountered", "a bug"])
def test_only_a_lack_of_memory_is_taken_for_one(error):
    assert not is_out_of_memory(RuntimeError(error))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"))
