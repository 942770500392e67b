"""What must hold on a CUDA device; run with `pytest -m gpu` where there is one."""

import dataclasses
import itertools
import warnings

import numpy as np
import pytest
import torch

from simgan_aug import noise, tone
from simgan_aug.bank import Bank
from simgan_aug.config import Config, Training
from simgan_aug.data import RefinedLoader
from simgan_aug.descent import Descent
from simgan_aug.errors import DivergenceError
from simgan_aug.graphs import MOST
from simgan_aug.history import HistoryBuffer
from simgan_aug.inference import ImageRefiner
from simgan_aug.losses import Relativistic, self_regularization
from simgan_aug.networks import Patch, UnshuffleRefiner
from simgan_aug.parts import CONTOURS, regularization
from simgan_aug.players import Players
from simgan_aug.state import TrainingState
from simgan_aug.training import Batch, train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("default"),  # torch's compiler warns of itself and of slow settings
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

BACKENDS = pytest.mark.parametrize("backend", ["torch", "torch-compile"])
PRECISIONS = pytest.mark.parametrize("precision", ["fp32", "bf16"])


@pytest.fixture
def photos():
    return np.random.default_rng(0).integers(0, 256, (3, 67, 93, 3), dtype=np.uint8)


@pytest.fixture
def without_waits():
    """Any wait for the GPU, within it, is an error."""
    before = torch.cuda.get_sync_debug_mode()
    yield lambda: torch.cuda.set_sync_debug_mode("error")
    torch.cuda.set_sync_debug_mode(before)


def apart(one, other):
    """Grey levels, of 255."""
    return np.abs(np.asarray(one).astype(int) - np.asarray(other)).max()


def toning(device, match="after", channels=3, **options):
    """A refiner with a tone step, the same on every device."""
    generator = torch.Generator().manual_seed(0)
    real = torch.rand(5, channels, 8, 8, generator=generator) / 2
    tones = tone.tones_of(real)[:, :3]  # a fourth channel has none
    bank = Bank(tones).balanced(tones)
    torch.manual_seed(0)
    network = UnshuffleRefiner(channels, 2, 8, 1, pixel_features=4)
    torch.nn.init.normal_(network.head.weight, std=0.1)
    torch.nn.init.normal_(network.pixels.drawn.weight, std=0.02)
    return ImageRefiner(network, channels, bank, match, device=device, **options)


# Refining.


@BACKENDS
@PRECISIONS
def test_a_gpu_refines_as_a_cpu_does_to_one_grey_level(refiner_file, photos, backend, precision):
    on_cpu = ImageRefiner.load(refiner_file, "cpu", precision="fp32")(photos, seed=5)
    refine = ImageRefiner.load(refiner_file, "cuda", precision=precision, backend=backend)

    for _ in range(4):  # the third call is recorded
        assert apart(refine(photos, seed=5), on_cpu) <= 1


def test_a_replayed_graph_leaves_earlier_results_alone(refiner_file, photos):
    refine = ImageRefiner.load(refiner_file, "cuda", backend="torch-compile")
    image = torch.from_numpy(photos).movedim(-1, 1).cuda()
    for _ in range(3):
        refine(image)

    first = refine(image, seed=1)
    kept = first.clone()
    refine(255 - image, seed=2)

    assert torch.equal(first, kept)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float16, torch.float64])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_every_kind_of_image_on_either_side_is_refined_alike(dtype, channels):
    rng = np.random.default_rng(0)
    full = {torch.uint8: 255, torch.uint16: 65535}.get(dtype, 1)
    image = torch.from_numpy(rng.random((2, channels, 21, 34)) * full).to(dtype)
    on_cpu, on_gpu = (toning(device, precision="fp32") for device in ("cpu", "cuda"))

    expected = on_cpu(image, seed=3).double() * 255 / full
    for place in ("cpu", "cuda"):
        refined = on_gpu(image.to(place), seed=3)
        assert (refined.dtype, refined.device.type) == (dtype, place)
        # Where there is more than 256 levels to tell, a steep tone curve shows what is apart.
        limit = 1 if dtype == torch.uint8 else 1.5
        assert (refined.cpu().double() * 255 / full - expected).abs().max() <= limit


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_four_channels_of_which_three_have_a_tone_are_refined_as_on_a_cpu(dtype):
    image = torch.rand(2, 4, 21, 34, generator=torch.Generator().manual_seed(0))
    image = (image * 255).to(dtype) if dtype == torch.uint8 else image
    on_cpu, on_gpu = (toning(device, channels=4, precision="fp32") for device in ("cpu", "cuda"))
    full = 1 if dtype == torch.uint8 else 255

    expected = on_cpu(image, seed=3).double() * full
    for _ in range(4):  # the third call is recorded
        refined = on_gpu(image.cuda(), seed=3).cpu().double() * full
        assert (refined - expected).abs().max() <= 1.5


@BACKENDS
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_replayed_refinement_is_that_of_its_own_image_seeds_and_strengths(backend, dtype):
    refine = toning("cuda", backend=backend)
    images = (torch.rand(6, 2, 3, 64, 96, device="cuda") * 255).to(dtype)
    images = images if dtype == torch.uint8 else images / 255
    asked = [{"seed": n, "strength": [1, 1 - n / 10]} for n in range(6)]

    refined = [refine(image, **how) for image, how in zip(images, asked, strict=True)]

    assert len(refine._replayed._recordings) >= 1
    assert len({each.cpu().numpy().tobytes() for each in refined}) == 6
    as_it_is = toning("cuda", backend=backend)
    for each, image, how in zip(refined, images, asked, strict=True):
        as_it_is._replayed._calls.clear()  # never recorded
        assert (each.float() - as_it_is(image, **how).float()).abs().max() * (
            1 if dtype == torch.uint8 else 255
        ) <= 1.01


def laid_out(images):
    """The same images, lying in memory in ways that kernels are compiled apart for."""
    larger = torch.zeros(2, 4, 60, 90, dtype=images.dtype, device="cuda")
    larger[:, :3, 5:45, 7:63] = images
    flat = torch.zeros(images.numel() + 1, dtype=images.dtype, device="cuda")
    flat[1:] = images.flatten()
    return {
        "planes": images,
        "pixels": images.contiguous(memory_format=torch.channels_last),
        "window": larger[:, :3, 5:45, 7:63],
        "an odd address": flat[1:].view(images.shape),
        "one for all": images[:1].expand(2, -1, -1, -1),
    }


@BACKENDS
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("layout", ["planes", "pixels", "window", "an odd address", "one for all"])
def test_images_may_lie_in_any_way_when_they_are_recorded(backend, dtype, layout):
    images = torch.randint(256, (2, 3, 40, 56), dtype=torch.uint8, device="cuda").to(dtype)
    images = images / 255 if dtype == torch.float32 else images
    image = laid_out(images)[layout]
    refine = toning("cuda", backend=backend)

    refined = [refine(image, seed=3) for _ in range(5)]

    assert len(refine._replayed._recordings) == 1
    full = 1 if dtype == torch.uint8 else 255
    expected = toning("cuda", backend=backend)(image.contiguous(), seed=3)
    for each in refined:
        assert (each.float() - expected.float()).abs().max() * full <= 1.01


@BACKENDS
def test_what_was_recorded_in_inference_mode_serves_outside_of_it_and_the_other_way_about(backend):
    image = torch.randint(256, (2, 3, 40, 56), dtype=torch.uint8, device="cuda")
    expected = toning("cuda", backend=backend)(image, seed=3)
    for inside in ([True] * 4 + [False] * 2, [False] * 4 + [True] * 2):
        refine = toning("cuda", backend=backend)
        for mode in inside:
            with torch.inference_mode(mode):
                refined = refine(image, seed=3)
            assert apart(refined.cpu(), expected.cpu()) <= 1
        assert len(refine._replayed._recordings) == 1
        assert not refined.requires_grad


def test_the_noise_of_a_seed_is_the_same_bits_on_a_gpu():
    keys = noise.keys([5, -1])
    on_cpu, on_gpu = (noise.of_keys(keys.to(device), (2, 33, 65)) for device in ("cpu", "cuda"))

    assert torch.equal(on_cpu, on_gpu.cpu())


def test_images_of_many_sizes_are_recorded_for_some_of_them():
    refine = toning("cuda")
    for _ in range(4):
        for side in range(20, 20 + 2 * MOST):
            image = torch.randint(256, (3, side, 30), dtype=torch.uint8, device="cuda")
            assert refine(image).shape == image.shape

    assert len(refine._replayed._recordings) == MOST


@pytest.mark.parametrize("match", ["before", "after"])
def test_the_tone_step_is_that_of_a_cpu_for_what_is_seen_too(photos, match):
    hidden = np.concatenate([photos, np.zeros_like(photos[..., :1])], axis=-1)
    hidden[0, :20, :, 3] = 255
    hidden[1, 5, 7, 3] = 1
    far = 1 if match == "before" else 2  # a steep curve doubles what rounding has left apart
    for images in (photos, hidden):
        on_cpu, on_gpu = (
            toning(device, match, precision="fp32")(images, seed=9) for device in ("cpu", "cuda")
        )
        assert apart(on_cpu, on_gpu) <= far


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_the_levels_of_images_are_counted_as_on_a_cpu(channels):
    images = torch.rand(4, channels, 300, 200)
    seen = torch.rand(4, 300, 200) > torch.tensor([0.7, 0, 1, 0.99]).view(4, 1, 1)

    counts = tone._histograms(images.cuda(), seen.cuda()).cpu()

    each = zip(images, seen, strict=True)
    assert torch.equal(counts, torch.stack([tone.histogram(*one) for one in each]))


def test_a_tensor_stays_on_its_device(refiner_file):
    image = torch.rand(3, 40, 50, device="cuda")

    refined = ImageRefiner.load(refiner_file)(image)

    assert refined.device == image.device


def test_a_list_is_refined_as_its_images_are(refiner_file, photos):
    refine = ImageRefiner.load(refiner_file, "cuda", precision="fp32")
    images = [
        photos[0],
        photos[1][:40],
        photos[2],
        torch.from_numpy(photos[1]).movedim(-1, 0).cuda(),
    ]

    together = refine(images, seed=4)

    for number, (image, refined) in enumerate(zip(images, together, strict=True)):
        alone = refine(image, seed=4 + number)
        assert type(alone) is type(refined)
        assert (torch.as_tensor(alone).int() - torch.as_tensor(refined).int()).abs().max() <= 1


def test_a_tile_equals_the_whole_to_one_grey_level(refiner_file, photos):
    large = np.tile(photos, (1, 12, 12, 1))

    whole = ImageRefiner.load(refiner_file, device="cuda", max_workspace_mb=8192)(large)
    tiled = ImageRefiner.load(refiner_file, device="cuda", max_workspace_mb=16)(large)

    # Convolutions of another shape may add up in another order: rarely, a value is rounded over.
    assert apart(whole, tiled) <= 1
    assert (whole != tiled).mean() < 0.01


# Waits and memory.


@BACKENDS
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_refining_tensors_on_the_gpu_waits_for_nothing(refiner_file, without_waits, backend, dtype):
    refine = ImageRefiner.load(refiner_file, "cuda", backend=backend)
    images = (torch.rand(4, 3, 64, 96, device="cuda") * 255).to(dtype)
    images = images if dtype == torch.uint8 else images / 255
    grey = images[:, :1].contiguous()
    for _ in range(4):
        refine(images), refine(grey), refine(list(images))

    without_waits()

    refine(images, seed=[4, 3, 2, 1], strength=[1, 0.5, 0.2, 0])
    refine(grey)
    refine(list(images))


@pytest.mark.parametrize("match", ["before", "after"])
def test_the_tone_step_waits_for_nothing(without_waits, match):
    refine = toning("cuda", match)
    images = torch.randint(256, (4, 4, 64, 96), dtype=torch.uint8, device="cuda")  # with alpha
    for _ in range(3):
        refine(images), refine(images[:, :3])

    without_waits()

    refine(images)
    refine(images[:, :3])


def test_the_tone_step_is_allowed_where_only_determined_arithmetic_is(photos):
    expected = toning("cuda", precision="fp32")(photos)
    torch.use_deterministic_algorithms(True)

    try:
        refined = toning("cuda", precision="fp32")(photos)
    finally:
        torch.use_deterministic_algorithms(False)

    assert apart(refined, expected) <= 1


def test_refining_from_page_locked_memory_to_the_gpu_waits_for_nothing(refiner_file, without_waits):
    refine = ImageRefiner.load(refiner_file, "cuda")
    images = torch.randint(256, (4, 3, 64, 96), dtype=torch.uint8).pin_memory()
    for _ in range(2):
        refine(images.cuda())

    without_waits()

    refine(images.to("cuda", non_blocking=True))


@pytest.mark.parametrize("p", [0.5, 1.0])
def test_some_rows_of_a_batch_are_refined_without_a_wait(refiner_file, without_waits, p):
    from simgan_aug.data import BatchRefiner

    refine = BatchRefiner(refiner_file, p=p, device="cuda")
    images = torch.rand(8, 3, 64, 96, device="cuda")
    for _ in range(3):
        refine(images)

    without_waits()

    assert refine(images).shape == images.shape


def test_memory_stays_within_the_workspace():
    refine = toning("cuda", max_workspace_mb=64, precision="fp32")
    images = torch.randint(256, (8, 3, 1200, 1600), dtype=torch.uint8)
    refine(images[:1])  # cuDNN and its workspace
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    held = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()

    refine(images)

    pixels = 1200 * 1600  # of one image, whose floats lie there whole: colours, change, noise
    peak = torch.cuda.max_memory_allocated() - held
    assert peak <= 2 * 64 * 2**20 + 90 * pixels


# Loaders.


@BACKENDS
def test_a_loader_on_a_stream_of_its_own_gives_what_refining_in_line_gives(refiner_file, backend):
    images = torch.randint(256, (6, 4, 3, 64, 96), dtype=torch.uint8).pin_memory()
    batches = [{"image": each, "image_id": list(range(4))} for each in images]
    options = {"p": 0.5, "seed": 1, "backend": backend}

    aside = []
    for batch in RefinedLoader(batches, refiner_file, **options):
        torch.rand(2000, 2000, device="cuda").matmul(torch.rand(2000, 2000, device="cuda"))
        aside.append(batch["image"].clone())

    in_line = RefinedLoader(batches, refiner_file, prefetch=False, **options)
    for one, other in zip(aside, in_line, strict=True):
        assert one.is_cuda
        assert apart(one.cpu(), other["image"].cpu()) <= 1


def test_a_loader_waits_for_batches_that_are_still_being_made_on_the_gpu(refiner_file):
    def made():
        for number in range(4):
            late = torch.rand(3000, 3000, device="cuda")
            for _ in range(20):
                late = (late @ late).clamp_(0, 1)
            yield {"image": torch.full((2, 3, 64, 96), number / 4, device="cuda") + 0 * late[0, 0]}

    refine = ImageRefiner.load(refiner_file, "cuda")

    aside = [batch["image"].clone() for batch in RefinedLoader(made(), refine, p=1)]

    in_line = RefinedLoader(made(), refine, p=1, prefetch=False)
    for one, other in zip(aside, in_line, strict=True):
        assert (one - other["image"]).abs().max() * 255 <= 1


# Training.


@PRECISIONS
def test_training_runs_on_a_gpu_and_its_losses_are_finite(precision):
    config = Training(steps=5, batch_size=4, history=8, precision=precision)
    images = torch.rand(4, 3, 32, 32) * 2 - 1
    batches = iter(lambda: Batch(images=images), None)

    def term(refined, synthetic, weights):
        return 0.05 * self_regularization(refined, synthetic, weights=weights)

    players = UnshuffleRefiner(3, features=16).cuda(), Patch(3, features=16).cuda()
    steps = list(train(*players, Relativistic(), term, batches, batches, config))

    assert len(steps) == config.steps
    assert all(np.isfinite(list(step.losses.values())).all() for step in steps)


def test_a_step_waits_for_the_gpu_once_for_its_losses_and_once_for_a_count():
    config = Training(steps=3, batch_size=4, history=8)
    images = torch.rand(4, 3, 32, 32) * 2 - 1
    batches = iter(lambda: Batch(images=images), None)

    def term(refined, synthetic, weights):
        return 0.05 * self_regularization(refined, synthetic, weights=weights)

    players = UnshuffleRefiner(3, features=16).cuda(), Patch(3, features=16).cuda()
    steps = train(*players, Relativistic(), term, batches, batches, config)
    next(steps)

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        next(steps)
        torch.cuda.set_sync_debug_mode("default")

    waits = [each for each in told if "synchronizing CUDA operation" in str(each.message)]
    assert len(waits) <= 2


@pytest.mark.parametrize("spectral", [False, True])
def test_a_recorded_training_is_the_training_as_it_is(spectral, monkeypatch):
    recordings = []

    def noticed(end):
        def ended(self):
            recordings.append(0 if self._replayed is None else len(self._replayed._recordings))
            return end(self)

        return ended

    def run(recorded):
        torch.manual_seed(0)
        config = Training(steps=9, batch_size=4, history=4, decay_after=6, discriminator_warmup=2)
        players = UnshuffleRefiner(3, features=16), Patch(3, features=16, spectral=spectral)
        torch.nn.init.normal_(players[0].head.weight, std=0.1)
        state = TrainingState(*(player.cuda() for player in players), config)
        state.scalars[CONTOURS] = 0.1
        draws = torch.Generator().manual_seed(1)
        sides = [
            (Batch(images=torch.rand(4, 3, 32, 32, generator=draws) * 2 - 1) for _ in range(99))
            for _ in range(2)
        ]
        term, told = regularization(Config(), state.scalars), []
        with monkeypatch.context() as patch:
            patch.setattr(Descent, "end", noticed(Descent.end))
            if not recorded:
                patch.setattr(Players, "_recorded", lambda self: False)
            for step in train(*players, Relativistic(), term, *sides, config, state):
                told.append(list(step.losses.values()))
                state.scalars[CONTOURS] *= 2
        return told, [weight.detach().cpu() for weight in state.averaged.parameters()]

    as_it_is = run(False)
    assert not any(recordings)
    recorded = run(True)
    assert recordings[-1] == 3  # the refiner's update, refining, the discriminator's update

    for one, other in zip(recorded[0], as_it_is[0], strict=True):
        assert one == pytest.approx(other, rel=0.02)
    for one, other in zip(recorded[1], as_it_is[1], strict=True):
        torch.testing.assert_close(one, other, rtol=0.05, atol=2e-3)


def test_a_student_learns_on_a_gpu_what_it_learns_on_a_cpu_recorded_or_not(monkeypatch):
    config = Training(steps=0, student_steps=9, batch_size=4, history=0, precision="fp32")

    def run(device, recorded=True):
        torch.manual_seed(0)
        players = UnshuffleRefiner(3, features=16), Patch(3, features=16), UnshuffleRefiner(3, 4, 8)
        torch.nn.init.normal_(players[0].head.weight, std=0.1)
        refiner, critic, student = (player.to(device) for player in players)
        state = TrainingState(refiner, critic, config, student=student)
        draws = torch.Generator().manual_seed(1)
        sides = [
            (Batch(images=torch.rand(4, 3, 32, 32, generator=draws) * 2 - 1) for _ in range(99))
            for _ in range(2)
        ]
        with monkeypatch.context() as patch:
            if not recorded:
                patch.setattr(Players, "_recorded", lambda self: False)
            term = regularization(Config())
            steps = train(refiner, critic, Relativistic(), term, *sides, config, state)
            told = [step.losses["student"] for step in steps]
        return told, [weight.detach().cpu() for weight in student.parameters()]

    on_cpu, plain, recorded = run("cpu"), run("cuda", recorded=False), run("cuda")

    assert on_cpu[0][-1] < on_cpu[0][0]
    for other in (plain, recorded):
        assert other[0] == pytest.approx(on_cpu[0], rel=0.02)  # TF32, where a GPU has it
        for one, same in zip(other[1], on_cpu[1], strict=True):
            torch.testing.assert_close(one, same, rtol=0.05, atol=2e-3)


def test_a_loss_that_is_not_finite_is_told_of_by_a_recorded_step_too():
    config = Training(steps=9, batch_size=4, history=0)
    players = UnshuffleRefiner(3, features=16).cuda(), Patch(3, features=16).cuda()
    batches = itertools.repeat(Batch(images=torch.rand(4, 3, 32, 32) * 2 - 1))
    steps = train(*players, Relativistic(), regularization(Config()), batches, batches, config)
    for _ in range(5):
        next(steps)
    with torch.no_grad():
        players[1].layers[0].weight[0, 0, 0, 0] = float("inf")

    before = [weight.clone() for weight in players[0].parameters()]
    with pytest.raises(DivergenceError):
        next(steps)

    assert all(torch.equal(*pair) for pair in zip(before, players[0].parameters(), strict=True))


def test_a_penalty_has_the_gradient_that_it_has_on_a_cpu():
    torch.manual_seed(0)
    critic, refined, real = Patch(3, features=8), torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    Relativistic().discriminator(critic, refined, real).backward()
    on_cpu = [weight.grad.clone() for weight in critic.parameters()]
    critic.zero_grad()

    Relativistic().discriminator(critic.cuda(), refined.cuda(), real.cuda()).backward()

    for weight, expected in zip(critic.parameters(), on_cpu, strict=True):
        torch.testing.assert_close(weight.grad.cpu(), expected, rtol=1e-2, atol=1e-4)


def test_the_first_step_of_training_has_the_losses_of_a_cpu():
    config = Training(steps=1, batch_size=4, history=8, precision="fp32")
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    told = []

    def term(refined, synthetic, weights):
        return self_regularization(refined, synthetic, weights=weights)

    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        players = UnshuffleRefiner(3, features=16).to(device), Patch(3, features=16).to(device)
        batches = itertools.repeat(Batch(images=images))
        (step,) = train(*players, Relativistic(), term, batches, batches, config)
        told.append(step.losses)

    assert told[1] == pytest.approx(told[0], rel=0.02, abs=1e-3)  # TF32, where a GPU has it


def test_the_history_lies_on_the_gpu_and_mixes_as_on_a_cpu():
    batches = torch.rand(5, 4, 3, 8, 8)
    mixed = {}
    for device in ("cpu", "cuda"):
        history, generator = HistoryBuffer(6), torch.Generator().manual_seed(0)
        mixed[device] = [history.mix(batch.to(device), generator).cpu() for batch in batches]

    assert history.images.is_cuda
    assert torch.equal(torch.stack(mixed["cpu"]), torch.stack(mixed["cuda"]))


def test_a_state_goes_from_a_gpu_to_a_cpu_and_back():
    config = dataclasses.replace(Training(), history=8, batch_size=4)
    players = UnshuffleRefiner(3, features=16).cuda(), Patch(3, features=16).cuda()
    state = TrainingState(*players, config)
    flat = {name: value.cpu() for name, value in state.tensors().items()}

    state.load(flat)

    assert all(parameter.is_cuda for parameter in state.averaged.parameters())


# What `simgan-aug bench` prints.


@pytest.mark.slow
@pytest.mark.parametrize("command", ["gpu", "loop"])
def test_the_tables_can_be_made(capsys, command):
    from simgan_aug.cli import main

    sizes = ["--size", "128", "96", "--batch", "2", "--rounds", "1"]
    assert main(["bench", command, *sizes]) == 0
    assert "\ntake " in capsys.readouterr().out
