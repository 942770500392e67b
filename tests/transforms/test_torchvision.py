"""`Refine` among torchvision's transforms v2: what it changes, what it leaves, how it travels."""

import copy
import itertools
import multiprocessing
import os
import pathlib
import pickle
import re
import subprocess
import sys
import warnings
from typing import NamedTuple

import numpy as np
import PIL.Image
import pytest
import torch
import torchvision_ops
from torch import nn
from torch.utils._pytree import tree_flatten
from torch.utils.data import DataLoader, Dataset

from simgan_aug.errors import CheckpointError, ConfigError, ImageError
from simgan_aug.inference import ImageRefiner

torchvision_ops.install()  # here too: a spawned worker imports this file and no conftest
tv_tensors = pytest.importorskip("torchvision.tv_tensors")
v2 = pytest.importorskip("torchvision.transforms.v2")
ops = pytest.importorskip("torchvision.ops")
Refine = pytest.importorskip("simgan_aug.transforms.torchvision").Refine


class Recorded(Refine):
    """Remembers what it drew."""

    def make_params(self, flat_inputs):
        self.drawn = super().make_params(flat_inputs)
        return self.drawn


@pytest.fixture
def refine(refiner_file):
    return Recorded(refiner_file, p=1, strength=(0.3, 0.9))


@pytest.fixture
def reference(refiner_file):
    return ImageRefiner.load(refiner_file)


def values(shape, dtype=torch.uint8, seed=0):
    drawn = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    scale = {torch.uint8: 255, torch.uint16: 65535}.get(dtype, 1)
    return (drawn * scale).to(dtype)


def pil(mode="RGB", size=(14, 9), seed=0):
    channels = len(PIL.Image.new(mode, (1, 1)).getbands())
    drawn = values((size[1], size[0], channels), seed=seed).numpy()
    image = PIL.Image.fromarray(drawn[..., 0] if channels == 1 else drawn)
    assert image.mode == mode
    return image


def labels(size=(9, 14)):
    """All that may stand beside an image, and that nobody may touch."""
    boxes = [[1.25, 2.5, 5.0, 8.125], [0, 0, 14, 9]]
    kinds = {
        "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),
        "unit_boxes": tv_tensors.BoundingBoxes(
            [[0, 0, 0.5, 0.5]], format="CXCYWH", canvas_size=size
        ),
        "mask": tv_tensors.Mask(torch.ones(size, dtype=torch.uint8)),
        "masks": tv_tensors.Mask(torch.ones((3, *size), dtype=torch.uint8)),
        "labels": torch.tensor([2**53 + 1, 2]),
        "scores": torch.rand(3, *size),
        "ids": [2**53 + 1, 2**64, "a"],
        "rle": {"size": list(size), "counts": b"a1b"},
        "array": np.arange(6, dtype=np.float32).reshape(2, 3),
        "path": pathlib.Path("a/b.png"),
        "object": object(),
        "nothing": None,
        "flag": True,
        "number": 0.1,
    }
    if hasattr(tv_tensors, "KeyPoints"):  # since torchvision 0.23
        kinds["keypoints"] = tv_tensors.KeyPoints([[1.5, 2.5]], canvas_size=size)
    return kinds


# What it does to pixels


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float16, torch.float32])
@pytest.mark.parametrize("wrap", [tv_tensors.Image, torch.Tensor], ids=["Image", "Tensor"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pixels_are_those_of_the_image_refiner(refine, reference, dtype, wrap, channels):
    image = values((channels, 9, 14), dtype).as_subclass(wrap)

    out = refine(image)

    assert type(out) is wrap
    expected = reference(image.as_subclass(torch.Tensor), **refine.drawn)
    assert torch.equal(out.as_subclass(torch.Tensor), expected)
    assert out.dtype == dtype
    assert not torch.equal(out, image)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_a_pil_image_comes_out_in_its_mode_with_the_image_refiners_pixels(refine, reference, mode):
    image = pil(mode)
    image.info["icc_profile"] = b"a profile"

    out = refine(image)

    assert isinstance(out, PIL.Image.Image)
    assert (out.mode, out.size, out.info) == (mode, image.size, image.info)
    assert np.array_equal(np.asarray(out), reference(np.asarray(image), **refine.drawn))
    assert not np.array_equal(np.asarray(out), np.asarray(image))


def test_a_pil_image_and_its_tensor_get_the_same_pixels(refiner_file):
    image = pil()
    refine = Refine(refiner_file, p=1)

    torch.manual_seed(0)
    first = v2.functional.pil_to_tensor(refine(image))
    torch.manual_seed(0)
    second = refine(v2.functional.pil_to_tensor(image))

    assert torch.equal(first, second)


@pytest.mark.parametrize("mode", ["I", "F", "I;16"])
def test_a_pil_image_of_more_than_8_bits_is_an_error_that_asks_for_a_tensor(refine, mode):
    with pytest.raises(ImageError, match=rf"got {mode}: give a tensor of uint16"):
        refine(PIL.Image.new(mode, (14, 9)))


@pytest.mark.parametrize("mode", ["P", "1", "CMYK", "YCbCr", "HSV", "LAB"])
def test_a_pil_image_of_another_mode_is_an_error_that_says_to_convert(refine, mode):
    with pytest.raises(ImageError, match=rf"L, LA, RGB, RGBA, got {mode}.*convert\('RGB'\)"):
        refine(PIL.Image.new(mode, (14, 9)))


@pytest.mark.parametrize("shape", [(4, 3, 9, 14), (2, 4, 3, 9, 14), (2, 1, 4, 3, 9, 14)])
@pytest.mark.parametrize("wrap", [tv_tensors.Video, tv_tensors.Image, torch.Tensor])
def test_videos_and_batches_are_refined_in_one_call_each_image_but_no_frame_with_the_next_seed(
    refine, reference, shape, wrap
):
    video = values(shape)
    video[:] = video.flatten(0, -4)[0]
    alike = shape[-4] if wrap is tv_tensors.Video else 1

    out = refine(video.as_subclass(wrap))

    assert type(out) is wrap
    assert out.shape == shape
    frames = out.as_subclass(torch.Tensor).reshape(-1, 3, 9, 14)
    seed, strength = refine.drawn["seed"], refine.drawn["strength"]
    for index, frame in enumerate(frames):
        one = reference(video.flatten(0, -4)[:1], seed=seed + index // alike, strength=strength)[0]
        assert (frame.int() - one.int()).abs().max() <= 1  # a batch sums in another order
    seeds = [seed + index // alike for index in range(len(frames))]
    assert torch.equal(frames, reference(video.flatten(0, -4), seed=seeds, strength=strength))


@pytest.mark.parametrize("shape", [(0, 3, 9, 14), (2, 0, 3, 9, 14), (0, 2, 3, 9, 14)])
def test_a_video_without_frames_is_taken(refine, shape):
    out = refine(tv_tensors.Video(torch.zeros(shape)))

    assert type(out) is tv_tensors.Video
    assert out.shape == shape


def test_alpha_passes_bit_for_bit(refine):
    image = tv_tensors.Image(values((4, 9, 14)))

    assert torch.equal(refine(image)[3], image[3])


def test_the_input_is_left_untouched(refine):
    for image in (tv_tensors.Image(values((3, 9, 14))), values((3, 9, 14), torch.float32), pil()):
        before = copy.deepcopy(image)
        out = refine(image)
        assert np.array_equal(np.asarray(image), np.asarray(before))
        assert not np.shares_memory(np.asarray(out), np.asarray(image))


def test_floats_stay_in_their_range(refine):
    out = refine(tv_tensors.Image(values((3, 9, 14), torch.float32).round()))

    assert out.min() >= 0
    assert out.max() <= 1


def test_an_image_that_is_not_contiguous_is_taken(refine, reference):
    image = values((9, 14, 3)).permute(2, 0, 1).flip(2)

    assert torch.equal(refine(image), reference(image.contiguous(), **refine.drawn))


def test_no_gradient_passes_and_a_network_trains_on_what_comes_out(refine):
    image = torch.rand(3, 9, 14, requires_grad=True)
    head = nn.Conv2d(3, 1, 1)

    out = refine(image)
    head(out).sum().backward()

    assert not out.requires_grad
    assert image.grad is None
    assert head.weight.grad is not None


def test_a_type_of_the_users_own_keeps_what_it_carries(refine):
    class Stamped(tv_tensors.Image):
        @classmethod
        def wrap(cls, tensor, like, **_):
            out = tensor.as_subclass(cls)
            out.stamp = like.stamp
            return out

    image = values((3, 9, 14)).as_subclass(Stamped)
    image.stamp = 7

    out = refine(image)

    assert type(out) is Stamped
    if hasattr(tv_tensors.TVTensor, "wrap"):  # the door for it, in newer torchvision
        assert out.stamp == 7


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.rand(5, 9, 14), r"3 channel.*has 5"),
        (torch.rand(3, 9, 14) * 255, "divide by the range"),
        (torch.zeros(3, 9, 14, dtype=torch.int64), "uint8, uint16"),
    ],
)
def test_an_image_of_another_kind_is_an_error_that_says_so(refine, image, message):
    with pytest.raises(ImageError, match=message):
        refine(image)


def test_an_image_within_inference_mode_is_refined_alike(refine, reference):
    image = values((3, 9, 14))

    with torch.inference_mode():
        out = refine(image)

    assert torch.equal(out, reference(image, **refine.drawn))


# What it leaves alone


class Pair(NamedTuple):
    image: object
    target: object


CONTAINERS = {
    "tuple": lambda image, target: (image, target),
    "namedtuple": Pair,
    "list": lambda image, target: [image, target],
    "dict": lambda image, target: {"image": image, "target": target},
    "nested": lambda image, target: {"a": [{"deep": (image, 1)}], "target": [target, "b"]},
    "flat": lambda image, target: {"image": image, **target},
    "target first": lambda image, target: (target, image),
}
IMAGES = {
    "Image": lambda: tv_tensors.Image(values((3, 9, 14))),
    "Video": lambda: tv_tensors.Video(values((2, 3, 9, 14))),
    "PIL": pil,
}


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("sent", [False, True], ids=["here", "pickled"])
def test_in_every_structure_the_images_are_refined_and_the_rest_are_the_same_objects(
    refine, container, kind, sent
):
    transform = pickle.loads(pickle.dumps(refine)) if sent else refine
    target = labels()
    sample = CONTAINERS[container](IMAGES[kind](), target)
    before = copy.deepcopy({k: v for k, v in target.items() if k != "object"})

    out = transform(sample)

    parts, spec = tree_flatten(sample)
    out_parts, out_spec = tree_flatten(out)
    assert out_spec == spec
    for part, out_part in zip(parts, out_parts, strict=True):
        if isinstance(part, (tv_tensors.Image, tv_tensors.Video, PIL.Image.Image)):
            assert type(out_part) is type(part)
            assert not np.array_equal(np.asarray(out_part), np.asarray(part))
        else:
            assert out_part is part
    for name, value in before.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(target[name], value)
        elif not isinstance(value, np.ndarray):
            assert target[name] == value


def test_several_arguments_are_one_sample(refine):
    image, target = tv_tensors.Image(values((3, 9, 14))), labels()

    out, same = refine(image, target)

    assert not torch.equal(out, image)
    assert same["boxes"] is target["boxes"]


def test_a_sample_without_an_image_comes_out_as_it_is(refine):
    target = {"boxes": labels()["boxes"], "ids": [2**53 + 1]}

    out = refine(target)

    assert out["boxes"] is target["boxes"]
    assert out["ids"] == target["ids"]


@pytest.mark.parametrize(
    "kinds", list(itertools.permutations(["t0", "t1", "pil", "Image", "Video"], 3))
)
def test_a_tensor_without_a_type_is_an_image_where_torchvision_takes_it_for_one(refine, kinds):
    makers = {
        "t0": lambda: values((3, 9, 14)),
        "t1": lambda: values((3, 9, 14)),
        "pil": pil,
        "Image": IMAGES["Image"],
        "Video": IMAGES["Video"],
    }
    sample = [makers[kind]() for kind in kinds]

    out = refine(sample)

    picked = [result is not part for part, result in zip(sample, out, strict=True)]
    assert picked == v2.Transform()._needs_transform_list(sample)
    assert picked == v2.RandomPhotometricDistort()._needs_transform_list(sample)


def test_a_numpy_image_which_torchvision_would_leave_alone_is_an_error(refiner_file):
    masks = torch.ones(3, 9, 14, dtype=torch.uint8)  # which it would take for the image
    sample = (values((9, 14, 3)).numpy(), {"masks": masks})

    for p in (0, 1):
        with pytest.raises(ImageError, match=r"\(9, 14, 3\).*PIL image or a tv_tensors.Image"):
            Refine(refiner_file, p=p)(sample)
    out = Refine(refiner_file, p=1)((PIL.Image.fromarray(sample[0]), sample[1]))
    assert out[1]["masks"] is masks


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((32, 40, 3), np.float32),
        np.zeros((32, 40, 3), np.uint16),
        np.zeros((32, 40), np.uint8),
    ],
)
def test_a_mask_beside_any_numpy_image_is_not_taken_for_it(refine, image):
    with pytest.raises(ImageError, match="torchvision leaves numpy arrays alone"):
        refine(image, torch.ones(1, 32, 40, dtype=torch.uint8))


def test_arrays_that_look_like_no_image_may_stand_beside_a_tensor(refine):
    arrays = [np.ones((2, 9, 14), np.uint8), np.ones((2, 17, 3)), np.ones((9, 14), np.uint8)]
    image = values((3, 9, 14))

    out, same = refine(image, arrays)

    assert not torch.equal(out, image)
    assert all(a is b for a, b in zip(arrays, same, strict=True))


@pytest.mark.parametrize("shape", [(4, 4), (4,), ()])
def test_a_tensor_that_is_no_image_is_an_error_and_never_refined(refine, shape):
    with pytest.raises(ImageError, match="torchvision takes the first tensor for the image"):
        refine({"boxes": torch.rand(shape)})


# What cannot be built


@pytest.mark.parametrize(
    ("refiner", "message"),
    [
        ("nowhere.safetensors", "no such file"),
        ("no-such-name", "neither a file nor a name"),
        ("unshuffle", "without weights"),
    ],
)
def test_a_missing_refiner_is_an_error_at_once(refiner, message):
    with pytest.raises(CheckpointError, match=message):
        Refine(refiner)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"p": 1.5}, "p must"),
        ({"p": -0.1}, "p must"),
        ({"strength": 1.5}, "strength"),
        ({"strength": (0.9, 0.1)}, "strength"),
        ({"precision": "int8"}, "precision"),
        ({"device": "gpu"}, "device"),
        ({"variants": -1}, "variants"),
        ({"cache": "memory"}, "variants of 1 or more"),
        ({"cache": "memory", "variants": 1, "cache_mb": 0}, "cache_mb"),
    ],
)
def test_an_impossible_setting_is_an_error_at_once(refiner_file, options, message):
    with pytest.raises(ConfigError, match=message):
        Refine(refiner_file, **options)


def test_a_network_or_a_number_is_no_refiner(reference):
    with pytest.raises(ConfigError, match="wrap it: ImageRefiner"):
        Refine(reference.network)
    with pytest.raises(ConfigError, match="an ImageRefiner, got int"):
        Refine(7)


@pytest.mark.parametrize(
    "options", [{"variants": 2, "cache": "memory"}, {"device": "cpu"}, {"precision": "fp32"}]
)
def test_what_goes_with_a_file_is_refused_for_a_refiner_that_is_open(reference, options):
    with pytest.raises(ConfigError, match="not with an open one"):
        Refine(reference, **options)


FAILURES = {
    "missing": "raise ModuleNotFoundError(\"No module named 'torchvision'\")",
    "mismatched": "raise RuntimeError('operator torchvision::nms does not exist')",
}


@pytest.mark.parametrize("failure", FAILURES)
def test_without_torchvision_the_error_says_what_failed_and_the_way_out(tmp_path, failure):
    (tmp_path / "torchvision.py").write_text(FAILURES[failure])
    script = """
import simgan_aug, simgan_aug.transforms, simgan_aug.shared  # need no torchvision
from simgan_aug.errors import DependencyError
try:
    import simgan_aug.transforms.torchvision
except DependencyError as error:
    print(isinstance(error, ImportError), type(error.__cause__).__name__, error)
"""

    ran = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )

    cause, message = FAILURES[failure].removeprefix("raise ").split("(", 1)
    assert ran.stdout.startswith(f"True {cause} ")
    assert message[1:-2] in ran.stdout
    assert torch.__version__ in ran.stdout
    assert "pip install 'simgan-aug[torchvision]'" in ran.stdout


# How it is held, sent, shown


def test_an_open_refiner_refines_as_its_file(refiner_file, reference):
    image = values((3, 9, 14))

    outs = []
    for refiner in (str(refiner_file), refiner_file, reference):
        torch.manual_seed(3)
        outs.append(Refine(refiner, p=1)(image))

    assert torch.equal(outs[0], outs[1])
    assert torch.equal(outs[0], outs[2])


@pytest.mark.parametrize("opened", [False, True])
def test_the_network_is_no_part_of_the_host(refiner_file, reference, opened):
    refine = Refine(reference if opened else refiner_file, p=1)
    image = values((3, 9, 14))
    refine(image)  # a named one is open now
    host = nn.Sequential(v2.Compose([refine]), nn.Conv2d(3, 1, 1))
    network = reference.network if opened else refine._refiner._refiner(torch.device("cpu")).network

    host.double().train()
    host.requires_grad_(True)

    assert len(list(host.parameters())) == 2
    assert set(host.state_dict()) == {"1.weight", "1.bias"}
    assert len(list(refine.modules())) == 1
    assert not any(module.training for module in network.modules())
    assert not any(p.requires_grad for p in network.parameters())
    assert all(p.dtype == torch.float32 for p in network.parameters())


def test_a_pickle_of_a_named_one_holds_no_weights(refine):
    refine(values((3, 9, 14)))

    assert len(pickle.dumps(refine)) < 5_000


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("send", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_a_copy_refines_as_the_original(refiner_file, reference, opened, send):
    refine = Refine(reference if opened else refiner_file, p=1, strength=(0.2, 0.8), variants=3)
    image = values((3, 9, 14))
    twin = send(v2.Compose([refine]))

    torch.manual_seed(0)
    out = refine(image)
    torch.manual_seed(0)

    assert torch.equal(twin(image), out)
    assert repr(twin.transforms[0]) == repr(refine)


def test_it_says_what_it_is(refiner_file, reference, tmp_path):
    refine = Refine(
        str(refiner_file),
        0.25,
        (0.2, 1.0),
        device="cpu",
        precision="fp32",
        variants=3,
        cache=tmp_path / "cache",
        cache_mb=5,
    )

    assert repr(refine) == (
        f"Refine(refiner={refiner_file}, p=0.25, strength=(0.2, 1.0), device=cpu, precision=fp32, "
        f"variants=3, cache_mb=5, backend=torch, cache={tmp_path / 'cache'})"
    )
    assert "refiner=ImageRefiner" in repr(Refine(reference))


def test_torchscript_is_refused_by_torchvision(refiner_file):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is on its way out
        with pytest.raises(RuntimeError, match="Refine cannot be JIT scripted"):
            torch.jit.script(Refine(refiner_file))


# What it draws


def outcomes(transform, image, count, seed=0):
    torch.manual_seed(seed)
    return [transform(image).numpy().tobytes() for _ in range(count)]


def test_it_repeats_under_torchs_seed_and_differs_under_another(refiner_file):
    refine, image = Refine(refiner_file, p=0.5, strength=(0, 1)), values((3, 9, 14))

    first = outcomes(refine, image, 12)

    assert outcomes(refine, image, 12) == first
    assert outcomes(refine, image, 12, seed=1) != first
    assert image.numpy().tobytes() in first
    assert len(set(first)) > 2


def test_p_is_the_share_of_samples_refined(refiner_file):
    refine, image = Refine(refiner_file, p=0.3), values((3, 9, 14))

    changed = sum(out != image.numpy().tobytes() for out in outcomes(refine, image, 300))

    assert 60 <= changed <= 120


def test_a_p_of_zero_gives_the_image_back_and_a_p_of_one_never(refiner_file):
    image = tv_tensors.Image(values((3, 9, 14)))
    never, always = Refine(refiner_file, p=0), Refine(refiner_file, p=1)

    for _ in range(20):
        assert never(image) is image
        assert not torch.equal(always(image), image)


def test_a_strength_of_zero_gives_equal_pixels(refiner_file):
    for image in (tv_tensors.Image(values((3, 9, 14))), pil()):
        out = Refine(refiner_file, p=1, strength=0.0)(image)
        assert np.array_equal(np.asarray(out), np.asarray(image))


def test_what_others_draw_does_not_depend_on_whether_it_refines(refiner_file):
    image = values((3, 9, 14))

    drawn = set()
    for p in (0, 0.5, 1):
        torch.manual_seed(0)
        Refine(refiner_file, p=p)(image)
        drawn.add(float(torch.rand(1)))

    assert len(drawn) == 1


def test_images_of_one_sample_are_refined_in_one_form(refine):
    image = tv_tensors.Image(values((3, 9, 14)))

    left, right = refine(image, image)

    assert torch.equal(left, right)
    assert not torch.equal(left, image)


def test_two_calls_differ(refine):
    image = values((3, 9, 14))

    assert not torch.equal(refine(image), refine(image))


@pytest.mark.parametrize("kind", ["Image", "Video", "PIL", "Tensor"])
def test_with_variants_an_image_has_so_many_forms_and_another_image_others(refiner_file, kind):
    refine = Recorded(refiner_file, p=1, strength=(0, 1), variants=3)
    one = IMAGES[kind]() if kind in IMAGES else values((3, 9, 14))
    other = pil(seed=1) if kind == "PIL" else (one + 1)

    forms = []
    for image in (one, other):
        forms.append(set())
        for _ in range(40):
            refine(image)
            forms[-1].add(tuple(refine.drawn.items()))

    assert [len(drawn) for drawn in forms] == [3, 3]
    assert not forms[0] & forms[1]


@pytest.mark.parametrize("kind", ["Image", "Video", "PIL"])
@pytest.mark.parametrize("where", ["memory", "folder"])
def test_what_is_cached_is_not_computed_again_and_comes_out_alike(
    refiner_file, tmp_path, kind, where
):
    folder = "memory" if where == "memory" else tmp_path / "cache"
    cached = Refine(refiner_file, p=1, variants=2, cache=folder, device="cpu", cache_mb=7)
    plain = Refine(refiner_file, p=1, variants=2, device="cpu")
    image, calls = IMAGES[kind](), []
    opened = cached._refiner._refiner(torch.device("cpu"))
    network = opened._refiner.network
    hook = network.register_forward_hook(lambda *_: calls.append(1))

    outs = []
    for transform in (plain, cached, cached):
        torch.manual_seed(0)
        outs.append([transform(image) for _ in range(12)])
    hook.remove()

    assert 0 < len(calls) <= 2
    for first, *others in zip(*outs, strict=True):
        for out in others:
            assert type(out) is type(first)
            assert np.array_equal(np.asarray(out), np.asarray(first))


class Drawn(Dataset):
    """Always the same image: what differs, a transform drew."""

    def __init__(self, transform, count=8):
        self.transform, self.count = transform, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        worker = torch.utils.data.get_worker_info().id
        image, target = self.transform(pil(), {"id": 2**53 + index})
        return worker, np.asarray(image).tobytes().hex(), target["id"]


def epochs(transform, method, count=2, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    loader = DataLoader(
        Drawn(transform),
        batch_size=None,
        num_workers=2,
        multiprocessing_context=method,
        generator=generator,
        timeout=100,
        **options,
    )
    return [list(loader) for _ in range(count)]


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.timeout(180)
def test_workers_and_epochs_draw_apart_and_repeat_under_the_loaders_seed(refiner_file, method):
    refine = Refine(refiner_file, p=1, strength=(0.2, 1))
    refine(pil())  # open here already, which a worker must not make use of

    found = epochs(refine, method, count=2 if method == "fork" else 1)

    samples = [sample for one in found for sample in one]
    assert {worker for worker, _, _ in samples} == {0, 1}
    assert len({image for _, image, _ in samples}) == len(samples)
    assert [label for _, _, label in found[0]] == [2**53 + index for index in range(8)]
    if method == "fork":
        assert epochs(refine, method) == found
        assert epochs(refine, method, seed=1) != found


@pytest.mark.timeout(120)
def test_workers_share_a_folder_as_their_cache(refiner_file, tmp_path):
    refine = Refine(refiner_file, p=1, variants=2, cache=tmp_path / "cache")

    found = epochs(refine, "fork", persistent_workers=True)

    assert len({image for one in found for _, image, _ in one}) == 2
    assert len([path for path in (tmp_path / "cache").rglob("*") if path.is_file()]) == 2


@pytest.mark.timeout(120)
def test_cuda_in_a_forked_process_is_our_error_with_the_two_ways_out(refiner_file):
    refine = Refine(refiner_file, p=1, device="cuda")
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()

    process = context.Process(target=_message, args=(refine, answers))
    process.start()
    process.join(100)

    assert re.search(r"(?s)forked worker.*RefinedLoader.*spawn", answers.get())


def _message(refine, answers):
    try:
        refine(pil())
    except ConfigError as error:
        answers.put(str(error))
    except BaseException as error:
        answers.put(repr(error))


# Among the host's transforms


def scene():
    """An image with a box, its mask, and keypoints in the box's corners."""
    image = values((3, 48, 64))
    mask = torch.zeros((1, 48, 64), dtype=torch.bool)
    mask[:, 10:30, 12:40] = True
    sample = {
        "image": tv_tensors.Image(image),
        "boxes": tv_tensors.BoundingBoxes([[12, 10, 40, 30]], format="XYXY", canvas_size=(48, 64)),
        "masks": tv_tensors.Mask(mask),
        "labels": torch.tensor([2**53 + 1]),
    }
    if hasattr(tv_tensors, "KeyPoints"):
        corners = [[12.0, 10.0], [40.0, 30.0]]
        sample["keypoints"] = tv_tensors.KeyPoints(corners, canvas_size=(48, 64))
    return sample


GEOMETRY = {
    "flip": lambda: [v2.RandomHorizontalFlip(1), v2.RandomVerticalFlip(0.5)],
    "resize": lambda: [v2.Resize((96, 128)), v2.Pad(3)],
    "crop": lambda: [v2.RandomCrop((44, 60))],
    "affine": lambda: [v2.RandomAffine(0, translate=(0.1, 0.1))],
}


@pytest.mark.parametrize("geometry", GEOMETRY)
def test_labels_are_those_of_a_pipeline_whose_refining_changes_nothing(refiner_file, geometry):
    outs = []
    for strength in (0.0, 1.0):
        torch.manual_seed(5)
        pipeline = v2.Compose([Refine(refiner_file, 1, strength), *GEOMETRY[geometry]()])
        outs.append(pipeline(scene()))

    nothing, refined = outs
    assert not torch.equal(refined["image"], nothing["image"])
    for name in set(nothing) - {"image"}:
        assert torch.equal(refined[name], nothing[name]), name
        assert type(refined[name]) is type(nothing[name])
    assert refined["labels"].tolist() == [2**53 + 1]


@pytest.mark.parametrize("geometry", GEOMETRY)
def test_boxes_masks_and_keypoints_keep_together_after_it(refiner_file, geometry):
    torch.manual_seed(5)
    out = v2.Compose([Refine(refiner_file, p=1), *GEOMETRY[geometry]()])(scene())

    of_mask = ops.masks_to_boxes(out["masks"])
    of_mask[:, 2:] += 1  # pixels' far edges
    assert (of_mask - out["boxes"]).abs().max() <= 1.5
    if "keypoints" in out:
        corners = out["keypoints"].as_subclass(torch.Tensor)
        spanned = torch.cat([corners.amin(0), corners.amax(0)])
        assert (spanned - out["boxes"]).abs().max() <= 1.5


def test_it_works_within_the_hosts_containers(refiner_file):
    image = tv_tensors.Image(values((3, 9, 14)))
    refine = Refine(refiner_file, p=1)

    for container in (
        v2.RandomApply([refine], p=1),
        v2.RandomChoice([refine, refine]),
        v2.RandomOrder([refine, v2.Identity()]),
    ):
        assert not torch.equal(container(image), image)


def test_torchvisions_missing_operator_keeps_what_it_should():
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(200, 2, generator=generator) * 50
    boxes = torch.cat([corners, corners + 1 + torch.rand(200, 2, generator=generator) * 30], 1)
    scores = torch.rand(200, generator=generator)
    scores[10:20] = 0.5

    for threshold in (0.0, 0.3, 0.7, 1.0):
        kept = ops.nms(boxes, scores, threshold)

        assert torch.equal(kept, torchvision_ops.nms(boxes, scores, threshold))
        assert (scores[kept].diff() <= 0).all()
        overlaps = ops.box_iou(boxes, boxes[kept])
        among = overlaps[kept].fill_diagonal_(0)
        assert (among <= threshold).all()
        dropped = sorted(set(range(200)) - set(kept.tolist()))
        better = (overlaps > threshold) & (scores[kept] >= scores[:, None])
        assert better[dropped].any(1).all()
    assert ops.nms(boxes[:0], scores[:0], 0.5).tolist() == []


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("ratio", [1, 2])
def test_torchvisions_missing_operator_samples_a_ramp_at_the_middle_of_each_bin(aligned, ratio):
    ramp = torch.stack(torch.meshgrid(torch.arange(20.0), torch.arange(30.0), indexing="ij"))
    features = torch.stack([ramp, -ramp])  # (2, 2, 20, 30): y and x of each pixel
    # The second row of the batch, x from 2 to 26 and y from 4 to 16; one beyond it; none of it.
    rois = torch.tensor([[1.0, 4, 8, 52, 32], [0, 80, 8, 90, 32], [0, 4, 8, 52, 32]])

    for align in (ops.roi_align, _ours):
        out = align(features, rois, (3, 4), 0.5, ratio, aligned)

        offset = 0.5 if aligned else 0
        y = (torch.tensor([6.0, 10, 14]) - offset)[:, None].expand(3, 4)
        x = (torch.tensor([5.0, 11, 17, 23]) - offset).expand(3, 4)
        assert torch.allclose(out[2], torch.stack([y, x]), atol=1e-4)
        assert torch.allclose(out[0], -out[2])
        assert not out[1].any()
        assert align(features, rois[:0], (3, 4), 0.5, ratio, aligned).shape == (0, 2, 3, 4)


def _ours(features, rois, size, scale, ratio, aligned):
    return torchvision_ops.roi_align(features, rois, scale, *size, ratio, aligned)


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(3, 48, 64), (2, 3, 48, 64)])
@pytest.mark.parametrize("variants", [0, 2])
def test_an_image_on_a_gpu_stays_there(refiner_file, shape, variants):
    image = tv_tensors.Image(values(shape)).cuda()
    image = tv_tensors.wrap(image, like=tv_tensors.Image(values(shape)))

    out = Refine(refiner_file, p=1, variants=variants)(image)

    assert type(out) is tv_tensors.Image
    assert out.device == image.device
    assert not torch.equal(out, image)
