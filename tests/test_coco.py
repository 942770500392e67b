"""COCO files of all kinds are read; what makes no sense is an error that says where."""

import json

import pytest

from simgan_aug.coco import (
    Annotation,
    CocoImage,
    check_size,
    image_folder,
    inside,
    missing_of,
    read_images,
    read_labels,
)
from simgan_aug.errors import DataError, ImageError

SQUARE = [2, 1, 6, 1, 6, 4, 2, 4]  # columns 2 to 5, rows 1 to 3
OTHER = [8, 5, 10, 5, 10, 8, 8, 8]


@pytest.fixture
def write(tmp_path):
    """An annotation file with this content."""

    def write(content):
        path = tmp_path / "instances.json"
        if isinstance(content, (dict, list)):
            content = json.dumps(content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_images_are_listed_in_order_with_their_ids_as_they_are(write):
    path = write(
        {
            "info": {"year": 2017},
            "images": [
                {"id": 9, "file_name": "b/ü 1.jpg", "width": 640, "height": 480, "license": 3},
                {"id": "a-7", "file_name": "a.png", "flickr_url": None},
                {"id": 2**70, "file_name": "c.png"},
            ],
        }
    )

    images = read_images(path)

    assert images == [
        CocoImage(id=9, file_name="b/ü 1.jpg", width=640, height=480),
        CocoImage(id="a-7", file_name="a.png"),
        CocoImage(id=2**70, file_name="c.png"),
    ]


def test_labels_of_every_kind_are_read_by_image(write):
    path = write(
        {
            "images": [],
            "annotations": [
                {"id": 1, "image_id": 4, "category_id": 1, "bbox": [1, 2, 3, 4.5], "iscrowd": 0},
                {"id": 2, "image_id": "x", "category_id": 1, "segmentation": [SQUARE, OTHER]},
                {
                    "id": 3,
                    "image_id": 4,
                    "category_id": 2,
                    "iscrowd": 1,
                    "segmentation": {"size": [10, 12], "counts": [60, 60]},
                },
                {"id": 4, "image_id": 4, "keypoints": [1, 2, 2], "num_keypoints": 1},
                {"id": 5, "image_id": 4, "caption": "a hand"},
            ],
            "categories": [
                {"id": 1, "name": "hand", "keypoints": ["thumb"], "skeleton": [[1, 1]]},
                {"id": 2, "name": "crowd", "supercategory": "people"},
            ],
        }
    )

    labels = read_labels(path)

    assert labels.categories == {1: "hand", 2: "crowd"}
    assert [len(labels.by_image[image]) for image in (4, "x")] == [4, 1]
    assert labels.by_image[4][0] == Annotation(image_id=4, category_id=1, bbox=[1, 2, 3, 4.5], id=1)
    assert labels.by_image["x"][0].segmentation == [SQUARE, OTHER]


def test_a_file_without_labels_has_none(write):
    labels = read_labels(write({"images": []}))

    assert (labels.by_image, labels.categories) == ({}, {})


@pytest.mark.parametrize(
    "text",
    [
        '\ufeff{"images": [{"id": 1, "file_name": "a.png"}]}',
        '{"images": [{"id": 1, "file_name": "a.png", "score": NaN, "w": Infinity}]}',
        '{"info": "\\ud800", "images": [{"id": 1, "file_name": "a.png"}]}',
        '{"images": [], "images": [{"id": 0, "id": 1, "file_name": "a.png"}]}',
        '{"images": [{"id": 1, "file_name": "a.png"}], "x": 123456789012345678901234567890}',
        '{"images": [{"id": 1, "file_name": "\\u0061.png", "date": 1E400}]}',
    ],
    ids=["BOM", "NaN", "lone surrogate", "doubled keys", "huge number", "infinite number"],
)
def test_what_python_calls_json_is_read(write, text):
    images = read_images(write(text))

    assert images == [CocoImage(id=1, file_name="a.png")]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "not a JSON file"),
        ("images:\n  - a.png", "not a JSON file"),
        ('{"images": [', "not a JSON file"),
        (b"\x89PNG\r\n", "not a JSON file"),
        ('{"images": "é"}'.encode("latin-1"), "not a JSON file"),
        ("[" * 100_000, "not a JSON file"),
        ('{"images": [{"id": ' + "9" * 5000 + "}]}", "not a JSON file"),
        ("[]", "not a COCO file: Expected `object`, got `array`"),
        ("null", "not a COCO file"),
        ("{}", "not a COCO file: Object missing required field `images`"),
        ('{"annotations": []}', "not a COCO file: Object missing required field `images`"),
        ('{"images": {}}', "not a COCO file: Expected `array`, got `object`"),
        ('{"images": ["a.png"]}', "not a COCO file: Expected `object`, got `str`"),
        ('{"images": [{"id": 1}]}', "missing required field `file_name` - at `$.images[0]`"),
        ('{"images": [{"file_name": "a.png"}]}', "missing required field `id`"),
        ('{"images": [{"id": null, "file_name": "a.png"}]}', "`null` - at `$.images[0].id`"),
        ('{"images": [{"id": 1, "file_name": 5}]}', "`int` - at `$.images[0].file_name`"),
        ('{"images": [{"id": 1, "file_name": "a", "width": []}]}', "at `$.images[0].width`"),
    ],
    ids=lambda value: str(value[:20]),
)
def test_what_is_no_coco_file_is_an_error_that_names_it(write, content, said):
    path = write(content)

    with pytest.raises(DataError) as caught:
        read_images(path)

    assert str(caught.value).startswith(f"{path}: not a ")
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["missing.json", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path, name):
    with pytest.raises(DataError, match="cannot read the annotation file"):
        read_images(tmp_path / name)


def test_an_annotation_without_an_image_is_an_error(write):
    path = write({"annotations": [{"id": 1, "bbox": [1, 2, 3, 4]}]})

    with pytest.raises(DataError, match=r"image_id` - at `\$\.annotations\[0\]"):
        read_labels(path)


@pytest.mark.parametrize(
    "name", ["a.png", "sub/ü b.png", "./a.png", "sub/../a.png", "x..png", "%2e"]
)
def test_a_name_inside_of_the_folder_is_its_path(tmp_path, name):
    path = inside(tmp_path, name)

    assert path == tmp_path / name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        "../a.png",
        "sub/../../a.png",
        "/etc/passwd",
        "a\0.png",
        "a\\b.png",
        "..\\a.png",
        "\ud800.png",
    ],
)
def test_a_name_that_leads_out_of_the_folder_is_an_error(tmp_path, name):
    with pytest.raises(DataError, match="file_name"):
        inside(tmp_path, name)


def test_an_absolute_name_is_an_error_even_if_it_leads_into_the_folder(tmp_path):
    with pytest.raises(DataError, match="file_name"):
        inside(tmp_path, str(tmp_path / "a.png"))


def test_a_link_is_followed_before_it_is_judged(tmp_path):
    folder, outside = tmp_path / "images", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (folder / "real.png").touch()
    (folder / "good.png").symlink_to("real.png")
    (folder / "bad.png").symlink_to(outside / "secret.png")
    (folder / "sub").symlink_to(outside)
    (folder / "loop.png").symlink_to("loop.png")

    good = inside(folder, "good.png")

    assert good == folder / "good.png"
    for name in ("bad.png", "sub/new.png", "loop.png"):
        with pytest.raises(DataError, match="file_name"):
            inside(folder, name)


def test_the_folder_itself_may_be_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    link = tmp_path / "link"
    link.symlink_to("real")

    assert inside(link, "a.png") == link / "a.png"


def test_sizes_and_ids_written_as_floats_are_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(
        '{"images": [{"id": 1.0, "file_name": "a.png", "width": 640.0, "height": 480}]}'
    )

    (image,) = read_images(path)

    check_size(image, 480, 640)
    with pytest.raises(ImageError, match=r"say 640x480: has an orientation tag turned it"):
        check_size(image, 640, 480)
    with pytest.raises(ImageError, match=r"a\.png: is 641x480, the annotations say 640x480"):
        check_size(image, 480, 641)


@pytest.mark.parametrize("name", ["a.png", "images/a.png"])
def test_images_are_looked_for_where_the_first_one_is(tmp_path, name):
    for folder in ("images", "ann"):
        (tmp_path / folder).mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"")
    (tmp_path / "ann.json").write_text(json.dumps({"images": [{"id": 1, "file_name": name}]}))

    found = image_folder(tmp_path / "ann.json")

    assert found / name == tmp_path / "images" / "a.png"


def test_images_that_are_nowhere_are_looked_for_in_the_first_folder(tmp_path):
    (tmp_path / "ann").mkdir()
    (tmp_path / "ann.json").write_text('{"images": [{"id": 1, "file_name": "a.png"}]}')

    assert image_folder(tmp_path / "ann.json") == tmp_path / "ann"


def test_missing_files_are_found_in_a_folder_that_is_listed(tmp_path):
    (tmp_path / "a").mkdir()
    names = [f"a/{number}.png" for number in range(100)]
    for name in names[1:]:
        (tmp_path / name).touch()
    (tmp_path / "a" / "folder.png").mkdir()

    assert missing_of([*names, "a/folder.png", "b/1.png"], tmp_path) == [
        "a/0.png",
        "a/folder.png",
        "b/1.png",
    ]


@pytest.mark.parametrize("place", ["link.png", "linked/1.png"])
def test_a_link_out_of_a_folder_that_is_listed_is_refused(tmp_path, place):
    folder = tmp_path / "images"
    folder.mkdir()
    (tmp_path / "out").mkdir()
    for number in range(100):
        (folder / f"{number}.png").touch()
        (tmp_path / "out" / f"{number}.png").touch()
    (folder / "link.png").symlink_to(tmp_path / "out" / "1.png")
    (folder / "linked").symlink_to(tmp_path / "out")
    names = [f"{number}.png" for number in range(100)]
    names += [f"linked/{number}.png" for number in range(100)]

    with pytest.raises(DataError, match="leads out"):
        missing_of([*names[:100], place] if place == "link.png" else names, folder)
