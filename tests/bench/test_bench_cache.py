"""`bench cache`: from the second epoch on nothing is refined."""

import pytest

from simgan_aug.bench.cache import FOLDER, MEMORY, PLAIN, cache
from simgan_aug.demo import shipped


@pytest.mark.timeout(120)
def test_the_table_holds_a_cached_epoch_against_one_that_is_not_refined(tmp_path, refiner_file):
    table = cache(
        shipped() / "real", tmp_path, refiner=refiner_file, size=(96, 64), images=4, rounds=1
    )

    assert [row.name for row in table.rows] == [PLAIN, MEMORY, FOLDER, "no cache"]
    cost = {row.name: row.cells["CPU ms an image"] for row in table.rows}
    share = table.row(MEMORY).cells["of the rate"].median
    assert share == pytest.approx(cost[PLAIN] / cost[MEMORY])
    assert len(list((tmp_path / "cache").rglob("*/??/*"))) == 4
