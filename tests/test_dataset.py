"""The refine job: nothing lost, nothing half-written, nothing overwritten."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from simgan_aug.dataset import RefineJob, refine
from simgan_aug.errors import ConfigError, DataError, ImageError, OutputError

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
def job(synthetic, refiner_file, tmp_path):
    def make(**settings):
        out = settings.pop("out", tmp_path / "out")
        images = settings.pop("images", synthetic.parent / "images")
        return RefineJob([synthetic], images, refiner_file, out, **settings)

    return make


def test_annotations_come_out_byte_for_byte(synthetic, refiner_file, tmp_path):
    refine([synthetic], synthetic.parent / "images", refiner_file, tmp_path / "out")

    assert (tmp_path / "out" / "ann.json").read_bytes() == AWKWARD.encode()


def test_images_keep_names_formats_and_sizes(job, tmp_path):
    done = list(job().run())

    assert done == ["a/ü 1.png", "b.jpg"]
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
    refine([alone], synthetic.parent / "images", refiner_file, tmp_path / "out2")

    first, second = (tmp_path / out / "images" / "b.jpg" for out in ("out", "out2"))
    assert first.read_bytes() == second.read_bytes()


def test_annotations_appear_only_when_every_image_is_there(job, tmp_path):
    running = job().run()
    next(running)
    running.close()

    assert not (tmp_path / "out" / "ann.json").exists()


def test_a_second_run_completes_an_interrupted_one(job, tmp_path):
    running = job().run()
    next(running)
    running.close()
    first = (tmp_path / "out" / "images" / "a" / "ü 1.png").stat().st_mtime_ns

    rest = list(job().run())

    assert rest == ["b.jpg"]
    assert (tmp_path / "out" / "images" / "a" / "ü 1.png").stat().st_mtime_ns == first
    assert (tmp_path / "out" / "ann.json").exists()


def test_a_result_of_other_settings_is_not_mixed_in(job):
    list(job().run())

    with pytest.raises(ConfigError, match="another --out"):
        job(strength=0.5)


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

    with pytest.raises(ImageError, match=r"b\.jpg: is 21x12, the annotations say 20x12"):
        list(job().run())


def test_a_truncated_image_stops_the_job_and_leaves_no_file_for_it(job, synthetic, tmp_path):
    broken = synthetic.parent / "images" / "b.jpg"
    broken.write_bytes(broken.read_bytes()[:-200])

    with pytest.raises(ImageError, match=r"b\.jpg"):
        list(job().run())
    left = sorted(path.name for path in (tmp_path / "out").rglob("*"))
    assert left == ["a", "images", "run.json", "ü 1.png"]


def test_a_file_name_that_leads_out_is_refused(synthetic, refiner_file, tmp_path, image):
    Image.fromarray(image).save(tmp_path / "data" / "outside.png")
    synthetic.write_text('{"images":[{"id":1,"file_name":"../outside.png"}]}')

    with pytest.raises(DataError, match="leads out"):
        RefineJob([synthetic], synthetic.parent / "images", refiner_file, tmp_path / "out")


def test_two_annotation_files_may_share_images(synthetic, refiner_file, tmp_path):
    shutil.copy(synthetic, synthetic.parent / "more.json")
    both = [synthetic, synthetic.parent / "more.json"]

    summary = refine(both, synthetic.parent / "images", refiner_file, tmp_path / "out")

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
    assert info["settings"] == {"strength": 0.5, "seed": 3, "quality": 95}
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
