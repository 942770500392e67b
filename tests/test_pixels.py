import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simgan_aug.errors import ConfigError, ImageError
from simgan_aug.pixels import (
    LUMA,
    Pixels,
    as_it_was,
    blend,
    bytes_of,
    channels_last,
    to_display,
)

FULL = {"uint8": 255, "uint16": 65535, "float16": 1, "float32": 1, "float64": 1}
NUMPY_SHAPES = {
    "(H, W)": lambda h, w, n: (h, w),
    "(H, W, 1)": lambda h, w, n: (h, w, 1),
    "(H, W, 2)": lambda h, w, n: (h, w, 2),
    "(H, W, 3)": lambda h, w, n: (h, w, 3),
    "(H, W, 4)": lambda h, w, n: (h, w, 4),
    "(N, H, W, C)": lambda h, w, n: (n, h, w, 3),
}
TORCH_SHAPES = {
    "(H, W)": lambda h, w, n: (h, w),
    "(C, H, W)": lambda h, w, n: (3, h, w),
    "(4, H, W)": lambda h, w, n: (4, h, w),
    "(N, C, H, W)": lambda h, w, n: (n, 3, h, w),
}


def array(shape, dtype, seed=0):
    values = np.random.default_rng(seed).random(shape)
    full = FULL[np.dtype(dtype).name]
    return (values.round(3) * full).round(0 if full > 1 else 12).astype(dtype)


@st.composite
def images(draw):
    """An image of any accepted kind that a refiner of three channels takes."""
    height, width, count = (draw(st.integers(1, 7)) for _ in range(3))
    kind = draw(st.sampled_from(["numpy", "torch"]))
    shapes = NUMPY_SHAPES if kind == "numpy" else TORCH_SHAPES
    shape = shapes[draw(st.sampled_from(sorted(shapes)))](height, width, count)
    dtype = draw(st.sampled_from([*FULL, "bfloat16"] if kind == "torch" else list(FULL)))
    values = array(shape, "float32" if dtype == "bfloat16" else dtype, draw(st.integers(0, 99)))
    if kind == "numpy":
        return values
    return torch.from_numpy(values).to(getattr(torch, dtype))


def zero_change(image):
    return torch.zeros_like(Pixels(image, 3).colour())


def same(first, second):
    if isinstance(first, np.ndarray):
        return first.dtype == second.dtype and np.array_equal(first, second)
    return first.dtype == second.dtype and torch.equal(first, second)


def as_doubles(image):
    return image.double().numpy() if isinstance(image, torch.Tensor) else image.astype(float)


@settings(deadline=None, max_examples=200)
@given(image=images())
def test_a_change_of_zero_gives_back_every_bit_of_every_kind_of_image(image):
    result = Pixels(image, 3).add(zero_change(image))

    assert type(result) is type(image)
    assert same(result, image)


@settings(deadline=None, max_examples=100)
@given(image=images())
def test_a_refiner_sees_float32_between_0_and_1(image):
    colour = Pixels(image, 3).colour()

    assert colour.dtype == torch.float32
    assert colour.ndim == 4
    assert colour.shape[1] == 3
    assert 0 <= colour.min() <= colour.max() <= 1


@settings(deadline=None, max_examples=100)
@given(image=images(), change=st.floats(-2, 2))
def test_what_is_added_arrives_scaled_clamped_and_leaves_alpha_alone(image, change):
    pixels = Pixels(image, 3)
    kept = image.clone() if isinstance(image, torch.Tensor) else image.copy()

    result = pixels.add(torch.full_like(pixels.colour().contiguous(), change))

    assert same(image, kept)
    before, after = as_doubles(image), as_doubles(result)
    name = str(image.dtype).removeprefix("torch.")
    full = FULL.get(name, 1)
    axis = -1 if isinstance(image, np.ndarray) else -3
    channels = before.shape[axis] if before.ndim > 2 else 1
    if channels in (2, 4):
        before, alpha = np.split(before, [channels - 1], axis)
        after, kept_alpha = np.split(after, [channels - 1], axis)
        assert np.array_equal(alpha, kept_alpha)
    expected = np.clip(before + change * full, 0, full)
    # Half a level for integers, one unit in the last place of the coarsest float.
    tolerance = 0.51 if full > 1 else 2**-8 if name == "bfloat16" else 2**-10
    assert np.abs(after - expected).max() <= tolerance


@pytest.mark.parametrize(("dtype", "full"), [(np.uint8, 255), (np.uint16, 65535)])
def test_integers_are_rounded_and_not_cut(dtype, full):
    image = np.full((1, 1, 3), 100, dtype)
    pixels = Pixels(image, 3)

    for added, expected in ((0.6, 101), (0.4, 100), (-0.6, 99), (-0.4, 100)):
        result = pixels.add(torch.full((1, 3, 1, 1), added / full))
        assert result.tolist() == [[[expected] * 3]]


def test_a_float64_image_keeps_what_float32_cannot_hold():
    image = np.full((2, 2, 3), 1 / 3)

    result = Pixels(image, 3).add(torch.full((1, 3, 2, 2), 0.25))

    assert np.array_equal(result, image + 0.25)


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 1), (5, 4, 2)])
def test_a_grey_image_gets_the_luminance_of_the_change(shape):
    image = np.full(shape, 0.5, np.float32)
    change = torch.tensor([0.3, -0.1, 0.2]).view(1, 3, 1, 1).expand(1, 3, 5, 4)
    pixels = Pixels(image, 3)

    colour, result = pixels.colour(), pixels.add(change)

    expected = 0.5 + 0.299 * 0.3 + 0.587 * -0.1 + 0.114 * 0.2
    assert sum(LUMA) == pytest.approx(1)
    assert torch.equal(colour[:, 0], colour[:, 1])
    assert torch.equal(colour[:, 1], colour[:, 2])
    grey = result if result.ndim == 2 else result[..., 0]
    assert np.allclose(grey, expected, atol=1e-6)
    if shape[-1] == 2:
        assert np.array_equal(result[..., 1], image[..., 1])


def test_the_channels_of_a_colour_image_keep_their_order():
    image = np.zeros((2, 3, 3), np.uint8)
    image[..., 0], image[..., 1], image[..., 2] = 10, 20, 30
    pixels = Pixels(image, 3)

    result = pixels.add(torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1).expand(1, 3, 2, 3) / 255)

    assert (pixels.colour()[0, :, 0, 0] * 255).tolist() == pytest.approx([10, 20, 30])
    assert result[1, 2].tolist() == [11, 22, 33]


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_of_bgr_a_refiner_sees_red_first_and_its_change_of_red_arrives_last(kind, alpha):
    image = np.empty((2, 3, 4 if alpha else 3), np.uint8)
    image[:] = [30, 20, 10, 99][: image.shape[-1]]  # blue, green, red, alpha
    image = image if kind == "numpy" else torch.from_numpy(image).movedim(-1, 0)
    pixels = Pixels(image, 3, "bgr")

    result = pixels.add(torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1).expand(1, 3, 2, 3) / 255)

    assert (pixels.colour()[0, :, 0, 0] * 255).tolist() == pytest.approx([10, 20, 30])
    last = result[1, 2] if kind == "numpy" else result[:, 1, 2]
    assert last.tolist() == [33, 22, 11, 99][: 4 if alpha else 3]


@settings(deadline=None, max_examples=100)
@given(image=images())
def test_a_change_of_zero_gives_back_every_bit_of_bgr_too(image):
    pixels = Pixels(image, 3, "bgr")

    assert same(pixels.add(torch.zeros_like(pixels.colour())), image)


@pytest.mark.parametrize(("shape", "channels"), [((2, 3), 3), ((2, 3, 2), 3), ((2, 3, 1), 1)])
def test_grey_has_no_order(shape, channels):
    image, change = array(shape, np.float32), torch.rand(1, channels, 2, 3) / 9
    rgb, bgr = (Pixels(image, channels, order) for order in ("rgb", "bgr"))

    assert torch.equal(rgb.colour(), bgr.colour())
    assert np.array_equal(rgb.add(change), bgr.add(change))


@pytest.mark.parametrize("order", ["BGR", "rbg", "", None])
def test_another_order_is_an_error_that_names_the_two(order):
    with pytest.raises(ConfigError, match=f"must be 'rgb' or 'bgr', got {order!r}"):
        Pixels(np.zeros((2, 2, 3), np.uint8), 3, order)


class Film(torch.Tensor):
    """A trivial subclass."""


@settings(deadline=None, max_examples=50)
@given(image=images().filter(lambda image: isinstance(image, torch.Tensor)))
def test_a_subclass_of_a_tensor_comes_back_as_it_is(image):
    film = image.as_subclass(Film)
    pixels = Pixels(film, 3)

    result = pixels.add(torch.zeros_like(pixels.colour()))

    assert type(pixels.colour()) is torch.Tensor  # what is within does not meet the subclass
    assert type(result) is Film
    assert same(result.as_subclass(torch.Tensor), image)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_a_refiner_of_any_number_of_channels_takes_images_of_as_many(channels):
    image = array((4, 5, channels), np.uint8)
    pixels = Pixels(image, channels)

    assert pixels.colour().shape == (1, channels, 4, 5)
    assert same(pixels.add(torch.zeros(1, channels, 4, 5)), image)


def test_a_refiner_of_one_channel_keeps_the_alpha_of_a_grey_image():
    image = array((4, 5, 2), np.uint8)

    result = Pixels(image, 1).add(torch.full((1, 1, 4, 5), 0.2))

    assert np.array_equal(result[..., 1], image[..., 1])
    assert not np.array_equal(result[..., 0], image[..., 0])


@pytest.mark.parametrize(
    ("present", "channels"), [(3, 1), (4, 1), (5, 3), (3, 2), (1, 2), (1, 5), (2, 5)]
)
def test_channels_that_only_a_guess_could_match_are_an_error_with_a_way_out(present, channels):
    with pytest.raises(ImageError, match=rf"takes {channels} .* has {present}: convert"):
        Pixels(np.zeros((4, 5, present), np.uint8), channels)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 5, 3))[::-1, ::2],
        np.asfortranarray(array((4, 5, 3), np.uint8)),
        array((8, 9, 3), np.uint16)[1::2, 2:7],
        array((3, 4, 5), np.float32).transpose(1, 2, 0),
        array((4, 5, 6), np.uint8)[..., ::2],
        array((4, 5, 3), ">u2"),
        array((4, 5, 3), ">f4"),
        array((4, 5, 3), ">f8"),
        array((2, 4, 5, 3), ">f2"),
    ],
    ids=["reversed", "fortran", "strided", "transposed", "channels", ">u2", ">f4", ">f8", ">f2"],
)
@pytest.mark.parametrize("writeable", [True, False])
def test_any_memory_layout_and_byte_order_comes_back_contiguous_and_writable(image, writeable):
    image = image.view()
    image.flags.writeable = writeable
    before = image.copy()

    result = Pixels(image, 3).add(zero_change(image))

    assert result.dtype == image.dtype
    assert result.dtype.byteorder == image.dtype.byteorder
    assert np.array_equal(result, before)
    assert result.flags.c_contiguous
    assert result.flags.writeable
    assert not np.shares_memory(result, image)


@pytest.mark.parametrize("memory", [torch.channels_last, torch.contiguous_format])
def test_any_memory_format_of_a_tensor_is_taken(memory):
    image = torch.rand(2, 3, 5, 4).to(memory_format=memory)
    cropped = image[:, :, 1:, ::2]

    for each in (image, cropped):
        assert same(Pixels(each, 3).add(zero_change(each)), each)


@pytest.mark.parametrize(
    ("low_high", "way_out"),
    [
        ((-0.5, 1.0), "refine before Normalize, or divide"),
        ((0.0, 255.0), "divide"),
        ((-0.01, 1.01), "clamp"),
        ((0.0, np.inf), "not finite"),
    ],
)
@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
def test_floats_out_of_range_are_an_error_that_says_what_to_do(kind, low_high, way_out):
    image = np.zeros((2, 2, 3), kind)
    image[0, 0, 0], image[1, 1, 1] = low_high

    for each in (image, torch.from_numpy(image)):
        with pytest.raises(ImageError, match=rf"floats in \[0, 1\].*{way_out}"):
            Pixels(each, 3)


@pytest.mark.parametrize("channel", [0, 3])
def test_a_float_that_is_no_number_is_an_error(channel):
    image = np.zeros((2, 2, 4), np.float32)
    image[1, 1, channel] = np.nan

    with pytest.raises(ImageError, match="nan"):
        Pixels(image, 3)


def test_a_rounding_error_beyond_the_range_is_taken():
    image = np.array([[[-1e-6, 0.5, 1 + 1e-6]]], np.float32)

    result = Pixels(image, 3).add(torch.zeros(1, 3, 1, 1))

    assert result.tolist() == [[[0.0, 0.5, 1.0]]]


@pytest.mark.parametrize(
    "dtype", ["int32", "int64", "int8", "bool", "uint32", "uint64", "complex64"]
)
def test_a_dtype_without_a_known_range_is_an_error_that_names_it(dtype):
    with pytest.raises(ImageError, match=dtype):
        Pixels(np.zeros((2, 2, 3), dtype), 3)
    with pytest.raises(ImageError, match=dtype):
        Pixels(torch.zeros(3, 2, 2, dtype=getattr(torch, dtype)), 3)


def test_extended_precision_and_objects_are_an_error():
    for dtype in (np.longdouble, object, "U1"):
        with pytest.raises(ImageError, match="expected uint8"):
            Pixels(np.zeros((2, 2, 3), dtype), 3)


@pytest.mark.parametrize("shape", [(), (3,), (0, 4, 3), (4, 0, 3), (4, 4, 0), (1, 1, 4, 4, 3)])
def test_a_shape_that_is_no_image_is_an_error_that_shows_it(shape):
    with pytest.raises(ImageError, match=r"got shape \("):
        Pixels(np.zeros(shape, np.uint8), 3)
    with pytest.raises(ImageError, match=r"got shape \("):
        Pixels(torch.zeros(shape, dtype=torch.uint8), 3)


@pytest.mark.parametrize("thing", [None, "image.png", 3, [[1, 2], [3, 4]]])
def test_something_that_is_no_array_is_an_error_that_names_its_type(thing):
    with pytest.raises(ImageError, match=type(thing).__name__):
        Pixels(thing, 3)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 2), (4, 5, 3), (4, 5, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_what_is_shown_is_rgb_of_eight_bits(shape, dtype):
    image = array(shape, dtype)

    shown = to_display(image)

    assert (shown.shape, shown.dtype) == ((4, 5, 3), np.uint8)
    grey_or_red = image if image.ndim == 2 else image[..., 0]
    expected = grey_or_red.astype(float) / FULL[np.dtype(dtype).name] * 255
    assert np.abs(shown[..., 0] - expected).max() <= 0.51


def test_a_mirrored_view_of_one_row_is_an_image_like_any_other():
    view = np.zeros((1, 5, 3), np.uint8)[::-1]

    assert np.array_equal(Pixels(view, 3).add(torch.zeros(1, 3, 1, 5)), view)


@settings(deadline=None, max_examples=100)
@given(image=images())
def test_the_bytes_of_an_image_are_its_values_in_order(image):
    content = bytes_of(image)

    assert (content.dtype, content.ndim) == (np.uint8, 1)
    if isinstance(image, np.ndarray):
        assert content.tobytes() == image.tobytes()
    else:
        values = torch.frombuffer(bytearray(content), dtype=image.dtype)
        assert torch.equal(values.reshape(image.shape), image)


def test_the_bytes_of_a_view_are_those_of_its_copy_and_of_a_whole_no_copy_is_made():
    image = array((8, 9, 3), np.uint16)

    assert bytes_of(image[::-2, 1:5]).tobytes() == image[::-2, 1:5].tobytes()
    assert np.shares_memory(bytes_of(image), image)
    tensor = torch.from_numpy(array((3, 8, 9), np.uint8))
    assert bytes_of(tensor).tobytes() == bytes_of(tensor.numpy()).tobytes()
    assert np.shares_memory(bytes_of(tensor), tensor.numpy())


@pytest.mark.parametrize("thing", [None, "image.png", 3, np.array([None, "x"], dtype=object)])
def test_what_has_no_bytes_of_numbers_is_an_error_that_names_it(thing):
    kind = "an array of objects" if isinstance(thing, np.ndarray) else type(thing).__name__
    with pytest.raises(ImageError, match=f"array or a torch tensor, got {kind}"):
        bytes_of(thing)


# Between two images

SINGLE = {key: make for key, make in NUMPY_SHAPES.items() if not key.startswith("(N")}


@st.composite
def pairs(draw):
    """Two images of one shape and dtype, and a share for each pixel."""
    height, width = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    shape = SINGLE[draw(st.sampled_from(sorted(SINGLE)))](height, width, 1)
    dtype = draw(st.sampled_from([*FULL, ">u2", ">f4"]))
    seed = draw(st.integers(0, 99))
    share = np.random.default_rng(seed).random((height, width)).astype(np.float32)
    return array(shape, dtype, seed), array(shape, dtype, seed + 1), share


@settings(deadline=None, max_examples=150)
@given(pair=pairs())
def test_of_a_share_of_none_or_all_every_bit_is_the_old_or_the_new(pair):
    old, new, _ = pair

    for share, wanted in ((0, old), (1, new), (np.ones(old.shape[:2]), new)):
        out = blend(old, new, share)
        assert same(out, wanted)
        assert not np.shares_memory(out, old)
        assert not np.shares_memory(out, new)


@settings(deadline=None, max_examples=150)
@given(pair=pairs(), half=st.booleans())
def test_a_share_of_the_change_is_added_pixel_by_pixel(pair, half):
    old, new, share = pair
    share = 0.5 if half else share
    before = old.copy()

    out = blend(old, new, share)

    assert (out.dtype, out.shape) == (old.dtype, old.shape)
    assert np.array_equal(old, before)
    each = share if half or old.ndim == 2 else share[..., None]
    expected = old.astype(float) + (new.astype(float) - old.astype(float)) * each
    full = FULL[old.dtype.name]
    assert np.abs(out - expected).max() <= (0.51 if full > 1 else 2**-10)


def test_where_the_share_is_one_the_new_is_kept_though_elsewhere_it_is_not():
    old, new = array((4, 5, 3), np.float32), array((4, 5, 3), np.float32, 1)
    share = np.zeros((4, 5))
    share[1:3] = 1

    out = blend(old, new, share)

    assert np.array_equal(out[1:3], new[1:3])
    assert np.array_equal(out[[0, 3]], old[[0, 3]])


@pytest.mark.parametrize(
    "other", [array((4, 5), np.uint8), array((4, 6, 3), np.uint8), array((4, 5, 3), np.float32)]
)
def test_between_images_of_two_kinds_there_is_nothing_and_the_error_says_both(other):
    with pytest.raises(ImageError, match=r"one shape and dtype, got uint8 of \(4, 5, 3\) and"):
        blend(array((4, 5, 3), np.uint8), other, 0.5)


# Channels last and back


@settings(deadline=None, max_examples=150)
@given(image=images().filter(lambda image: image.ndim < 4))
def test_channels_come_last_and_go_back_to_where_they_were(image):
    last = channels_last(image)

    assert isinstance(last, np.ndarray)
    channels = as_doubles(image) if last.ndim == 2 else np.moveaxis(as_doubles(image), 0, -1)
    expected = image if isinstance(image, np.ndarray) else channels
    assert np.array_equal(last, expected)
    back = as_it_was(last, like=image)
    assert type(back) is type(image)
    assert same(back, image)


def test_channels_last_shares_memory_and_back_is_a_copy_in_order():
    image = torch.rand(3, 4, 5)

    last = channels_last(image)
    back = as_it_was(last, like=image)

    assert np.shares_memory(last, image.numpy())
    assert channels_last(last) is last
    assert as_it_was(last, like=last) is last
    assert back.is_contiguous()


def test_what_is_like_a_subclass_of_a_tensor_is_one():
    film = torch.rand(3, 4, 5, requires_grad=True).as_subclass(Film)

    last = channels_last(film)
    back = as_it_was(last, like=film)

    assert type(last) is np.ndarray
    assert type(back) is Film
    assert torch.equal(back.as_subclass(torch.Tensor), film.detach().as_subclass(torch.Tensor))


@pytest.mark.parametrize("cuts", [[0, 5], [0, 2, 5], [0, 1, 2, 5, 5]])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_parts_of_a_batch_are_put_together_as_the_image_that_came(cuts, channels):
    image = np.random.default_rng(0).integers(0, 256, (5, 4, 6, channels), dtype=np.uint8)
    pixels = Pixels(image, 3, "bgr")
    change = torch.rand(5, 3, 4, 6) - 0.5
    slices = [slice(*ends) for ends in itertools.pairwise(cuts)]

    parts = [pixels.part(rows, torch.device("cpu")).add(change[rows]) for rows in slices]

    assert all(isinstance(part, torch.Tensor) for part in parts)
    assert np.array_equal(pixels.gathered(parts), pixels.add(change))
    assert pixels.shape == (5, 4, 6)


@settings(deadline=None)
@given(
    white=st.integers(1, 65535),
    values=st.lists(st.integers(0, 65535), min_size=1, max_size=9),
    change=st.floats(-2, 2),
)
def test_a_deep_image_is_seen_up_to_its_white_and_changed_in_units_of_it(white, values, change):
    image = np.array([values], np.uint16)
    pixels = Pixels(image, 1, white=white)
    levels = np.array(values)

    seen = pixels.colour().flatten().numpy()
    same = pixels.add(torch.zeros(1, 1, *image.shape))
    changed = pixels.add(torch.full((1, 1, *image.shape), change))[0].astype(int)

    assert seen == pytest.approx(np.minimum(levels / white, 1), abs=1e-6)
    assert np.array_equal(same, image)
    assert np.abs(changed - np.clip(levels + change * white, 0, 65535)).max() <= 0.51


def test_images_of_8_bits_have_no_white_of_their_own():
    image = np.array([[0, 255]], np.uint8)

    assert Pixels(image, 1, white=100).colour().flatten().tolist() == [0, 1]
