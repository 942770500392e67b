"""`bench gpu` and `bench loop`: what can be told without a GPU, and that they say so."""

import itertools
import json

import pytest
import torch
from torch import nn

from simgan_aug.bench import gpu, loop
from simgan_aug.bench.cyclegan import ResNet9
from simgan_aug.bench.detector import StandIn, detector_name
from simgan_aug.bench.device import flops
from simgan_aug.bench.rounds import Figures, Skip, take_turns
from simgan_aug.cli import main
from simgan_aug.data import RefinedLoader

SIZE = (640, 480)

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@without_gpu
@pytest.mark.parametrize("command", ["gpu", "loop"])
def test_without_a_gpu_the_command_says_so_in_one_line_and_has_done_no_wrong(capsys, command):
    assert main(["bench", command]) == 0
    assert capsys.readouterr().out == "skipped: no CUDA device\n"

    assert main(["bench", command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"skipped": "no CUDA device"}


@without_gpu
def test_every_variant_travels_to_its_process_and_is_skipped_there(refiner_file):
    variants = gpu.variants_of(refiner_file, (32, 16), 2)
    few = {name: variants[name] for name in (gpu.FLOP, "ours, wide, eager")}

    assert take_turns(few, rounds=1).skipped == dict.fromkeys(few, "no CUDA device")


@pytest.mark.parametrize(
    ("name", "giga"),
    [
        ("the paper's", 182),
        ("ours, default", 5.2),
        ("ours, wide", 23.8),
        ("CycleGAN's resnet_9", 465),
    ],
)
def test_the_operations_of_a_network_are_counted_without_computing_it(name, giga):
    network = gpu.NETWORKS[name]()
    shapes = [(1, *shape) for shape in gpu._shapes(network, SIZE)]

    assert flops(network, shapes) / 1e9 == pytest.approx(giga, rel=0.05)
    assert next(network.parameters()).device.type == "cpu"


def test_operations_of_one_convolution():
    assert flops(nn.Conv2d(3, 8, 3, padding=1), [(2, 3, 5, 7)]) == 2 * (2 * 5 * 7) * 8 * (3 * 9)


def test_cyclegans_generator_gives_the_size_that_came():
    network, images = ResNet9(3, features=4, blocks=1), torch.rand(2, 3, 16, 24)

    assert network(images).shape == images.shape
    assert sum(p.numel() for p in ResNet9(3).parameters()) == 11_378_179  # as the authors print


def figures_of(slow=2.0):
    """An operation in 1 ps, a byte in 1 ns; the compiled path in half of what the other takes."""
    names = gpu.variants_of("", SIZE, 16)
    values = {name: [0.1, 0.2] for name in names}
    values |= {gpu.FLOP: [1e-12] * 2, gpu.BYTE: [1e-9] * 2}
    for count in (1, 16):
        values[gpu._path("torch", count)] = [0.1 * slow, 0.2 * slow]
    return Figures(values)


def test_the_share_of_the_roofline_is_that_of_the_longer_of_two_times():
    table = gpu.table_of(figures_of(), SIZE, 16)

    paper, ours = (table.row(f"{name}, eager").cells for name in ("the paper's", "ours, wide"))
    assert paper["of the roofline"].high == pytest.approx(paper["GFLOP"] / 1000 / 0.1)
    assert ours["of the roofline"].low == pytest.approx(ours["GFLOP"] / 1000 / 0.2)
    assert ours["images/s"] == pytest.approx(1 / 0.15)
    assert table.row("CycleGAN's resnet_9, compiled").cells["resnet_9, compiled / it"].median == 1


def test_memory_bounds_a_network_of_little_arithmetic():
    figures = figures_of()
    figures.values[gpu.FLOP] = [1e-15] * 2

    share = gpu.table_of(figures, SIZE, 16).row("ours, wide, eager").cells["of the roofline"]

    assert share.high == pytest.approx(4 * (3 + 1 + 3) * 640 * 480 * 1e-9 / 0.1)


@pytest.mark.parametrize(("slow", "backend"), [(2.0, "torch-compile"), (1.01, "torch")])
def test_the_last_line_takes_the_compiled_backend_only_where_it_gains(slow, backend):
    table = gpu.table_of(figures_of(slow), SIZE, 16)

    assert table.says[0] == "ceilings: 1 TFLOP/s of bf16, 0.00 TB/s"
    assert table.says[-1].startswith(f"take the backend {backend!r}")


@pytest.mark.parametrize(("ratio", "words"), [(1.01, "does not notice"), (1.2, "notices")])
def test_the_loop_says_whether_the_training_notices(ratio, words):
    table = loop.table_of(
        Figures(
            {
                loop.PLAIN: [1, 2],
                loop.ASIDE: [ratio, 2 * ratio],
                loop.COMPILED: [2, 4],
                loop.INLINE: [3, 6],
            }
        )
    )

    assert table.title == detector_name()
    assert table.row(loop.INLINE).cells["times not refined"].median == 3
    assert table.says[-1].startswith("take a RefinedLoader with the backend 'torch'")
    assert f" {words} it" in table.says[-1]


def test_a_step_of_the_stand_in_changes_its_weights_and_takes_refined_batches(refiner_file):
    torch.manual_seed(0)
    model, cpu = StandIn((1, 1), 4).train(), torch.device("cpu")
    step = loop.step_of(model, cpu)
    before = [parameter.clone() for parameter in model.parameters()]
    batches = loop.endless((64, 48), 2, pinned=False)
    refined = RefinedLoader(batches, refiner_file, p=1, device="cpu", prefetch=False)

    losses = [step(batch) for batch in itertools.islice(refined, 2)]

    assert all(loss.isfinite() for loss in losses)
    assert any(
        not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)
    )


def test_the_stand_in_has_the_weights_of_resnet_50_but_for_its_last_layer():
    convolutions = [m for m in StandIn().modules() if isinstance(m, nn.Conv2d)]

    assert len(convolutions) == 53 + 1
    weights = sum(c.weight.numel() for c in convolutions[:-1])
    assert weights == 23_454_912


def test_boxes_lie_within_the_images():
    images, targets = next(loop.endless(SIZE, 3, pinned=False))

    assert images.shape == (3, 3, 480, 640)
    for target in targets:
        assert (target["boxes"] >= 0).all()
        assert (target["boxes"] <= torch.tensor([640, 480, 640, 480])).all()
        assert (target["boxes"][:, 2:] > target["boxes"][:, :2]).all()


@without_gpu
def test_without_a_gpu_there_is_no_table_to_call_for(tmp_path):
    with pytest.raises(Skip, match="no CUDA device"):
        gpu.gpu(tmp_path, tmp_path)
    with pytest.raises(Skip, match="no CUDA device"):
        loop.loop(tmp_path, tmp_path)
