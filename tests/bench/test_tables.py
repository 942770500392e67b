"""The tables of `bench cpu`, `start` and `exact`: who is in them, and that they hold together."""

import pathlib

import pytest
import torch

from simgan_aug.bench.cpu import _flops, cpu
from simgan_aug.bench.cyclegan import ResNet9
from simgan_aug.bench.exact import TILES, exact
from simgan_aug.bench.start import BARE, start
from simgan_aug.bench.ways import WAYS

PHOTOS = pathlib.Path(__file__).parents[2] / "examples/data/hands/real"


def test_resnet_9_keeps_the_size_and_costs_what_is_published():
    network = ResNet9().eval()

    with torch.no_grad():
        made = network(torch.rand(1, 3, 16, 24))

    assert made.shape == (1, 3, 16, 24)
    assert sum(each.numel() for each in network.parameters()) == pytest.approx(11.38e6, rel=0.01)
    assert _flops(network, (64, 64)) * 75 == pytest.approx(465e9, rel=0.03)  # of 640x480


def test_the_exact_table_has_every_way_within_what_is_allowed(tmp_path, refiner_file):
    table = exact(PHOTOS, tmp_path, refiner=refiner_file, size=(96, 64), images=2)

    names = [row.name for row in table.rows]
    assert names == [TILES, *map(str, WAYS[1:])]
    for row in table.rows:
        if row.skipped:
            assert "OpenVINO" in row.skipped or "AMX" in row.skipped or "NNCF" in row.skipped
        else:
            assert row.cells["at most"] <= float(row.cells["allowed"].partition(",")[0])
            assert row.name in table.says[-1]


@pytest.mark.slow
def test_the_cpu_table_has_us_every_way_and_our_peers(tmp_path, refiner_file):
    table = cpu(PHOTOS, tmp_path, refiner=refiner_file, size=(64, 48), rounds=1)

    names = [row.name for row in table.rows]
    assert names[:4] == ["JPEG decode", "HistogramMatching", "PixelDistributionAdaptation", "FDA"]
    for way in WAYS:
        assert {f"ours, {way}, network", f"ours, {way}, whole", f"resnet_9, {way}"} <= {*names}
    whole = table.row("ours, torch fp32, whole").cells
    decode = table.row("JPEG decode").cells
    assert whole["times JPEG decode"].median == pytest.approx(whole["ms"] / decode["ms"])
    assert 0 < table.row("ours, torch fp32, network").cells["of the ceiling"].median < 1.5
    assert "fastest within one grey level" in table.says[-1]


@pytest.mark.slow
def test_the_start_table_has_every_way_and_what_torch_alone_takes(tmp_path, refiner_file):
    table = start(PHOTOS, tmp_path, refiner=refiner_file, size=(64, 48), rounds=1)

    assert [row.name for row in table.rows] == [BARE, *map(str, WAYS)]
    bare = table.row(BARE).cells
    for row in table.rows[1:]:
        if not row.skipped:
            assert row.cells["CPU s"] > 0.5 * bare["CPU s"]
            assert row.cells["peak MiB"] > 50
    assert table.says[-1].startswith("quickest to its first image: ")
