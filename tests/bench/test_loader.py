"""`bench loader`: who is in the table, and that it says what was measured."""

import json
import mmap
import pathlib

import pytest

from simgan_aug.bench.loader import loader
from simgan_aug.bench.material import private_mb
from simgan_aug.cli import main

SAMPLE = pathlib.Path(__file__).parents[2] / "examples/data/hands"
NAMES = ["no transform", "HistogramMatching", "PixelDistributionAdaptation", "FDA"]


@pytest.mark.timeout(200)
def test_the_loader_table_has_us_and_our_peers_with_ratios_that_fit_the_rates(
    tmp_path, refiner_file
):
    table = loader(
        SAMPLE / "real",
        tmp_path,
        refiner=refiner_file,
        size=(48, 32),
        images=4,
        workers=1,
        rounds=1,
    )

    by_name = {row.name: row.cells for row in table.rows}
    assert [*by_name] == [NAMES[0], "ours", "ours, from the cache", *NAMES[1:]]
    for name, cells in by_name.items():
        rate, share, ahead = (cells[c] for c in ("images/s", "of no transform", "times FDA"))
        assert rate > 0
        assert share.median == pytest.approx(rate / by_name["no transform"]["images/s"])
        assert ahead.median == pytest.approx(rate / by_name["FDA"]["images/s"])
        assert share.low <= share.median <= share.high
        assert f"| {name} | {rate:.1f} |" in table.as_text()
    assert table.says[-1].startswith("Recommended here: ours on torch, ")
    assert list((tmp_path / "cache").rglob("*/??/*"))  # what the cached variant kept


@pytest.mark.slow
def test_the_command_prints_the_table_for_a_program(capsys):
    code = main(
        ["bench", "loader", "--count", "4", "--rounds", "1", "--size", "48", "32", "--json"]
    )

    rows = json.loads(capsys.readouterr().out)["rows"]
    assert code == 0
    assert {"ours, default", "ours, wide"} < {row["name"] for row in rows}


def test_what_a_process_takes_is_seen():
    before = private_mb()
    taken = mmap.mmap(-1, 64 * 2**20, flags=mmap.MAP_PRIVATE)  # not what the heap has left over
    taken.write(b"x" * (64 * 2**20))

    assert 60 < private_mb() - before < 80
    taken.close()
