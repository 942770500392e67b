"""Real ranks, started by torchrun: together they train as one process does, and none hangs."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from faults.conftest import LIMIT, children
from plugged import plugged
from safetensors.torch import load_file

from simgan_aug.checkpoint import load_state
from simgan_aug.cli import main
from simgan_aug.configfile import load_config
from simgan_aug.run import Inputs, Run
from simgan_aug.testing import write_pair

FAST = """
preset = "wide"
[refiner]
features = 8
blocks = 1
[discriminator]
features = 8
spectral = true
[tone]
photos = 2
[data]
crop = [16, 16]
[training]
steps = 100000
batch_size = 8
history = 16
precision = "fp32"
"""

TERM = """
import torch
from torch import nn
from simgan_aug import hookimpl

class Learned(nn.Module):
    def __init__(self):
        super().__init__()
        self.map = nn.Conv2d(3, 3, 1)

    def forward(self, refiner, refined, synthetic, weights):
        kept = nn.functional.dropout(self.map(refined) - synthetic, 0.5)
        return kept.abs().mean()

@hookimpl
def simgan_register_regularizations():
    return {"learned": Learned}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of both sides, and configs for two ranks and for one process with two shares."""
    made = tmp_path_factory.mktemp("ranks")
    write_pair(made)
    term = '\n[[regularization.terms]]\nname = "learned"\n'
    (made / "two.toml").write_text(FAST + term)
    (made / "one.toml").write_text(FAST + "accumulate = 2" + term)
    taught = FAST.replace("steps = 100000", "steps = 3\nstudent_steps = 6")
    (made / "taught-by-two.toml").write_text(taught)
    (made / "taught-by-one.toml").write_text(taught + "accumulate = 2")
    return made


@pytest.fixture(scope="module", autouse=True)
def installed(folder):
    """The folder's plugin is found, here and by torchrun's processes."""
    with plugged(folder, learned_term=TERM):
        yield


@pytest.fixture(scope="module")
def stopped(folder):
    """A training of two ranks that a signal to torchrun has ended: its folder, and what was said.

    Torchrun passes the signal on to its ranks, which a terminal would have sent it too.
    """
    process = start(*new(folder, "two"))
    until_it_trains(folder / "two", process)
    for pid in (*ranks_of(process), process.pid):
        os.kill(pid, signal.SIGINT)
    said, _ = process.communicate(timeout=LIMIT)
    return folder / "two", said


def new(folder, name):
    """The words that start a run; its folder and its config have one name."""
    sides = ["--synthetic", folder / "synthetic.json", "--real", folder / "real"]
    config = ["--config", folder / f"{name}.toml"]
    return [*map(str, ("train", *sides, *config, "--device", "cpu", "--out", folder / name))]


def more(out, steps):
    return [*map(str, ("train", "--resume", "--device", "cpu", "--out", out, "--steps", steps))]


def start(*words):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *torchrun, "-m", "simgan_aug.cli", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, **pipes, env=os.environ | {"OMP_NUM_THREADS": "1"})


def ranks_of(process):
    """The processes of the ranks, as soon as both are there."""
    until = time.monotonic() + LIMIT
    while len(found := children(process.pid)) < 2:
        assert time.monotonic() < until
        time.sleep(0.01)
    return found


def until_it_trains(out: Path, process):
    until = time.monotonic() + LIMIT
    while not (out / "metrics.jsonl").exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.01)


def step_of(out):
    return load_state(out / "state.safetensors")[1]["step"]


def apart(first, second):
    """How far two states are apart at most, whatever they hold."""
    first, second = (load_file(out / "state.safetensors") for out in (first, second))
    assert first.keys() == second.keys()
    assert first["history"].shape[0] == 2
    return max((first[name].double() - second[name].double()).abs().max().item() for name in first)


def test_a_signal_to_torchrun_ends_all_ranks_with_their_last_step_saved(stopped):
    out, said = stopped

    assert said.count(f"saved after step {step_of(out)}; go on with: simgan-aug train") == 1
    assert "GLOBAL_RANK" not in said
    assert step_of(out) % 200 > 0  # no save that was due anyway


def test_two_ranks_train_as_one_process_does_and_each_goes_on_with_the_others_run(stopped, folder):
    out, _ = stopped
    steps, one = step_of(out), folder / "one"
    sides = (str(folder / "synthetic.json"),), (), (str(folder / "real"),)
    run = Run(load_config(folder / "one.toml"), Inputs.of(*sides), one, device="cpu")

    for step in run.steps():
        if step.number == steps:
            break

    assert apart(one, out) < 1e-5
    assert "terms.trained.0.map.weight" in load_file(one / "state.safetensors")
    assert main(more(out, steps + 3)) == 0
    process = start(*more(one, steps + 3))
    said, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, said
    assert said.count(f"refiner: {one}/refiner.safetensors") == 1  # one rank speaks
    assert step_of(one) == step_of(out) == steps + 3
    assert apart(one, out) < 1e-5
    lines = [(each / "metrics.jsonl").read_text().splitlines() for each in (one, out)]
    assert [json.loads(line)["step"] for line in lines[0]][:1] == [1]
    assert len(lines[0]) == len(lines[1])


def test_two_ranks_teach_a_student_as_one_process_does(folder):
    process = start(*new(folder, "taught-by-two"))
    said, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, said

    assert main(new(folder, "taught-by-one")) == 0

    one, two = (folder / f"taught-by-{ranks}" for ranks in ("one", "two"))
    assert apart(one, two) < 1e-5
    assert (two / "teacher.safetensors").exists()


def test_a_lost_rank_ends_the_others_with_an_error(folder):
    (folder / "lost.toml").write_text(FAST)
    process = start(*new(folder, "lost"))
    until_it_trains(folder / "lost", process)

    os.kill(ranks_of(process)[1], signal.SIGKILL)
    said, _ = process.communicate(timeout=LIMIT)

    assert process.returncode == 1
    assert "error: another rank is lost" in said
