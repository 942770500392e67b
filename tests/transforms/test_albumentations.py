"""`Refine` among albumentations' own transforms: what it changes, what it leaves, how it travels.

The same tests run under albumentations 2.0.8 and, in an environment of its own, albumentationsx.
"""

import copy
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import textwrap
import warnings

import albumentations as A
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, Subset

from simgan_aug.bench.material import private_mb
from simgan_aug.errors import CheckpointError, ConfigError, ImageError
from simgan_aug.inference import ImageRefiner
from simgan_aug.transforms.albumentations import Refine, reseed, reseed_worker

AX = hasattr(A.BasicTransform, "sample_parameters")
"""albumentationsx 2.4 and later, which has the same import name."""

only_2_0 = pytest.mark.skipif(AX, reason="how albumentations 2.0.8 does it; AX has mended it")


@pytest.fixture
def refine(refiner_file):
    return Refine(refiner_file, p=1, device="cpu")


def applied(transform):
    """Strength and seed of the last call."""
    found = transform.get_applied_params()
    found = found.get("params", found)
    return {name: found[name] for name in ("strength", "seed")}


def random_image(shape, dtype="uint8", seed=0):
    values = np.random.default_rng(seed).random(shape)
    return (values * 255).astype(dtype) if dtype == "uint8" else values.astype(dtype)


# What it does to pixels


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_pixels_are_those_of_the_image_refiner(refiner_file, dtype, order):
    image = random_image((24, 31, 3), dtype)
    transform = Refine(refiner_file, p=1, strength=(0.3, 0.9), channel_order=order)

    out = transform(image=image)["image"]

    expected = ImageRefiner.load(refiner_file)(image, **applied(transform), channel_order=order)
    assert np.array_equal(out, expected)
    assert not np.array_equal(out, image)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("shape", [(9, 14), (9, 14, 1), (9, 14, 3), (9, 14, 4), (1, 1, 3)])
def test_every_kind_of_image_comes_out_as_it_went_in(refine, shape, dtype):
    image = random_image(shape, dtype)
    before = image.copy()

    out = A.Compose([refine])(image=image)["image"]

    assert (out.shape, out.dtype) == (image.shape, image.dtype)
    assert out.flags.c_contiguous
    assert out.flags.writeable
    assert not np.shares_memory(out, image)
    assert np.array_equal(image, before)
    if dtype == "float32":
        assert out.min() >= 0
        assert out.max() <= 1


def test_alpha_passes_bit_for_bit(refine):
    image = random_image((9, 14, 4))

    assert np.array_equal(refine(image=image)["image"][..., 3], image[..., 3])


def test_an_image_that_is_not_contiguous_is_taken(refine):
    image = random_image((24, 31, 3))

    out = refine(image=image[:, ::-1])["image"]

    again = ImageRefiner.load(refine.refiner, "cpu")(image[:, ::-1].copy(), **applied(refine))
    assert np.array_equal(out, again)


def test_five_channels_are_an_error_that_says_so(refine):
    with pytest.raises(ImageError, match=r"3 channel.*has 5"):
        refine(image=random_image((9, 14, 5)))


def test_floats_beyond_one_are_an_error_that_says_so(refine):
    with pytest.raises(ImageError, match="divide by the range"):
        refine(image=random_image((9, 14, 3), "float32") * 255)


def test_a_strength_of_zero_and_a_p_of_zero_give_the_image_back(refiner_file):
    image = random_image((9, 14, 3))

    for settings_ in ({"p": 1, "strength": 0.0}, {"p": 0}):
        out = A.Compose([Refine(refiner_file, **settings_)])(image=image)["image"]
        assert np.array_equal(out, image)


@pytest.mark.parametrize("shape", [(3, 9, 14, 3), (3, 9, 14, 1), (3, 9, 14)])
def test_images_are_refined_in_one_batch_all_in_one_form(refine, shape):
    images = random_image(shape)
    images[1] = images[0]
    calls = []
    opened = refine._refiner._refiner(torch.device("cpu"))
    hook = opened.network.register_forward_hook(lambda *_: calls.append(1))

    out = A.Compose([refine])(images=images)["images"]

    hook.remove()
    out = np.stack(list(out))
    assert out.shape == images.shape
    assert len(calls) == 1
    assert not np.array_equal(out, images)
    assert np.array_equal(out[0], out[1])


@pytest.mark.parametrize("shape", [(3, 9, 14, 3), (3, 9, 14, 1), (3, 9, 14)])
def test_a_list_of_frames_is_refined_as_their_stack(refine, shape):
    images = random_image(shape)
    params = {"strength": 1.0, "seed": 5}

    out = refine.apply_to_images(list(images), **params)

    assert isinstance(out, list)
    assert np.array_equal(np.stack(out), refine.apply_to_images(images, **params))
    for mixed in ([images[0], images[1, :, :7]], [images[0], (images[1] / 255).astype("f4")]):
        made = refine.apply_to_images(mixed, **params)
        assert [(each.shape, each.dtype) for each in made] == [
            (each.shape, each.dtype) for each in mixed
        ]


def test_a_volume_is_refined_slice_by_slice(refine):
    volume = random_image((2, 9, 14, 3))

    out = refine(volume=volume)["volume"]

    form = applied(refine)
    form["seed"] = [form["seed"]] * len(volume)  # slices belong together
    assert np.array_equal(out, ImageRefiner.load(refine.refiner, "cpu")(volume, **form))


def test_an_additional_image_is_refined_in_the_same_form(refine):
    image = random_image((9, 14, 3))
    pipeline = A.Compose([refine], additional_targets={"left": "image"})

    out = pipeline(image=image, left=image)

    assert np.array_equal(out["left"], out["image"])
    assert not np.array_equal(out["left"], image)


# What it leaves alone

BOXES = {
    "coco": [[2.25, 3.5, 5.0, 4.125], [0, 0, 20, 12]],
    "pascal_voc": [[2.25, 3.5, 7.25, 7.625], [0, 0, 20, 12]],
    "albumentations": [[0.1125, 0.25, 0.3625, 0.625], [0, 0, 1, 1]],
    "yolo": [[0.2375, 0.4375, 0.25, 0.375], [0.5, 0.5, 1, 1]],
}


def test_without_parameters_labels_come_out_as_the_same_objects(refine, image):
    labels = {
        "bboxes": [[1, 2, 3, 4]],
        "keypoints": [(1.5, 2.5)],
        "mask": np.eye(12, 20, dtype=np.int64) * (2**53 + 1),
        "ids": [2**53 + 1, 2**64],
        "rle": {"size": [12, 20], "counts": "abc"},
    }
    before = copy.deepcopy(labels)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # AX warns of keys that nothing processes
        out = A.Compose([refine], strict=False)(image=image, **labels)

    for name, value in labels.items():
        if name == "mask":
            assert np.array_equal(out[name], before[name])
        else:
            assert out[name] is value
            assert value == before[name]


@pytest.mark.parametrize("box_format", BOXES)
@pytest.mark.parametrize("p", [0, 1])
def test_with_parameters_labels_are_what_a_pipeline_without_us_makes_of_them(
    refiner_file, image, box_format, p
):
    labels = {
        "bboxes": np.array(BOXES[box_format], dtype=np.float32),
        "classes": ["hand", "face"],
        "keypoints": np.array([(1.5, 2.5), (19, 11)], dtype=np.float32),
        "mask": np.random.default_rng(0).integers(0, 3, (12, 20), dtype=np.uint8),
        "masks": np.eye(12, 20, dtype=np.uint8)[None],
    }

    def run(transform):
        pipeline = A.Compose(
            [transform, A.HorizontalFlip(p=1)],
            bbox_params=A.BboxParams(box_format, label_fields=["classes"]),
            keypoint_params=A.KeypointParams("xy"),
        )
        return pipeline(image=image, **copy.deepcopy(labels))

    ours, none = run(Refine(refiner_file, p=p)), run(A.NoOp(p=1))

    for name in labels:
        assert np.array_equal(np.asarray(ours[name]), np.asarray(none[name])), name
    assert np.array_equal(ours["image"], none["image"]) == (p == 0)


@only_2_0
def test_boxes_alone_in_a_pipeline_of_ours_are_warned_of_by_the_host(refine, image):
    with pytest.warns(UserWarning, match="no transform to process it"):
        A.Compose([refine], bbox_params=A.BboxParams("coco", label_fields=[]))


# What cannot be built


@pytest.mark.parametrize(
    ("refiner", "message"),
    [
        ("nowhere.safetensors", "no such file"),
        ("no-such-name", "neither a file nor a name"),
        ("unshuffle", "without weights"),
    ],
)
def test_a_missing_refiner_is_an_error_at_once_and_never_an_identity(refiner, message):
    with pytest.raises(CheckpointError, match=message):
        Refine(refiner)
    described = {
        "__class_fullname__": "simgan_aug.transforms.albumentations.Refine",
        "p": 1.0,
        "refiner": refiner,
    }
    with pytest.raises(CheckpointError, match=message):
        A.from_dict({"transform": described, "__version__": A.__version__})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": 1.5}, "strength"),
        ({"strength": None}, "strength"),
        ({"strength": (0.9, 0.1)}, "strength"),
        ({"channel_order": "grb"}, "'rgb' or 'bgr'"),
        ({"precision": "int8"}, "precision"),
        ({"device": "gpu"}, "device"),
        ({"variants": -1}, "variants"),
        ({"cache": "memory"}, "variants of 1 or more"),
        ({"cache": "memory", "variants": 1, "cache_mb": 0}, "cache_mb"),
    ],
)
def test_an_impossible_setting_is_our_error_and_not_the_default(refiner_file, options, message):
    with pytest.raises(ConfigError, match=message):
        Refine(refiner_file, **options)


def test_an_open_refiner_is_refused_for_it_cannot_be_saved(refiner_file):
    with pytest.raises(ConfigError, match="path of a file or a registered name"):
        Refine(ImageRefiner.load(refiner_file))


def test_a_p_that_is_none_is_refused(refiner_file):
    with pytest.raises(ValueError, match="p"):
        Refine(refiner_file, p=1.5)


# How it is saved, replayed, sent


def full(refiner_file, cache):
    return Refine(
        str(refiner_file),
        p=0.25,
        strength=(0.25, 0.75),
        device="cpu",
        channel_order="bgr",
        seed=7,
        precision="fp32",
        variants=3,
        cache=str(cache),
        cache_mb=5,
    )


NAMES = ("refiner", "p", "strength", "device", "channel_order", "seed", "precision", "variants")
NAMES = (*NAMES, "cache", "cache_mb")


def test_every_argument_survives_a_dict_and_json(refiner_file, tmp_path):
    transform = full(refiner_file, tmp_path / "cache")

    described = json.loads(json.dumps(A.to_dict(transform)))
    again = A.from_dict(described)

    for name in NAMES:
        assert getattr(again, name) == getattr(transform, name), name


@pytest.mark.parametrize("data_format", ["json", "yaml"])
def test_a_pipeline_saved_here_refines_alike_in_another_process(
    refiner_file, image, tmp_path, data_format
):
    pipeline = A.Compose([Refine(str(refiner_file), p=1, seed=3, strength=(0.2, 1))])
    A.save(pipeline, tmp_path / "pipeline", data_format=data_format)
    np.save(tmp_path / "image.npy", image)
    script = f"""
        import sys
        import albumentations as A, numpy as np, torch
        torch.set_num_threads(1)
        import simgan_aug.transforms.albumentations
        pipeline = A.load("pipeline", data_format="{data_format}")
        np.save("out.npy", pipeline(image=np.load("image.npy"))["image"])
    """

    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=tmp_path, check=True, timeout=120
    )

    assert np.array_equal(np.load(tmp_path / "out.npy"), pipeline(image=image)["image"])


def test_a_process_that_has_not_imported_us_says_that_it_does_not_know_us(refiner_file, tmp_path):
    A.save(A.Compose([Refine(str(refiner_file))]), tmp_path / "pipeline.json")
    script = f"import albumentations as A; A.load({str(tmp_path / 'pipeline.json')!r})"

    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120
    )

    assert ran.returncode != 0
    assert "simgan_aug.transforms.albumentations.Refine" in ran.stderr


def test_a_replay_gives_the_same_pixels(refiner_file, image):
    pipeline = A.ReplayCompose([Refine(str(refiner_file), p=0.5, strength=(0.2, 1), device="cpu")])

    outcomes = set()
    for _ in range(20):
        out = pipeline(image=image)
        json.dumps(out["replay"], default=list)
        replayed = A.ReplayCompose.replay(out["replay"], image=image)
        assert np.array_equal(replayed["image"], out["image"])
        outcomes.add(out["image"].tobytes())

    assert len(outcomes) > 2  # refined in many forms, and left alone


def test_a_pickle_holds_no_weights_and_refines_alike(refine, image):
    refine(image=image)  # opened

    sent = pickle.dumps(refine)
    again = pickle.loads(sent)

    assert len(sent) < 20_000
    assert np.array_equal(
        again.apply(image, strength=1.0, seed=5), refine.apply(image, strength=1.0, seed=5)
    )


def test_a_deep_copy_draws_as_the_original_would(refiner_file, image):
    pipeline = A.Compose([Refine(refiner_file, p=1, strength=(0, 1))], seed=4)

    twin = copy.deepcopy(pipeline)

    assert np.array_equal(twin(image=image)["image"], pipeline(image=image)["image"])


def test_it_says_what_it_is(refiner_file):
    shown = repr(Refine(str(refiner_file), p=0.25, strength=(0.2, 1.0)))

    assert shown.startswith("Refine(")
    assert str(refiner_file) in shown
    assert "p=0.25" in shown


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.timeout(120)
def test_a_pool_of_processes_refines_as_this_one(refine, image, method):
    with multiprocessing.get_context(method).Pool(2) as pool:
        results = pool.starmap(_applied_elsewhere, [(refine, image)] * 4)

    here = refine.apply(image, strength=1.0, seed=5)
    assert all(np.array_equal(result, here) for result in results)


def _applied_elsewhere(transform, image):
    return transform.apply(image, strength=1.0, seed=5)


# What it draws


def outcomes(pipeline, image, count):
    return [pipeline(image=image)["image"].tobytes() for _ in range(count)]


def test_a_seeded_pipeline_repeats_and_another_seed_differs(refiner_file, image):
    def run(seed):
        pipeline = A.Compose([Refine(refiner_file, p=0.5, strength=(0, 1))], seed=seed)
        return outcomes(pipeline, image, 12)

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_seeding_a_pipeline_anew_begins_its_draws_anew(refiner_file, image):
    pipeline = A.Compose([Refine(refiner_file, p=0.5, strength=(0, 1))], seed=1)
    first = outcomes(pipeline, image, 6)

    pipeline.set_random_seed(1)

    assert outcomes(pipeline, image, 6) == first


def test_a_seed_of_its_own_repeats_in_any_pipeline(refiner_file, image):
    def run(host_seed):
        transform = Refine(refiner_file, p=1, strength=(0, 1), seed=9)
        return outcomes(A.Compose([transform], seed=host_seed), image, 6)

    assert run(1) == run(2)


def test_without_a_seed_two_pipelines_differ(refiner_file, image):
    def run():
        return outcomes(A.Compose([Refine(refiner_file, p=1, strength=(0, 1))]), image, 4)

    assert run() != run()


def test_in_a_seeded_pipeline_we_do_not_throw_with_the_dice_of_others(refiner_file, image):
    pipeline = A.Compose(
        [Refine(refiner_file, p=0.5, strength=0.0), A.HorizontalFlip(p=0.5)], seed=3
    )
    ours, theirs = pipeline.transforms
    agree = []
    original = ours.apply
    refined = []
    ours.apply = lambda *a, **k: refined.append(1) or original(*a, **k)
    ours._set_keys()

    for _ in range(200):
        refined.clear()
        out = pipeline(image=image)["image"]
        agree.append(bool(refined) == (not np.array_equal(out, image)))

    assert theirs is not None
    assert 60 < sum(agree) < 140


def test_p_is_the_share_of_images_refined(refiner_file, image):
    pipeline = A.Compose([Refine(refiner_file, p=0.3, strength=1.0)], seed=0)

    changed = sum(out != image.tobytes() for out in outcomes(pipeline, image, 300))

    assert 60 <= changed <= 120


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(low=st.floats(0, 1), high=st.floats(0, 1), seed=st.integers(0, 2**32))
def test_strengths_lie_in_their_range(refiner_file, image, low, high, seed):
    low, high = sorted((low, high))
    transform = Refine(refiner_file, p=1, strength=(low, high), seed=seed)

    transform(image=image)

    assert low <= applied(transform)["strength"] <= high


def test_images_of_a_list_have_their_variants_though_their_sizes_differ(refiner_file):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((12, 20), (14, 22))]
    refine = Refine(refiner_file, p=1, variants=4, seed=0)

    refined = refine(images=images)["images"]

    assert [each.shape for each in refined] == [each.shape for each in images]


def test_numbers_of_numpy_are_saved_as_numbers(refiner_file, tmp_path):
    numbers = {"variants": np.int64(4), "seed": np.int64(3), "cache_mb": np.int64(64)}
    pipeline = A.Compose(
        [
            Refine(refiner_file, strength=np.float32(0.5), **numbers),
            Refine(refiner_file, strength=np.array([0.5, 1], np.float32)),
        ]
    )

    A.save(pipeline, tmp_path / "pipeline.json")
    one, other = A.load(tmp_path / "pipeline.json").transforms

    assert (one.strength, one.variants, one.seed, one.cache_mb) == (0.5, 4, 3, 64)
    assert tuple(other.strength) == (0.5, 1)


@pytest.mark.parametrize("seed", ["abc", 1.5])
def test_a_seed_that_is_no_whole_number_is_an_error_at_once(refiner_file, seed):
    with pytest.raises(ConfigError, match=f"seed must be a whole number, got {seed!r}"):
        Refine(refiner_file, seed=seed)


def test_variants_are_the_forms_that_an_image_has(refiner_file, image):
    pipeline = A.Compose([Refine(refiner_file, p=1, strength=(0.1, 1), variants=3)], seed=0)

    forms = set(outcomes(pipeline, image, 40))
    others = set(outcomes(pipeline, image[::-1].copy(), 40))

    assert len(forms) == 3
    assert len(others) == 3


def test_a_cache_gives_the_same_pixels_and_computes_once(refiner_file, image, tmp_path):
    options = {"p": 1, "variants": 2, "seed": 0}
    plain = Refine(refiner_file, **options)
    cached = Refine(refiner_file, **options, cache=tmp_path / "cache")

    assert outcomes(cached, image, 10) == outcomes(plain, image, 10)
    assert sum(path.is_file() for path in (tmp_path / "cache").rglob("*")) == 2


# What workers draw


class Drawn(Dataset):
    """Gives, for each index, the strength that a pipeline drew: the stream of the worker."""

    def __init__(self, pipeline):
        self.pipeline = pipeline
        self.image = np.zeros((8, 8, 3), np.uint8)

    def __len__(self):
        return 8

    def __getitem__(self, index):
        pipeline = self.pipeline
        out = pipeline(image=self.image)["image"]
        leaf = pipeline.transforms[0] if hasattr(pipeline, "transforms") else pipeline
        assert out.shape == self.image.shape
        return index, os.getpid(), leaf.drawn[-1]


class Recorded(Refine):
    """Remembers the strengths it was called with."""

    def __init__(self, refiner, p=0.5, strength=1.0, seed=None):
        super().__init__(refiner, p=p, strength=strength, seed=seed, device="auto")
        self.drawn = []

    def apply(self, img, strength, seed, **params):
        self.drawn.append((strength, seed))
        return super().apply(img, strength, seed, **params)


def epochs(dataset, count, method="fork", torch_seed=0, **options):
    """Draws by epoch and worker process, in the order of the index."""
    generator = torch.Generator().manual_seed(torch_seed)
    loader = DataLoader(
        dataset, 1, num_workers=2, multiprocessing_context=method, generator=generator, **options
    )
    found = []
    for _ in range(count):
        rows = sorted((int(i), int(pid), float(s), int(z)) for i, pid, (s, z) in loader)
        workers = {pid: [(s, z) for _, p, s, z in rows if p == pid] for _, pid, _, _ in rows}
        found.append(list(workers.values()))
    return found


@pytest.mark.parametrize("seed", [None, 5])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.timeout(240)
def test_workers_and_epochs_draw_differently_and_repeat_under_a_seed(refiner_file, method, seed):
    def dataset():
        return Drawn(A.Compose([Recorded(refiner_file, 1, (0, 1), seed)], seed=11))

    found = epochs(dataset(), 3, method)
    again = epochs(dataset(), 1, method)
    other = epochs(dataset(), 1, method, torch_seed=1)

    draws = [draw for epoch in found for worker in epoch for draw in worker]
    assert len(draws) == 24
    assert len(set(draws)) == 24
    assert again[0] == found[0]
    assert other[0] != found[0]


@pytest.mark.timeout(120)
def test_persistent_workers_go_on_drawing(refiner_file):
    dataset = Drawn(A.Compose([Recorded(refiner_file, 1, (0, 1))], seed=11))

    found = epochs(dataset, 3, persistent_workers=True)

    draws = [draw for epoch in found for worker in epoch for draw in worker]
    assert len(set(draws)) == len(draws) == 24


class Flips(Dataset):
    """Whether a pipeline's flips flipped: what albumentations' own transforms draw in a worker."""

    def __init__(self, pipeline):
        self.parts = {"train": [pipeline]}
        self.image = np.arange(64, dtype=np.uint8).reshape(8, 8)

    def __len__(self):
        return 64

    def __getitem__(self, index):
        (pipeline,) = self.parts["train"]
        out = pipeline(image=self.image)["image"]
        return torch.utils.data.get_worker_info().id, out.tobytes().hex()


def flips(pipeline, torch_seed=0, **options):
    generator = torch.Generator().manual_seed(torch_seed)
    dataset = Subset(Flips(pipeline), range(64))
    loader = DataLoader(dataset, 1, num_workers=2, generator=generator, **options)
    drawn = {0: [], 1: []}
    for worker, out in loader:
        drawn[int(worker)].append(out[0])
    return drawn


@only_2_0
@pytest.mark.timeout(120)
def test_without_reseed_worker_the_hosts_own_transforms_draw_alike_in_every_worker():
    pipeline = A.Compose([A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)], seed=3)

    drawn = flips(pipeline)

    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 2  # both flips or none: every transform has the same seed


@pytest.mark.timeout(120)
def test_reseed_worker_gives_each_worker_and_each_transform_a_stream_of_its_own():
    def pipeline():
        return A.Compose(
            [A.OneOf([A.HorizontalFlip(p=0.5), A.NoOp()], p=1), A.VerticalFlip(p=0.5)], seed=3
        )

    drawn = flips(pipeline(), worker_init_fn=reseed_worker)
    again = flips(pipeline(), worker_init_fn=reseed_worker)
    other = flips(pipeline(), torch_seed=1, worker_init_fn=reseed_worker)

    assert drawn[0] != drawn[1]
    assert len(set(drawn[0])) == 4  # the two flips are thrown apart
    assert again == drawn
    assert other != drawn


@pytest.mark.timeout(120)
def test_reseed_worker_that_finds_no_pipeline_says_so():
    loader = DataLoader([1, 2, 3, 4], num_workers=1, worker_init_fn=reseed_worker)

    with pytest.raises(ConfigError, match="no albumentations pipeline found"):
        list(loader)


def test_reseed_worker_outside_of_a_worker_says_where_it_belongs():
    with pytest.raises(ConfigError, match="worker_init_fn"):
        reseed_worker(0)


def test_a_reseeded_pipeline_repeats(refiner_file, image):
    pipeline = A.Compose([Refine(refiner_file, p=0.5), A.HorizontalFlip(p=0.5)])

    reseed(pipeline, 4)
    first = outcomes(pipeline, image, 8)
    reseed(pipeline, 4)

    assert outcomes(pipeline, image, 8) == first


@pytest.mark.timeout(120)
def test_cuda_in_a_forked_worker_is_our_error_with_the_two_ways_out(refiner_file):
    dataset = Drawn(Refine(refiner_file, p=1, device="cuda"))

    with pytest.raises(ConfigError, match=r"(?s)forked worker.*RefinedLoader.*spawn"):
        list(DataLoader(dataset, num_workers=1, multiprocessing_context="fork"))


class Held(Dataset):
    """Refines an image and tells what its process holds."""

    def __init__(self, transform, count):
        self.transform, self.count = transform, count
        self.image = np.zeros((96, 128, 3), np.uint8)

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.transform(image=self.image)
        return private_mb() if index % 1000 == 999 else 0.0


@pytest.mark.slow
def test_a_workers_memory_is_constant_over_ten_thousand_images(refiner_file):
    dataset = Held(Refine(refiner_file, p=1, strength=(0, 1)), 10_000)

    held = [float(mb) for mb in DataLoader(dataset, batch_size=None, num_workers=1) if mb]

    assert len(held) == 10
    assert max(held[1:]) - held[1] < 2
