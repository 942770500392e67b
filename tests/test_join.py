"""Joining other ranks, as far as one process can tell; real ones: tests/faults."""

import sys

import pytest
import torch

from simgan_aug.errors import ConfigError, DependencyError
from simgan_aug.ranks import Ranks, join


@pytest.fixture
def launched(monkeypatch):
    """The environment of one of two ranks that torchrun has started on this machine."""
    for name, value in {"RANK": 1, "WORLD_SIZE": 2, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))


def test_without_torchrun_a_process_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)

    assert join("cuda:3") == Ranks(number=0, world=1, device=None)


def test_one_that_is_alone_has_nothing_to_do_with_others():
    value, alone = torch.ones(2), Ranks()

    alone.add([value])
    alone.agree("settings", "mine")

    assert alone.leads
    assert torch.equal(value, torch.ones(2))
    assert [each is value for each in alone.gather(value)] == [True]
    assert (alone.any(True), alone.any(False)) == (True, False)


def test_ranks_take_no_common_device(launched):
    with pytest.raises(ConfigError, match="of 2 ranks each takes a device of its own"):
        join("cuda:0")


def test_more_ranks_than_gpus_say_how_to_start_fewer(launched, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)

    with pytest.raises(ConfigError, match=r"2 ranks on this machine, but 1 GPUs.*--device cpu"):
        join("auto")


def test_ranks_without_lightning_say_what_to_install(launched, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)

    with pytest.raises(DependencyError, match=r"pip install 'simgan-aug\[distributed\]'"):
        join("cpu")


class Told(Ranks):
    """Rank 0 of two, the other of which says something else."""

    def gather(self, tensor):
        return [tensor, tensor + 1]


def test_ranks_that_do_not_agree_are_an_error_that_says_on_what():
    with pytest.raises(ConfigError, match="rank 1 has other settings than rank 0"):
        Told(number=0, world=2).agree("settings", "mine")
