"""Image sources: what is read, what is refused; crops are a function of seed and number."""

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from simgan_aug import tone
from simgan_aug.config import Data, Tone
from simgan_aug.data import Crops, Origin, Source, tone_bank
from simgan_aug.data import read_real as read_real_of
from simgan_aug.data import read_synthetic as read_synthetic_of
from simgan_aug.errors import ConfigError, DataError, ImageError
from simgan_aug.folders import list_images

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (20, 30), dtype=np.uint8)
GREY16 = RNG.integers(0, 65536, (20, 30), dtype=np.uint16)


def read_synthetic(path, place, config, weights):
    return read_synthetic_of([Origin(where=path, images=place)], config, weights)


def read_real(place, config, synthetic):
    return read_real_of([Origin(where=place)], config, synthetic)


@pytest.fixture
def folder(tmp_path):
    """Writes images into a folder, by name."""

    def folder(images, name="images"):
        for file_name, pixels in images.items():
            path = tmp_path / name / file_name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
        return tmp_path / name

    return folder


@pytest.fixture
def synthetic(tmp_path, folder):
    """Reads a COCO data set of these images: by default all are listed and none is labelled."""

    def synthetic(images, config=None, weights=None, listed=None, labels=()):
        place = folder(images)
        names = list(images) if listed is None else listed
        content = {
            "images": [{"id": i, "file_name": name} for i, name in enumerate(names)],
            "annotations": [
                {"image_id": image, "category_id": 1, "bbox": bbox} for image, bbox in labels
            ],
            "categories": [{"id": 1, "name": "hand"}],
        }
        path = tmp_path / "instances.json"
        path.write_text(json.dumps(content))
        return read_synthetic(path, place, config or Data(), weights or {})

    return synthetic


def source(*images, weights=None):
    """A source of these images, as if they had been read."""
    images = [image if image.ndim == 3 else image[..., None] for image in images]
    names = [f"{i}.png" for i in range(len(images))]
    return Source(images, names, weights)


def take(crops, count, start=0):
    return list(itertools.islice(crops.batches(start), count))


def draw(*arguments, **options):
    """The images of the first batch."""
    return take(Crops(*arguments, **options), 1)[0].images


def test_the_listed_images_are_read_in_their_order(synthetic):
    images = {"b/1.png": COLOUR, "a.png": COLOUR[:5], "unlisted.png": COLOUR}

    read = synthetic(images, listed=["b/1.png", "a.png"])

    assert read.names == ["b/1.png", "a.png"]
    assert np.array_equal(read.images[0], COLOUR)
    assert np.array_equal(read.images[1], COLOUR[:5])
    assert (read.channels, len(read.images), read.weights) == (3, 2, None)


def test_an_image_listed_twice_is_read_once_with_all_its_labels(synthetic):
    read = synthetic(
        {"a.png": COLOUR},
        listed=["a.png", "a.png"],
        labels=[(0, [0, 0, 5, 20]), (1, [25, 0, 5, 20])],
        weights={"hand": 3},
    )

    expected = np.ones((20, 30))
    expected[:, :5] = expected[:, 25:] = 3
    assert read.names == ["a.png"]
    assert np.array_equal(read.weights[0], expected)


def test_each_pixel_has_the_weight_of_its_label(synthetic):
    read = synthetic(
        {"a.png": COLOUR, "b.png": GREY[:4]},
        config=Data(channels=3),
        labels=[(0, [2, 3, 4, 5])],
        weights={"hand": 2, "background": 0.5},
    )

    expected = np.full((20, 30), 0.5)
    expected[3:8, 2:6] = 2
    assert np.array_equal(read.weights[0], expected)
    assert np.array_equal(read.weights[1], np.full((4, 30), 0.5))


def test_a_weight_for_a_category_that_there_is_not_is_refused(synthetic):
    with pytest.raises(ConfigError, match=r"no category 'hans'.*did you mean 'hand'"):
        synthetic({"a.png": COLOUR}, weights={"hans": 2})


def test_a_data_set_without_images_is_refused(synthetic):
    with pytest.raises(DataError, match=r"instances\.json: lists no images"):
        synthetic({}, listed=[])


def test_a_missing_image_is_named(synthetic):
    with pytest.raises(DataError, match=r"1 of 2 images are missing .*'b\.png'.*--images"):
        synthetic({"a.png": COLOUR}, listed=["a.png", "b.png"])


def test_an_unreadable_image_is_named(synthetic, folder):
    (folder({"a.png": COLOUR}) / "b.png").write_bytes(b"<html>")

    with pytest.raises(ImageError, match=r"images/b\.png: not a readable image"):
        synthetic({"a.png": COLOUR}, listed=["a.png", "b.png"])


def test_an_image_outside_of_the_folder_is_refused(synthetic, folder):
    folder({"secret.png": COLOUR}, name="other")

    with pytest.raises(DataError, match=r"'\.\./other/secret\.png' leads out of"):
        synthetic({"a.png": COLOUR}, listed=["a.png", "../other/secret.png"])


def test_images_are_found_below_a_folder_by_their_suffix(folder):
    place = folder({"b.png": COLOUR, "sub/deep/a.JPG": COLOUR, "c.tiff": COLOUR, "d.webp": COLOUR})
    (place / "notes.txt").write_text("no image")
    (place / "png").write_text("no image")

    assert list_images(place) == ["b.png", "c.tiff", "d.webp", "sub/deep/a.JPG"]


@pytest.mark.parametrize("made", [True, False])
def test_a_folder_without_images_is_refused(tmp_path, made):
    place = tmp_path / "photos"
    if made:
        place.mkdir()
        (place / "notes.txt").write_text("no image")

    with pytest.raises(DataError, match=r"photos: no (image files|such folder)"):
        list_images(place)


def test_labels_beside_real_photos_are_never_read(synthetic, folder):
    rendered = synthetic({"a.png": COLOUR})
    photos = folder({"1.png": COLOUR, "2.png": COLOUR}, name="photos")
    for name in ("instances.json", "1.json", "_annotations.coco.json"):
        (photos / name).write_bytes(b"{corrupt \xff")
    (photos / "labels.txt").mkdir()

    real = read_real(photos, Data(), rendered)

    assert real.names == ["1.png", "2.png"]
    assert real.weights is None


def test_an_unreadable_photo_is_named(synthetic, folder):
    rendered = synthetic({"a.png": COLOUR})
    photos = folder({"1.png": COLOUR}, name="photos")
    (photos / "2.png").write_bytes(b"")

    with pytest.raises(ImageError, match=r"photos/2\.png: not a readable image"):
        read_real(photos, Data(), rendered)


def test_a_link_to_nowhere_is_named(synthetic, folder):
    rendered = synthetic({"a.png": COLOUR})
    photos = folder({"1.png": COLOUR}, name="photos")
    (photos / "2.png").symlink_to("gone.png")

    with pytest.raises(DataError, match=r"photos/2\.png: no such image file"):
        read_real(photos, Data(), rendered)


def test_grey_among_colour_is_refused_with_the_way_out(synthetic):
    images = {"a.png": COLOUR, "b.png": GREY, "c.png": COLOUR}

    with pytest.raises(
        DataError, match=r"1 of 3 images are grey \(such as .*/b\.png\).*channels to"
    ):
        synthetic(images)


def test_both_sides_must_have_the_same_channels(synthetic, folder):
    rendered = synthetic({"a.png": COLOUR})
    photos = folder({"1.png": GREY}, name="photos")

    with pytest.raises(DataError, match=r"have 3 channel\(s\).*1: set data\.channels to 1 or 3"):
        read_real(photos, Data(), rendered)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_asked_for_three_channels_grey_becomes_three_equal_ones(synthetic, dtype):
    grey = GREY.astype(dtype) if dtype is np.uint8 else GREY16

    read = synthetic({"a.png": grey}, config=Data(channels=3))

    assert read.images[0].shape == (20, 30, 3)
    assert read.images[0].dtype == dtype
    assert all(np.array_equal(read.images[0][..., channel], grey) for channel in range(3))


def test_asked_for_one_channel_colour_becomes_its_luminance(synthetic):
    read = synthetic({"a.png": COLOUR, "b.png": GREY}, config=Data(channels=1))

    luminance = np.array(Image.fromarray(COLOUR).convert("L")).astype(int)
    assert read.channels == 1
    assert abs(read.images[0][..., 0] - luminance).max() <= 1
    assert np.array_equal(read.images[1][..., 0], GREY)


@pytest.mark.parametrize(("kept", "channels"), [(3, 4), (1, 2)])
def test_alpha_is_not_trained_on(synthetic, kept, channels):
    pixels = RNG.integers(0, 256, (20, 30, channels), dtype=np.uint8)

    read = synthetic({"a.png": pixels})

    assert np.array_equal(read.images[0], pixels[..., :kept])


@pytest.mark.parametrize("channels", [2, 5, 64])
def test_other_numbers_of_channels_are_not_in_files(synthetic, channels):
    with pytest.raises(ConfigError, match="channels must be 0, 1, 3 or 4"):
        synthetic({"a.png": COLOUR}, config=Data(channels=channels))


def test_asked_for_four_channels_a_fourth_is_read_as_it_is(synthetic, folder):
    pixels = RNG.integers(0, 256, (20, 30, 4), dtype=np.uint8)
    large = np.repeat(np.repeat(pixels, 2, axis=0), 2, axis=1)
    large[..., 3] = 0  # of alpha it would be all that is left
    config = Data(channels=4)

    read = synthetic({"a.png": pixels}, config=config)
    real = read_real(folder({"1.png": large}, name="photos"), config, read)

    assert read.channels == real.channels == 4
    assert np.array_equal(read.images[0], pixels)
    assert real.images[0].shape == (20, 30, 4)
    assert not real.images[0][..., 3].any()
    means = [image[..., :3].mean() for image in (real.images[0], pixels)]
    assert means[0] == pytest.approx(means[1], rel=0.02)


def test_asked_for_four_channels_an_image_of_three_is_named(synthetic):
    with pytest.raises(DataError, match=r"a\.png: has 3 channel\(s\), and data\.channels = 4"):
        synthetic({"a.png": COLOUR}, config=Data(channels=4))


def test_8_and_16_bits_do_not_mix(synthetic):
    with pytest.raises(DataError, match="images of 8 and of 16 bits are mixed; convert"):
        synthetic({"a.png": GREY, "b.png": GREY16})


def test_one_image_is_read_however_small_the_memory(synthetic):
    read = synthetic({"a.png": np.zeros((2048, 1024), np.uint8)}, config=Data(memory_mb=1))

    assert len(read.images) == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_real_photos_are_shrunk_to_the_median_of_the_synthetic_images(synthetic, folder, dtype):
    grey = GREY.astype(dtype)
    rendered = synthetic({"a.png": grey[:8], "b.png": grey[:10], "c.png": grey})
    large = np.full((40, 100), 255, dtype)
    photos = folder({"1.png": large, "2.png": grey[:9], "3.png": large.T}, name="photos")

    real = read_real(photos, Data(), rendered)

    assert [image.shape for image in real.images] == [(10, 25, 1), (9, 30, 1), (25, 10, 1)]
    assert [image.dtype for image in real.images] == [dtype] * 3
    assert real.images[0].min() == real.images[0].max() == 255
    assert np.array_equal(real.images[1][..., 0], grey[:9])


@pytest.mark.parametrize("channels", [2, 4])
def test_photos_with_alpha_are_shrunk_like_others(synthetic, folder, channels):
    rendered = synthetic({"a.png": GREY if channels == 2 else COLOUR})
    photo = np.full((80, 80, channels), 200, np.uint8)

    real = read_real(folder({"1.png": photo}, name="photos"), Data(), rendered)

    assert real.images[0].shape == (20, 20, channels - 1)


def test_real_photos_keep_their_size_where_it_is_not_to_match(synthetic, folder):
    rendered = synthetic({"a.png": COLOUR[:8]})
    photos = folder({"1.png": COLOUR}, name="photos")

    real = read_real(photos, Data(match_size=False), rendered)

    assert np.array_equal(real.images[0], COLOUR)


def test_a_fingerprint_tells_data_sets_apart(synthetic, folder):
    one, same = (synthetic({"a.png": COLOUR}) for _ in range(2))
    other = synthetic({"a.png": COLOUR}, labels=[(0, [1, 1, 2, 2])])
    photos = folder({"1.png": COLOUR}, name="photos")
    real = [read_real(photos, Data(), one) for _ in range(2)]
    folder({"2.png": COLOUR}, name="photos")

    more = read_real(photos, Data(), one)

    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert real[0].fingerprint == real[1].fingerprint != more.fingerprint


MIXED = source(COLOUR, COLOUR[:9, :7], np.tile(COLOUR, (4, 4, 1)))
WEIGHED = source(
    *MIXED.images,
    weights=[RNG.random(image.shape[:2]).astype(np.float16) for image in MIXED.images],
)
VARIED = Data(crop=(16, 24), scale=(0.5, 2.0))
BANK = tone_bank(MIXED, MIXED, Tone(photos=2), seed=0)


@pytest.mark.parametrize("start", [1, 5])
def test_a_batch_is_a_function_of_the_seed_and_its_number(start):
    options = {"batch_size": 4, "seed": 3, "bank": BANK, "match": True}
    whole = take(Crops(WEIGHED, VARIED, **options), start + 2)

    resumed = take(Crops(WEIGHED, VARIED, **options), 2, start=start)

    for one, other in zip(whole[start:], resumed, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.weights, other.weights)
        assert torch.equal(one.reference, other.reference)
    assert not torch.equal(whole[0].images, whole[1].images)


def test_candidates_stand_together_and_those_of_a_rank_are_those_of_the_whole():
    crops = Crops(MIXED, VARIED, 4, seed=3, own_tone=True, candidates=3)

    whole, part = next(crops.batches(2)), next(crops.batches(2, slice(1, 3)))

    assert len(whole.images) == len(whole.reference) == 4 * 3
    assert torch.equal(part.images, whole.images[3:9])
    assert torch.equal(part.reference, whole.reference[3:9])
    assert len({image.numpy().tobytes() for image in whole.images}) > 4


def test_another_seed_draws_other_crops():
    one, other = (draw(MIXED, VARIED, 4, seed=seed) for seed in (0, 1))

    assert not torch.equal(one, other)


def test_drawing_crops_leaves_the_random_numbers_of_the_caller_alone():
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 (the global state is what the test is about)
    expected = (torch.get_rng_state(), np.random.get_state()[1].copy())  # noqa: NPY002

    take(Crops(WEIGHED, VARIED, 4, seed=0), 2)

    assert torch.equal(torch.get_rng_state(), expected[0])
    assert np.array_equal(np.random.get_state()[1], expected[1])  # noqa: NPY002


@settings(deadline=None)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    crop=st.tuples(st.integers(8, 40), st.integers(8, 40)),
    scale=st.tuples(st.floats(0.05, 20), st.floats(0.05, 20)).map(sorted).map(tuple),
    seed=st.integers(0, 2**64 - 1),
    deep=st.booleans(),
)
def test_a_crop_has_the_size_asked_for_whatever_the_images(height, width, crop, scale, seed, deep):
    kind = np.uint16 if deep else np.uint8
    pixels = np.full((height, width, 3), np.iinfo(kind).max, kind)
    weights = [np.full((height, width), 2, np.float16)]
    crops = Crops(source(pixels, weights=weights), Data(crop=crop, scale=scale), 2, seed)

    (batch,) = take(crops, 1)

    assert batch.images.shape == (2, 3, *crop)
    assert batch.weights.shape == (2, 1, *crop)
    assert batch.images.dtype == batch.weights.dtype == torch.float32
    assert torch.allclose(batch.images, torch.ones(()), atol=1e-5)
    assert torch.allclose(batch.weights, torch.full((), 2.0), atol=1e-5)


def test_a_crop_is_a_window_of_the_image():
    pixels = np.arange(40 * 50, dtype=np.uint16).reshape(40, 50)
    config = Data(crop=(8, 9), flip=False)

    images = draw(source(pixels), config, 8, seed=0)

    found = ((images[:, 0] + 1) / 2 * 65535).round().int()
    corners = found[:, :1, :1]
    assert torch.equal(
        found - corners, torch.from_numpy(pixels[:8, :9].astype(int))[None].expand_as(found)
    )
    assert len(corners.unique()) > 1


def test_every_window_and_both_ends_are_drawn():
    pixels = np.arange(10, dtype=np.uint8).repeat(8).reshape(10, 8)
    config = Data(crop=(8, 8), flip=False)

    images = draw(source(pixels), config, 64, seed=0)

    first_rows = ((images[:, 0, 0, 0] + 1) / 2 * 255).round().int()
    assert first_rows.unique().tolist() == [0, 1, 2]


@pytest.mark.parametrize(("flip", "low", "high"), [(True, 70, 130), (False, 0, 0)])
def test_half_of_the_crops_are_mirrored_or_none(flip, low, high):
    ramp = np.arange(16, dtype=np.uint8)[None].repeat(16, 0)

    images = draw(source(ramp), Data(crop=(8, 8), flip=flip), 200, seed=0)

    mirrored = (images[:, 0, 0, 0] > images[:, 0, 0, -1]).sum().item()
    assert low <= mirrored <= high


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_a_crop_spans_as_much_of_the_image_as_its_scale_says(scale):
    ramp = np.arange(64, dtype=np.uint8)[None].repeat(64, 0)
    config = Data(crop=(16, 16), scale=(scale, scale), flip=False)

    images = draw(source(ramp), config, 4, seed=0)

    columns = (images[:, 0, 0] + 1) / 2 * 255
    step = (columns[:, 9] - columns[:, 6]) / 3
    assert step.tolist() == pytest.approx([1 / scale] * 4, rel=0.02)


def test_weights_move_with_the_pixels_that_they_belong_to(synthetic):
    masks = [np.zeros((40, 50), bool), np.zeros((20, 12), bool)]
    masks[0][5:25, 8:20] = masks[1][0:6, 3:9] = True
    images = {f"{i}.png": mask.astype(np.uint8) * 255 for i, mask in enumerate(masks)}
    labels = [(0, [8, 5, 12, 20]), (1, [3, 0, 6, 6])]
    read = synthetic(images, labels=labels, weights={"hand": 1, "background": 0})
    config = Data(crop=(16, 24), scale=(0.4, 3.0), flip=True)

    batches = take(Crops(read, config, 16, seed=0), 4)

    for batch in batches:
        assert torch.allclose((batch.images + 1) / 2, batch.weights, atol=1e-3)
        assert 0 < batch.weights.mean() < 1


def test_16_bit_values_keep_their_depth():
    pixels = np.array([[0, 1], [32768, 65535]], np.uint16).repeat(4, 0).repeat(4, 1)

    images = draw(source(pixels), Data(crop=(8, 8), flip=False), 2, seed=0)

    found = (images[0, 0].double() + 1) / 2 * 65535
    assert found[::4, ::4].flatten().tolist() == pytest.approx([0, 1, 32768, 65535], abs=0.01)


@pytest.mark.parametrize(("photos", "kept"), [(1, 1), (2, 2), (64, 3)])
def test_the_bank_holds_as_many_tones_as_there_are(photos, kept):
    bank, again = (tone_bank(MIXED, MIXED, Tone(photos=photos), seed=0) for _ in range(2))

    assert bank.tones.shape == (kept, 3, tone.QUANTILES)
    assert 0 <= bank.tones.min() <= bank.tones.max() <= 1
    assert torch.equal(bank.tones, again.tones)
    assert torch.equal(bank.bias, again.bias)


def test_a_bank_of_which_any_tone_will_do_has_no_bias():
    assert tone_bank(MIXED, MIXED, Tone(choice="any"), seed=0).bias is None


def test_no_photos_are_no_bank():
    assert tone_bank(MIXED, MIXED, Tone(photos=0), seed=0) is None


ANY = Tone(photos=2, choice="any")
FLAT = source(*(np.full((9, 9, 3), value, np.uint8) for value in (51, 204)))


def test_matched_crops_take_the_tone_of_a_photo_of_the_bank():
    bank = tone_bank(FLAT, MIXED, ANY, seed=0)

    (batch,) = take(Crops(MIXED, VARIED, 16, seed=0, bank=bank, match=True), 1)

    level = batch.reference[:, 0, 0]
    assert batch.reference.shape == (16, 3, tone.QUANTILES)
    assert sorted(set(level.tolist())) == pytest.approx([2 * 0.2 - 1, 2 * 0.8 - 1])
    assert torch.allclose(batch.images, level[:, None, None, None], atol=1e-5)


def test_crops_that_are_not_matched_are_those_without_a_bank_and_know_a_tone():
    alone = source(COLOUR)
    config = Data(crop=(20, 30), flip=False)

    (batch,) = take(Crops(alone, config, 16, seed=0, bank=tone_bank(FLAT, alone, ANY, seed=0)), 1)

    pixels = torch.from_numpy(COLOUR).movedim(-1, 0) / 255 * 2 - 1
    assert torch.allclose(batch.images, pixels, atol=1e-6)
    levels = sorted(set(batch.reference[:, 0, 0].tolist()))
    assert levels == pytest.approx([2 * 0.2 - 1, 2 * 0.8 - 1])


def test_a_crop_has_the_tone_of_its_own_image_where_that_is_asked_for():
    (batch,) = take(Crops(FLAT, Data(crop=(8, 8)), 16, seed=0, own_tone=True), 1)

    own = batch.images[:, :, :1, 0].expand(-1, -1, tone.QUANTILES)
    assert torch.allclose(batch.reference, own, atol=1e-6)
    assert len(batch.images.unique()) == 2


def test_without_a_bank_a_crop_has_no_reference():
    (batch,) = take(Crops(FLAT, Data(crop=(8, 8)), 16, seed=0), 1)

    assert batch.reference is None


def test_an_image_of_another_size_than_the_annotations_say_is_refused(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (20, 10)).save(tmp_path / "images" / "a.png")
    listed = {"images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 20}]}
    (tmp_path / "a.json").write_text(json.dumps(listed))

    with pytest.raises(ImageError, match=r"a\.png: is 20x10, the annotations say 40x20"):
        read_synthetic(tmp_path / "a.json", tmp_path / "images", Data(), {})


def test_a_photo_of_a_phone_is_turned_upright(synthetic, tmp_path):
    (tmp_path / "phone").mkdir()
    exif = Image.Exif()
    exif[274] = 6
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:10] = 255
    Image.fromarray(pixels).save(tmp_path / "phone" / "a.png", exif=exif)

    side = synthetic({"a.png": COLOUR})
    (photo,) = read_real(tmp_path / "phone", Data(match_size=False), side).images

    assert photo.shape == (40, 20, 3)
    assert photo[:, 10:].min() == 255
    assert photo[:, :10].max() == 0
