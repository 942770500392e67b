"""What runs the network: the same pixels but for rounding, named and never guessed, fork-safe."""

import contextlib
import copy
import importlib.util
import pickle
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from simgan_aug import shared
from simgan_aug.backends import NAMES, backend_of
from simgan_aug.backends import openvino as openvino_module
from simgan_aug.bank import Bank
from simgan_aug.errors import ConfigError, DependencyError
from simgan_aug.inference import ImageRefiner
from simgan_aug.networks import ResNetRefiner, UnshuffleRefiner
from simgan_aug.shared import SharedRefiner, as_refiner

NEEDS_OPENVINO = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None,
    reason="OpenVINO is not installed",
)
NEEDS_AMX = pytest.mark.skipif(not openvino_module.has_amx(), reason="this CPU has no AMX")

NETWORKS = {
    "unshuffle2": lambda: UnshuffleRefiner(3, 2, 8, 1),
    "unshuffle4": lambda: UnshuffleRefiner(3, 4, 8, 1, noise_channels=2, max_change=30),
    "quiet": lambda: UnshuffleRefiner(3, 2, 8, 1, noise_channels=0),
    "pixels": lambda: UnshuffleRefiner(3, 4, 8, 1, pixel_features=4),
    "toned": lambda: UnshuffleRefiner(3, 2, 8, 1, takes_reference=True),
    "paper": lambda: ResNetRefiner(3, features=8, blocks=1),
}


def awake(form):
    """A network that changes what it sees."""
    torch.manual_seed(0)
    network = NETWORKS[form]()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.05)
    return network


def refining(network, **options):
    bank = Bank(torch.rand(4, 3, 64, generator=torch.Generator().manual_seed(0)).sort().values)
    return ImageRefiner(network, 3, bank, "never", **{"precision": "fp32"} | options)


def photo(height=37, width=46, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def apart(one, other):
    return np.abs(one.astype(int) - other).max()


@contextlib.contextmanager
def host(wish):
    """A host that has set what new tensors are, or that computes in half of the bits."""
    if wish == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            yield
        return
    before = torch.get_default_dtype()
    if isinstance(wish, torch.dtype):
        torch.set_default_dtype(wish)
    else:
        torch.set_default_device(wish)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
        torch.set_default_device(None)


@NEEDS_OPENVINO
@pytest.mark.parametrize("form", ["pixels", "paper"])
@pytest.mark.parametrize("wish", ["autocast", torch.bfloat16, torch.float64, "meta"], ids=str)
def test_what_a_host_has_set_goes_into_no_graph_of_openvino(wish, form):
    network, image = awake(form), photo()
    expected = refining(network, backend="openvino")(image, seed=3)
    refine = refining(network, backend="openvino")

    with host(wish):
        refined = refine(image, seed=3)

    assert np.array_equal(refined, expected)


@NEEDS_OPENVINO
@pytest.mark.parametrize("size", [(1, 1), (9, 7), (37, 46)])
@pytest.mark.parametrize("form", NETWORKS)
def test_openvino_gives_torchs_image_within_a_grey_level(form, size):
    network, image = awake(form), photo(*size)
    expected = refining(network, device="cpu")(image, seed=3)

    refined = refining(network, backend="openvino")(image, seed=3)

    assert apart(expected, image) > 1
    assert apart(refined, expected) <= 1


@NEEDS_OPENVINO
@NEEDS_AMX
@pytest.mark.parametrize("form", NETWORKS)
def test_half_the_bits_in_openvino_are_within_a_grey_level_too(form):
    network, image = awake(form), photo()
    expected = refining(network, device="cpu")(image)

    refined = refining(network, backend="openvino", precision="bf16")(image)

    assert apart(refined, expected) <= 1


@NEEDS_OPENVINO
def test_an_untrained_refiner_is_the_identity_in_openvino():
    image = photo()

    assert np.array_equal(ImageRefiner(UnshuffleRefiner(3), 3, backend="openvino")(image), image)


@NEEDS_OPENVINO
def test_a_batch_in_openvino_is_its_images_one_by_one():
    refine = refining(awake("toned"), backend="openvino")
    batch = np.stack([photo(seed=seed) for seed in range(3)])

    together = refine(batch, seed=[5, 6, 7])

    alone = [refine(image, seed=seed) for image, seed in zip(batch, [5, 6, 7], strict=True)]
    assert np.array_equal(together, np.stack(alone))


@NEEDS_OPENVINO
def test_tiles_in_openvino_are_the_whole():
    network = awake("unshuffle2")
    network.bytes_per_pixel = 2**9  # 2048 px in a MiB

    tiled = refining(network, backend="openvino", max_workspace_mb=1)(photo(90, 70))

    assert apart(tiled, refining(network, backend="openvino")(photo(90, 70))) <= 1


@NEEDS_OPENVINO
def test_a_few_sizes_are_kept_compiled_and_one_that_was_dropped_comes_out_alike():
    refine = refining(awake("unshuffle2"), backend="openvino")
    images = [photo(20 + number, 30) for number in range(openvino_module.SIZES + 2)]
    first = [refine(image) for image in images]

    again = [refine(image) for image in images]

    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
    (session,) = refine.backend._sessions.values()
    assert session._request.cache_info().currsize == openvino_module.SIZES


@NEEDS_OPENVINO
@pytest.mark.parametrize(
    "travel", [copy.deepcopy, lambda refine: pickle.loads(pickle.dumps(refine))]
)
def test_what_is_compiled_stays_and_the_rest_travels(travel):
    refine, image = refining(awake("unshuffle2"), backend="openvino"), photo()
    expected = refine(image)

    arrived = travel(refine)

    assert not arrived.backend._sessions
    assert refine.backend._sessions
    assert np.array_equal(arrived(image), expected)


class Refined(Dataset):
    def __init__(self, refine):
        self.refine = refine

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return self.refine(photo(seed=index), seed=index)


@NEEDS_OPENVINO
@pytest.mark.timeout(120)
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_begun_after_use_refine_as_their_parent_did(refiner_file, method):
    refine = as_refiner(refiner_file, backend="openvino")
    expected = [refine(photo(seed=index), seed=index) for index in range(4)]

    loader = DataLoader(
        Refined(refine), None, num_workers=2, multiprocessing_context=method, timeout=60
    )

    assert all(np.array_equal(one, other) for one, other in zip(loader, expected, strict=True))


def said_by(script, refiner_file):
    """What a process of its own prints, whose argument is the file."""
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(refiner_file)],
        capture_output=True,
        text=True,
        check=True,
    )
    return ran.stdout


@NEEDS_OPENVINO
@pytest.mark.timeout(60)
def test_a_process_forked_after_use_with_threads_refines_and_does_not_hang(refiner_file):
    script = """
        import os, signal, sys
        import numpy as np
        import torch
        from simgan_aug.shared import SharedRefiner

        torch.set_num_threads(2)
        image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
        refine = SharedRefiner(sys.argv[1], backend="openvino")
        expected = refine(image)
        child = os.fork()
        if not child:
            signal.alarm(30)
            os._exit(0 if np.array_equal(refine(image), expected) else 1)
        print(os.waitpid(child, 0)[1])
    """

    assert said_by(script, refiner_file) == "0\n"


@NEEDS_OPENVINO
@pytest.mark.timeout(90)
def test_a_forked_process_does_not_wait_for_what_its_parent_compiled(refiner_file):
    script = """
        import gc, os, signal, sys
        import numpy as np
        from simgan_aug.inference import ImageRefiner

        gc.disable()
        image = np.zeros((32, 32, 3), dtype=np.uint8)
        dropped, held = (ImageRefiner.load(sys.argv[1], backend="openvino") for _ in "12")
        dropped(image), held(image)
        del dropped  # what it compiled waits to be collected
        if not os.fork():
            signal.alarm(40)
            del held
            gc.collect()
            os._exit(0)
        print(os.wait()[1])
    """

    assert said_by(script, refiner_file) == "0\n"


# Chosen by name, told apart by a cache.


def test_the_default_is_torch_whatever_is_installed(refiner_file):
    assert ImageRefiner.load(refiner_file, "cpu").backend.identity.startswith("torch ")


@NEEDS_OPENVINO
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # of torch's compiler
def test_a_cache_keeps_backends_and_precisions_apart(refiner_file):
    ways = [("torch", "fp32"), ("torch-compile", "fp32"), ("openvino", "fp32"), ("torch", "bf16")]

    spaces = {
        shared._space(
            refiner_file, ImageRefiner.load(refiner_file, "cpu", precision=how, backend=what)
        )
        for what, how in ways
    }

    assert len(spaces) == len(ways)


@pytest.mark.parametrize("wanted", ["opnevino", "onnx", "", "tensorrt"])
def test_an_unknown_backend_is_an_error_that_lists_the_known(refiner_file, wanted):
    with pytest.raises(ConfigError, match=rf"no backend '{wanted}' \(known: openvino, torch"):
        SharedRefiner(refiner_file, backend=wanted)


def test_a_gpu_is_for_torch_alone(refiner_file):
    with pytest.raises(ConfigError, match="openvino refines on the CPU, not on cuda"):
        SharedRefiner(refiner_file, device="cuda", backend="openvino")


@NEEDS_OPENVINO
def test_half_the_bits_without_their_units_are_refused(monkeypatch):
    monkeypatch.setattr(openvino_module, "has_amx", lambda: False)

    with pytest.raises(ConfigError, match="needs a CPU with AMX"):
        backend_of("openvino", UnshuffleRefiner(3), precision="bf16")


@pytest.mark.parametrize("name", NAMES)
def test_eight_bits_are_refused_where_nothing_is_calibrated(name):
    with pytest.raises(ConfigError, match=r"precision must be .*got 'int8'"):
        backend_of(name, UnshuffleRefiner(3), "cpu", "int8")


def test_without_openvino_the_way_to_get_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)

    with pytest.raises(DependencyError, match=r"pip install 'simgan-aug\[openvino\]'"):
        backend_of("openvino", UnshuffleRefiner(3))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_compiled_torch_gives_the_image_within_a_grey_level():
    network, image = awake("toned"), photo()
    expected = refining(network, device="cpu")(image)

    assert apart(refining(network, device="cpu", backend="torch-compile")(image), expected) <= 1
