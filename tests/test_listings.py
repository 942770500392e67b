"""Places that images come from: files, folders, patterns, shards; what is there, in which order."""

import io
import json
import tarfile

import braceexpand
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from webdataset import TarWriter, tariterators

from simgan_aug.data import Inputs, Origin
from simgan_aug.data.listings import expanded, list_origin
from simgan_aug.errors import ConfigError, DataError


def encoded(value, format="PNG"):
    """A small image of one grey level, as a file's bytes."""
    file = io.BytesIO()
    Image.new("L", (8, 8), value).save(file, format=format)
    return file.getvalue()


def write(folder, *names):
    """Images by name; the first is black."""
    for value, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(value))


def write_shard(path, samples):
    """A shard, as the library writes it."""
    with TarWriter(str(path)) as writer:
        for sample in samples:
            writer.write(sample)


def listed(where, **options):
    return list_origin(Origin(where=where, **options))


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a/*.png", ["a/1.png", "a/2.png"]),
        ("**/1.png", ["a/1.png", "b/deep/1.png"]),
        ("{b,a}/**/1.png", ["b/deep/1.png", "a/1.png"]),
        ("a/{2..1}.png", ["a/2.png", "a/1.png"]),
        ("a/[2]*", ["a/2.png"]),
        ("a/?.*", ["a/1.png", "a/2.png"]),
    ],
)
def test_a_pattern_names_images(tmp_path, pattern, names):
    write(tmp_path, "a/1.png", "a/2.png", "b/deep/1.png", "b/deep/3.png")
    (tmp_path / "a" / "1.txt").write_text("no image")

    found = listed(tmp_path / pattern)

    root = tmp_path / "a" if pattern.startswith("a/") else tmp_path
    assert [str((root / name).relative_to(tmp_path)) for name in found.names] == names
    assert found.content(0) == (tmp_path / names[0]).read_bytes()


def test_a_name_that_only_looks_like_a_pattern_is_taken_for_what_it_is(tmp_path):
    write(tmp_path, "photos [old]/{1,2}.png")

    assert listed(tmp_path / "photos [old]").names == ["{1,2}.png"]
    assert listed(tmp_path / "photos [old]" / "{1,2}.png").names == ["{1,2}.png"]


NUMBERS = st.integers(0, 120).map(str) | st.integers(0, 99).map(lambda n: f"{n:03}")
BRACES = st.tuples(NUMBERS, NUMBERS).map(lambda ends: f"{{{ends[0]}..{ends[1]}}}") | st.lists(
    st.sampled_from(["a", "b", "", "x1"]), min_size=2, max_size=3
).map(lambda parts: f"{{{','.join(parts)}}}")


@settings(max_examples=200, deadline=None)
@given(parts=st.lists(BRACES | st.sampled_from(["shard-", ".tar", "-", "/"]), max_size=4))
def test_braces_mean_what_they_mean_to_the_library(parts):
    pattern = "".join(parts)

    assert list(expanded(pattern)) == list(braceexpand.braceexpand(pattern))


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a/*.jpg", r"a/\*\.jpg: there is no such file"),
        ("s-{0..2}.tar", r"s-2\.tar: there is no such file"),
        ("a/*.txt", r"expected images or \.tar shards, got 0 and 0 of 1"),
        ("**/*", r"expected images or \.tar shards, got 1 and 2 of 5"),
    ],
)
def test_a_pattern_of_nothing_or_of_two_kinds_is_refused(tmp_path, pattern, message):
    write(tmp_path, "a/1.png")
    (tmp_path / "a" / "1.txt").write_text("no image")
    for name in ("s-0.tar", "s-1.tar"):
        write_shard(tmp_path / name, [{"__key__": "1", "png": encoded(0)}])

    with pytest.raises(DataError, match=message):
        listed(tmp_path / pattern)


def test_one_image_is_a_place(tmp_path):
    write(tmp_path, "1.png", "2.png")

    assert listed(tmp_path / "2.png").names == ["2.png"]


# Shards

SAMPLES = [
    {"__key__": "dir/a", "jpg": b"", "json": {"caption": "x"}, "mask.png": b"", "txt": "a"},
    {"__key__": "n" * 150, "PNG": b""},
    {"__key__": "ü 2", "webp": b"", "pyd": {"a": [1]}},
    {"__key__": "alone", "json": {}},
    {"__key__": "dir/b", "jpeg": b""},
]


@pytest.fixture
def shards(tmp_path):
    """Two shards with images among other things; and the bytes of the images."""
    images, number = [], 0
    for shard in range(2):
        samples = []
        for each in SAMPLES:
            sample = dict(each)
            for key in ("jpg", "PNG", "webp", "jpeg"):
                if key in sample:
                    number += 1
                    sample[key] = encoded(number)
                    images.append(sample[key])
            samples.append(sample)
        write_shard(tmp_path / f"s-{shard:03}.tar", samples)
    return images


def test_images_in_shards_are_what_the_library_reads(tmp_path, shards):
    found = listed(tmp_path / "s-{000..001}.tar")

    expected = []
    for number in range(2):
        with (tmp_path / f"s-{number:03}.tar").open("rb") as file:
            files = ({**each, "__url__": ""} for each in tariterators.tar_file_iterator(file))
            for sample in tariterators.group_by_keys(files):
                endings = ("jpg", "png", "webp", "jpeg")
                expected += [sample[ending] for ending in endings if ending in sample]
    numbers = np.random.default_rng(0).permutation(len(found.names))
    assert [found.content(number) for number in range(len(found.names))] == expected == shards
    assert [found.content(number) for number in numbers] == [shards[n] for n in numbers]
    assert "n" * 150 in found.names[1]
    assert found.title(5).endswith(f"s-001.tar/{found.names[5]}")


def test_one_shard_and_a_glob_of_shards_are_places(tmp_path, shards):
    assert len(listed(tmp_path / "s-000.tar").names) == 4
    assert len(listed(tmp_path / "*.tar").names) == 8


def test_two_images_in_a_sample_are_refused(tmp_path):
    write_shard(tmp_path / "s.tar", [{"__key__": "a", "jpg": encoded(0), "png": encoded(1)}])

    with pytest.raises(DataError, match=r"s\.tar: sample a has several images.*mask\.png"):
        listed(tmp_path / "s.tar")


def test_shards_without_images_are_refused(tmp_path):
    write_shard(tmp_path / "s.tar", [{"__key__": "a", "json": {}}])

    with pytest.raises(DataError, match=r"s\.tar: no images in it"):
        listed(tmp_path / "s.tar")


def members(content):
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return [(member.offset, member.offset_data) for member in archive]


@pytest.mark.parametrize("harm", ["empty", "html", "gzip", "first", "later", "between", "within"])
def test_a_damaged_shard_is_named(tmp_path, shards, harm):
    path = tmp_path / "s-001.tar"
    content = bytearray(path.read_bytes())
    headers, (start, data) = members(bytes(content)), members(bytes(content))[4]
    if harm == "gzip":
        with tarfile.open(path, "w:gz") as archive:
            archive.add(tmp_path / "s-000.tar", "a.jpg")
    elif harm in ("first", "later"):
        content[headers[0][0] if harm == "first" else start] ^= 1
        path.write_bytes(content)
    else:
        kept = {"empty": 0, "between": start, "within": data + 10}.get(harm, 0)
        path.write_bytes(b"<html>" * 200 if harm == "html" else content[:kept])

    with pytest.raises(DataError, match=r"s-001\.tar: .*(shard|tar file)"):
        listed(tmp_path / "*.tar")


def test_a_shard_that_is_cut_later_is_named(tmp_path, shards):
    found = listed(tmp_path / "*.tar")
    path = tmp_path / "s-001.tar"
    path.write_bytes(path.read_bytes()[:600])

    with pytest.raises(DataError, match=r"s-001\.tar/dir/b\.jpeg: .*cut short"):
        found.content(7)


# What a run is told


def write_coco(path, *names):
    path.write_text(json.dumps({"images": [{"id": n, "file_name": n} for n in names]}))
    return path


@pytest.fixture
def places(tmp_path):
    """COCO files one.json (images in one/) and two.json, a folder and a pattern."""
    for name in ("one", "two", "photos"):
        write(tmp_path / name, "1.png")
    return {
        "one": write_coco(tmp_path / "one.json", "1.png"),
        "two": write_coco(tmp_path / "two.json", "1.png"),
        "folder": tmp_path / "photos",
        "pattern": tmp_path / "photos" / "*.png",
    }


def test_inputs_are_the_same_out_of_json(places):
    inputs = Inputs.of(
        [places["one"], places["folder"], places["two"]],
        [],
        [places["pattern"], places["two"]],
        synthetic_weights=(1.0, 2.0, 0.5),
    )

    again = Inputs.from_builtins(json.loads(json.dumps(inputs.to_builtins())))

    assert again == inputs
    assert inputs.images == places["one"].with_suffix("")
    assert [list_origin(each).names for each in again.real_origins] == [["1.png"], ["1.png"]]


def test_one_place_a_side_is_kept_as_older_runs_have_it(places):
    inputs = Inputs(annotations=places["one"], images=places["folder"], real=places["folder"])

    names = {"annotations": "one", "images": "folder", "real": "folder"}
    expected = {name: str(places[place]) for name, place in names.items()}
    assert inputs.to_builtins() == expected
    assert Inputs.from_builtins(expected) == inputs


def test_folders_belong_to_coco_files_in_their_order(places, tmp_path):
    inputs = Inputs.of(
        [places["folder"], places["two"], places["one"]],
        [tmp_path / "x", tmp_path / "y"],
        [places["folder"]],
    )

    assert inputs.images == places["folder"]
    assert [origin.images for origin in inputs.more_synthetic] == [tmp_path / "x", tmp_path / "y"]
    with pytest.raises(ConfigError, match="1 --images for 2 COCO files"):
        Inputs.of([places["one"], places["two"]], [tmp_path], [places["folder"]])


def test_data_that_has_moved_keeps_its_weights_and_what_has_not_moved(places, tmp_path):
    inputs = Inputs.of(
        [places["one"], places["two"]], [], [places["folder"]], synthetic_weights=(1, 3)
    )

    moved = inputs.moved([], [], [tmp_path / "elsewhere"])

    assert moved.real == tmp_path / "elsewhere"
    assert moved.synthetic_weights == (1, 3)
    assert [each.where for each in moved.synthetic_origins] == [places["one"], places["two"]]
    assert [each.image_folders() for each in moved.synthetic_origins] == [
        each.image_folders() for each in inputs.synthetic_origins
    ]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((1.0,), "1 weights for 2 places of real images: give one for each --real"),
        ((1.0, 0.0), "must be above 0"),
        ((1.0, float("nan")), "must be above 0"),
        ((1.0, float("inf")), "must be above 0"),
    ],
)
def test_weights_that_do_not_fit_are_refused(places, weights, message):
    with pytest.raises(ConfigError, match=message):
        Inputs.of([places["one"]], [], [places["folder"]] * 2, real_weights=weights)
