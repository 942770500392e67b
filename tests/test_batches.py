"""Batches refined between a loader and a training step."""

import collections
import copy
import pickle
import subprocess
import sys
import textwrap
import threading
import time
import types

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from simgan_aug import graphs
from simgan_aug.audit import Guard, Limits, audit
from simgan_aug.audit.guard import cells
from simgan_aug.data import BatchRefiner, RefinedLoader, loader
from simgan_aug.data.places import identity
from simgan_aug.errors import CheckpointError, ConfigError, DataError, ImageError
from simgan_aug.inference import ImageRefiner
from simgan_aug.pixels import channels_last

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
        ({"image": torch.zeros(2, 5, 3, 8, 8)}, r"\(B, C, H, W\)"),
    ],
)
def test_a_batch_without_images_in_sight_is_an_error_that_says_what_to_do(always, batch, message):
    with pytest.raises(DataError, match=message):
        always(batch)


def test_normalised_images_are_an_error_that_says_so(always, images):
    with pytest.raises(ImageError, match="refine before Normalize"):
        always((images / 255 - 0.5) / 0.25)
    with pytest.raises(ImageError, match="divide by the range"):
        always(images.float())


@pytest.mark.parametrize("kind", ["tensor", "array"])
def test_a_plain_list_of_images_is_refined_where_the_key_says_so(refiner_file, images, kind):
    batch = [*images] if kind == "tensor" else [each.movedim(0, -1).numpy() for each in images]

    refine = BatchRefiner(refiner_file, p=1, key=lambda batch, refine: refine(batch))
    refined = refine(batch)

    assert isinstance(refined, list)
    assert all((one != other).any() for one, other in zip(refined, batch, strict=True))


@pytest.mark.parametrize(
    "parts",
    [
        ((3, 32, 40), (1, 32, 40)),  # an image and its mask, which torch's default_convert lists
        ((4, 32, 40), (4, 32, 40)),  # four grey images and their masks, collated
    ],
)
def test_a_list_that_may_be_images_or_an_image_and_its_mask_is_not_guessed_at(always, parts):
    with pytest.raises(DataError, match=r"may be so many images, or one and its mask.*key="):
        always([torch.zeros(shape, dtype=torch.uint8) for shape in parts])


@pytest.mark.parametrize("mask", [(1, 32, 40), (32, 40)])
def test_samples_that_were_not_collated_are_not_taken_for_images(always, mask):
    sample = torch.zeros(3, 32, 40), torch.zeros(mask)

    with pytest.raises(DataError, match=r"as many channels each.*collated first.*key="):
        always([sample, sample])


@pytest.mark.parametrize(
    "batch", [torch.zeros(0, 3, 8, 8), ([], []), {"image": torch.zeros(0, 3, 8, 8)}]
)
def test_a_batch_of_no_images_stays_as_it_is(always, batch):
    assert str(always(batch)) == str(batch)
    always.ids = "image_id"
    assert str(always(batch)) == str(batch)


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


# The guard


class Roll(nn.Module):
    """A refiner that moves everything to the right."""

    def forward(self, images):
        return torch.roll(images, 3, -1)


class Half(nn.Module):
    """As `Roll`, in the left half only."""

    def forward(self, images):
        middle = images.shape[-1] // 2
        left = torch.roll(images[..., :middle], 3, -1)
        return torch.cat([left, images[..., middle:]], -1)


class Shade(nn.Module):
    """A refiner that moves nothing."""

    def forward(self, images):
        return images * 0.8 - 0.1


class Wrapped(torch.Tensor):
    """As a tv_tensor: what is computed from one, or taken out of it, is a plain tensor."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        with torch._C.DisableTorchFunctionSubclass():
            out = function(*args, **(kwargs or {}))
        kept = function in (torch.Tensor.clone, torch.Tensor.to, torch.Tensor.detach)
        return out.as_subclass(cls) if kept else out


def clouds(count=3, side=96):
    """Images with structure everywhere, (N, 3, side, side) uint8."""
    noise = np.random.default_rng(0).normal(size=(count, side, side, 3)).astype(np.float32)
    smooth = np.stack([cv2.GaussianBlur(each, (0, 0), 2) for each in noise])
    levels = np.clip(smooth / smooth.std() * 40 + 128, 0, 255).astype(np.uint8)
    return torch.from_numpy(levels).permute(0, 3, 1, 2).contiguous()


def guarding(network, guard="image", **options):
    inner = ImageRefiner(network, 3, device="cpu", precision="fp32")
    return BatchRefiner(inner, p=1, guard=guard, **options)


KINDS = {
    "uint8": lambda images: images,
    "float32": lambda images: images / 255,
    "float64": lambda images: images.double() / 255,
    "float16": lambda images: (images / 255).half(),
    "bfloat16": lambda images: (images / 255).bfloat16(),
    "list": lambda images: [images[0], images[1, :, :50]],
    "tuple": lambda images: (images[0], images[1, :, :, :56]),
    "numpy": lambda images: images.permute(0, 2, 3, 1).numpy(),
    "numpy floats": lambda images: (images.permute(0, 2, 3, 1) / 255).numpy(),
    "list of numpy": lambda images: [i.permute(1, 2, 0).numpy() for i in images],
}


def plain(image):
    return image.float().numpy() if isinstance(image, torch.Tensor) else image


@pytest.mark.parametrize(
    ("guard", "kind"), [("label", "uint8"), ("label", "list"), *(("image", kind) for kind in KINDS)]
)
def test_a_guard_takes_back_what_a_refiner_has_moved(kind, guard):
    batch = KINDS[kind](clouds(2, 64))
    before = copy.deepcopy(batch)
    free, refine = guarding(Roll(), None), guarding(Roll(), guard)

    moved, out = (each({"image": batch})["image"] for each in (free, refine))

    assert type(out) is type(batch)
    assert len(out) == len(batch)
    for old, rolled, new, kept in zip(batch, moved, out, before, strict=True):
        assert (new.dtype, new.shape) == (old.dtype, old.shape)
        assert np.array_equal(plain(old), plain(kept))
        assert not np.array_equal(plain(rolled), plain(old))
        last = [channels_last(image) for image in (old, rolled, new)]
        height, width = last[0].shape[:2]
        assert not audit(last[0], last[1], cells(height, width)).passes
        assert audit(last[0], last[2], cells(height, width)).passes
    assert refine.guarded["images"] == len(batch)
    assert refine.guarded["blended"] + refine.guarded["kept"] == len(batch)
    assert free.guarded == {}


@pytest.mark.parametrize("kind", KINDS)
def test_a_guard_leaves_alone_what_has_not_moved(kind):
    batch = KINDS[kind](clouds(2, 64))
    free, refine = guarding(Shade(), None), guarding(Shade(), "label")

    wanted, out = (each({"image": batch})["image"] for each in (free, refine))

    assert all(np.array_equal(plain(w), plain(o)) for w, o in zip(wanted, out, strict=True))
    assert refine.guarded == {"images": len(batch)}


def test_an_original_that_is_kept_is_counted_as_kept():
    nothing_passes = Guard("image", Limits(content=2))
    refine = guarding(Shade(), nothing_passes)

    out = refine(clouds(2, 64))

    assert torch.equal(out, clouds(2, 64))
    assert refine.guarded == {"images": 2, "kept": 2}


@pytest.mark.parametrize("as_tensor", [False, True])
def test_boxes_say_what_is_guarded(as_tensor):
    images = clouds()
    left, right = [[8, 20, 28, 40]], [[60, 20, 28, 40]]
    boxes = [left, right, left]
    seen = []

    def of(batch):
        seen.append(batch)
        return torch.tensor(boxes) if as_tensor else boxes

    batch = {"image": images, "targets": None}
    free, refine = guarding(Half(), None), guarding(Half(), "image", boxes=of)

    moved, out = free(images), refine(batch)["image"]

    assert seen[0] is batch
    assert torch.equal(out[1], moved[1])
    assert not torch.equal(out[0], moved[0])
    assert not torch.equal(out[2], moved[2])
    assert refine.guarded["images"] == 3
    assert refine.guarded["blended"] + refine.guarded["kept"] == 2


def test_bgr_images_are_guarded_as_rgb_ones():
    rgb, bgr = (
        guarding(Half(), "label", ids=lambda batch: range(3), channel_order=order)
        for order in ("rgb", "bgr")
    )

    assert torch.equal(bgr(clouds().flip(1)).flip(1), rgb(clouds()))


@pytest.mark.parametrize("none", [[], None, torch.zeros(0, 4)], ids=["[]", "None", "a tensor"])
def test_an_image_without_boxes_is_held_only_against_what_has_appeared(none):
    refine = guarding(Roll(), "label", boxes=lambda batch: [none, [[20, 20, 40, 40]], none])

    out = refine(clouds())

    moved = guarding(Roll(), None)(clouds())
    assert [torch.equal(o, m) for o, m in zip(out, moved, strict=True)] == [True, False, True]


def test_boxes_go_with_the_images_that_are_drawn():
    images = clouds(8)
    boxes = [[[8, 20, 28, 40]] if row % 2 else [[60, 20, 28, 40]] for row in range(8)]
    inner = ImageRefiner(Half(), 3, device="cpu", precision="fp32")
    options = {"p": 0.5, "ids": lambda batch: range(8)}
    free = BatchRefiner(inner, **options)
    refine = BatchRefiner(inner, **options, guard="image", boxes=lambda batch: boxes)

    moved, out = free(images), refine(images)

    drawn = [not torch.equal(m, i) for m, i in zip(moved, images, strict=True)]
    assert 1 < sum(drawn) < 8
    for row in range(8):
        assert torch.equal(out[row], moved[row]) == (not drawn[row] or row % 2 == 0)
    assert refine.guarded["images"] == sum(drawn)


@pytest.mark.parametrize("subclass", [Wrapped, type("Film", (torch.Tensor,), {})])
@pytest.mark.parametrize("network", [Roll, Shade])
def test_a_subclass_of_a_tensor_comes_out_of_a_guard_as_one(subclass, network):
    images = clouds(2, 64)
    refine = guarding(network())

    batch = refine(images.as_subclass(subclass))
    (one,) = refine({"image": [images[0].as_subclass(subclass)]})["image"]

    assert type(batch) is type(one) is subclass
    assert torch.equal(batch.as_subclass(torch.Tensor), guarding(network())(images))
    assert torch.equal(one.as_subclass(torch.Tensor), guarding(network())(images[:1])[0])


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[[1, 2, 3, 4]]], "boxes of each of 3 images, got 1"),
        ([[[1, 2, 3]]] * 3, "x, y, width and height, got"),
        ([[1, 2, 3, 4]] * 3, "boxes of x, y, width and height"),
        ([["left"]] * 3, "boxes of x, y, width and height"),
        ([torch.ones(2, 3)] * 3, "x, y, width and height, got"),
        (5, "expected (the )?boxes of .*"),
        ([[[1, 2, float("nan"), 4]]] * 3, "expected a bbox of x, y, width and height, got"),
    ],
)
def test_boxes_that_do_not_fit_are_an_error_that_shows_them(boxes, message):
    refine = guarding(Roll(), boxes=lambda batch: boxes)

    with pytest.raises(DataError, match=message):
        refine(clouds())


def test_a_guard_or_boxes_that_cannot_be_are_errors_at_construction():
    with pytest.raises(ConfigError, match="boxes are for the guard: set guard="):
        guarding(Roll(), None, boxes=lambda batch: [])
    with pytest.raises(ConfigError, match="one of image, label, got 'box'"):
        guarding(Roll(), "box")
    with pytest.raises(ConfigError, match="'label', a Guard or None, got True"):
        guarding(Roll(), True)


def test_boxes_that_say_that_they_are_corners_are_refused():
    class Corners(torch.Tensor):  # as torchvision's tv_tensors.BoundingBoxes
        format = types.SimpleNamespace(value="XYXY")

    corners = torch.tensor([[20.0, 20, 60, 60]]).as_subclass(Corners)
    refine = guarding(Roll(), "label", boxes=lambda batch: [corners])

    with pytest.raises(DataError, match="got XYXY: convert them"):
        refine(torch.zeros(1, 3, 80, 80, dtype=torch.uint8))


def test_a_guard_travels(refiner_file):
    refine = BatchRefiner(refiner_file, p=1, guard=Guard("image", Limits(local=3)))

    assert pickle.loads(pickle.dumps(refine)).guard == refine.guard


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


def test_the_first_batches_can_be_made_while_they_are_waited_for_and_all_others_ahead():
    made, alone = [], []

    def refine(batch):
        made.append(batch)
        alone.append(getattr(graphs._threads, "waited_for", False))
        return batch

    coming = loader._ahead(range(6), refine, None, asked_for=2)

    for number in range(2):
        assert len(made) == number
        assert next(coming) == number
        time.sleep(0.3)
    while len(made) < 4:  # one is ready, and one more is done
        time.sleep(0.01)
    assert list(coming) == [2, 3, 4, 5]
    assert alone == [True] * 2 + [False] * 4


LEFT = """
    import itertools, sys
    import torch
    from simgan_aug.data import RefinedLoader

    batches = itertools.cycle([torch.rand(2, 3, 64, 64)])
    held = iter(RefinedLoader(batches, sys.argv[1], p=1, device="cpu", prefetch=True))
    next(held)
    print("the end")
"""


@pytest.mark.timeout(60)
def test_an_interpreter_that_holds_an_iterator_ends_in_peace(refiner_file):
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LEFT), str(refiner_file)],
        capture_output=True,
        text=True,
        timeout=50,
    )

    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "the end\n", "")


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
