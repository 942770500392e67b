"""Ranks that torchrun starts: together they give what one process gives, even if one is killed."""

import os
import signal
import subprocess
import sys
import time

import pytest
from faults.conftest import LIMIT, Refining, children


class Ranks(Refining):
    """A data set that two ranks refine."""

    def command(self, *options, restarts=0):
        program, *words = super().command("--engine", "torchrun", "--workers", 1, *options)[1:]
        assert program == "-m"
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        torchrun += ["--max-restarts", str(restarts)]
        return [sys.executable, *torchrun, "-m", *words]


@pytest.fixture
def ranks(tmp_path, refiner_file):
    made = Ranks(tmp_path, refiner_file, 40)
    made.environment |= {"OMP_NUM_THREADS": "1"}
    return made


def test_two_ranks_give_what_one_process_gives(ranks):
    code, said = ranks.run()

    assert code == 0, said
    ranks.check_whole()
    assert len(list((ranks.out / ".simgan" / "journal").iterdir())) == 4  # ranks, and their workers


def test_two_ranks_that_find_all_done_end_at_once(ranks):
    ranks.run()
    before = ranks.redone()

    code, said = ranks.run()

    assert code == 0, said
    ranks.check_whole()
    assert ranks.redone() == before


def test_a_killed_rank_is_started_again_and_the_result_is_the_same(ranks):
    command = ranks.command(restarts=3)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, **pipes, env=ranks.environment)
    ranks.wait_for(5, process)
    os.kill(ranks_of(process.pid)[1], signal.SIGKILL)
    said, _ = process.communicate(timeout=2 * LIMIT)

    assert process.returncode == 0, said
    ranks.check_whole()


def test_ranks_that_were_killed_together_go_on_together(ranks):
    process = subprocess.Popen(ranks.command(), env=ranks.environment, stderr=subprocess.DEVNULL)
    ranks.wait_for(5, process)
    for pid in [process.pid, *ranks_of(process.pid)]:
        os.kill(pid, signal.SIGKILL)
    process.wait()
    ranks.check_visible()

    code, said = ranks.run()

    assert code == 0, said
    ranks.check_whole()


def test_an_image_that_is_set_aside_is_no_failure_of_its_rank(ranks):
    (ranks.images / "a" / "0000.png").write_bytes(b"no image")

    code, said = ranks.run("--on-error", "skip")

    assert code == 0, said
    assert "set aside" in said
    assert len(ranks.done()) == 39


def ranks_of(pid):
    """The processes that torchrun has started, as soon as both are there."""
    until = time.monotonic() + LIMIT
    while len(found := children(pid)) < 2:
        assert time.monotonic() < until
        time.sleep(0.01)
    return found
