"""Real ranks, started by torchrun: together they train as one process does, and none hangs."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from faults.conftest import LIMIT, children
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from simgan_aug.cli import main

FAST = """
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
steps = {steps}
batch_size = 8
accumulate = {accumulate}
history = 16
precision = "fp32"
"""


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Synthetic and real images, in the working folder."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for side in ("synthetic", "real"):
        (tmp_path / side).mkdir()
        for number in range(4):
            pixels = rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / side / f"{number}.png")
    entries = [{"id": n, "file_name": f"{n}.png", "width": 24, "height": 20} for n in range(4)]
    (tmp_path / "synthetic.json").write_text(json.dumps({"images": entries, "annotations": []}))
    return tmp_path


def words(out, accumulate=1, steps=6):
    """A training, as options of the command."""
    config = f"{out}.toml"
    with open(config, "w") as file:
        file.write(FAST.format(accumulate=accumulate, steps=steps))
    where = ["--synthetic", "synthetic.json", "--real", "real", "--config", config]
    return ["train", *where, "--device", "cpu", "--out", out]


def start(*options, ranks=2):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    command = [sys.executable, *torchrun, "-m", "simgan_aug.cli", *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, **pipes, env=os.environ | {"OMP_NUM_THREADS": "1"})


def ranks_of(process):
    """The processes of the ranks, as soon as both are there."""
    until = time.monotonic() + LIMIT
    while len(found := children(process.pid)) < 2:
        assert time.monotonic() < until
        time.sleep(0.01)
    return found


def until_it_trains(out, process):
    until = time.monotonic() + LIMIT
    while not (out / "metrics.jsonl").exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.02)


def done(out):
    with safe_open(out / "state.safetensors", "pt") as file:
        return json.loads(file.metadata()["simgan_aug_state"])["step"]


def apart(first, second):
    """How far the states of two runs are apart at most."""
    first, second = (load_file(out / "state.safetensors") for out in (first, second))
    assert first.keys() == second.keys()
    return max((first[name].double() - second[name].double()).abs().max() for name in first)


def test_two_ranks_train_as_one_process_does_and_either_goes_on_with_the_others_run(data):
    assert main(words("one", accumulate=2)) == 0
    process = start(*words("two"))
    said, _ = process.communicate(timeout=LIMIT)

    assert process.returncode == 0, said
    assert said.count("refiner: two/refiner.safetensors") == 1  # one rank speaks
    assert apart(data / "one", data / "two") < 1e-6
    lines = [(data / out / "metrics.jsonl").read_text().splitlines() for out in ("one", "two")]
    assert [len(each) for each in lines] == [1, 1]
    assert main(["train", "--resume", "--out", "two", "--steps", "9"]) == 0
    process = start("train", "--resume", "--out", "one", "--steps", "9", "--device", "cpu")
    said, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, said
    assert apart(data / "one", data / "two") < 1e-6
