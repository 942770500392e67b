"""kill -9 of a training at any moment: what goes on ends bit for bit where it would have ended."""

import json
import random
import signal
import subprocess
import sys
import time

import pytest
from faults.conftest import LIMIT
from safetensors import safe_open

from simgan_aug.testing import write_pair

FAST = """
[refiner]
features = 8
blocks = 1
noise_channels = 1
[discriminator]
features = 8
spectral = true
[tone]
photos = 2
[data]
crop = [16, 16]
[training]
steps = 60
student_steps = 30
batch_size = 4
accumulate = 2
history = 8
refiner_warmup = 3
discriminator_warmup = 2
"""

COMMAND = """
import os, signal, sys
import simgan_aug.run
from simgan_aug import checkpoint
from simgan_aug.cli import main

simgan_aug.run.SAVE_EVERY = 5
save, kill_at = checkpoint.save_checkpoint, int(sys.argv.pop(1))

def save_or_die(path, saved):
    if saved.provenance["steps"] == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    save(path, saved)

checkpoint.save_checkpoint = save_or_die
code = main(sys.argv[1:])
assert not {"lightning", "lightning_fabric"} & set(sys.modules), "one process needs no Lightning"
sys.exit(code)
"""
"""`simgan-aug train` that saves often, and may die when the state is saved and the refiner not."""


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Images of both sides and a config, in the working folder."""
    monkeypatch.chdir(tmp_path)
    write_pair(tmp_path)
    (tmp_path / "fast.toml").write_text(FAST)
    return tmp_path


def start(out, kill_at=0):
    """Begin a training in a process of its own, or go on with it."""
    begun = ["--synthetic", "synthetic.json", "--real", "real", "--config", "fast.toml"]
    options = ["--resume"] if (out / "run.json").exists() else begun
    words = ["train", *options, "--device", "cpu", "--out", str(out)]
    command = [sys.executable, "-c", COMMAND, str(kill_at), *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, **pipes)


def saved(out):
    """The step of the last save; 0: none."""
    if not (out / "state.safetensors").exists():
        return 0
    with safe_open(out / "state.safetensors", "pt") as file:
        return json.loads(file.metadata()["simgan_aug_state"])["step"]


def test_a_killed_and_resumed_training_equals_an_uninterrupted_one_bit_for_bit(data):
    whole, parts = data / "whole", data / "parts"
    undisturbed, draw, kills = start(whole), random.Random(0), 0
    for share in (0.2, 0.5, 0.8):
        process, until = start(parts, kill_at=35 if share == 0.5 else 0), time.monotonic() + LIMIT
        while saved(parts) < 95 * share and process.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.05))
        process.kill()
        process.communicate()
        kills += process.returncode == -signal.SIGKILL

    (rest, _), (said, _) = start(parts).communicate(timeout=LIMIT), undisturbed.communicate()

    assert undisturbed.returncode == 0, said
    assert kills == 3
    assert saved(whole) == saved(parts) == 95, rest
    for file in ("refiner.safetensors", "teacher.safetensors", "state.safetensors"):
        assert (whole / file).read_bytes() == (parts / file).read_bytes(), file
