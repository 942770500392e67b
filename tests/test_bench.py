"""The tables of `simgan-aug bench`: who is in them, and that they say what was measured."""

import json
import mmap
import pathlib

import pytest

from simgan_aug.bench import as_text, loader, private_mb
from simgan_aug.cli import main

SAMPLE = pathlib.Path(__file__).parents[1] / "examples/data/hands"
NAMES = ["no transform", "HistogramMatching", "PixelDistributionAdaptation", "FDA"]


@pytest.mark.timeout(200)
def test_the_loader_table_has_us_and_our_peers_with_ratios_that_fit_the_rates(
    tmp_path, refiner_file
):
    rows = loader(
        SAMPLE / "real",
        tmp_path,
        refiner=refiner_file,
        size=(48, 32),
        images=4,
        workers=1,
        rounds=1,
    )

    by_name = {row.name: row for row in rows}
    assert [*by_name] == [NAMES[0], "ours", "ours, from the cache", *NAMES[1:]]
    for row in rows:
        assert row.rate > 0
        assert row.share[0] == pytest.approx(row.rate / by_name["no transform"].rate)
        assert row.ahead[0] == pytest.approx(row.rate / by_name["FDA"].rate)
        assert row.share[1] <= row.share[0] <= row.share[2]
        assert f"| {row.name} | {row.rate:.1f} |" in as_text(rows)
    assert list((tmp_path / "cache").rglob("*/??/*"))  # what the cached variant kept


@pytest.mark.slow
def test_the_command_prints_the_table_for_a_program(capsys):
    code = main(
        ["bench", "loader", "--count", "4", "--rounds", "1", "--size", "48", "32", "--json"]
    )

    rows = json.loads(capsys.readouterr().out)
    assert code == 0
    assert {"ours, default", "ours, light"} < {row["name"] for row in rows}


def test_what_a_process_takes_is_seen():
    before = private_mb()
    taken = mmap.mmap(-1, 64 * 2**20, flags=mmap.MAP_PRIVATE)  # not what the heap has left over
    taken.write(b"x" * (64 * 2**20))

    assert 60 < private_mb() - before < 80
    taken.close()
