import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from simgan_aug import tone

seeds = st.integers(0, 2**31)


def noise(shape, seed, low=0.0, high=1.0):
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(shape, generator=generator)


def reference_of(image):
    return tone.quantiles(tone.histogram(image))


def matched(image, reference):
    return tone.apply_curve(image, tone.tone_curve(tone.histogram(image), reference))


def test_a_histogram_counts_every_pixel_at_its_level():
    image = torch.tensor([0, 0, 51, 255]).view(1, 2, 2) / 255

    counts = tone.histogram(image)

    assert counts.shape == (1, 256)
    assert {level: counts[0, level].item() for level in (0, 51, 255)} == {0: 2, 51: 1, 255: 1}
    assert counts.sum() == 4


@settings(deadline=None, max_examples=30)
@given(seed=seeds, channels=st.integers(1, 3))
def test_quantiles_ascend_within_the_range_of_the_photo(seed, channels):
    image = noise((channels, 9, 11), seed, low=0.2, high=0.7)

    values = reference_of(image)

    assert values.shape == (channels, tone.QUANTILES)
    assert (values.diff(dim=1) >= 0).all()
    assert values.min() >= image.min() - 0.5 / 255
    assert values.max() <= image.max() + 0.5 / 255


def test_the_quantiles_of_a_uniform_ramp_are_a_ramp():
    ramp = torch.arange(256).repeat(4).view(1, 32, 32) / 255

    values = reference_of(ramp)

    expected = (torch.arange(tone.QUANTILES) + 0.5) / tone.QUANTILES
    assert torch.allclose(values[0], expected, atol=1 / 255)


@settings(deadline=None, max_examples=50)
@given(seed=seeds, levels=st.integers(1, 40), channels=st.integers(1, 3))
def test_a_tone_curve_is_monotone_per_channel_and_stays_in_the_references_range(
    seed, levels, channels
):
    image = (noise((channels, 8, 9), seed) * levels).round() / levels
    reference = reference_of(noise((channels, 5, 5), seed + 1) ** 3)

    curve = tone.tone_curve(tone.histogram(image), reference)

    assert curve.shape == (channels, tone.LEVELS)
    assert (curve.diff(dim=1) >= -1e-6).all()  # a rounding error of float32
    assert (curve >= reference[:, :1] - 1e-6).all()
    assert (curve <= reference[:, -1:] + 1e-6).all()


@settings(deadline=None, max_examples=30)
@given(seed=seeds)
def test_matching_keeps_the_order_of_pixels(seed):
    image = noise((1, 8, 8), seed)

    toned = matched(image, reference_of(noise((1, 8, 8), seed + 1, 0.3, 0.5)))

    order = image.flatten().argsort()
    assert (toned.flatten()[order].diff() >= -1e-6).all()


def test_an_image_matched_to_its_own_tone_is_nearly_itself():
    image = noise((3, 64, 64), seed=0)

    toned = matched(image, reference_of(image))

    # A rank moves by 1/QUANTILES at most, half of that at the ends; here a rank is a value.
    assert (toned - image).abs().max() <= 1 / tone.QUANTILES
    assert (toned - image).abs().mean() <= 0.25 / tone.QUANTILES


def test_a_matched_image_has_the_tone_of_the_reference():
    image, photo = noise((3, 48, 48), 0), noise((3, 48, 48), 1, 0.2, 0.5) ** 2

    toned = matched(image, reference_of(photo))

    assert torch.allclose(reference_of(toned), reference_of(photo), atol=3 / 255)


@pytest.mark.parametrize("level", [32, 31.5, 31.9])  # of 255; only uint8 lies on the knots
@pytest.mark.parametrize("dark_backdrop", [True, False])
def test_a_flat_backdrop_meets_the_flat_level_of_the_reference(dark_backdrop, level):
    low, high = (0.5, 0.9) if dark_backdrop else (0.0, 0.1)
    photo, image = noise((1, 40, 40), 0, low, high), noise((1, 40, 40), 1, low, high)
    photo[:, :24], image[:, :26] = 64 / 255, level / 255  # a backdrop of 60 and of 65 %

    toned = matched(image, reference_of(photo))

    assert torch.allclose(toned[:, :26], torch.tensor(64 / 255), atol=0.5 / 255)


@pytest.mark.parametrize("level", [200, 229.5, 12.1])
def test_a_flat_image_takes_the_middle_of_the_reference(level):
    photo = noise((1, 40, 40), 0, 0.2, 0.8)

    toned = matched(torch.full((1, 8, 8), level / 255), reference_of(photo))

    assert torch.allclose(toned, photo.median(), atol=4 / 255)


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_faint_grain_of_a_flat_area_stays_faint(kind):
    image = torch.full((1, 64, 64), 128.0)
    image[:, :16] = 40
    image += (noise((1, 64, 64), 0) * 3).floor() - 1  # a level to either side
    image = image.to(kind) if kind == torch.uint8 else image / 255
    reference = reference_of(noise((1, 64, 64), 1))  # a photo of all tones

    toned = tone.matched(image, reference)[:, 16:].float() * (1 if kind == torch.uint8 else 255)

    assert toned.std() < 20  # of 255; 53 where ranks leap
    assert 140 < toned.mean() < 180  # the middle of the upper three quarters


def test_the_identity_curve_changes_nothing():
    image = noise((3, 7, 9), 0)
    curve = (torch.arange(tone.LEVELS) / (tone.LEVELS - 1)).expand(3, -1)

    assert torch.allclose(tone.apply_curve(image, curve), image, atol=1e-6)


def test_a_curve_is_met_at_its_knots_and_rises_between_them():
    curve = torch.zeros(1, tone.LEVELS)
    curve[0, 101:] = 1.0
    image = torch.tensor([99.0, 100.0, 100.25, 100.75, 101.0, 102.0]).view(1, 2, 3) / 255

    values = tone.apply_curve(image, curve).flatten()

    assert torch.allclose(values[[0, 1, 4, 5]], torch.tensor([0.0, 0.0, 1.0, 1.0]), atol=1e-4)
    assert (values.diff() >= -1e-4).all()


def test_a_smooth_curve_keeps_more_levels_than_it_has_knots():
    image = torch.linspace(0.2, 0.8, 5000).view(1, 50, 100)
    curve = torch.linspace(0, 1, tone.LEVELS)[None] ** 2

    toned = tone.apply_curve(image, curve)

    assert torch.allclose(toned, image**2, atol=0.5 / 255)
    assert len(toned.unique()) > 2 * tone.LEVELS


@settings(deadline=None, max_examples=60)
@given(
    seed=seeds,
    channels=st.integers(1, 5),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    share=st.floats(0, 1),
    levels=st.sampled_from([1, 255, 1000]),
    masked=st.booleans(),
    planar=st.booleans(),
)
def test_tables_give_the_bits_of_the_curve(seed, channels, size, share, levels, masked, planar):
    image = (noise((channels, *size), seed) * levels).round() / levels
    reference = noise((channels, tone.QUANTILES), seed + 1).sort().values
    seen = noise(size, seed + 2) > 0.5 if masked else None
    if not planar:
        image = image[None].contiguous(memory_format=torch.channels_last)[0]
    curve = tone.tone_curve(tone.histogram(image, seen), reference)
    curve = torch.linspace(0, 1, tone.LEVELS).expand_as(curve).lerp(curve, share)

    toned = tone.matched(image, reference, share, seen)

    assert torch.equal(toned, tone.apply_curve(image, curve))


@settings(deadline=None, max_examples=40)
@given(
    seed=seeds,
    channels=st.integers(1, 5),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    masked=st.booleans(),
)
def test_images_matched_together_as_on_a_gpu_are_as_alone(seed, channels, size, masked):
    images = noise((4, channels, *size), seed)
    references = noise((4, channels, tone.QUANTILES), seed + 1).sort().values
    shares, seen = noise((4,), seed + 2), None
    if masked:
        seen = noise((4, *size), seed + 3) > torch.tensor([0.5, 0.9, 1, 0]).view(4, 1, 1)

    counts = tone._histograms(images, seen)
    together = tone.matched_together(images, references, shares, seen)

    masks = [None] * 4 if seen is None else list(seen)
    for row, (image, reference, mask) in enumerate(zip(images, references, masks, strict=True)):
        alone = tone.matched(image, reference, shares[row].item(), mask)
        assert torch.equal(counts[row], tone.histogram(image, mask))
        assert torch.allclose(together[row], alone, atol=1e-6)


@settings(deadline=None, max_examples=60)
@given(
    seed=seeds,
    channels=st.integers(1, 5),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    share=st.floats(0, 1),
    masked=st.booleans(),
)
def test_levels_get_what_the_same_floats_get_rounded(seed, channels, size, share, masked):
    levels = (noise((channels, *size), seed) * 255).round()
    reference = noise((channels, tone.QUANTILES), seed + 1).sort().values
    seen = noise(size, seed + 2) > 0.5 if masked else None

    toned = tone.matched(levels.to(torch.uint8), reference, share, seen)

    floats = tone.matched(levels / 255, reference, share, seen) * 255
    assert toned.dtype == torch.uint8
    assert (toned - floats).abs().max() < 0.501


class Called(TorchDispatchMode):
    """What torch is asked for, and of what kinds of numbers."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen |= {(func.overloadpacket.__name__, getattr(args[0], "dtype", None))}
        return func(*args, **kwargs or {})


@pytest.fixture
def determined():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("masked", [False, True])
def test_where_only_determined_arithmetic_is_allowed_a_batch_asks_for_none_else(determined, masked):
    images, references = noise((2, 3, 9, 11), 0), torch.rand(2, 3, tone.QUANTILES).sort().values
    seen = noise((2, 9, 11), 1) > 0.5 if masked else None

    with Called() as called:
        together = tone.matched_together(images, references, torch.ones(2), seen)

    # These a GPU refuses there; of sums, those of floats.
    refused = {"histc", "put_", "kthvalue", "median"}
    assert not {name for name, _ in called.seen} & refused
    assert ("cumsum", torch.int64) in called.seen
    assert ("cumsum", torch.float32) not in called.seen
    masks = [None, None] if seen is None else seen
    for image, row, reference, mask in zip(images, together, references, masks, strict=True):
        assert torch.allclose(row, tone.matched(image, reference, seen=mask), atol=1e-6)
