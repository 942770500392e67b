"""`bench mem`: memory of an image and of a worker, over that of a process without a refiner."""

import pytest

from simgan_aug.bench.mem import mem
from simgan_aug.demo import shipped


@pytest.mark.timeout(120)
def test_memory_is_told_of_an_image_and_of_a_worker_for_each_backend(tmp_path, refiner_file):
    table = mem(
        shipped() / "real", tmp_path, refiner=refiner_file, backends=("torch",), sizes=("640x480",)
    )

    image, worker = table.rows
    assert (image.name, worker.name) == ("640x480, torch", "a worker that refines, torch")
    assert image.cells["image, MiB"] == pytest.approx(640 * 480 * 3 / 2**20)
    for cells in (image.cells, worker.cells):
        assert 0 < cells["afterwards, MiB"] <= cells["peak, MiB"] + 1
    assert "backend 'torch' in workers" in table.as_text()
