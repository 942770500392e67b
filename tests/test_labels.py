"""The labels of a job's images: the same as read at once, and hardly anything in memory."""

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simgan_aug import coco
from simgan_aug.errors import DataError
from simgan_aug.labels import Labels, decoded

IDS = st.one_of(st.integers(0, 5), st.sampled_from(["a", "ü 1", "\ud800", ""]))
NUMBERS = st.one_of(st.integers(-9, 99), st.floats(-9, 99, allow_nan=False))
SHAPES = st.one_of(
    st.none(),
    st.lists(st.lists(NUMBERS, max_size=8), max_size=2),
    st.fixed_dictionaries({"size": st.just([4, 5]), "counts": st.text('0Ø;o\\"', max_size=5)}),
)
ANNOTATIONS = st.fixed_dictionaries(
    {"image_id": IDS},
    optional={
        "id": st.one_of(st.integers(0, 2**70), st.text(max_size=3)),
        "category_id": st.one_of(st.integers(0, 5), st.text(max_size=2)),
        "bbox": st.lists(NUMBERS, min_size=4, max_size=4),
        "segmentation": SHAPES,
        "keypoints": st.lists(NUMBERS, max_size=6),
        "caption": st.text(max_size=4),
        "iscrowd": st.integers(0, 1),
    },
)
SPACING = st.sampled_from([(",", ":"), (", ", ": "), (" ,\r\n", "\t:  ")])


def write(path, images, annotations, **more):
    """A COCO file of images by id; each has the name of its id in JSON."""
    listed = [{"id": id, "file_name": json.dumps(id)} for id in images]
    path.write_text(json.dumps({"images": listed, "annotations": annotations} | more))
    return path


def by_name(path, images):
    """What `coco.read_labels` says of each image."""
    found = coco.read_labels(path).by_image
    return {json.dumps(id): found.get(id, []) for id in images}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("labels") / "ann.json"


@settings(max_examples=150, deadline=None)
@given(
    images=st.lists(IDS, unique=True),
    annotations=st.lists(ANNOTATIONS, max_size=8),
    spacing=SPACING,
    ascii=st.booleans(),
    awkward=st.sampled_from(["", "NaN", "BOM"]),
)
def test_labels_are_those_that_are_read_at_once(path, images, annotations, spacing, ascii, awkward):
    listed = [{"id": id, "file_name": json.dumps(id)} for id in images]
    categories = [{"id": 1, "name": "a"}, {"id": "ü", "name": "b"}]
    content = {"annotations": annotations, "categories": categories, "images": listed}
    content |= {"info": float("nan")} if awkward == "NaN" else {}
    text = json.dumps(content, separators=spacing, ensure_ascii=ascii)
    start = b"\xef\xbb\xbf" if awkward == "BOM" else b""
    path.write_bytes(start + text.encode("utf-8", "surrogatepass"))

    labels = Labels([path])

    for name, expected in by_name(path, images).items():
        if any(label.image_id == "\ud800" for label in expected):
            with pytest.raises(DataError, match="cannot be read"):
                decoded(labels.of(name))
        else:
            assert decoded(labels.of(name)) == expected
    assert labels.categories == coco.read_labels(path).categories


def test_an_image_of_no_file_has_no_labels(tmp_path):
    path = write(tmp_path / "a.json", [1], [{"image_id": 1}, {"image_id": 2}])

    labels = Labels([path])

    assert decoded(labels.of("2")) == []
    assert len(decoded(labels.of("1"))) == 1


def test_files_are_taken_together_in_their_order(tmp_path):
    one = write(tmp_path / "1.json", [1], [{"image_id": 1, "id": "first"}])
    content = one.read_text().replace("first", "second")
    (tmp_path / "2.json").write_text(content.replace("{", '{"x": NaN, ', 1))

    labels = Labels([one, tmp_path / "2.json"])

    assert [label.id for label in decoded(labels.of("1"))] == ["first", "second"]


def test_ids_are_of_their_own_file(tmp_path):
    one = write(tmp_path / "1.json", [1, 2], [{"image_id": 1, "id": "one's"}])
    content = {"images": [{"id": 1, "file_name": "2"}], "annotations": [{"image_id": 1, "id": 5}]}
    (tmp_path / "2.json").write_text(json.dumps(content))

    labels = Labels([one, tmp_path / "2.json"])

    assert [label.id for label in decoded(labels.of("1"))] == ["one's"]
    assert [label.id for label in decoded(labels.of("2"))] == [5]


def test_of_a_category_with_two_names_the_first_file_is_believed(tmp_path):
    paths = [
        write(tmp_path / f"{name}.json", [1], [], categories=[{"id": 1, "name": name}])
        for name in ("hand", "foot")
    ]

    assert Labels(paths).categories == {1: "hand"}


def test_a_file_that_turns_out_odd_at_its_end_is_not_counted_twice(tmp_path):
    path = write(tmp_path / "a.json", [1], [{"image_id": 1, "id": 7}, {"image_id": 2}])
    path.write_text(path.read_text().replace('"image_id": 2', '"image_id": 1e999'))

    assert [label.id for label in decoded(Labels([path]).of("1"))] == [7]


@pytest.mark.parametrize("value", ["1e999", "NaN", '"wide"', "{}"])
def test_a_label_that_makes_no_sense_is_an_error_of_its_image_alone(tmp_path, value):
    path = tmp_path / "a.json"
    label = f'{{"image_id": 1, "bbox": [0, 0, 1, {value}]}}'
    images = [{"id": id, "file_name": str(id)} for id in (1, 2)]
    others = '{"image_id": 2, "bbox": [0, 0, 1, 1]}'
    path.write_text(f'{{"images": {json.dumps(images)}, "annotations": [{label}, {others}]}}')
    if value in ("1e999", "NaN"):
        assert coco.read_labels(path)

    labels = Labels([path])

    with pytest.raises(DataError, match="an annotation cannot be read"):
        decoded(labels.of("1"))
    assert decoded(labels.of("2"))[0].bbox == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a JSON file"),
        ("[]", "not a COCO file"),
        ('{"images": 1}', "not a COCO file"),
        ('{"images": [], "annotations": [{"id": 1}]}', "not a COCO file"),
        ('{"images": [], "annotations": [{"image_id": []}]}', "not a COCO file"),
        ('{"images": [], "annotations": {}}', "not a COCO file"),
        (None, "cannot read the annotation file"),
    ],
)
def test_a_file_that_is_no_coco_file_is_an_error(tmp_path, text, message):
    path = tmp_path / "a.json"
    if text is not None:
        path.write_text(text)

    with pytest.raises(DataError, match=message):
        Labels([path])


MEASURE = """
import pathlib, sys
from simgan_aug.labels import Labels, decoded

def anonymous():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024

before = anonymous()
labels = Labels([pathlib.Path(sys.argv[1])])
assert len(decoded(labels.of("77.png"))) == 10
print(anonymous() - before)
"""


@pytest.mark.slow
def test_labels_of_a_100_mb_file_take_a_fraction_of_it_in_memory(tmp_path):
    polygon = [[float(n) for n in range(100)]]
    entry = {"bbox": [1.0, 2.0, 3.0, 4.0], "category_id": 1, "segmentation": polygon}
    count = 17_000
    images = [{"id": n, "file_name": f"{n}.png"} for n in range(count)]
    annotations = [{"id": n, "image_id": n // 10, **entry} for n in range(10 * count)]
    path = tmp_path / "large.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    assert path.stat().st_size > 100e6

    words = [sys.executable, "-c", MEASURE, str(path)]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout

    print(f"{path.stat().st_size / 2**20:.0f} MiB of labels, {float(said):.0f} MiB held")
    assert float(said) < 50
