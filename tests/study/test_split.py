"""Canvases: images keep their shape, labels lie where the picture does."""

import json

import numpy as np
import pytest
from conftest import write_toy
from PIL import Image

from simgan_aug.errors import DataError
from simgan_aug.study import canvas
from simgan_aug.study.labelled import open_labelled, sizes_of
from simgan_aug.study.split import read_photos, read_split
from simgan_aug.study.tasks import task_of


def test_an_image_of_another_shape_gets_bars_and_is_not_stretched():
    image = np.full((20, 40, 3), 200, np.uint8)

    made = canvas.put(image, (0, 0, 40, 20), (32, 32))

    assert (made[8:24] == 200).all()
    assert (made[:8] == canvas.BAR).all()
    assert (made[24:] == canvas.BAR).all()


def test_an_image_of_the_size_of_the_canvas_is_itself():
    image = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)

    assert np.array_equal(canvas.put(image, (0, 0, 32, 24), (32, 24)), image)


@pytest.mark.parametrize("mode", ["L", "RGBA", "I;16", "P"])
def test_images_of_all_kinds_become_rgb(tmp_path, mode):
    write_toy(tmp_path / "a", 8, seed=0)
    image = Image.open(tmp_path / "a" / "images" / "0.png")
    grey = np.asarray(image.convert("L"))
    made = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
    made.save(tmp_path / "a" / "images" / "0.png")

    photos = read_photos(tmp_path / "a" / "images", (32, 32), 100)

    assert photos.images.shape == (8, 32, 32, 3)
    expected = np.asarray(image.convert("RGB")) if mode in ("RGBA", "P") else grey[..., None]
    assert np.abs(photos.images[0].astype(int) - expected).mean() < 25


def test_labels_are_scaled_as_the_picture_is(tmp_path):
    path = write_toy(tmp_path / "a", 8, seed=0)

    split = read_split(
        open_labelled(path, None, 100), task_of("segment"), (64, 96), ("disc", "square"), True
    )

    said = json.loads(path.read_text())["annotations"][1]
    label = split.labels[1][0]
    assert label.box == pytest.approx(2 * np.array(said["bbox"]) + (0, 16, 0, 0))
    dot = said["keypoints"]
    assert label.points[0] == pytest.approx([2 * dot[0], 2 * dot[1] + 16, dot[2]])
    rows, columns = np.nonzero(split.maps[1] == 2)
    x, y, width, height = label.box
    assert (columns.min(), columns.max() + 1) == pytest.approx((x, x + width), abs=1)
    assert (rows.min(), rows.max() + 1) == pytest.approx((y, y + height), abs=1)
    reddish = split.images[1][split.maps[1] == 2].mean(0)
    assert reddish[0] > 2 * reddish[2]


def test_small_labels_lie_over_large_ones(tmp_path):
    path = write_toy(tmp_path / "a", 8, seed=0)
    content = json.loads(path.read_text())
    content["annotations"] = [
        {"id": 1, "image_id": 0, "category_id": 7, "bbox": [10, 10, 4, 4]},
        {"id": 2, "image_id": 0, "category_id": 9, "bbox": [2, 2, 28, 28]},
    ]
    path.write_text(json.dumps(content))

    split = read_split(
        open_labelled(path, None, 100), task_of("segment"), (32, 32), ("disc", "square"), True
    )

    assert split.maps[0, 12, 12] == 2
    assert split.maps[0, 20, 20] == 1
    assert split.maps[0, 0, 0] == 0
    assert not split.maps[1].any()  # an image without labels is one too


def test_of_many_images_the_same_part_is_always_taken(tmp_path):
    path = write_toy(tmp_path / "a", 40, seed=0)

    parts = [[e.file_name for e in open_labelled(path, None, 10).entries] for _ in range(2)]

    assert len(parts[0]) == 10
    assert parts[0] == parts[1]


def test_a_canvas_has_the_usual_shape_and_is_small():
    assert canvas.fitting([(192, 128)] * 5, 96 * 64) == (96, 64)
    assert canvas.fitting([(640, 480), (640, 480), (500, 500)], 96 * 64) == (88, 64)
    assert canvas.fitting([(40, 24)], 96 * 64) == (40, 24)  # never larger than the images


def test_sizes_that_a_file_does_not_tell_are_looked_up(tmp_path):
    path = write_toy(tmp_path / "a", 8, seed=0)
    content = json.loads(path.read_text())
    content["images"] = [{"id": e["id"], "file_name": e["file_name"]} for e in content["images"]]
    path.write_text(json.dumps(content))

    assert set(sizes_of(open_labelled(path, None, 100), task_of("classify"))) == {(32, 32)}


def test_too_few_images_of_use_are_told_with_the_categories(tmp_path):
    path = write_toy(tmp_path / "a", 12, seed=0)
    content = json.loads(path.read_text())
    content["annotations"] = content["annotations"][:3]
    path.write_text(json.dumps(content))

    with pytest.raises(DataError, match=r"3 of 12 images have labels .* \(categories: disc"):
        read_split(
            open_labelled(path, None, 100), task_of("classify"), (32, 32), ("disc", "square"), False
        )
