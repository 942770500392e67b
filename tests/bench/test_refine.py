"""`bench refine`: the job beside what it has to do anyway."""

import json

import pytest

from simgan_aug.bench.refine import FILES, JOB, NETWORK, refine
from simgan_aug.cli import main
from simgan_aug.demo import shipped


@pytest.mark.timeout(120)
def test_the_job_and_its_parts_are_in_the_table_and_all_images_are_refined(tmp_path, refiner_file):
    table = refine(
        shipped() / "real", tmp_path, refiner=refiner_file, size=(48, 32), images=3, rounds=1
    )

    assert [row.name for row in table.rows] == [JOB, FILES, NETWORK]
    job = table.row(JOB).cells
    parts = [table.row(name).cells for name in (FILES, NETWORK)]
    slowest = min(cells["images/s"] for cells in parts)
    assert job["of the limit"].median == pytest.approx(job["images/s"] / slowest)
    work = sum(cells["CPU ms an image"] for cells in parts)
    assert job["of its CPU time"].median == pytest.approx(work / job["CPU ms an image"])
    assert len(list((tmp_path / "out/0/images").iterdir())) == 3
    assert "Recommended here" in table.as_text()


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize("command", ["refine", "cache"])
def test_the_command_prints_the_table_for_a_program(command, capsys):
    size = ["--size", "48", "32"]
    code = main(["bench", command, "--count", "3", "--rounds", "1", *size, "--json"])

    assert code == 0
    assert len(json.loads(capsys.readouterr().out)["rows"]) == {"refine": 3, "cache": 4}[command]
