"""The fused kernels do what torch does around a network.

Where there is no GPU, Triton's interpreter runs them, if the environment says TRITON_INTERPRET=1.
"""

import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simgan_aug import noise, refining, tone
from simgan_aug.bank import Bank
from simgan_aug.inference import ImageRefiner
from simgan_aug.networks import UnshuffleRefiner

pytest.importorskip("triton")
from simgan_aug import kernels

ON_GPU = torch.cuda.is_available()

pytestmark = [
    pytest.mark.filterwarnings("default"),
    *([pytest.mark.gpu] if ON_GPU else []),
    pytest.mark.skipif(
        not ON_GPU and os.environ.get("TRITON_INTERPRET") != "1", reason="nothing to run them on"
    ),
]

DEVICE = torch.device("cuda" if ON_GPU else "cpu")
DTYPES = st.sampled_from(sorted(kernels.DTYPES, key=str))
SIZES = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 40), st.integers(1, 50))

seeded = settings(max_examples=25, deadline=None)


LAYOUTS = st.sampled_from(["planes", "pixels", "window", "one for all", "rows"])


def images(shape, dtype, seed, layout="planes"):
    """(N, C, H, W) on the device, laid out in one way or the other."""
    generator = torch.Generator().manual_seed(seed)
    count, channels, height, width = shape
    larger = {
        "window": (count, channels + 1, height + 3, width + 5),
        "one for all": (1, channels, height, width),
        "rows": (count, channels, 2 * height, width),
    }.get(layout, shape)
    values = (torch.rand(larger, generator=generator) * kernels.DTYPES[dtype]).to(dtype).to(DEVICE)
    return {
        "planes": lambda: values,
        "pixels": lambda: values.movedim(1, -1).contiguous().movedim(-1, 1),
        "window": lambda: values[:, :channels, 1 : 1 + height, 3 : 3 + width],
        "one for all": lambda: values.expand(shape),
        "rows": lambda: values[:, :, ::2],
    }[layout]()


def changes(shape, seed, last):
    generator = torch.Generator().manual_seed(seed + 1)
    values = torch.randn(shape, generator=generator).to(DEVICE)
    return values.contiguous(memory_format=torch.channels_last) if last else values


def colour(native):
    """On the CPU, as all that is expected: a GPU of torch's divides by multiplying."""
    return native.cpu().float() / kernels.DTYPES[native.dtype]


def refined(native, change):
    return (change.cpu() / 2).clamp(-1, 1).add(colour(native)).nan_to_num(0).clamp(0, 1)


@given(shape=SIZES, dtype=DTYPES, seed=st.integers(0, 99), layout=LAYOUTS)
@seeded
def test_a_network_is_shown_the_same_images_and_noise(shape, dtype, seed, layout):
    native, keys = images(shape, dtype, seed, layout), noise.keys(range(seed, seed + shape[0]))

    shown, grain = kernels.begin(native, keys.to(DEVICE), 2)

    assert shown.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(shown.cpu(), colour(native) * 2 - 1)
    assert torch.equal(grain.cpu(), noise.of_keys(keys, (2, *shape[2:])))


def test_a_network_without_noise_is_shown_none():
    assert kernels.begin(images((1, 3, 4, 5), torch.uint8, 0), None, 0)[1] is None


@given(shape=SIZES, dtype=DTYPES, seed=st.integers(0, 99), layout=LAYOUTS)
@seeded
def test_levels_are_counted_as_torch_counts_them(shape, dtype, seed, layout):
    native, change = images(shape, dtype, seed, layout), changes(shape, seed, layout != "rows")

    counts = kernels.histograms(native, change)

    expected = torch.stack([tone.histogram(each) for each in refined(native, change)])
    assert torch.equal(counts.cpu(), expected)


@given(
    shape=SIZES,
    dtype=DTYPES,
    seed=st.integers(0, 99),
    layout=LAYOUTS,
    toned=st.booleans(),
    blended=st.booleans(),
)
@seeded
def test_images_end_as_torch_ends_them(shape, dtype, seed, layout, toned, blended):
    native, change = images(shape, dtype, seed, layout), changes(shape, seed, layout != "rows")
    generator = torch.Generator().manual_seed(seed)
    curves = torch.rand(*shape[:2], tone.LEVELS, generator=generator).sort(-1).values
    gains = tone.gain(curves.flatten(0, 1)).view_as(curves)
    strengths = torch.rand(shape[0], generator=generator)

    made = kernels.finish(
        native,
        change,
        (curves.to(DEVICE), gains.to(DEVICE)) if toned else None,
        strengths.to(DEVICE) if blended else None,
    )

    added = (change.cpu() / 2).clamp(-1, 1)
    if toned:
        pairs = zip(refined(native, change), curves, strict=True)
        added = torch.stack([tone.apply_curve(*pair) for pair in pairs]) - colour(native)
    if blended:
        added = added * strengths[:, None, None, None]
    full = kernels.DTYPES[dtype]
    expected = (native.cpu().float() + added * full).clamp(0, full)
    expected = expected.round().to(dtype) if dtype == torch.uint8 else expected.to(dtype)
    assert (made.dtype, made.shape) == (native.dtype, native.shape)
    if dtype == torch.bfloat16:  # the interpreter rounds otherwise than torch
        torch.testing.assert_close(made.cpu(), expected)
    else:
        assert torch.equal(made.cpu(), expected)


def test_a_change_that_is_no_number_is_black_before_the_tone_step():
    native, change = images((1, 1, 2, 2), torch.float32, 0), torch.full((1, 1, 2, 2), torch.nan)
    curve = torch.linspace(0.25, 1, tone.LEVELS).view(1, 1, -1).to(DEVICE)

    counts = kernels.histograms(native, change.to(DEVICE))
    made = kernels.finish(native, change.to(DEVICE), (curve, torch.zeros_like(curve)), None)

    assert counts[0, 0, 0] == 4
    assert torch.allclose(made, torch.full_like(made, 0.25))


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Refining takes the kernels, and tells how often it has."""
    taken = []

    def kernels_for(device):
        taken.append(device)
        return kernels

    monkeypatch.setattr(refining, "kernels_for", kernels_for)
    return taken


def refiner(match="after", photos=True, max_workspace_mb=1024):
    generator = torch.Generator().manual_seed(0)
    tones = torch.rand(3, 3, tone.QUANTILES, generator=generator).sort(-1).values
    bank = Bank(tones).balanced(tones)
    torch.manual_seed(0)
    network = UnshuffleRefiner(3, 4, 8, 1, pixel_features=4)
    torch.nn.init.normal_(network.head.weight, std=0.1)
    return ImageRefiner(
        network,
        3,
        bank if photos else None,
        match,
        device=DEVICE,
        precision="fp32",
        max_workspace_mb=max_workspace_mb,
    )


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("photos", [True, False])
@pytest.mark.parametrize("strength", [1.0, [0.25, 1.0]])
def test_refining_with_the_kernels_is_refining(as_on_a_gpu, monkeypatch, dtype, photos, strength):
    native = images((2, 3, 33, 46), dtype, 0)

    fused = refiner(photos=photos)(native, seed=[4, 9], strength=strength)
    assert as_on_a_gpu
    monkeypatch.setattr(refining, "kernels_for", lambda device: None)
    plain = refiner(photos=photos)(native, seed=[4, 9], strength=strength)

    full = kernels.DTYPES[dtype]
    assert fused.dtype == dtype
    assert (fused.double() - plain.double()).abs().max() * 255 / full <= 1.01


@pytest.mark.parametrize("case", ["alpha", "grey", "bgr", "tone before", "tiles"])
def test_what_comes_between_or_beside_colours_is_left_to_torch(as_on_a_gpu, case):
    channels = {"alpha": 4, "grey": 1}.get(case, 3)
    refine = refiner(
        match="before" if case == "tone before" else "after",
        max_workspace_mb=1 if case == "tiles" else 1024,
    )
    shape = (1, channels, 128, 128) if case == "tiles" else (1, channels, 20, 30)

    refine(images(shape, torch.uint8, 0), channel_order="bgr" if case == "bgr" else "rgb")

    assert not as_on_a_gpu


def test_dtypes_that_the_kernels_do_not_know_are_left_to_torch(as_on_a_gpu):
    native = images((1, 3, 12, 12), torch.float32, 0).double()

    assert refiner()(native).dtype == torch.float64


def test_a_cpu_has_no_use_for_kernels():
    assert refining.kernels_for(torch.device("cpu")) is None


def failing(error):
    def probe(device):
        raise error

    return probe


def test_where_triton_does_not_work_a_warning_says_why_and_torch_is_taken(monkeypatch):
    monkeypatch.setattr(kernels, "probe", failing(RuntimeError("no C compiler")))

    with pytest.warns(UserWarning, match=r"Triton does not work here .*: no C compiler"):
        assert refining.kernels_for.__wrapped__(torch.device("cuda")) is None


def test_a_gpu_that_is_full_says_nothing_of_triton(monkeypatch):
    monkeypatch.setattr(kernels, "probe", failing(torch.OutOfMemoryError("full")))

    with pytest.raises(torch.OutOfMemoryError, match="full"):
        refining.kernels_for.__wrapped__(torch.device("cuda"))


def test_all_kernels_are_tried_before_they_are_taken():
    kernels.probe(DEVICE)


def test_results_tell_whether_kernels_have_made_them(as_on_a_gpu):
    assert refiner().rounding == refiner().backend.identity + " fused"


def test_a_change_that_is_no_number_leaves_none_without_a_tone_step():
    native, change = images((1, 1, 2, 2), torch.float32, 0), torch.zeros(1, 1, 2, 2)
    change[0, 0, 0, 1] = torch.nan

    made = kernels.finish(native, change.to(DEVICE), None, None)

    assert made.isnan().flatten().tolist() == [False, True, False, False]
