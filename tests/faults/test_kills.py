"""kill -9 at any moment: nothing visible is ever corrupt, and the end is as if nothing had been."""

import random
import time

import pytest
from faults.conftest import Refining, kill


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_killed_job_goes_on_to_the_same_result(refining, workers):
    draw, kills = random.Random(workers), 0
    for _ in range(4):
        process = refining.start("--workers", workers)
        refining.wait_for(len(refining.done()) + draw.randint(1, 20), process)
        kill(process, draw.choice(["job", "all"]))
        kills += 1
        refining.check_visible()

    code, said = refining.run("--workers", workers)

    assert code == 0, said
    refining.check_whole()
    refining.check_redone(kills, max(workers, 1))


def test_a_killed_worker_is_replaced_and_the_job_does_not_end(refining):
    process = refining.start("--workers", 2)
    for count in (5, 30):
        refining.wait_for(count, process)
        kill(process, "worker")
    out, errors = process.communicate(timeout=120)

    assert process.returncode == 0, out + errors
    refining.check_whole()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("workers", [1, 3])
def test_200_kills_over_1000_images_change_nothing(tmp_path, refiner_file, workers):
    draw, kills, runs = random.Random(workers), 0, 0
    while kills < 200:
        (tmp_path / str(runs)).mkdir()
        refining = Refining(tmp_path / str(runs), refiner_file, 1000)
        before, began = kills, time.monotonic()
        while True:
            process = refining.start("--workers", workers)
            moment = time.monotonic() + draw.uniform(0, 6)
            while time.monotonic() < moment and process.poll() is None:
                time.sleep(0.002)
            if process.poll() is not None:
                break
            whom = draw.choice(["job", "all", "worker"])
            kill(process, whom)
            if whom == "worker":
                time.sleep(draw.uniform(0, 1))
                kill(process, "all")
            kills += 1
            refining.check_visible()
        out, errors = process.communicate()
        assert process.returncode == 0, out + errors
        refining.check_whole()
        refining.check_redone(kills - before, workers)
        print(
            f"{workers} workers: {kills - before} kills, {refining.redone()} of 1000 images begun "
            f"again, {time.monotonic() - began:.0f} s"
        )
        runs += 1
