"""Batches refined between a loader and a training step."""

import collections
import copy
import pickle
import threading

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from simgan_aug.data import BatchRefiner, RefinedLoader
from simgan_aug.data.places import identity
from simgan_aug.errors import CheckpointError, ConfigError, DataError, ImageError
from simgan_aug.inference import ImageRefiner

ANNOTATIONS = [
    {"id": 2**53 + 1, "image_id": 0, "bbox": [0.1, 0.2, 3.25, 4], "segmentation": [[1.5, 2, 3]]},
    {"id": 2**64, "image_id": 1, "iscrowd": 1, "segmentation": {"size": [9, 9], "counts": [3, 78]}},
    {"id": "a", "image_id": 2, "segmentation": {"size": [9, 9], "counts": b"a1b"}},
    {"id": 4, "image_id": 3, "keypoints": [1, 2, 2, 0, 0, 0], "num_keypoints": 1, "extra": None},
]
"""Every kind of COCO label, with ids that a float or an int64 cannot hold."""

Pair = collections.namedtuple("Pair", "images targets")


@pytest.fixture
def images():
    return torch.randint(0, 256, (4, 3, 10, 14), generator=torch.Generator().manual_seed(0)).byte()


@pytest.fixture
def always(refiner_file):
    return BatchRefiner(refiner_file, p=1, device="cpu")


def find(batch):
    """The images of any of the batches below, as a list."""
    if isinstance(batch, torch.Tensor):
        return list(batch)
    if isinstance(batch, (dict, collections.UserDict)):
        return list(next(iter(batch.values())))
    if isinstance(batch[0], dict):
        return [sample["image"] for sample in batch]
    return list(batch[0])


def shapes(images, rows=range(4)):
    """A batch of these rows in each of the shapes that trainers use."""
    rows = list(rows)
    images, ids = images[rows], torch.tensor(rows)
    targets = [copy.deepcopy(ANNOTATIONS[row]) for row in rows]
    return {
        "torchvision": (list(images), targets),
        "tuples": (tuple(images), tuple(targets)),
        "timm": [images, torch.arange(4)],
        "namedtuple": Pair(images, targets),
        "dict": {"image": images, "image_id": ids, "targets": targets},
        "ultralytics": {"img": images, "im_file": ["abcd"[row] for row in rows]},
        "transformers": {"pixel_values": images, "labels": targets},
        "mmdetection": {"inputs": list(images), "data_samples": targets},
        "detectron2": [{"image": i, **t} for i, t in zip(images, targets, strict=True)],
        "userdict": collections.UserDict({"pixel_values": images, "labels": targets}),
        "tensor": images,
    }


SHAPES = list(shapes(torch.zeros(4, 3, 8, 8)))


# What it changes, and what it leaves


@pytest.mark.parametrize("shape", SHAPES)
def test_in_every_trainers_batch_the_images_are_refined_and_the_rest_are_the_same_objects(
    always, images, shape
):
    batch = shapes(images)[shape]
    before = copy.deepcopy(batch)

    out = always(batch)

    assert type(out) is type(batch)
    if isinstance(batch, collections.UserDict):
        batch, out, before = batch.data, out.data, before.data
    for old, new, kept in zip(find(batch), find(out), find(before), strict=True):
        assert (new.dtype, new.shape) == (old.dtype, old.shape)
        assert not torch.equal(new, old)
        assert torch.equal(old, kept)  # what came in is not changed
    if isinstance(batch, dict):
        assert all(out[name] is batch[name] for name in list(batch)[1:])
    elif isinstance(batch, torch.Tensor):
        pass
    elif isinstance(batch[0], dict):
        assert all(o[k] is b[k] for o, b in zip(out, batch, strict=True) for k in b if k != "image")
    else:
        assert out[1] is batch[1]


def test_annotations_are_equal_before_and_after_for_every_kind_of_coco_label(always, images):
    batch = {"image": images, "annotations": copy.deepcopy(ANNOTATIONS)}

    out = always(batch)

    assert out["annotations"] is batch["annotations"]
    assert out["annotations"] == ANNOTATIONS
    assert out["annotations"][0]["id"] == 2**53 + 1


@pytest.mark.parametrize("kind", ["uint8", "float32", "float16"])
def test_pixels_are_those_of_the_image_refiner(refiner_file, images, kind):
    batch = images if kind == "uint8" else (images / 255).to(getattr(torch, kind))
    refine = BatchRefiner(refiner_file, p=1, strength=(0.2, 1), seed=3)
    calls = []
    inner = refine.refiner
    refine.refiner = lambda images, **how: calls.append(how) or inner(images, **how)

    out = refine(batch)

    (how,) = calls
    assert torch.equal(out, ImageRefiner.load(refiner_file)(batch, **how))
    assert len(set(how["seed"])) == 4
    assert len(set(how["strength"])) == 4


def test_images_of_unequal_sizes_keep_them(always, images):
    batch = [images[0], images[1, :, :7], images[2, :, :, :5]], None

    out, _ = always(batch)

    assert [i.shape for i in out] == [i.shape for i in batch[0]]


def test_bgr_images_are_refined_as_rgb_ones(refiner_file, images):
    rgb, bgr = (
        BatchRefiner(refiner_file, p=1, ids=lambda b: range(4), channel_order=order)
        for order in ("rgb", "bgr")
    )

    assert torch.equal(bgr(images.flip(1)).flip(1), rgb(images))


def test_numpy_batches_have_their_channels_last(always, images):
    arrays = images.permute(0, 2, 3, 1).numpy()

    out = always(arrays)

    assert isinstance(out, np.ndarray)
    assert out.shape == arrays.shape
    assert not np.array_equal(out, arrays)


def test_an_image_not_drawn_comes_out_bit_for_bit_and_the_network_does_not_see_it(
    refiner_file, images
):
    refine = BatchRefiner(ImageRefiner.load(refiner_file, "cpu"), p=0.5, ids=lambda b: range(4))
    seen = []
    refine.refiner.network.register_forward_hook(lambda _, args, __: seen.append(len(args[0])))

    changed = []
    for epoch in range(20):
        refine.set_epoch(epoch)
        out = refine(images)
        changed += [not torch.equal(o, i) for o, i in zip(out, images, strict=True)]

    assert sum(seen) == sum(changed)
    assert 20 < sum(changed) < 60


def test_with_a_p_of_zero_the_very_tensor_comes_out(refiner_file, images):
    assert BatchRefiner(refiner_file, p=0)((images, None))[0] is images


# Where things are


def test_a_key_an_index_or_a_function_says_where_the_images_are(refiner_file, images):
    def refine(key):
        return BatchRefiner(refiner_file, p=1, key=key, ids=lambda b: range(4))

    expected = refine(None)(images)

    assert torch.equal(refine("left")({"left": images, "image": images})["left"], expected)
    assert torch.equal(refine(1)((None, images))[1], expected)
    both = refine(lambda b, r: {k: r(v) for k, v in b.items()})({"left": images, "right": images})
    assert torch.equal(both["left"], expected)
    assert torch.equal(both["right"], expected)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"x": torch.zeros(1, 3, 8, 8)}, r"image, images, img.*dict with 'x'.*key="),
        ((torch.arange(4), None), r"got Tensor \(4,\).*key="),
        ([], "key="),
        ("image", "str"),
        ({"image": torch.zeros(0, 3, 8, 8)}, r"Tensor \(0, 3, 8, 8\)"),
        ({"image": torch.zeros(2, 5, 3, 8, 8)}, r"\(B, C, H, W\)"),
    ],
)
def test_a_batch_without_images_in_sight_is_an_error_that_says_what_to_do(always, batch, message):
    with pytest.raises(DataError, match=message):
        always(batch)


def test_normalised_images_are_an_error_that_says_so(always, images):
    with pytest.raises(ImageError, match="divide by the range"):
        always((images / 255 - 0.5) / 0.25)


# What it draws


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_drawn_for_an_image_does_not_depend_on_its_place(refiner_file, images, shape):
    refine = BatchRefiner(refiner_file, p=0.7, strength=(0.2, 1))

    out = refine(shapes(images)[shape])
    turned = refine(shapes(images, [3, 2, 1, 0])[shape])

    for one, other in zip(find(out), reversed(find(turned)), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("shape", sorted({*SHAPES} - {"timm", "tensor", "mmdetection"}))
def test_the_id_is_what_counts_and_not_the_content(refiner_file, images, shape):
    alike = images[:1].expand(4, -1, -1, -1)

    out = find(BatchRefiner(refiner_file, p=1)(shapes(alike)[shape]))

    assert len({image.numpy().tobytes() for image in out}) == 4


def test_epochs_seeds_and_ids_draw_differently_and_the_same_ones_alike(refiner_file, images):
    def run(seed=0, epoch=0, first=0):
        refine = BatchRefiner(
            refiner_file, p=1, seed=seed, ids=lambda b: range(first, first + 4), strength=(0, 1)
        )
        refine.set_epoch(epoch)
        return refine(images)

    same = run()
    assert torch.equal(run(), same)
    for other in (run(seed=1), run(epoch=1), run(first=4), run(first=2**53)):
        assert not torch.equal(other, same)
    assert not torch.equal(run(first=2**53), run(first=2**53 + 1))


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    ids=st.lists(
        st.one_of(st.integers(-(2**70), 2**70), st.text()), min_size=2, max_size=2, unique=True
    )
)
def test_any_int_or_text_is_an_id(refiner_file, ids):
    image = torch.full((3, 6, 6), 128, dtype=torch.uint8)
    refine = BatchRefiner(refiner_file, p=1, ids=lambda b: ids)

    one, other = refine([[image, image], None])[0]

    assert torch.equal(refine([[image, image], None])[0][0], one)
    numbers = {identity(each) % 2**64 for each in ids}
    assert torch.equal(one, other) == (len(numbers) == 1)


def test_without_ids_the_content_tells_images_apart(refiner_file, images):
    refine = BatchRefiner(refiner_file, p=1)

    assert torch.equal(refine(images).flip(0), refine(images.flip(0)))


def test_ids_that_are_missing_too_few_or_no_ids_are_errors(refiner_file, images):
    def run(ids):
        BatchRefiner(refiner_file, p=1, ids=ids)({"image": images, "n": [1, 2]})

    with pytest.raises(DataError, match="no ids under 'x'"):
        run("x")
    with pytest.raises(DataError, match="an id for each of 4 images, got 2"):
        run("n")
    with pytest.raises(DataError, match=r"an int or a str, got 1\.5"):
        run(lambda b: [1.5] * 4)


def test_variants_bound_the_forms_of_an_image_and_a_cache_computes_them_once(
    refiner_file, images, tmp_path
):
    options = {"p": 1, "variants": 2, "strength": (0.2, 1)}
    plain = BatchRefiner(refiner_file, **options)
    cached = BatchRefiner(refiner_file, **options, cache=tmp_path / "cache")

    forms = set()
    for epoch in range(12):
        plain.set_epoch(epoch)
        cached.set_epoch(epoch)
        out = plain(images)
        assert torch.equal(cached(images), out)
        forms |= {image.numpy().tobytes() for image in out}

    assert len(forms) == 8
    assert sum(path.is_file() for path in (tmp_path / "cache").rglob("*")) == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"p": 1.5}, "p must lie"),
        ({"strength": -1}, "strength"),
        ({"channel_order": "gbr"}, "'rgb' or 'bgr'"),
        ({"cache": "memory"}, "variants of 1 or more"),
        ({"cache": "memory", "variants": 1, "move": True}, "leave out move"),
    ],
)
def test_impossible_settings_are_errors_at_construction(refiner_file, options, message):
    with pytest.raises(ConfigError, match=message):
        BatchRefiner(refiner_file, **options)
    with pytest.raises(CheckpointError):
        BatchRefiner("nowhere.safetensors")


def test_it_travels_without_weights(always, images):
    always(images)

    sent = pickle.dumps(always)

    assert len(sent) < 2000
    assert torch.equal(pickle.loads(sent)(images), always(images))


# The loader


class Numbered(Dataset):
    """Images with their targets, one of which can be made to fail."""

    def __init__(self, images, fails_at=None):
        self.images, self.fails_at = images, fails_at

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        if index == self.fails_at:
            raise FileNotFoundError(f"image {index} has gone")
        return self.images[index], {"image_id": index}


def collate(samples):
    return tuple(zip(*samples, strict=True))


def loader_of(images, fails_at=None, **options):
    return DataLoader(Numbered(images, fails_at), 2, collate_fn=collate, **options)


PREFETCH = pytest.mark.parametrize("prefetch", [None, True], ids=["at once", "ahead"])


@PREFETCH
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.timeout(120)
def test_a_loader_gives_what_its_batch_refiner_makes_of_each_batch(
    refiner_file, images, prefetch, workers
):
    refine = BatchRefiner(refiner_file, p=0.5, strength=(0.2, 1))
    plain = loader_of(images)
    loader = RefinedLoader(
        loader_of(images, num_workers=workers), refiner_file, strength=(0.2, 1), prefetch=prefetch
    )

    for epoch in range(2):
        refine.set_epoch(epoch)
        expected = [refine(batch) for batch in plain]
        out = list(loader)
        assert len(out) == len(loader) == 2
        for (made, targets), (wanted, same) in zip(out, expected, strict=True):
            assert all(torch.equal(m, w) for m, w in zip(made, wanted, strict=True))
            assert targets == same


@PREFETCH
def test_the_order_of_a_loader_does_not_matter(refiner_file, images, prefetch):
    def by_id(**options):
        generator = torch.Generator().manual_seed(options.pop("seed", 0))
        loader = loader_of(images, generator=generator, **options)
        refined = RefinedLoader(loader, refiner_file, p=0.5, prefetch=prefetch)
        return {t["image_id"]: i for batch in refined for i, t in zip(*batch, strict=True)}

    plain, shuffled = by_id(), by_id(shuffle=True, seed=3)

    assert list(plain) != list(shuffled)
    assert all(torch.equal(plain[index], shuffled[index]) for index in plain)


@PREFETCH
def test_epochs_count_up_and_can_be_set(refiner_file, images, prefetch):
    def epoch(loader):
        return torch.cat([torch.stack(batch[0]) for batch in loader])

    loader, other = (
        RefinedLoader(loader_of(images), refiner_file, p=1, prefetch=prefetch) for _ in range(2)
    )
    first, second, third = (epoch(loader) for _ in range(3))
    other.set_epoch(1)

    assert not torch.equal(first, second)
    assert not torch.equal(second, third)
    assert torch.equal(epoch(other), second)
    assert torch.equal(epoch(other), third)


@PREFETCH
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.timeout(60)
def test_an_error_of_a_loader_is_raised_where_one_iterates(refiner_file, images, prefetch, workers):
    loader = RefinedLoader(
        loader_of(images, fails_at=2, num_workers=workers), refiner_file, prefetch=prefetch
    )
    got = []

    with pytest.raises(FileNotFoundError, match="image 2 has gone"):
        got.extend(loader)

    assert len(got) == 1


@PREFETCH
def test_an_error_of_refining_is_raised_where_one_iterates(refiner_file, images, prefetch):
    loader = RefinedLoader([{"x": images}], refiner_file, prefetch=prefetch)

    with pytest.raises(DataError, match="key="):
        list(loader)


@pytest.mark.timeout(60)
def test_leaving_a_loop_early_leaves_no_thread_behind(refiner_file, images):
    loader = RefinedLoader(loader_of(images), refiner_file, prefetch=True)
    before = threading.active_count()

    for _ in range(5):
        for _ in loader:
            break

    assert threading.active_count() == before


def test_the_rest_of_a_loader_is_its_own(refiner_file, images):
    told = []

    class Sampler(DistributedSampler):
        def set_epoch(self, epoch):
            told.append(epoch)
            super().set_epoch(epoch)

    dataset = Numbered(images)
    inner = DataLoader(
        dataset, 2, sampler=Sampler(dataset, num_replicas=1, rank=0), collate_fn=collate
    )
    loader = RefinedLoader(inner, refiner_file)

    loader.set_epoch(5)

    assert loader.dataset is dataset
    assert loader.sampler is inner.sampler
    assert loader.batch_sampler is inner.batch_sampler
    assert (loader.batch_size, loader.num_workers, len(loader)) == (2, 0, 2)
    assert told == [5]
    with pytest.raises(AttributeError, match="nonsense"):
        _ = loader.nonsense


def test_a_batch_refiner_can_be_given_but_not_options_beside_it(refiner_file, images, always):
    loader = RefinedLoader(loader_of(images), always)

    assert all(not torch.equal(i, images[n]) for n, i in enumerate(next(iter(loader))[0]))
    with pytest.raises(ConfigError, match="p: options go to the BatchRefiner"):
        RefinedLoader(loader_of(images), always, p=1)


# On a GPU


@pytest.mark.gpu
@pytest.mark.parametrize("prefetch", [True, False])
def test_on_a_gpu_the_images_come_there_and_are_those_of_the_cpu(refiner_file, images, prefetch):
    many = images.repeat(8, 1, 4, 4)
    options = {"p": 0.5, "precision": "fp32"}
    on_cpu = RefinedLoader(loader_of(many), refiner_file, device="cpu", **options)
    on_gpu = RefinedLoader(
        loader_of(many, pin_memory=True), refiner_file, prefetch=prefetch, **options
    )

    for (wanted, _), (made, targets) in zip(on_cpu, on_gpu, strict=True):
        assert all(image.is_cuda for image in made)
        assert all("image_id" in target for target in targets)
        for one, other in zip(wanted, made, strict=True):
            assert (one.int() - other.cpu().int()).abs().max() <= 1


@pytest.mark.gpu
def test_on_a_gpu_a_batch_comes_out_where_it_came_in(refiner_file, images):
    refine = BatchRefiner(refiner_file, p=1)

    assert refine(images).device.type == "cpu"
    assert refine(images.cuda()).is_cuda
    assert BatchRefiner(refiner_file, p=1, move=True)(images).is_cuda
