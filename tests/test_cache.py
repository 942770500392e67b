"""What is found in a cache is what would have been computed; what is not whole is not found."""

import hashlib
import itertools
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from simgan_aug import tone
from simgan_aug.bank import Bank
from simgan_aug.cache import CachedRefiner, DiskStore, MemoryStore, _files
from simgan_aug.errors import ConfigError, ImageError
from simgan_aug.inference import ImageRefiner
from simgan_aug.networks import UnshuffleRefiner

FULL = {"uint8": 255, "uint16": 65535}
NUMPY = [*FULL, "float16", "float32", "float64", ">u2", ">f4"]
TORCH = [*FULL, "float16", "bfloat16", "float32", "float64"]
MIB = 2**20
HEAD = 24  # bytes of an entry before its content


class Film(torch.Tensor):
    """A trivial subclass."""


def plain_refiner():
    """An `ImageRefiner` with noise and a tone bank, that changes every image."""
    torch.manual_seed(0)
    network = UnshuffleRefiner(3, 2, 8, 1, takes_reference=True)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.05)
    tones = torch.rand(5, 3, tone.QUANTILES).sort().values
    bank = Bank(tones).balanced(tones)
    refiner = ImageRefiner(network, 3, bank, device="cpu", precision="fp32")
    refiner.seen = []  # images in each call of the network
    network.register_forward_hook(lambda _, inputs, __: refiner.seen.append(len(inputs[0])))
    return refiner


@pytest.fixture(scope="module")
def shared():
    """One plain refiner: it has no state but what it has seen."""
    return plain_refiner()


@pytest.fixture
def refiner(shared):
    shared.seen.clear()
    return shared


def in_memory(refiner):
    return CachedRefiner(refiner, MemoryStore(64 * MIB))


@contextmanager
def seen_by(refiner):
    """The numbers of images that reach the network in here."""
    refiner.seen.clear()
    yield refiner.seen


def pixels_of(kind, dtype, shape, seed=0):
    """Random pixels: an array (H, W, C), or a tensor (C, H, W), or batches of them."""
    values = np.random.default_rng(seed).random(shape)
    if dtype in (*FULL, ">u2"):
        values = values * FULL.get(dtype, 65535)
    if kind == "numpy":
        return values.astype(dtype)
    if dtype in FULL:
        values = values.astype(dtype)
    tensor = torch.from_numpy(values).to(getattr(torch, dtype))
    return tensor.as_subclass(Film) if kind == "subclass" else tensor


@st.composite
def requests(draw, seed=0):
    """Images, as they may come, and the options of a call."""
    kind = draw(st.sampled_from(["numpy", "torch", "subclass"]))
    dtype = draw(st.sampled_from(NUMPY if kind == "numpy" else TORCH))
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    form, count = draw(st.sampled_from(["one", "batch", "list"])), draw(st.integers(1, 4))
    channels = draw(st.sampled_from([3, 4])) if form != "one" else draw(st.sampled_from([1, 3, 4]))
    one = (height, width, channels) if kind == "numpy" else (channels, height, width)
    options = {"channel_order": draw(st.sampled_from(["rgb", "bgr"]))}
    each = {"seed": st.integers(0, 2**40), "strength": st.sampled_from([0, 0.25, 1, np.float64(1)])}
    for name, values in each.items():
        alike = form == "one" or draw(st.booleans())
        several = st.lists(values, min_size=count, max_size=count)
        options[name] = draw(values if alike else several)
    if form == "one":
        return pixels_of(kind, dtype, one), options
    if form == "batch":
        return pixels_of(kind, dtype, (count, *one)), options
    return [pixels_of(kind, dtype, one, index) for index in range(count)], options


def identical(first, second):
    """Whether two answers agree in type, dtype, shape and every bit."""
    if isinstance(first, list):
        return len(first) == len(second) and all(map(identical, first, second))
    if type(first) is not type(second) or first.dtype != second.dtype:
        return False
    if isinstance(first, np.ndarray):
        return np.array_equal(first, second)
    return torch.equal(first.as_subclass(torch.Tensor), second.as_subclass(torch.Tensor))


# Hits.


@settings(deadline=None, max_examples=150)
@given(request=requests())
def test_a_miss_and_a_hit_are_to_the_bit_what_the_refiner_computes(shared, request):
    image, options = request
    cached = in_memory(shared)
    computed = shared(image, **options)

    first = cached(image, **options)
    with seen_by(shared) as seen:
        second = cached(image, **options)

    assert identical(first, computed)
    assert identical(second, computed)
    assert seen == []


@pytest.mark.parametrize("kind", ["numpy", "torch", "subclass"])
@pytest.mark.parametrize("form", [lambda batch: batch, list, tuple], ids=["batch", "list", "tuple"])
def test_of_a_batch_only_what_is_missing_is_computed(refiner, kind, form):
    shape = (5, 8, 6, 3) if kind == "numpy" else (5, 3, 8, 6)
    batch, seeds = pixels_of(kind, "float32", shape), [9, 4, 7, 1, 3]
    cached = in_memory(refiner)
    alone = {row: cached(batch[row], seed=seeds[row]) for row in (1, 3)}
    whole = refiner(form(batch), seed=seeds)

    with seen_by(refiner) as seen:
        refined = cached(form(batch), seed=seeds)

    assert sum(seen) == 3
    assert type(refined) is type(whole)
    assert all(identical(refined[row], alone[row]) for row in alone)
    # Far below half a level: how many are computed at once changes the order of float32 sums.
    assert all(abs(ours - theirs).max() < 1e-5 for ours, theirs in zip(refined, whole, strict=True))


def test_a_row_of_a_batch_is_found_again_alone_and_counts_its_seed_on(refiner):
    batch = pixels_of("numpy", "uint8", (3, 8, 6, 3))
    cached = in_memory(refiner)
    together = cached(batch, seed=7)

    with seen_by(refiner) as seen:
        alone = cached(batch[2], seed=9)

    assert seen == []
    assert np.array_equal(alone, together[2])


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("rows", [None, 3], ids=["one", "batch"])
def test_a_result_belongs_to_the_caller(refiner, kind, rows):
    one = (8, 6, 3) if kind == "numpy" else (3, 8, 6)
    image = pixels_of(kind, "uint8", one if rows is None else (rows, *one))
    cached = in_memory(refiner)
    expected = refiner(image)

    for _ in range(3):  # a miss and two hits
        refined = cached(image)

        assert identical(refined, expected)
        if kind == "numpy":
            assert refined.flags.writeable
            assert refined.flags.c_contiguous
        else:
            assert refined.is_contiguous()
            assert not refined.requires_grad
        refined[:] = 0  # must reach neither the store nor the image


def test_a_view_with_strides_is_the_same_image_as_its_copy(refiner):
    wide = pixels_of("numpy", "uint8", (16, 12, 3))
    cached = in_memory(refiner)
    cached(wide[::2, ::-2].copy())

    with seen_by(refiner) as seen:
        cached(wide[::2, ::-2])

    assert seen == []


# Misses.


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_whatever_is_changed_is_computed_anew(shared, data):
    image = pixels_of("numpy", "uint8", (4, 6, 3), data.draw(st.integers(0, 99), "image"))
    options = {"seed": 3, "strength": 0.5, "channel_order": "rgb"}
    cached = in_memory(shared)
    cached(image, **options)
    what = data.draw(st.sampled_from([*options, "pixel", "shape", "dtype", "kind"]))
    other = {
        "seed": st.integers(-5, 2**64).filter(lambda seed: seed != 3),
        "strength": st.floats(0, 1).filter(lambda share: share != 0.5),
        "channel_order": st.just("bgr"),
    }
    if what in other:
        options[what] = data.draw(other[what])
    elif what == "pixel":
        place = tuple(data.draw(st.integers(0, side - 1)) for side in image.shape)
        image[place] ^= data.draw(st.integers(1, 255))
    elif what == "shape":
        image = image.reshape(data.draw(st.sampled_from([(6, 4, 3), (2, 12, 3), (4, 18), (18, 4)])))
    elif what == "dtype":
        image = image.reshape(-1).view(np.uint16).reshape(3, 4, 3)
    else:
        image = torch.from_numpy(image.reshape(3, 4, 6))

    with seen_by(shared) as seen:
        refined = cached(image, **options)

    assert seen == [1]
    assert identical(refined, shared(image, **options))


def test_an_array_and_a_tensor_of_the_same_shape_and_bytes_are_two_images(refiner):
    image = pixels_of("numpy", "uint8", (3, 3, 3))  # channels last, or first
    cached = in_memory(refiner)
    cached(image)

    refined = cached(torch.from_numpy(image))

    assert identical(refined, refiner(torch.from_numpy(image)))


@pytest.mark.parametrize(("dtype", "other"), [("float16", "uint16"), ("uint16", ">u2")])
def test_images_of_the_same_shape_and_bytes_but_another_dtype_are_two(refiner, dtype, other):
    image = pixels_of("numpy", dtype, (4, 6, 3))
    cached = in_memory(refiner)
    cached(image)

    refined = cached(image.view(other))

    assert identical(refined, refiner(image.view(other)))


def test_equal_numbers_of_another_type_are_the_same_strength_and_seed(refiner):
    image = pixels_of("numpy", "uint8", (4, 6, 3))
    cached = in_memory(refiner)
    cached(image, seed=3, strength=1)

    with seen_by(refiner) as seen:
        cached(image, seed=np.int64(3), strength=np.float32(1))

    assert seen == []


# What is no image for a cache.


@pytest.mark.parametrize("form", [lambda image: image, lambda image: [image], lambda i: i[None]])
def test_an_image_that_is_not_on_the_cpu_is_an_error_before_it_is_fetched(refiner, form):
    image = torch.zeros(3, 4, 5, device="meta")  # as a GPU: not on the CPU

    with pytest.raises(ConfigError, match=r"on the CPU, this one is on meta.*without a cache"):
        in_memory(refiner)(form(image))

    assert refiner.seen == []


@pytest.mark.gpu
def test_an_image_on_a_gpu_is_an_error_with_a_way_out(refiner):
    with pytest.raises(ConfigError, match=r"this one is on cuda:0.*refine before"):
        in_memory(refiner)(torch.zeros(3, 4, 5, device="cuda"))


@pytest.mark.parametrize(
    "thing",
    [
        None,
        "image.png",
        3.5,
        np.zeros((4, 4, 3), np.int32),
        np.zeros((4, 4, 5), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((), np.uint8),
        np.zeros((1, 2, 4, 4, 3), np.uint8),
        np.zeros((2, 4, 4, 3), bool),
        np.array([np.zeros((4, 4, 3)), np.zeros((5, 4, 3))], dtype=object),
        np.full((4, 4, 3), 7.0),
        torch.zeros(4, 4, 3, 3, dtype=torch.int64),
    ],
    ids=lambda thing: f"{getattr(thing, 'dtype', thing)} {getattr(thing, 'shape', '')}",
)
def test_what_the_refiner_refuses_is_refused_with_a_cache_too(refiner, thing):
    cached = in_memory(refiner)

    for form in (thing, [thing]):
        for _ in range(2):  # nothing is kept of the first try
            with pytest.raises(ImageError):
                cached(form)
        with pytest.raises(ImageError):
            refiner(form)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"seed": [1]}, ImageError, "one seed for each of 2 images, got 1"),
        ({"strength": [1, 1, 1]}, ImageError, "one strength for each of 2 images, got 3"),
        ({"strength": 1.5}, ConfigError, r"strength must lie in \[0, 1\], got 1.5"),
        ({"channel_order": "brg"}, ConfigError, "channel_order must be 'rgb' or 'bgr'"),
    ],
)
def test_a_wrong_option_is_the_refiners_error(refiner, options, error, said):
    batch = pixels_of("numpy", "uint8", (2, 4, 6, 3))
    cached = in_memory(refiner)
    cached(batch)

    with pytest.raises(error, match=said):
        cached(batch, **options)


@pytest.mark.parametrize(
    "nothing",
    [[], np.zeros((0, 4, 5, 3), np.uint8), torch.zeros(0, 3, 4, 5).as_subclass(Film)],
    ids=["list", "numpy", "torch"],
)
def test_of_no_images_there_are_no_refined_ones(refiner, nothing):
    assert identical(in_memory(refiner)(nothing), refiner(nothing))


# A store in memory.


@given(sizes=st.lists(st.integers(0, 12), max_size=30))
def test_a_memory_holds_no_more_than_its_limit_and_what_it_holds_it_keeps(sizes):
    store, held = MemoryStore(40), {}

    for number, size in enumerate(sizes):
        store.put(str(number), bytes([number]) * size)
        if store.get(str(number)) is not None:
            held[str(number)] = bytes([number]) * size

    assert sum(map(len, held.values())) <= 40
    assert {key: store.get(key) for key in held} == held
    left_out = [size for number, size in enumerate(sizes) if str(number) not in held]
    assert all(size > 40 - sum(map(len, held.values())) for size in left_out)


def test_an_image_that_finds_no_room_is_computed_each_time(refiner):
    image = pixels_of("numpy", "uint8", (8, 6, 3))
    cached = CachedRefiner(refiner, MemoryStore(image.nbytes - 1))

    first, second = cached(image), cached(image)

    assert refiner.seen == [1, 1]
    assert np.array_equal(first, second)


# A store on disk.


def name(number):
    return hashlib.md5(str(number).encode()).hexdigest()


def content(number, size=1000):
    return random.Random(number).randbytes(size)


def fill(store, numbers, size=1000):
    for number in numbers:
        store.put(name(number), content(number, size))


def kept(store, numbers, size=1000):
    """The numbers whose content is found; it must be theirs."""
    found = {number: store.get(name(number)) for number in numbers}
    assert all(found[n] in (None, content(n, size)) for n in numbers)
    return [number for number in numbers if found[number] is not None]


def files(folder):
    return sorted(path for path in Path(folder).rglob("*") if path.is_file())


def held_bytes(folder):
    return sum(path.stat().st_size for path in files(folder))


def entry(folder, space, number):
    return folder / "simgan_aug_cache" / space / name(number)[:2] / name(number)


@settings(deadline=None, max_examples=30)
@given(pieces=st.dictionaries(st.integers(0, 99), st.binary(max_size=300), max_size=9))
def test_what_is_put_is_got_by_every_store_of_the_folder_and_space(pieces):
    with tempfile.TemporaryDirectory() as folder:
        writer, reader, other = (DiskStore(Path(folder), space, MIB) for space in ("a", "a", "b"))

        for number, piece in pieces.items():
            writer.put(name(number), piece)

        assert {number: reader.get(name(number)) for number in pieces} == pieces
        assert all(other.get(name(number)) is None for number in pieces)
        assert reader.get(name(100)) is None


def test_another_refiner_on_the_folder_finds_what_the_first_has_computed(refiner, tmp_path):
    images = [pixels_of(kind, "float32", (3, 8, 3)) for kind in ("numpy", "torch")]
    computed = CachedRefiner(refiner, DiskStore(tmp_path, "space", MIB))(images, seed=5)

    with seen_by(refiner) as seen:
        found = CachedRefiner(refiner, DiskStore(tmp_path, "space", MIB))(images, seed=5)

    assert seen == []
    assert identical(found, computed)


DAMAGES = {
    "truncated": lambda raw: raw[:-1],
    "cut within its head": lambda raw: raw[: HEAD // 2],
    "cut after its head": lambda raw: raw[:HEAD],
    "empty": lambda raw: b"",
    "longer": lambda raw: raw + b"\0",
    "zeroed": lambda raw: bytes(len(raw)),
    "foreign": lambda raw: b"GIF89a" + raw[6:],
    "without its head": lambda raw: raw[HEAD:],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_counts_as_missing_and_is_written_anew(refiner, tmp_path, damage):
    image = pixels_of("numpy", "uint8", (8, 6, 3))
    cached = CachedRefiner(refiner, DiskStore(tmp_path, "space", MIB))
    computed = cached(image)
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(DAMAGES[damage](whole))

    with seen_by(refiner) as seen:
        again = cached(image)

    assert seen == [1]
    assert np.array_equal(again, computed)
    assert path.read_bytes() == whole
    assert files(tmp_path) == [path]


@settings(deadline=None, max_examples=100)
@given(bit=st.integers(0, (HEAD + 300) * 8 - 1))
def test_an_entry_with_a_flipped_bit_counts_as_missing_wherever_it_is(bit):
    with tempfile.TemporaryDirectory() as folder:
        store = DiskStore(Path(folder), "space", MIB)
        store.put(name(1), content(1, 300))
        (path,) = files(folder)
        raw = bytearray(path.read_bytes())
        raw[bit // 8] ^= 1 << bit % 8
        path.write_bytes(raw)

        assert store.get(name(1)) is None


def test_a_whole_entry_under_another_ones_name_counts_as_missing(tmp_path):
    store = DiskStore(tmp_path, "space", MIB)
    fill(store, [1, 2])
    shutil.copyfile(entry(tmp_path, "space", 1), entry(tmp_path, "space", 2))

    assert kept(store, [1, 2]) == [1]


def test_a_full_folder_keeps_what_it_has_and_takes_no_more(tmp_path):
    store = DiskStore(tmp_path, "space", 20_000)

    fill(store, range(200), size=100)
    before = kept(store, range(200), size=100)
    fill(store, range(200, 300), size=100)

    assert before == [*range(20_000 // (100 + HEAD))]
    assert kept(store, range(300), size=100) == before
    assert held_bytes(tmp_path) <= 20_000


def test_an_entry_larger_than_the_limit_is_not_kept(tmp_path):
    store = DiskStore(tmp_path, "space", 1000)

    store.put(name(1), content(1, 1000))

    assert files(tmp_path) == []


@settings(deadline=None, max_examples=25)
@given(
    writers=st.integers(1, 4),
    size=st.integers(200, 3000),
    limit=st.integers(1, 60_000),
    order=st.randoms(use_true_random=False),
)
def test_each_further_writer_overshoots_by_a_sixteenth_or_an_entry_at_most(
    writers, size, limit, order
):
    with tempfile.TemporaryDirectory() as folder:
        stores = [DiskStore(Path(folder), "space", limit) for _ in range(writers)]

        for number in range(2 * limit // (size + HEAD) + 2):
            fill(order.choice(stores), [number], size)

        overshoot = max(limit // 16, size + HEAD)
        assert held_bytes(folder) <= limit + (writers - 1) * overshoot


def test_writers_that_count_in_the_same_moment_overshoot_by_a_sixteenth_each(tmp_path):
    stores = [DiskStore(tmp_path, "space", 16_000) for _ in range(4)]
    fill(stores[0], range(15), size=900)
    for store in stores:
        store._count()  # each sees room for two more

    for number, store in enumerate(stores * 2, start=15):
        fill(store, [number], size=900)

    assert 16_000 < held_bytes(tmp_path) <= 16_000 + 3 * 1000


def test_a_file_that_vanishes_while_all_are_counted_hides_no_other(tmp_path):
    for name_ in "abcd":
        (tmp_path / name_).write_bytes(b"123")
    order = [entry.path for entry in os.scandir(tmp_path)]
    walk = _files(tmp_path)

    first = next(walk)[0]
    os.unlink(order[1])

    assert [first, *(path for path, _, _ in walk)] == [order[0], *order[2:]]


def test_a_folder_that_vanishes_while_all_are_counted_is_survived(tmp_path):
    for folder in "ab":
        (tmp_path / "cache" / folder).mkdir(parents=True)
        (tmp_path / "cache" / folder / "file").write_bytes(b"123")
    walk = _files(tmp_path / "cache")

    next(walk)
    shutil.rmtree(tmp_path / "cache")

    assert list(walk) == []


def age(path, seconds):
    then = time.time() - seconds
    os.utime(path, (then, then))


def fill_outdated(folder, numbers, size=1000):
    """Entries of other weights; the first is the oldest."""
    fill(DiskStore(folder, "old", 2**40), numbers, size)
    for number in numbers:
        age(entry(folder, "old", number), 1000 - number)


def outdated(folder, numbers):
    return [number for number in numbers if entry(folder, "old", number).exists()]


def test_outdated_entries_stay_while_there_is_room(tmp_path):
    fill_outdated(tmp_path, range(6))

    fill(DiskStore(tmp_path, "new", 20_000), range(8))

    assert outdated(tmp_path, range(6)) == [*range(6)]


def test_outdated_entries_make_room_the_oldest_first_and_no_more_than_needed(tmp_path):
    fill_outdated(tmp_path, [*range(10)][::-1])
    store = DiskStore(tmp_path, "new", 20_000)

    left = []
    for number in range(20):
        fill(store, [number])
        left.append(outdated(tmp_path, range(10)))

    assert kept(store, range(20)) == [*range(19)]  # the new ones are all kept as far as they fit
    assert left[0] == [*range(10)]
    assert all(some == [*range(10)][-len(some) :] for some in left if some)  # the oldest go first
    assert held_bytes(tmp_path) <= 20_000
    for written, some in enumerate(left[:10], start=1):
        needless = [number for number in range(10) if number not in some]
        # An eighth of the room is cleared at once.
        assert not needless or (written + 10 - len(needless) + 1) * 1024 > 20_000 * 7 // 8 - 1024


def test_entries_of_the_same_weights_are_never_removed(tmp_path):
    fill(DiskStore(tmp_path, "space", 20_000), range(20))
    for path in files(tmp_path):
        age(path, 10**6)

    fill(DiskStore(tmp_path, "space", 10_000), range(20, 40))  # the limit is less now

    assert kept(DiskStore(tmp_path, "space", 10_000), range(40)) == [*range(19)]


def test_files_beside_the_caches_own_are_neither_counted_nor_touched(tmp_path):
    beside = tmp_path / "space" / "photo.png", tmp_path / "model.tmp", tmp_path / "ab" / name(1)
    for path in beside:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(50_000))
        age(path, 10**6)

    store = DiskStore(tmp_path, "space", 20_000)
    fill(store, range(40))

    assert all(path.stat().st_size == 50_000 for path in beside)
    assert len(kept(store, range(40))) == 19


@pytest.mark.parametrize("space", ["old", "new"])
def test_a_torso_goes_when_its_writer_must_be_gone_and_not_before(tmp_path, space):
    store = DiskStore(tmp_path, "new", 20_000)
    folder = tmp_path / "simgan_aug_cache" / space / "ab"
    folder.mkdir(parents=True, exist_ok=True)
    abandoned, fresh = folder / ".0123.tmp", folder / ".4567.tmp"
    for path, seconds in ((abandoned, 3700), (fresh, 10)):
        path.write_bytes(bytes(9000))
        age(path, seconds)

    fill(store, range(20))

    assert not abandoned.exists()
    assert fresh.exists()
    assert len(kept(store, range(20))) == 11_000 // (1000 + HEAD)


def test_a_writer_of_other_weights_in_the_midst_of_a_write_is_not_disturbed(tmp_path, monkeypatch):
    old, new = DiskStore(tmp_path, "old", 20_000), DiskStore(tmp_path, "new", 20_000)
    replace = Path.replace

    def interrupted(self, target):
        monkeypatch.undo()
        fill(new, range(100, 140))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    fill(old, [1])

    assert kept(old, [1]) == [1]


# Disks and folders that fail.


def test_a_full_disk_is_warned_of_once_and_refining_goes_on(refiner, small_disk):
    cached = CachedRefiner(refiner, DiskStore(small_disk, "space", MIB))
    images = [pixels_of("numpy", "uint8", (30, 40, 3), seed) for seed in range(6)]
    expected = refiner(images)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        twice = [cached(images) for _ in range(2)]

    assert all(identical(refined, expected) for refined in twice)
    (warning,) = caught
    said = f"cache {small_disk}: nothing more is kept: No space left on device"
    assert str(warning.message) == said
    entries = files(small_disk)
    assert entries
    assert not any(path.name.endswith(".tmp") for path in entries)
    with seen_by(refiner) as seen:
        cached(images)
    assert sum(seen) == len(images) - len(entries)


@pytest.mark.parametrize("way", ["", "simgan_aug_cache", "simgan_aug_cache/space"])
def test_a_file_in_the_way_of_the_folder_is_an_error_with_a_way_out(tmp_path, way):
    folder = tmp_path / "cache"
    in_the_way = folder / way
    in_the_way.parent.mkdir(parents=True, exist_ok=True)
    in_the_way.write_text("kept")

    with pytest.raises(ConfigError, match=rf"cache {folder}: cannot be made.*another folder"):
        DiskStore(folder, "space", MIB)

    assert in_the_way.read_text() == "kept"


@pytest.mark.parametrize(("made", "said"), [(False, "cannot be made"), (True, "be written to")])
def test_a_folder_that_is_for_reading_only_is_an_error_with_a_way_out(small_disk, made, said):
    if made:
        DiskStore(small_disk, "space", MIB)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)

    with pytest.raises(ConfigError, match=rf"cache {small_disk}: .*{said}.*another folder"):
        DiskStore(small_disk, "space", MIB)


def test_a_folder_that_vanishes_while_in_use_is_warned_of_once_and_survived(refiner, tmp_path):
    cached = CachedRefiner(refiner, DiskStore(tmp_path / "cache", "space", MIB))
    images = [pixels_of("numpy", "uint8", (8, 6, 3), seed) for seed in range(3)]
    expected = cached(images)
    shutil.rmtree(tmp_path / "cache")

    with pytest.warns(UserWarning, match="nothing more is kept: No such file") as caught:
        refined = cached(images)
    again = cached(images)

    assert len(caught) == 1
    assert identical(refined, expected)
    assert identical(again, expected)


# Processes.


def write_and_read(folder, limit, seed, start, answer):
    """Read entries in an order of one's own, write those that are missing; answers those found.

    Each number's content is known: a wrong one is an assertion, and an exit code; so is a warning.
    """
    warnings.simplefilter("error")
    store, order, numbers = DiskStore(folder, "space", limit), random.Random(seed), range(600)
    start.wait(30)
    for _ in range(4):
        for number in order.sample(numbers, len(numbers)):
            if not kept(store, [number], 3000):
                fill(store, [number], 3000)
    answer.put(kept(store, numbers, 3000))


@pytest.mark.timeout(60)
def test_three_processes_write_one_folder_and_none_reads_what_is_wrong(tmp_path):
    context, limit = multiprocessing.get_context("spawn"), 1_500_000  # of 600 x 3024
    start, answer = context.Barrier(3), context.SimpleQueue()
    writers = [
        context.Process(target=write_and_read, args=(tmp_path, limit, seed, start, answer))
        for seed in range(3)
    ]

    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert all(len(answer.get()) > 400 for _ in writers)
    assert not any(path.name.endswith(".tmp") for path in files(tmp_path))
    assert limit * 15 // 16 < held_bytes(tmp_path) <= limit + 2 * limit // 16


def write_for_ever(folder, size):
    store, pieces = DiskStore(folder, "space", 2**40), [content(n, size) for n in range(4)]
    while True:
        for number, piece in enumerate(pieces):
            store.put(name(number), piece)


@pytest.mark.timeout(60)
def test_a_writer_killed_in_the_midst_leaves_nothing_corrupt_that_is_seen(tmp_path):
    context, size = multiprocessing.get_context("fork"), 4 * MIB
    for kill in range(8):
        writer = context.Process(target=write_for_ever, args=(tmp_path, size))
        writer.start()
        time.sleep(0.1 + kill * 0.0037)
        while {path.name.endswith(".tmp") for path in files(tmp_path)} != {True, False}:
            time.sleep(0.0001)
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()

    torsos = [path for path in files(tmp_path) if path.name.endswith(".tmp")]
    entries = [path for path in files(tmp_path) if path not in torsos]
    store = DiskStore(tmp_path, "space", MIB)
    assert torsos  # else no kill has come in the midst
    assert entries
    assert len(kept(store, range(4), size)) == len(entries)
    for torso in torsos:
        age(torso, 4000)
    fill(store, [5])
    assert files(tmp_path) == entries


def frames(count):
    """From dark to light: by themselves they would take tones of several photos."""
    levels = np.linspace(10, 240, count).astype(np.uint8)
    return np.repeat(levels, 8 * 9 * 3).reshape(count, 8, 9, 3)


@pytest.mark.parametrize("kept", [[], [0], [2, 5], range(6), range(10)])
def test_frames_of_one_seed_come_out_as_without_a_cache_whatever_it_holds(refiner, kept):
    video, cached = frames(10), in_memory(refiner)
    for row in kept:
        cached(video[row], seed=3)
    some = np.array(kept, int)
    if len(some):
        cached(video[some], seed=[3] * len(some))

    expected = refiner(video, seed=[3] * 10)
    assert np.array_equal(cached(video, seed=[3] * 10), expected)
    assert np.array_equal(cached(video, seed=[3] * 10), expected)
    for row in range(10):
        assert np.array_equal(cached(video[row], seed=3), refiner(video[row], seed=3))


def test_a_frame_that_is_lost_is_made_with_those_that_it_belongs_to(refiner):
    class Forgetful(MemoryStore):
        def get(self, key):
            return None if next(turns) % 3 else super().get(key)

    turns = itertools.count()
    video, cached = frames(10), CachedRefiner(refiner, Forgetful(64 * MIB))

    for _ in range(4):
        made = cached(video, seed=[3] * 5 + [4] * 5)
        assert np.array_equal(made, refiner(video, seed=[3] * 5 + [4] * 5))
