"""`--only-labels` of the refine job: pixels outside of labels are those that there were."""

import json

import numpy as np
import pytest
from labelled import SIZE, save, save_shifting_refiner, scene, write_coco
from PIL import Image

from simgan_aug.audit import Guard
from simgan_aug.cli import main
from simgan_aug.coco import Annotation
from simgan_aug.dataset import RefineJob, refine, verify
from simgan_aug.dataset.plan import Settings
from simgan_aug.errors import ConfigError, DataError, ImageError
from simgan_aug.geometry import labelled_area
from simgan_aug.imagefile import read_image
from simgan_aug.inference import ImageRefiner

BOX = {"bbox": [60, 30, 30, 30]}
NOTCHED = {"bbox": [20, 16, 32, 32], "segmentation": [[20, 16, 52, 16, 52, 48, 20, 48, 36, 32]]}
CAPTION = {"caption": "a hand"}


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_shifting_refiner(tmp_path / "shift.safetensors")
    return tmp_path


def refined(data, images, labels, **options):
    """Refine images by name, of which each has some labels; the job, when it is done."""
    for name, pixels in images.items():
        save(data / "images" / name, pixels)
    known = [
        {"id": 10 * number + place, "image_id": number, "category_id": 1, **label}
        for number, some in enumerate(labels)
        for place, label in enumerate(some, start=1)
    ]
    write_coco(data / "ann.json", list(images), known, next(iter(images.values())).shape[:2])
    options = {"workers": 0, "device": "cpu", "only_labels": True} | options
    job = RefineJob(
        [data / "ann.json"], data / "images", data / "shift.safetensors", data / "out", **options
    )
    for _ in job.run():
        pass
    return job


def pixels(folder, name):
    return read_image(folder / "images" / name).pixels


def plainly(data, name, old):
    """What a job without the option makes of an image."""
    refiner = ImageRefiner.load(data / "shift.safetensors", "cpu", precision="fp32")
    return refiner(old, seed=Settings().seed_of(name))


def where(*labels):
    """Of a box, and of the polygon of `NOTCHED`."""
    known = [Annotation(image_id=0, **label) for label in labels]
    return labelled_area(known, *SIZE)


@pytest.mark.parametrize("workers", [0, 2])
def test_outside_of_labels_every_pixel_is_what_it_was_and_within_as_refined(data, workers):
    images = {"a/ü 0.png": scene(0), "1.png": scene(1)}
    refined(data, images, [[BOX, NOTCHED], [NOTCHED]], workers=workers)

    for (name, old), within in zip(
        images.items(), [where(BOX, NOTCHED), where(NOTCHED)], strict=True
    ):
        new, whole = pixels(data / "out", name), plainly(data, name, old)
        assert 0 < within.mean() < 0.5
        assert np.array_equal(new[~within], old[~within])
        assert np.array_equal(new[within], whole[within])
        assert (new != old).any()


def test_a_label_with_a_mask_is_its_mask_and_not_its_box(data):
    refined(data, {"0.png": scene(0)}, [[NOTCHED]])

    changed = (pixels(data / "out", "0.png") != scene(0)).any(2)
    assert changed[where(NOTCHED)].any()
    assert where({"bbox": NOTCHED["bbox"]})[changed].all()
    notch = where({"bbox": NOTCHED["bbox"]}) & ~where(NOTCHED)
    assert notch.any()
    assert not changed[notch].any()


@pytest.mark.parametrize("empty", [[[]], [[1, 2, 3, 4]], {"size": SIZE, "counts": [72 * 96]}])
def test_a_label_whose_mask_is_empty_is_its_box(data, empty):
    refined(data, {"0.png": scene(0)}, [[BOX | {"segmentation": empty}]])

    new, within = pixels(data / "out", "0.png"), where(BOX)
    assert np.array_equal(new[within], plainly(data, "0.png", scene(0))[within])
    assert np.array_equal(new[~within], scene(0)[~within])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_images_of_either_depth_are_kept_to_the_bit(data, dtype):
    old = scene(0)[..., 0].astype(dtype) * (1 if dtype == np.uint8 else 257)
    refined(data, {"0.png": old}, [[BOX]])

    new, within = pixels(data / "out", "0.png"), where(BOX)
    assert new.dtype == dtype
    assert np.array_equal(new[~within], old[~within])
    assert (new[within] != old[within]).any()


@pytest.mark.parametrize("label", [[], [CAPTION]])
def test_an_image_of_which_nothing_is_labelled_stays_and_is_counted(data, label):
    images = {"0.png": scene(0), "1.png": scene(1)}
    refined(data, images, [label, [BOX]])

    assert np.array_equal(pixels(data / "out", "0.png"), scene(0))
    assert not np.array_equal(pixels(data / "out", "1.png"), scene(1))
    report = json.loads((data / "out" / "report.json").read_text())
    assert report["notes"] == {"nothing is labelled, so that it is as it was (--only-labels)": 1}
    assert verify(data / "out").complete


def test_a_guard_counts_the_images_that_it_has_looked_at(data):
    refined(data, {"0.png": scene(0), "1.png": scene(1)}, [[], [BOX]], guard="image")

    assert json.loads((data / "out" / "report.json").read_text())["guard"]["images"] == 1


def test_a_size_other_than_stated_is_not_told_to_be_let_through(data):
    with pytest.raises(ImageError, match=r"1\.png: is 20x10, the annotations say") as caught:
        refined(data, {"0.png": scene(0), "1.png": np.zeros((10, 20, 3), np.uint8)}, [[BOX], [BOX]])

    assert "--allow-size-mismatch" not in str(caught.value)


def test_a_file_of_which_nothing_is_labelled_is_not_encoded_anew(data):
    (data / "images").mkdir()
    Image.fromarray(scene(0)).save(data / "images" / "0.jpg", quality=60)
    known = [{"id": 1, "image_id": 1, "category_id": 1, **BOX}]
    save(data / "images" / "1.png", scene(1))
    write_coco(data / "ann.json", ["0.jpg", "1.png"], known)
    given = (data / "ann.json", data / "images", data / "shift.safetensors")
    options = {"workers": 0, "device": "cpu", "only_labels": True}
    refine(*given, data / "out", **options)
    refine(*given, data / "png", format="png", **options)

    kept = (data / "images" / "0.jpg").read_bytes()
    assert (data / "out" / "images" / "0.jpg").read_bytes() == kept
    assert np.array_equal(pixels(data / "png", "0.png"), pixels(data, "0.jpg"))


def test_a_guard_judges_what_is_left_of_the_change(data):
    refined(data, {"0.png": scene(0)}, [[BOX, NOTCHED]], guard="label")

    old, within = scene(0), where(BOX, NOTCHED)
    cut = np.where(within[..., None], plainly(data, "0.png", old), old)
    known = [Annotation(image_id=0, id=1, **BOX), Annotation(image_id=0, id=2, **NOTCHED)]
    expected, decision = Guard("label")(old, cut, known)
    assert not decision.is_untouched
    assert np.array_equal(pixels(data / "out", "0.png"), expected)
    assert np.array_equal(expected[~within], old[~within])


@pytest.mark.parametrize(("before", "after"), [(True, False), (False, True)])
def test_a_result_of_the_other_kind_is_not_mixed_in(data, before, after):
    images = {"0.png": scene(0)}
    refined(data, images, [[BOX]], only_labels=before)

    with pytest.raises(ConfigError, match=r"settings.*another --out"):
        refined(data, images, [[BOX]], only_labels=after)


def test_a_label_that_makes_no_sense_is_told_with_its_image(data):
    broken = {"segmentation": {"size": [3, 3], "counts": [9]}}
    images = {"0.png": scene(0), "1.png": scene(1)}

    with pytest.raises(DataError, match=r"0\.png.*annotation 1"):
        refined(data, images, [[broken], [BOX]])

    job = refined(data, images, [[broken], [BOX]], on_error="copy")
    assert [*job.summary().failed] == ["0.png"]
    assert np.array_equal(pixels(data / "out", "0.png"), scene(0))


@pytest.mark.parametrize("label", [CAPTION, {"segments_info": [{"id": 1, "bbox": [1, 1, 9, 9]}]}])
def test_files_in_which_nothing_lies_anywhere_are_refused(data, label):
    with pytest.raises(ConfigError, match="has a mask or a box"):
        refined(data, {"0.png": scene(0)}, [[label]])


def test_images_of_another_size_than_stated_are_no_place_for_labels():
    with pytest.raises(ConfigError, match="where labels lie"):
        Settings(only_labels=True, allow_size_mismatch=True)


def test_the_command_keeps_what_is_outside(data):
    save(data / "images" / "0.png", scene(0))
    label = {"id": 1, "image_id": 0, "category_id": 1, **BOX}
    write_coco(data / "ann.json", ["0.png"], [label])

    files = ["--annotations", "ann.json", "--refiner", "shift.safetensors", "--out", "out"]
    assert main(["refine", *files, "--only-labels", "--workers", "0"]) == 0

    new, within = pixels(data / "out", "0.png"), where(BOX)
    assert np.array_equal(new[~within], scene(0)[~within])
    assert (new[within] != scene(0)[within]).any()
    assert json.loads((data / "out" / "run.json").read_text())["settings"]["only_labels"] is True
