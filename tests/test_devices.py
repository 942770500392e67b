"""What "auto" means, and what is said where a wish cannot be met."""

import multiprocessing
import os
import threading
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from simgan_aug.devices import plain_defaults, resolve_device, resolve_precision
from simgan_aug.errors import ConfigError


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "meta"])
def test_an_unknown_device_is_an_error_that_shows_known_ones(name):
    with pytest.raises(ConfigError, match=f"{name!r} here.*'cpu'"):
        resolve_device(name)


@pytest.mark.parametrize("wanted", ["cpu", torch.device("cpu")])
def test_the_cpu_may_be_asked_for_by_name_or_as_a_device(wanted):
    assert resolve_device(wanted) == torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_auto_is_the_cpu_and_cuda_an_error():
    assert resolve_device("auto") == torch.device("cpu")
    with pytest.raises(ConfigError, match="no device 'cuda' here"):
        resolve_device("cuda")


class Resolved(Dataset):
    """What "auto" is in the process that asks."""

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return str(resolve_device("auto"))


@pytest.mark.gpu
def test_auto_is_the_gpu_but_the_cpu_in_a_worker():
    for method in ("fork", "spawn"):
        loader = DataLoader(Resolved(), None, num_workers=1, multiprocessing_context=method)

        assert list(loader) == ["cpu"]
    assert resolve_device("auto") == torch.device("cuda")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_fork_beside_a_thread_that_opens_a_refiner_leaves_its_child_free_to_open_one():
    inside, begun = threading.Event(), threading.Event()

    def open_slowly():
        with plain_defaults():
            begun.set()
            inside.wait(0.5)

    thread = threading.Thread(target=open_slowly)
    thread.start()
    begun.wait()
    child = multiprocessing.get_context("fork").Process(target=plain_defaults().__enter__)
    child.start()
    thread.join()
    child.join(20)
    code = child.exitcode
    child.kill()

    assert code == 0


def test_precision_is_a_wish_that_only_auto_leaves_to_the_device():
    cpu = torch.device("cpu")

    assert [resolve_precision(wish, cpu) for wish in ("fp32", "bf16")] == ["fp32", "bf16"]
    assert resolve_precision("auto", cpu) in ("fp32", "bf16")


@pytest.mark.parametrize(
    ("capability", "precision"), [((7, 0), "fp32"), ((7, 5), "fp32"), ((8, 0), "bf16")]
)
def test_auto_is_half_the_bits_on_a_gpu_only_where_it_has_units_for_them(
    monkeypatch, capability, precision
):
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: capability)
    monkeypatch.setattr("torch.version.hip", None)

    assert resolve_precision("auto", torch.device("cuda", 1)) == precision
    assert resolve_precision("bf16", torch.device("cuda", 1)) == "bf16"


@pytest.mark.skipif(
    not (Path("/proc/cpuinfo").exists() and hasattr(torch.cpu, "get_capabilities")),
    reason="only Linux, and only a newer torch, says what a CPU can do",
)
def test_auto_is_half_the_bits_on_a_cpu_only_where_it_has_units_for_them():
    has_units = "amx_bf16" in Path("/proc/cpuinfo").read_text()

    assert (resolve_precision("auto", torch.device("cpu")) == "bf16") == has_units


@pytest.mark.parametrize("wish", ["fp8", "", None, 16])
def test_another_precision_is_an_error_that_names_the_known_ones(wish):
    with pytest.raises(ConfigError, match=f"'auto', 'fp32' or 'bf16', got {wish!r}"):
        resolve_precision(wish, torch.device("cpu"))
