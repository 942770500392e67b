"""What several test files share."""

import subprocess

import numpy as np
import pytest
import torch

from simgan_aug.checkpoint import Checkpoint, save_checkpoint
from simgan_aug.config import Config, Part, Tone
from simgan_aug.networks import UnshuffleRefiner

# Several test processes share the cores; more threads would only wait for each other.
torch.set_num_threads(1)


@pytest.fixture
def image():
    """A small RGB image, (12, 20, 3) uint8."""
    return np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)


@pytest.fixture
def refiner_file(tmp_path):
    """A refiner with random weights that changes every image, as a checkpoint."""
    options = {"features": 8, "blocks": 1}
    torch.manual_seed(0)
    network = UnshuffleRefiner(3, **options)
    torch.nn.init.normal_(network.head.weight, std=0.2)
    config = Config(refiner=Part(name="unshuffle", options=options), tone=Tone(photos=0))
    path = tmp_path / "refiner.safetensors"
    save_checkpoint(path, Checkpoint(network, 3, None, config, {"steps": 1}))
    return path


@pytest.fixture
def small_disk(tmp_path):
    """A disk of a few KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
