"""Data at scale: sets larger than the memory, several places, and images of other kinds."""

import dataclasses
import json
import pathlib
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from simgan_aug.cli import main
from simgan_aug.config import Config, Data, Part, Regularization, Tone, Training
from simgan_aug.data import (
    Crops,
    Inputs,
    Origin,
    Source,
    read_real,
    read_synthetic,
    reading,
    tone_bank,
)
from simgan_aug.data.crops import POOL, Batches
from simgan_aug.data.decoded import Kept, ahead
from simgan_aug.data.handful import NUMBER
from simgan_aug.errors import ConfigError, DataError
from simgan_aug.imagefile import encode_image, read_image
from simgan_aug.run import Run

RNG = np.random.default_rng(0)
LARGE = Data(crop=(16, 24), scale=(0.7, 1.5), memory_mb=1)
"""Of images of 0.4 MiB each it holds two."""


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def save_noise(folder, count, shape=(24, 32, 3)):
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)
        save(folder / f"{number:02}.png", pixels)
    return folder


def save_coco(path, names, labels=(), size=None):
    """A COCO file; labels are (image, category, bbox)."""
    sides = {"height": size[0], "width": size[1]} if size else {}
    content = {
        "images": [{"id": n, "file_name": name, **sides} for n, name in enumerate(names)],
        "annotations": [
            {"id": n, "image_id": image, "category_id": category, "bbox": bbox}
            for n, (image, category, bbox) in enumerate(labels)
        ],
        "categories": [{"id": 1, "name": "hand"}, {"id": 2, "name": "foot"}],
    }
    path.write_text(json.dumps(content))
    return path


def read(*places, config=None, weights=None, shares=()):
    origins = [each if isinstance(each, Origin) else Origin(where=each) for each in places]
    return read_synthetic(origins, config or Data(), weights or {}, shares)


def take(crops, count, **options):
    batches = crops.batches(**options)
    return [next(batches) for _ in range(count)]


def equal(one, other):
    parts = [(getattr(one, p), getattr(other, p)) for p in ("images", "weights", "reference")]
    return all(a is b is None or torch.equal(a, b) for a, b in parts)


@pytest.fixture
def few(monkeypatch):
    """Only the first and the last image of a large set are looked at before training."""
    monkeypatch.setattr("simgan_aug.data.sources.SAMPLE", 2)


# Larger than the memory


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A COCO file of eight images of 0.4 MiB with labels, half of which have no stated size."""
    folder = tmp_path_factory.mktemp("large")
    save_noise(folder / "images", 8, (300, 450, 3))
    names = [f"{n:02}.png" for n in range(8)]
    path = save_coco(folder / "a.json", names, [(n, 1, [10 * n, 9, 80, 90]) for n in range(8)])
    content = json.loads(path.read_text())
    for entry in content["images"][::2]:
        entry |= {"width": 450, "height": 300}
    path.write_text(json.dumps(content))
    return path


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("weights", [{}, {"hand": 3, "background": 0.5}])
@pytest.mark.parametrize("match", [False, True])
def test_what_is_drawn_does_not_depend_on_the_memory(large, weights, match):
    drawn, held = [], []
    for memory in (2048, 1):
        source = read(large, config=dataclasses.replace(LARGE, memory_mb=memory), weights=weights)
        bank = tone_bank(source, source, Tone(photos=3), seed=0) if match else None
        drawn.append(take(Crops(source, LARGE, 4, 1, bank, match), 12))
        held.append((source.is_held, source.images.kept.used <= memory * 2**20))

    assert held == [(True, True), (False, True)]
    assert all(equal(*pair) for pair in zip(*drawn, strict=True))


@pytest.mark.usefixtures("few")
def test_all_images_of_a_set_larger_than_the_memory_are_drawn(large):
    source = read(large, config=LARGE)
    before = source.images.kept.made

    drawn = set(source.drawn(np.random.default_rng(0).random((80, 2))).tolist())
    take(Crops(source, LARGE, 8, 0), 4)

    assert drawn == set(range(8))
    assert source.images.kept.made > before + 8


def test_images_that_fit_are_decoded_once(large):
    source = read(large)

    take(Crops(source, LARGE, 8, 0), 4)

    assert source.is_held
    assert source.images.kept.made == 8


@settings(max_examples=40, deadline=None)
@given(
    room=st.integers(0, 40),
    sizes=st.lists(st.integers(0, 50), min_size=1, max_size=6),
    asked=st.lists(st.integers(0, 5), max_size=30),
)
def test_never_more_is_kept_than_there_is_room(room, sizes, asked):
    kept = Kept(room)

    for key in asked:
        size = sizes[key % len(sizes)]
        found = kept.get(key, lambda key=key, size=size: np.full(size, key, np.uint8))
        assert found.tolist() == [key] * size
        assert kept.used <= room


def test_what_was_asked_for_last_is_kept():
    kept, made = Kept(2), []

    for key in (1, 2, 1, 3, 1, 2):
        kept.get(key, lambda key=key: made.append(key) or np.zeros(1, np.uint8))

    assert made == [1, 2, 3, 2]


def test_results_come_in_order_and_an_error_in_its_turn():
    def half(number):
        if number == 5:
            raise ValueError("five")
        return number / 2

    coming = ahead(half, iter(range(100)), 8)

    assert [next(coming) for _ in range(5)] == [0, 0.5, 1, 1.5, 2]
    with pytest.raises(ValueError, match="five"):
        next(coming)


def test_threads_end_with_their_batches(large):
    source = dataclasses.replace(read(large), is_held=False)
    before = threading.active_count()
    batches = Crops(source, LARGE, 4, 0).batches()
    next(batches)
    during = threading.active_count()

    del batches

    assert threading.active_count() == before < during


@settings(max_examples=60, deadline=None)
@given(rows=st.slices(6), start=st.integers(0, 2**40), seed=st.integers(0, 2**64 - 1))
def test_some_rows_of_a_batch_are_those_of_the_whole(rows, start, seed):
    weights = [RNG.random((20, 30)).astype(np.float16)] * 2
    images = [RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8) for _ in range(2)]
    source = Source(images, ["a", "b"], weights)
    crops = Crops(source, LARGE, 6, seed, tone_bank(source, source, Tone(photos=2), 0), match=True)
    wanted = range(6)[rows]
    if not wanted:
        return

    (whole,), (some,) = take(crops, 1, start=start), take(crops, 1, start=start, rows=rows)

    places = list(wanted)
    assert torch.equal(some.images, whole.images[places])
    assert torch.equal(some.weights, whole.weights[places])
    assert torch.equal(some.reference, whole.reference[places])


def test_crops_cut_at_once_are_those_cut_one_by_one(monkeypatch):
    images = [RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8) for _ in range(3)]
    config = Data(crop=(16, 16))
    crops = Crops(Source(images, list("abc")), config, 8, seed=5)
    (whole,) = take(crops, 1)

    for row in range(8):
        (alone,) = take(crops, 1, rows=slice(row, row + 1))
        assert torch.equal(alone.images[0], whole.images[row])
        found = ((whole.images[row] + 1) / 2 * 255).round().byte().movedim(0, -1).numpy()
        views = [v for image in images for v in (image, image[:, ::-1])]
        windows = [np.lib.stride_tricks.sliding_window_view(v, (16, 16), (0, 1)) for v in views]
        assert any((w == found.transpose(2, 0, 1)).all((2, 3, 4)).any() for w in windows)


def indices(crops, numbers):
    rows = range(crops.batch_size)
    return np.array([crops._rows(n, rows).indices for n in numbers])


@pytest.mark.parametrize("reuse", [2, 8])
def test_reused_images_are_drawn_so_often_and_then_left(reuse):
    images = [np.zeros((16, 24, 1), np.uint8)] * 100_000
    source = Source(images, [""] * len(images))
    crops = Crops(source, dataclasses.replace(LARGE, reuse=reuse), 16, 0)

    drawn = indices(crops, range(1000))

    distinct = len(np.unique(drawn))
    assert 0.75 < distinct / (POOL + drawn.size / reuse) < 1
    assert len(set(drawn[:100].flat) & set(drawn[900:].flat)) < 100  # by chance alone
    assert abs(drawn.mean() - 50_000) < 3000
    assert np.array_equal(drawn[500:520], indices(crops, range(500, 520)))


@pytest.mark.parametrize("reuse", [2, 8, 64])
def test_the_batch_that_measures_look_at_is_drawn_however_often_images_are_reused(reuse):
    source = Source([np.zeros((16, 24, 1), np.uint8)] * (POOL + 1), [""] * (POOL + 1))
    crops = Crops(source, dataclasses.replace(LARGE, reuse=reuse), 16, 0)

    assert len(np.unique(indices(crops, [NUMBER]))) > 8


def test_of_a_small_set_any_image_is_drawn_at_any_time():
    source = Source([np.zeros((16, 24, 1), np.uint8)] * POOL, [""] * POOL)

    plain, reusing = (
        indices(Crops(source, dataclasses.replace(LARGE, reuse=reuse), 16, 0), range(9))
        for reuse in (1, 8)
    )

    assert np.array_equal(plain, reusing)


# A file that turns out to be damaged

SMALL = Config(
    refiner=Part(name="unshuffle", options={"features": 8, "blocks": 1}),
    discriminator=Part(name="patch", options={"features": 8}),
    tone=Tone(photos=3, choice="any"),  # for which no synthetic image is read beforehand
    data=dataclasses.replace(LARGE, match_size=False),
    training=Training(steps=8, batch_size=2, history=4, precision="fp32", seed=1),
)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("side", ["large", "photos"])
def test_a_run_stops_at_a_damaged_file_and_goes_on_when_it_is_mended(tmp_path, monkeypatch, side):
    for name in ("large", "photos"):
        save_noise(tmp_path / name, 150, (100, 150, 3))
    inputs = Inputs.of([tmp_path / "large"], [], [tmp_path / "photos"])
    decoded, decode = [], reading.decode_image
    spy = lambda *given, **options: decoded.append(given[1]) or decode(*given, **options)  # noqa: E731
    monkeypatch.setattr(reading, "decode_image", spy)
    run = Run(SMALL, inputs, tmp_path / "whole")
    before = len(decoded)
    list(run.steps())
    new = [name for name in decoded[before:] if f"{side}/" in name and name not in decoded[:before]]
    victim = pathlib.Path(new[len(new) // 3])
    content = victim.read_bytes()
    victim.write_bytes(content[:5000])

    with pytest.raises(DataError, match=rf"{side}/{victim.name}: .*saved after step .*--resume"):
        list(Run(SMALL, inputs, tmp_path / "out").steps())
    victim.write_bytes(content + b"mended")
    rest = list(Run(SMALL, inputs, tmp_path / "out", resume=True).steps())

    assert 0 < len(rest) < 8
    for name in ("refiner.safetensors", "state.safetensors"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_what_cannot_be_read_ahead_shows_when_its_turn_comes():
    def coming():
        yield from range(3)
        raise DataError("the fourth is damaged")

    batches = Batches(coming())
    batches.prepare(2)
    assert next(batches) == 0
    batches.prepare(5)  # says nothing
    batches.fetch(2)

    assert [next(batches), next(batches)] == [1, 2]
    for _ in range(2):
        with pytest.raises(DataError, match="fourth"):
            batches.fetch(1)
    with pytest.raises(DataError, match="fourth"):
        next(batches)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((300, 450), np.uint8), r"04\.png: is grey, others are in colour: set data\.chan"),
        (np.zeros((300, 450), np.uint16), r"04\.png: is grey, others are in colour"),
        (np.zeros((30, 450, 3), np.uint8), r"04\.png: is 450x30, the annotations say 450x300"),
    ],
)
def test_an_image_of_another_kind_is_named_when_it_is_drawn(tmp_path, pixels, message):
    save_noise(tmp_path / "images", 10, (300, 450, 3))
    save(tmp_path / "images" / "04.png", pixels)
    names = [f"{n:02}.png" for n in range(10)]
    source = read(save_coco(tmp_path / "a.json", names, size=(300, 450)), config=LARGE)

    with pytest.raises(DataError, match=message):
        take(Crops(source, LARGE, 8, 0), 9)


# Several places


@settings(max_examples=30, deadline=None)
@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    odds=st.lists(st.floats(0.05, 20), min_size=4, max_size=4),
    seed=st.integers(0, 2**32),
)
def test_places_are_drawn_from_by_their_weights_and_their_images_alike(counts, odds, seed):
    shares = list(zip(counts, odds, strict=False))
    total = sum(weight for _, weight in shares)
    images = [np.zeros((1, 1, 1), np.uint8)] * sum(counts)
    source = Source(images, [""] * len(images), shares=shares)

    numbers = np.random.default_rng(seed).random((3000, 2))
    drawn = np.bincount(source.drawn(numbers), minlength=len(images))

    expected = np.concatenate([np.full(n, 3000 * weight / total / n) for n, weight in shares])
    assert len(drawn) == len(images)
    assert (abs(drawn - expected) < 6 * np.sqrt(expected) + 6).all()


def test_without_weights_every_image_is_as_likely_as_any_other(tmp_path):
    for name, count in (("a", 2), ("b", 6)):
        save_noise(tmp_path / name, count)

    source = read(tmp_path / "a", tmp_path / "b")

    drawn = np.bincount(source.drawn(np.random.default_rng(0).random((4000, 2))))
    assert len(drawn) == 8
    assert abs(drawn - 500).max() < 120


def test_tones_are_taken_of_places_by_their_weights(tmp_path):
    for name, count, level in (("a", 3, 51), ("b", 60, 204)):
        for number in range(count):
            save(tmp_path / name / f"{number}.png", np.full((8, 8, 3), level, np.uint8))
    source = read(tmp_path / "a", tmp_path / "b", shares=(1000, 1))

    bank, again = (tone_bank(source, source, Tone(photos=4), seed=0) for _ in range(2))

    assert sorted(bank.tones[:, 0, 0].tolist()) == pytest.approx([0.2, 0.2, 0.2, 0.8])
    assert torch.equal(bank.tones, again.tones)


def test_files_of_one_name_in_two_places_keep_their_own_labels(tmp_path):
    boxes = {"one": [2, 3, 4, 5], "two": [10, 0, 9, 20]}
    origins = []
    for name, box in boxes.items():
        save_noise(tmp_path / name, 1)
        where = save_coco(tmp_path / f"{name}.json", ["00.png"], [(0, 1, box)])
        origins.append(Origin(where=where, images=tmp_path / name))

    source = read(*origins, weights={"hand": 2})

    for number, (x, y, w, h) in enumerate(boxes.values()):
        expected = np.ones((24, 32))
        expected[y : y + h, x : x + w] = 2
        assert np.array_equal(source.weights[number], expected)
    assert source.boxes([1, 0]) == [[boxes["two"]], [boxes["one"]]]


@pytest.mark.parametrize("kind", ["folder", "pattern"])
def test_weights_by_label_without_labels_are_refused_with_the_way_out(tmp_path, kind):
    save_noise(tmp_path / "a", 2)
    place = tmp_path / "a" if kind == "folder" else tmp_path / "a" / "*.png"

    with pytest.raises(ConfigError, match=r"/a.* has none: give its COCO file"):
        read(place, weights={"background": 0.5})


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((24, 32), np.uint8), r"1 of 4 images are grey \(such as .*/b/1\.png\)"),
        (np.zeros((24, 32), np.uint16), r"1 of 4 images are grey \(such as .*/b/1\.png\)"),
    ],
)
def test_an_image_of_another_kind_is_named_with_its_place(tmp_path, pixels, message):
    save_noise(tmp_path / "a", 3)
    save(tmp_path / "b" / "1.png", pixels)

    with pytest.raises(DataError, match=message):
        read(tmp_path / "a", tmp_path / "b")


def test_other_bits_are_named_with_their_place(tmp_path):
    save(tmp_path / "a" / "1.png", np.zeros((24, 32), np.uint8))
    save(tmp_path / "b" / "1.png", np.zeros((24, 32), np.uint16))

    with pytest.raises(DataError, match=r"/b/1\.png: has 16 bits a channel, others have 8"):
        read(tmp_path / "a", tmp_path / "b")


def test_of_photos_in_a_coco_file_no_labels_are_read(tmp_path):
    save_noise(tmp_path / "images", 3)
    listed = [{"id": n, "file_name": f"0{n}.png", "width": 5, "height": 5} for n in (2, 0)]
    path = tmp_path / "real.json"
    path.write_text(json.dumps({"images": listed, "annotations": [{"nonsense": 1}, 5, None]}))

    real = read_real([Origin(where=path)], Data(), read(tmp_path / "images"))

    assert list(real.names) == ["02.png", "00.png"]
    assert real.boxes([0, 1]) == [[], []]


def test_a_fingerprint_tells_places_their_order_and_their_weights_apart(tmp_path):
    for name in "ab":
        save_noise(tmp_path / name, 2 + (name == "b"))
    a, b = tmp_path / "a", tmp_path / "b"

    prints = [
        read(*places, shares=shares).fingerprint
        for places, shares in (((a,), ()), ((a, b), ()), ((b, a), ()), ((a, b), (1, 1)))
    ]

    assert len(set(prints)) == 4
    assert read(a, b, shares=(1, 1)).fingerprint == prints[3]


# Images of other kinds


def test_deep_colour_is_shrunk_channel_by_channel(tmp_path):
    rendered = read(save_noise(tmp_path / "a", 1, (12, 16, 3)))
    deep = RNG.integers(0, 65536, (48, 96, 3), dtype=np.uint16)
    flat = read_image(tmp_path / "a" / "00.png")
    (tmp_path / "photos").mkdir()
    content = encode_image(dataclasses.replace(flat, pixels=deep))
    (tmp_path / "photos" / "1.png").write_bytes(content)

    real = read_real([Origin(where=tmp_path / "photos")], Data(), rendered)

    levels = real.images[0].reshape(-1, 3).astype(float).mean(0)
    assert (real.images[0].shape, real.images[0].dtype) == ((12, 24, 3), np.uint16)
    assert levels == pytest.approx(deep.reshape(-1, 3).mean(0), rel=0.02)


def test_what_alpha_hides_of_a_photo_is_shrunk_like_the_rest(tmp_path):
    rendered = read(save_noise(tmp_path / "a", 1, (12, 16, 3)))
    photo = np.full((48, 64, 4), 200, np.uint8)
    photo[:, :32, 3] = 0
    save(tmp_path / "photos" / "1.png", photo)

    real = read_real([Origin(where=tmp_path / "photos")], Data(), rendered)

    assert real.images[0].shape == (12, 16, 3)
    assert real.images[0].min() == real.images[0].max() == 200


def scene(number, size, kind):
    """A smooth picture: depth in 16 bits, or colour with an alpha that has a hole."""
    rows, columns = np.mgrid[: size[0], : size[1]] / max(size)
    depth = (np.sin(9 * rows + number) + np.cos(7 * columns)) / 4 + 0.5
    if kind == "depth":
        return (depth * 60000).astype(np.uint16)
    colour = np.stack([depth, depth**2, 1 - depth, rows > 0.2], axis=2)
    return (colour * 255).astype(np.uint8)


@pytest.mark.parametrize("kind", ["depth", "rgba"])
def test_50_images_of_depth_or_with_alpha_are_trained_on_and_refined(tmp_path, kind, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(50):
        save(tmp_path / "images" / f"{number:02}.png", scene(number, (40, 56), kind))
    sizes = [(90, 60), (33, 200), (128, 128), (24, 30), (70, 41)]  # other than the synthetic ones
    for number, size in enumerate(sizes * 2):
        save(tmp_path / "photos" / f"{number}.png", scene(number / 3, size, kind)[..., ::-1].copy())
    save_coco(tmp_path / "a.json", [f"{n:02}.png" for n in range(50)], size=(40, 56))
    train = ["train", "--synthetic", "a.json", "--real", "photos", "--out", "run", "--steps", "2"]
    refine = ["refine", "--annotations", "a.json", "--refiner", "run/refiner.safetensors"]

    assert main([*train, "--device", "cpu"]) == 0
    assert main([*refine, "--out", "out", "--workers", "0", "--device", "cpu"]) == 0

    changed = 0
    for number in range(50):
        old = read_image(tmp_path / "images" / f"{number:02}.png")
        new = read_image(tmp_path / "out" / "images" / f"{number:02}.png")
        assert (new.pixels.shape, new.pixels.dtype) == (old.pixels.shape, old.pixels.dtype)
        if kind == "rgba":
            assert np.array_equal(new.pixels[..., 3], old.pixels[..., 3])
        changed += not np.array_equal(new.pixels, old.pixels)
    assert changed


def test_a_run_of_several_places_is_resumed_from_what_it_has_noted(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two", "photos"):
        save_noise(tmp_path / name, 3)
    save_coco(tmp_path / "one.json", ["00.png", "01.png"])
    config = {"refiner": {"features": 8, "blocks": 1}, "discriminator": {"features": 8}}
    config |= {"training": {"batch_size": 2, "history": 2, "precision": '"fp32"'}}
    lines = [f"[{t}]\n" + "\n".join(f"{k} = {v}" for k, v in o.items()) for t, o in config.items()]
    (tmp_path / "c.toml").write_text("\n".join([*lines, "[data]\ncrop = [16, 16]"]))
    train = ["train", "--out", "run", "--config", "c.toml", "--steps", "1", "--device", "cpu"]
    train += ["--synthetic", "one.json", "--synthetic", "two/*.png", "--synthetic-weight", "3"]
    train += ["--synthetic-weight", "1", "--real", "photos", "--real", "two"]

    assert main(train) == 0
    assert "5 synthetic images and 6 real images" in capsys.readouterr().err
    assert main(["train", "--resume", "--out", "run", "--steps", "2", "--device", "cpu"]) == 0

    noted = json.loads((tmp_path / "run" / "run.json").read_text())["inputs"]
    assert noted["synthetic_weights"] == [3, 1]
    assert noted["more_synthetic"][0]["where"] == str(tmp_path / "two" / "*.png")
    assert main(["train", "--resume", "--out", "run", "--real-weight", "1"]) == 2
    assert "leave out --real-weight" in capsys.readouterr().err


@pytest.mark.parametrize("out", ["photos/run", "deep/er/run"])
def test_a_run_does_not_lie_where_its_images_are_searched(tmp_path, out):
    save_noise(tmp_path / "photos", 2)
    save_noise(tmp_path / "deep" / "er", 2)
    inputs = Inputs.of([tmp_path / "deep" / "**" / "*.png"], [], [tmp_path / "photos"])

    with pytest.raises(ConfigError, match="overlap"):
        Run(SMALL, inputs, tmp_path / out)


def test_labels_of_a_held_set_are_checked_before_training(tmp_path):
    save_noise(tmp_path / "images", 3)
    path = save_coco(tmp_path / "a.json", ["00.png", "01.png"], [(1, 1, [1, 2, 3])])
    labels = Regularization(labels={"hand": 2}).labels

    with pytest.raises(DataError, match=r"images/01\.png: .*neither a segmentation nor a bbox"):
        read(Origin(where=path, images=tmp_path / "images"), weights=labels)
