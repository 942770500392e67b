import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from simgan_aug import noise, tone
from simgan_aug.bank import Bank
from simgan_aug.devices import resolve_precision
from simgan_aug.errors import ConfigError, ImageError
from simgan_aug.inference import ImageRefiner
from simgan_aug.networks import ResNetRefiner, UnshuffleRefiner

NUMPY = ["uint8", "uint16", "float16", "float32", "float64"]
TORCH = [*NUMPY, "bfloat16"]
FULL = {"uint8": 255, "uint16": 65535}


def awake(network):
    """The network with a head that is not zero, so that it does something."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.05)
    return network


def refining(network, channels=3, **options):
    return ImageRefiner(network, channels, device="cpu", **{"precision": "fp32"} | options)


def small(**options):
    return UnshuffleRefiner(options.pop("channels", 3), 2, 8, 1, **options)


class Recorder(nn.Module):
    """Brightens by 12 % of the range and remembers the shapes it has seen."""

    receptive_field = 1
    bytes_per_pixel = 2**9  # 2048 px in a MiB

    def __init__(self):
        super().__init__()
        self.shapes = []

    def forward(self, images):
        self.shapes.append(tuple(images.shape))
        return images + 0.24


@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16, torch.float16])
def test_what_a_host_makes_the_default_dtype_changes_nothing(default, refiner_file):
    image = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    expected = ImageRefiner.load(refiner_file, device="cpu", precision="fp32")(image, seed=3)

    before = torch.get_default_dtype()
    torch.set_default_dtype(default)  # as Lightning's "bf16-true" does
    try:
        refine = ImageRefiner.load(refiner_file, device="cpu", precision="fp32")
        refined = refine(image, seed=3), refine(image.astype(np.float32) / 255, seed=3)
    finally:
        torch.set_default_dtype(before)

    assert np.array_equal(refined[0], expected)
    assert np.abs(refined[1] * 255 - expected).max() < 3


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_what_a_host_makes_the_default_device_changes_nothing(dtype):
    tones = torch.rand(8, 3, 64, generator=torch.Generator().manual_seed(0)).sort(2)[0]
    refine = refining(awake(small()), bank=Bank(tones).balanced(tones), max_workspace_mb=1)
    images = np.random.default_rng(0).random((3, 24, 20, 3))
    images = (images * FULL.get(dtype, 1)).astype(dtype)
    expected = refine(images, seed=[3, 3, 4], strength=0.5)

    noise.quantiles.cache_clear()
    torch.set_default_device("meta")  # stands for a GPU: what lands there cannot be computed with
    try:
        refined = refine(images, seed=[3, 3, 4], strength=0.5)
    finally:
        torch.set_default_device(None)

    assert np.array_equal(refined, expected)


@pytest.mark.parametrize("dtype", TORCH)
@pytest.mark.parametrize("has_bank", [False, True])
def test_a_tensor_in_one_piece_comes_back_in_one_piece(dtype, has_bank):
    bank = Bank(torch.rand(8, 3, 64).sort(2)[0]) if has_bank else None
    refine = refining(awake(small()), bank=bank)
    image = torch.rand(3, 12, 20)
    full = FULL.get(dtype)
    image = (image * full).to(getattr(torch, dtype)) if full else image.to(getattr(torch, dtype))

    refined = refine(image, seed=1), refine(image[None], seed=1, strength=0.5)

    assert all(each.is_contiguous() for each in refined)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"seed": None}, "seed must be a whole number"),
        ({"seed": 1.7}, "seed must be a whole number"),
        ({"seed": ["a"]}, "seed must be a whole number"),
        ({"strength": None}, "strength must be a number"),
        ({"strength": "much"}, "strength must be a number"),
    ],
)
def test_what_is_no_seed_or_strength_is_an_error_that_says_so(how, message):
    with pytest.raises(ConfigError, match=message):
        refining(small())(np.zeros((8, 8, 3), np.uint8), **how)


def test_tensors_of_one_number_are_seeds_and_strengths():
    refine = refining(awake(small(noise_channels=1)))
    image = np.full((8, 8, 3), 99, np.uint8)

    for number in (torch.tensor, np.array):
        refined = refine(image, seed=number(3), strength=number(0.5))
        assert np.array_equal(refined, refine(image, seed=3, strength=0.5))


@st.composite
def images(draw, dtypes=None):
    """An image of any accepted kind for a refiner of three channels."""
    height, width, count = (draw(st.integers(1, 9)) for _ in range(3))
    kind = draw(st.sampled_from(["numpy", "torch"]))
    shapes = {
        "numpy": [
            (height, width),
            *((height, width, c) for c in (1, 3, 4)),
            (count, height, width, 3),
        ],
        "torch": [(height, width), (3, height, width), (count, 3, height, width)],
    }
    shape = draw(st.sampled_from(shapes[kind]))
    name = draw(st.sampled_from(dtypes or (NUMPY if kind == "numpy" else TORCH)))
    values = np.random.default_rng(draw(st.integers(0, 99))).random(shape)
    if name in FULL:
        values = (values * FULL[name]).astype(name)
    if kind == "numpy":
        return values.astype(name)
    return torch.from_numpy(values).to(getattr(torch, name))


def copy_of(image):
    return image.clone() if isinstance(image, torch.Tensor) else image.copy()


def same(first, second):
    if isinstance(first, np.ndarray):
        return np.array_equal(first, second)
    return torch.equal(first, second)


@settings(deadline=None, max_examples=150)
@given(image=images(), seed=st.integers(-(2**65), 2**65))
def test_an_untrained_refiner_gives_back_every_bit(image, seed):
    refined = refining(small())(image, seed=seed)

    assert (type(refined), refined.dtype) == (type(image), image.dtype)
    assert same(refined, image)


@settings(deadline=None, max_examples=150)
@given(image=images())
def test_a_refined_image_is_of_the_kind_that_came_and_the_input_is_untouched(image):
    before = copy_of(image)

    refined = refining(awake(small()))(image)

    assert (type(refined), refined.dtype) == (type(image), image.dtype)
    assert refined.shape == image.shape
    assert same(image, before)
    if isinstance(refined, np.ndarray):
        assert refined.flags.c_contiguous
        assert refined.flags.writeable
        assert not np.shares_memory(refined, image)
    else:
        assert refined.device == image.device
        assert refined.data_ptr() != image.data_ptr()


@settings(deadline=None, max_examples=100)
@given(image=images())
def test_a_strength_of_zero_gives_back_every_bit(image):
    assert same(refining(awake(small()))(image, strength=0), image)


@settings(deadline=None, max_examples=50)
@given(strength=st.floats(0, 1))
def test_strength_blends_the_change_linearly(strength):
    image = np.random.default_rng(0).uniform(0.4, 0.6, (6, 7, 3))
    refine = refining(awake(small()))

    part, whole = refine(image, strength=strength), refine(image)

    assert np.abs(whole - image).max() > 0.01
    assert whole.min() > 0  # nothing is clamped
    assert whole.max() < 1
    assert np.allclose(part - image, strength * (whole - image), atol=1e-6)


@pytest.mark.parametrize("strength", [-0.01, 1.01, float("nan"), float("inf")])
def test_a_strength_outside_of_0_and_1_is_an_error(strength):
    with pytest.raises(ConfigError, match=r"strength must lie in \[0, 1\]"):
        refining(small())(np.zeros((4, 4, 3), np.uint8), strength=strength)


@pytest.mark.parametrize("kind", ["numpy", "torch", "list"])
def test_a_strength_for_each_image_is_that_of_the_image_alone(kind):
    images = np.random.default_rng(0).uniform(0.3, 0.7, (3, 6, 7, 3)).astype(np.float32)
    tensors = torch.from_numpy(images).movedim(-1, 1)
    images = {"numpy": images, "torch": tensors, "list": [*images]}[kind]
    refine, strengths = refining(awake(small())), [0, 0.5, 1]

    together = refine(images, seed=[4, 5, 6], strength=strengths)

    alone = [
        refine(image, seed=seed, strength=strength)
        for image, seed, strength in zip(images, [4, 5, 6], strengths, strict=True)
    ]
    assert same(together[0], images[0])
    assert all(abs(one - other).max() < 1e-5 for one, other in zip(together, alone, strict=True))
    assert all(abs(alone[index] - images[index]).max() > 0.01 for index in (1, 2))


@pytest.mark.parametrize("several", [tuple, np.array, lambda s: np.array(s, np.float32)])
def test_strengths_may_come_as_any_sequence_of_numbers(several):
    batch = np.random.default_rng(0).random((3, 6, 7, 3))
    refine = refining(awake(small()))

    refined = refine(batch, strength=several([0, 0.5, 1]))

    assert np.array_equal(refined, refine(batch, strength=[0, 0.5, 1]))


@pytest.mark.parametrize("image", [np.zeros((2, 4, 4, 3), np.uint8), [np.zeros((4, 4))] * 2])
@pytest.mark.parametrize("strengths", [[], [1], [0, 0.5, 1]])
def test_too_few_or_too_many_strengths_are_an_error(image, strengths):
    with pytest.raises(ImageError, match=rf"2 images, got {len(strengths)}"):
        refining(small())(image, strength=strengths)


@pytest.mark.parametrize("image", [np.zeros((2, 4, 4, 3), np.uint8), [np.zeros((4, 4))] * 2])
def test_one_strength_among_several_that_is_out_of_range_is_an_error(image):
    with pytest.raises(ConfigError, match=r"strength must lie in \[0, 1\], got 1.5"):
        refining(small())(image, strength=[0.5, 1.5])


@settings(deadline=None, max_examples=60)
@given(image=images(), seed=st.integers(0, 99))
def test_bgr_is_rgb_with_the_colours_reversed_on_the_way_in_and_out(image, seed):
    refine, axis = refining(awake(small())), -1 if isinstance(image, np.ndarray) else -3

    refined = refine(image, seed=seed, channel_order="bgr")

    assert same(refined, swapped(refine(swapped(image, axis), seed=seed), axis))


def swapped(image, axis):
    """The image with blue and red in each other's place, where it has three colours."""
    if image.ndim < 3 or image.shape[axis] < 3:
        return image
    order = [2, 1, 0, 3][: image.shape[axis]]
    return image[..., order] if axis == -1 else image[..., order, :, :]


def test_the_order_of_channels_matters_to_a_colour_image():
    image = np.random.default_rng(0).uniform(0.3, 0.7, (6, 7, 3))
    refine = refining(awake(small()))

    assert np.abs(refine(image, channel_order="bgr") - refine(image)).max() > 0.01


@pytest.mark.parametrize("order", ["BGR", "grb", "", None])
def test_another_order_of_channels_is_an_error_that_names_the_two(order):
    with pytest.raises(ConfigError, match=f"channel_order must be 'rgb' or 'bgr', got {order!r}"):
        refining(small())(np.zeros((4, 4, 3), np.uint8), channel_order=order)


def test_a_subclass_of_a_tensor_comes_out_as_that_subclass():
    class Film(torch.Tensor):
        pass

    image, refine = torch.rand(3, 6, 7), refining(awake(small()))

    for each in (image, image[None], image[0]):
        refined = refine(each.as_subclass(Film))

        assert type(refined) is Film
        assert torch.equal(refined.as_subclass(torch.Tensor), refine(each))
    assert [type(each) for each in refine([image.as_subclass(Film), image])] == [Film, torch.Tensor]


def test_alpha_is_kept_to_the_byte_while_colours_change():
    image = np.random.default_rng(0).integers(0, 256, (9, 7, 4), dtype=np.uint8)

    refined = refining(awake(small()))(image)

    assert np.array_equal(refined[..., 3], image[..., 3])
    assert not np.array_equal(refined[..., :3], image[..., :3])


def test_alpha_does_not_change_the_colours():
    image = np.random.default_rng(0).integers(0, 256, (9, 7, 4), dtype=np.uint8)
    refine = refining(awake(small()))

    assert np.array_equal(refine(image)[..., :3], refine(image[..., :3]))


@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 1), (9, 7, 2)])
def test_a_grey_image_gets_the_luminance_of_what_three_equal_channels_get(shape):
    image = np.random.default_rng(0).uniform(0.3, 0.7, shape)
    refine = refining(awake(small()))
    grey = image if image.ndim == 2 else image[..., 0]

    refined = refine(image)

    coloured = refine(np.stack([grey] * 3, axis=-1)) - grey[..., None]
    expected = grey + coloured @ np.array([0.299, 0.587, 0.114])
    assert np.allclose(refined if image.ndim == 2 else refined[..., 0], expected, atol=1e-6)
    if shape[-1] == 2:
        assert np.array_equal(refined[..., 1], image[..., 1])


def test_a_colour_image_is_an_error_for_a_refiner_of_grey():
    refine = refining(small(channels=1), channels=1)

    with pytest.raises(ImageError, match=r"takes 1 channel.*the image has 3"):
        refine(np.zeros((4, 4, 3), np.uint8))
    assert refine(np.zeros((4, 4), np.uint8)).shape == (4, 4)


@pytest.mark.parametrize("value", [-0.1, 1.1, np.nan, np.inf])
def test_a_float_outside_of_0_and_1_is_an_error(value):
    image = np.full((4, 4, 3), 0.5, np.float32)
    image[2, 1, 0] = value

    with pytest.raises(ImageError, match=r"floats in \[0, 1\]"):
        refining(small())(image)


def test_on_a_cpu_every_image_is_held_against_the_range():
    refine = refining(small())
    refine(np.zeros((4, 4, 3)))

    with pytest.raises(ImageError, match=r"floats in \[0, 1\]"):
        refine(np.full((4, 4, 3), 255.0))


@pytest.mark.gpu
def test_on_a_gpu_the_first_image_is_held_against_the_range():
    refine, wrong = ImageRefiner(small(), 3, device="cuda"), torch.full((3, 4, 4), 255.0).cuda()

    for _ in range(2):
        with pytest.raises(ImageError, match=r"floats in \[0, 1\]"):
            refine(wrong)
    refine(wrong / 255)

    assert refine(wrong).max() == 1


@pytest.mark.parametrize("dtype", ["int32", "bool", "int64"])
def test_integers_of_unknown_range_are_an_error(dtype):
    with pytest.raises(ImageError, match=dtype):
        refining(small())(np.zeros((4, 4, 3), dtype))


@pytest.mark.parametrize("container", [list, tuple])
def test_a_list_of_unequal_images_comes_back_as_a_list(container):
    sizes = [(5, 7, 3), (8, 8), (1, 1, 4)]
    images = container(np.full(size, 90, np.uint8) for size in sizes)
    refine = refining(awake(small()))

    refined = refine(images, seed=3)

    assert isinstance(refined, list)
    for index, image in enumerate(images):
        assert np.array_equal(refined[index], refine(image, seed=3 + index))


def test_an_empty_list_is_refined_to_an_empty_list():
    assert refining(small())([]) == []


def test_the_same_seed_gives_the_same_result_and_another_seed_another():
    image = np.full((8, 8, 3), 0.5)
    refine = refining(awake(small()))

    assert np.array_equal(refine(image, seed=5), refine(image, seed=5))
    assert np.array_equal(refine(image), refine(image, seed=0))
    assert not np.allclose(refine(image, seed=5), refine(image, seed=6), atol=1e-3)


def test_the_result_does_not_depend_on_the_global_random_state():
    image = np.full((8, 8, 3), 0.5)
    refine = refining(awake(small()))

    first = refine(image, seed=5)
    torch.manual_seed(12345)
    state = torch.get_rng_state()
    second = refine(image, seed=5)

    assert np.array_equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_numpy_integer_is_a_seed():
    image = np.full((8, 8, 3), 0.5)
    refine = refining(awake(small()))

    assert np.array_equal(refine(image, seed=np.int64(5)), refine(image, seed=5))


@settings(deadline=None, max_examples=25)
@given(seeds=st.lists(st.integers(0, 2**40), min_size=1, max_size=4))
def test_an_image_of_a_batch_equals_the_image_alone_with_its_seed(seeds):
    batch = np.random.default_rng(0).random((len(seeds), 6, 9, 3))
    bank = Bank(torch.rand(5, 3, tone.QUANTILES).sort().values)
    refine = refining(awake(small(takes_reference=True)), bank=bank)

    together = refine(batch, seed=seeds)

    for image, seed, refined in zip(batch, seeds, together, strict=True):
        assert np.allclose(refine(image, seed=seed), refined, atol=1e-5)


def test_one_seed_for_a_batch_counts_on():
    batch = torch.rand(3, 3, 6, 6)
    refine = refining(awake(small()))

    assert torch.equal(refine(batch, seed=7), refine(batch, seed=[7, 8, 9]))


@pytest.mark.parametrize("image", [np.zeros((2, 4, 4, 3), np.uint8), [np.zeros((4, 4))] * 2])
@pytest.mark.parametrize("seeds", [[], [1], [1, 2, 3]])
def test_too_few_or_too_many_seeds_are_an_error(image, seeds):
    with pytest.raises(ImageError, match=rf"2 images, got {len(seeds)}"):
        refining(small())(image, seed=seeds)


def test_an_empty_batch_stays_empty():
    assert refining(small())(np.zeros((0, 4, 5, 3), np.uint8)).shape == (0, 4, 5, 3)


@pytest.mark.parametrize("size", [(101, 151), (96, 160), (1, 15001), (15001, 3)])
@pytest.mark.parametrize(
    "make",
    [
        lambda: UnshuffleRefiner(3, 2, 16, 1, noise_channels=1),
        lambda: UnshuffleRefiner(3, 2, 16, 2, noise_channels=0, max_change=20),
        lambda: UnshuffleRefiner(3, 4, 16, 1, noise_channels=2),
        lambda: ResNetRefiner(3, features=16),
        lambda: ResNetRefiner(3, kernel=5, features=16, blocks=1),
    ],
    ids=["unshuffle2", "bounded", "unshuffle4", "resnet", "wide"],
)
def test_tiles_equal_the_whole_to_zero_grey_levels(make, size):
    network, calls = awake(make()), []
    network.register_forward_hook(lambda *_: calls.append(1))
    image = torch.rand(3, *size, generator=torch.Generator().manual_seed(0)) * 0.6 + 0.2

    whole = refining(network)(image, seed=4)
    untiled = len(calls)
    tiled = refining(network, max_workspace_mb=1)(image, seed=4)

    assert untiled == 1
    assert len(calls) - untiled > 1
    assert (whole - image).abs().max() * 255 > 1
    # Far below half a level: what is left is the order of float32 sums.
    assert (tiled - whole).abs().max() * 255 < 0.002


def test_tiles_equal_the_whole_with_a_tone_bank():
    bank = Bank(torch.rand(2, 3, tone.QUANTILES).sort().values)
    network = awake(UnshuffleRefiner(3, 2, 16, 1, takes_reference=True))
    image = torch.rand(3, 101, 151, generator=torch.Generator().manual_seed(0))

    whole = refining(network, bank=bank)(image)
    tiled = refining(network, bank=bank, max_workspace_mb=1)(image)

    assert (tiled - whole).abs().max() * 255 < 0.002


def test_a_tile_stays_within_the_workspace():
    network = Recorder()
    refine = refining(network, max_workspace_mb=1)

    refined = refine(np.full((50, 70, 3), 100, np.uint8))

    assert len(network.shapes) > 1
    assert all(height * width <= 2048 for _, _, height, width in network.shapes)
    assert (refined == 131).all()  # 100 + 0.12 x 255


def test_a_batch_is_cut_where_it_does_not_fit_into_the_workspace():
    network = Recorder()
    batch = torch.rand(5, 3, 30, 30) * 0.5

    refined = refining(network, max_workspace_mb=1)(batch)

    assert [shape[0] for shape in network.shapes] == [2, 2, 1]
    assert torch.allclose(refined, batch + 0.12, atol=1e-6)


def test_a_refiner_bound_to_a_coarse_grid_is_tiled_on_it():
    network = Recorder()
    network.multiple = 32

    refined = refining(network, max_workspace_mb=1)(np.full((64, 70, 3), 100, np.uint8))

    assert (refined == 131).all()
    assert len(network.shapes) == 2 * 3  # tiles of 32 px


def test_a_large_image_is_an_error_where_the_refiner_states_no_field():
    class Whole(nn.Module):
        def forward(self, images):
            return images

    refine = refining(Whole(), max_workspace_mb=1)

    with pytest.raises(ImageError, match=r"40x30 .*receptive_field.*raise max_workspace_mb"):
        refine(np.zeros((30, 40, 3), np.uint8))
    assert refine(np.zeros((20, 20, 3), np.uint8)).shape == (20, 20, 3)


def test_no_host_module_finds_the_network():
    class Host(nn.Module):
        def __init__(self):
            super().__init__()
            self.own = nn.Linear(1, 1)
            self.refine = refining(small())

    host = Host()

    assert not hasattr(host.refine, "parameters")
    assert not hasattr(host.refine, "state_dict")
    assert {name for name, _ in host.named_parameters()} == {"own.weight", "own.bias"}
    assert set(host.state_dict()) == {"own.weight", "own.bias"}


def test_the_network_is_neither_training_nor_trainable():
    network = small().train()

    refining(network)

    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_a_task_network_trains_on_what_is_returned():
    task = nn.Conv2d(3, 1, 3)
    image = torch.rand(2, 3, 8, 8, requires_grad=True)

    refined = refining(awake(small()))(image)
    task(refined).square().mean().backward()

    assert not refined.is_inference()
    assert not refined.requires_grad
    assert image.grad is None
    assert task.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_tone_bank_gives_an_image_the_tone_of_a_photo(when):
    generator = torch.Generator().manual_seed(0)
    photo = torch.rand(3, 40, 40, generator=generator) * torch.tensor([0.9, 0.4, 0.2]).view(3, 1, 1)
    image = torch.rand(3, 40, 40, generator=generator) * 0.3 + 0.6
    bank = Bank(tone.quantiles(tone.histogram(photo))[None])

    refined = refining(small(), bank=bank, match=when, share=(1, 1))(image)

    assert not torch.allclose(refined, image, atol=0.1)
    assert torch.allclose(refined.mean((1, 2)), photo.mean((1, 2)), atol=0.01)
    assert torch.allclose(refined.std((1, 2)), photo.std((1, 2)), atol=0.01)


def test_the_seed_draws_the_photo_of_the_bank():
    levels = torch.tensor([0.2, 0.4, 0.6, 0.8])
    bank = Bank(levels.view(-1, 1, 1).expand(-1, 3, tone.QUANTILES))
    refine = refining(small(), bank=bank, share=(1, 1))
    image = torch.rand(3, 6, 6)

    drawn = [refine(image, seed=seed) for seed in range(40)]

    assert all(refined.max() - refined.min() < 1e-6 for refined in drawn)
    assert {round(refined.mean().item(), 4) for refined in drawn} == {0.2, 0.4, 0.6, 0.8}


def test_matched_after_the_network_an_image_has_the_tone_whatever_the_network_did():
    class Dark(nn.Module):
        def forward(self, images):
            return images / 2 - 0.5

    generator = torch.Generator().manual_seed(0)
    photo, image = torch.rand(2, 3, 40, 40, generator=generator)
    bank = Bank(tone.quantiles(tone.histogram(photo / 2 + 0.5))[None])

    refined = refining(Dark(), bank=bank, match="after", share=(1, 1))(image)

    assert refined.mean().item() == pytest.approx(0.75, abs=0.01)


@given(st.floats(0, 1), st.integers(0, 2**63 - 1))
def test_a_share_of_the_match_is_that_share_of_the_way(share, seed):
    image, bank = torch.rand(3, 8, 8), Bank(torch.rand(1, 3, tone.QUANTILES).sort().values)

    part, whole = (refining(small(), bank=bank, share=(s, s))(image, seed=seed) for s in (share, 1))

    assert torch.allclose(part - image, share * (whole - image), atol=0.01)


def test_the_seed_draws_the_share_of_the_match():
    image, bank = torch.full((3, 6, 6), 0.5), Bank(torch.full((1, 3, tone.QUANTILES), 1.0))
    refine = refining(small(), bank=bank, share=(0.5, 1))

    drawn = [refine(image, seed=seed).mean().item() for seed in range(60)]

    assert 0.75 <= min(drawn) < 0.78
    assert 0.97 < max(drawn) <= 1
    assert refine(image, seed=7).mean().item() == drawn[7]


def test_when_to_match_is_one_of_three():
    with pytest.raises(ConfigError, match="'after', 'before' or 'never', got 'sometimes'"):
        refining(small(), match="sometimes")


def test_the_network_sees_the_toned_image_and_the_drawn_tone():
    class Seen(nn.Module):
        takes_reference = True

        def forward(self, images, reference):
            self.images, self.reference = images, reference
            return images

    network, bank = Seen(), Bank(torch.full((1, 3, tone.QUANTILES), 0.75))

    refining(network, bank=bank, match="before")(torch.rand(3, 6, 6))

    assert torch.allclose(network.images, torch.tensor(0.5))  # in [-1, 1]
    assert torch.allclose(network.reference, torch.full((1, 3, tone.QUANTILES), 0.5))


def test_without_matching_the_tone_is_seen_by_the_network_alone():
    bank = Bank(torch.rand(4, 3, tone.QUANTILES).sort().values)
    image = torch.rand(3, 6, 6)

    unmatched = refining(small(takes_reference=True), bank=bank, match="never")(image)
    aware = refining(awake(small(takes_reference=True, noise_channels=0)), bank=bank, match="never")

    assert torch.equal(unmatched, image)
    assert len({aware(image, seed=seed).sum().item() for seed in range(40)}) == 4  # four photos


def test_half_the_bits_in_the_network_are_at_most_one_grey_level_apart():
    network = awake(small(noise_channels=0, max_change=40))
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)

    full, fast = (refining(network, precision=p)(image).astype(int) for p in ("fp32", "bf16"))

    assert np.abs(full - image).max() > 1
    assert np.abs(full - fast).max() <= 1


def test_an_untrained_refiner_is_the_identity_in_half_the_bits_too():
    image = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)

    assert np.array_equal(refining(small(), precision="bf16")(image), image)


@pytest.mark.parametrize("options", [{"max_workspace_mb": 0}, {"precision": "fp8"}])
def test_an_impossible_setting_is_an_error_that_names_it(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        refining(small(), **options)


def test_the_precision_that_is_not_asked_for_is_that_of_auto():
    refine = ImageRefiner(small(), 3, device="cpu")

    assert refine.precision == resolve_precision("auto", torch.device("cpu"))


def test_what_alpha_hides_has_no_part_in_the_tone():
    rng = np.random.default_rng(0)
    image = np.zeros((40, 40, 4), np.uint8)
    image[:20, :20, :3] = rng.integers(60, 90, (20, 20, 3))
    image[:20, :20, 3] = 255
    bank = Bank(torch.linspace(0, 1, tone.QUANTILES).expand(1, 3, -1))

    whole = refining(small(), bank=bank, share=(1, 1))(image)
    alone = refining(small(), bank=bank, share=(1, 1))(image[:20, :20])

    assert np.array_equal(whole[:20, :20], alone)
    assert np.array_equal(whole[..., 3], image[..., 3])


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("strength", [1, 0.5])
def test_a_fourth_channel_takes_no_tone_and_colours_take_that_of_three(dtype, strength):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 12, 16, 4), dtype=np.uint8)
    images = (pixels / (1 if dtype == "uint8" else 255)).astype(dtype)
    tones = torch.rand(5, 3, tone.QUANTILES).sort().values
    bank = Bank(tones).balanced(tone.tones_of(torch.rand(9, 3, 12, 16)))
    options = {"seed": 3, "strength": strength}

    made = refining(UnshuffleRefiner(4), 4, bank=bank)(images, **options)
    colours = refining(UnshuffleRefiner(3), 3, bank=bank)(images[..., :3].copy(), **options)

    assert np.array_equal(made[..., 3], images[..., 3])
    assert np.array_equal(made[..., :3], colours)
    assert not np.array_equal(colours, images[..., :3])


def test_of_bgr_and_a_fourth_channel_the_colours_are_turned_and_it_stays():
    image = np.random.default_rng(0).random((12, 16, 4), dtype=np.float32)
    refiner, turned = refining(awake(small(channels=4)), 4), [2, 1, 0, 3]

    rgb, bgr = refiner(image), refiner(image[..., turned], channel_order="bgr")

    assert np.array_equal(rgb, bgr[..., turned])
    assert not np.array_equal(refiner(image[..., turned])[..., turned], rgb)


def test_an_image_that_alpha_hides_whole_is_toned_like_one_without():
    image = np.random.default_rng(0).integers(0, 256, (9, 9, 4), dtype=np.uint8)
    image[..., 3] = 0
    bank = Bank(torch.rand(1, 3, tone.QUANTILES).sort().values)
    refine = refining(small(), bank=bank)

    assert np.array_equal(refine(image)[..., :3], refine(image[..., :3]))


@pytest.mark.parametrize("share", [(1.0, 0.5), (0.0, 2.0), (float("nan"), 1.0)])
def test_an_impossible_share_is_refused_at_once(share):
    with pytest.raises(ConfigError, match="share"):
        refining(small(), share=share)


@pytest.mark.parametrize("photos", [0, 1])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_what_is_not_a_number_is_an_error_and_no_black_pixel(photos, kind):
    class Broken(nn.Module):
        def forward(self, images):
            return torch.where(images < -0.5, torch.nan, images)

    bank = Bank(torch.rand(1, 3, tone.QUANTILES).sort().values) if photos else None
    images = np.full((3, 8, 8, 3), 200 if kind == np.uint8 else 0.8, kind)
    refine = refining(Broken(), bank=bank)

    assert refine(images).shape == images.shape
    images[1, 4, 4] = 0
    with pytest.raises(ImageError, match="is not a number"):
        refine(images)


@pytest.mark.parametrize("strength", [0.4, 1])
@pytest.mark.parametrize("channels", [3, 4])
def test_levels_are_toned_as_floats_are(strength, channels):
    bank = Bank(torch.rand(4, 3, tone.QUANTILES).sort().values / 2 + 0.2)  # a curve not too steep
    refine = refining(awake(small(max_change=20)), bank=bank)
    image = np.random.default_rng(0).integers(0, 256, (24, 20, channels), dtype=np.uint8)
    how = {"seed": 5, "strength": strength, "channel_order": "bgr"}

    levels, floats = refine(image, **how), refine((image / 255).astype(np.float32), **how)

    assert (levels != image).mean() > 0.5
    assert np.abs(levels - floats * 255).max() < 1.5  # rounded before and after the curve
    assert np.array_equal(levels[..., 3:], image[..., 3:])


def test_a_change_far_out_of_range_is_white_or_black():
    class Extreme(nn.Module):
        def forward(self, images):
            return torch.where(images > 0, 1e12, -torch.inf)

    image = np.array([[[200] * 3, [20] * 3]], np.uint8)

    assert refining(Extreme())(image).tolist() == [[[255] * 3, [0] * 3]]
