"""A refiner as transforms hold it: light, the same pixels wherever it travels, opened once."""

import copy
import multiprocessing
import os
import pickle
import resource
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from simgan_aug import plugins
from simgan_aug import shared as shared_module
from simgan_aug.checkpoint import load, save_checkpoint
from simgan_aug.errors import CheckpointError, ConfigError
from simgan_aug.inference import ImageRefiner
from simgan_aug.shared import SharedRefiner, as_refiner

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@pytest.fixture
def loads(monkeypatch):
    """The devices that refiners have been opened on."""
    seen, original = [], ImageRefiner.load.__func__

    def counting(cls, path, device="auto", *arguments, **options):
        seen.append(str(device))
        return original(cls, path, device, *arguments, **options)

    monkeypatch.setattr(ImageRefiner, "load", classmethod(counting))
    return seen


@pytest.fixture
def computed(monkeypatch):
    """How many images have been refined and not found in a cache."""
    seen, original = [], ImageRefiner._refine

    def counting(self, image, *arguments, **options):
        seen.append(1 if image.ndim < 4 else len(image))
        return original(self, image, *arguments, **options)

    monkeypatch.setattr(ImageRefiner, "_refine", counting)
    return seen


def other_weights(source, path):
    """A refiner file with weights of its own."""
    checkpoint = load(source)
    torch.manual_seed(1)
    nn.init.normal_(checkpoint.network.head.weight, std=0.3)
    save_checkpoint(path, checkpoint)
    return path


def entries(folder):
    return sorted(path for path in Path(folder).rglob("*") if path.is_file())


def spaces(folder):
    return {path.parents[1].name for path in entries(folder)}


@pytest.mark.parametrize("as_path", [str, Path])
def test_it_refines_as_an_image_refiner_does(refiner_file, image, as_path):
    batch, opened = np.stack([image, image]), ImageRefiner.load(refiner_file, device="cpu")
    options = {"seed": [3, 4], "strength": [0.5, 1], "channel_order": "bgr"}

    refined = SharedRefiner(as_path(refiner_file), device="cpu")(batch, **options)

    assert np.array_equal(refined, opened(batch, **options))
    assert not np.array_equal(refined, opened(batch))


# Opened lazily, once a process.


def test_it_is_opened_at_the_first_call_and_not_before(refiner_file, image, loads):
    refiner = SharedRefiner(refiner_file, device="cpu")

    before = len(loads)
    refiner(image)
    refiner(image)

    assert (before, len(loads)) == (0, 1)


def test_many_of_one_file_open_it_once(refiner_file, image, loads):
    first, second = (SharedRefiner(refiner_file, device="cpu") for _ in range(2))
    copies = [first, second, copy.deepcopy(first), pickle.loads(pickle.dumps(second))]

    refined = [refiner(image) for refiner in copies]

    assert len(loads) == 1
    assert all(np.array_equal(each, refined[0]) for each in refined)


def test_two_precisions_are_two_refiners(refiner_file, image, loads):
    for precision in ("fp32", "bf16", "fp32"):
        SharedRefiner(refiner_file, device="cpu", precision=precision)(image)

    assert len(loads) == 2


def test_a_file_that_is_rewritten_is_opened_anew_by_who_comes_next(refiner_file, image):
    earlier = SharedRefiner(refiner_file, device="cpu")
    before = earlier(image)
    other_weights(refiner_file, refiner_file)

    later = SharedRefiner(refiner_file, device="cpu")

    assert np.array_equal(later(image), ImageRefiner.load(refiner_file, device="cpu")(image))
    assert not np.array_equal(later(image), before)
    assert np.array_equal(earlier(image), before)  # a run does not change its weights midway


# It travels.


@pytest.mark.parametrize("used", [False, True])
def test_what_travels_is_a_name_and_no_weights(refiner_file, image, used, tmp_path):
    refiner = SharedRefiner(refiner_file, device="cpu", cache=tmp_path / "cache")
    if used:
        refiner(image)

    pickled = pickle.dumps(refiner)

    assert len(pickled) < 1000
    assert b"torch._" not in pickled  # where all tensors come from
    assert refiner_file.name.encode() in pickled


def refine_and_send(refiner, image, pipe):
    pipe.send(refiner(image, seed=5))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_another_process_gets_the_same_pixels(refiner_file, image, method):
    context, refiner = multiprocessing.get_context(method), SharedRefiner(refiner_file)
    expected = refiner(image, seed=5)
    here, there = context.Pipe()

    process = context.Process(target=refine_and_send, args=(refiner, image, there))
    process.start()
    there.close()
    refined = here.recv()
    process.join()

    assert process.exitcode == 0
    assert np.array_equal(refined, expected)


class Refined(Dataset):
    def __init__(self, refiner, image):
        self.refiner, self.image = refiner, image

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.refiner(self.image, seed=5), torch.cuda.is_initialized()


def in_worker(refiner, image, method):
    dataset = Refined(refiner, image)
    loader = DataLoader(dataset, None, num_workers=1, multiprocessing_context=method)
    return next(iter(loader))


@pytest.mark.timeout(60)
def test_a_worker_of_a_loader_gets_the_same_pixels(refiner_file, image):
    expected = SharedRefiner(refiner_file, device="cpu")(image, seed=5)

    refined, _ = in_worker(SharedRefiner(refiner_file), image, "fork")

    assert np.array_equal(refined, expected)


@pytest.mark.gpu
@pytest.mark.timeout(120)
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_worker_of_a_loader_leaves_the_gpu_alone(refiner_file, image, method):
    refiner = SharedRefiner(refiner_file, precision="fp32")
    refiner(image)  # CUDA has begun here

    refined, began = in_worker(refiner, image, method)

    assert not began
    assert np.array_equal(
        refined, ImageRefiner.load(refiner_file, device="cpu", precision="fp32")(image, seed=5)
    )


def test_a_relative_path_is_that_of_the_folder_it_was_given_in(
    refiner_file, image, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    refiner = SharedRefiner(refiner_file.name, device="cpu", cache="cache")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    refined = refiner(image)

    assert np.array_equal(refined, ImageRefiner.load(refiner_file, device="cpu")(image))
    assert entries(tmp_path / "cache")
    assert not entries(tmp_path / "elsewhere")


# After a fork.


def answer_of_a_fork(function):
    """What a function raises in a forked process."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            function()
            said = "nothing"
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        return pipe.read()


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_cuda_after_a_fork_is_an_error_with_the_two_ways_out(refiner_file, image, device):
    refiner = SharedRefiner(refiner_file, device=device)

    said = answer_of_a_fork(lambda: refiner(image))

    # Before CUDA is asked: without a GPU it would have said that there is none.
    assert said.startswith("ConfigError: ")
    assert "in a forked worker, where CUDA cannot be used" in said
    assert "simgan_aug.data.RefinedLoader" in said
    assert "multiprocessing_context='spawn'" in said


@pytest.mark.gpu
def test_one_that_is_made_after_the_fork_of_a_process_with_cuda_is_the_same_error(
    refiner_file, image
):
    torch.zeros(1, device="cuda")  # CUDA has begun here

    said = answer_of_a_fork(lambda: SharedRefiner(refiner_file, device="cuda")(image))

    assert said.startswith("ConfigError: ")
    assert "in a forked worker, where CUDA cannot be used" in said


def test_the_cpu_after_a_fork_is_no_error(refiner_file, image):
    for device in ("cpu", "auto") if not torch.cuda.is_available() else ("cpu",):
        refiner = SharedRefiner(refiner_file, device=device)

        assert answer_of_a_fork(lambda refiner=refiner: refiner(image)) == "nothing"


FORKS = """
    import multiprocessing, sys
    import numpy as np
    import torch
    from simgan_aug.inference import ImageRefiner
    from simgan_aug.shared import SharedRefiner

    def send(pipe, refine):
        pipe.send(refine(image))

    torch.set_num_threads(2)
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    refiner = SharedRefiner(sys.argv[1], device="cpu")
    expected = refiner(image)
    opened = ImageRefiner.load(sys.argv[1], device="cpu")
    context = multiprocessing.get_context("fork")

    def refined_by(target, *arguments):
        here, there = context.Pipe()
        process = context.Process(target=target, args=(there, *arguments), daemon=True)
        process.start()
        return here.recv() if here.poll(15) else None

    with context.Pool(1) as pool:
        pickled = pool.apply_async(refiner, (image,))
        pickled.wait(15)
        answers = {
            "held": refined_by(send, refiner),
            "made": refined_by(send, lambda image: SharedRefiner(sys.argv[1], device="cpu")(image)),
            "pickled": pickled.get() if pickled.ready() else None,
            "open": refined_by(send, opened),
        }
    for name, answer in answers.items():
        print(name, answer is not None and np.array_equal(answer, expected))
    print("threads", torch.get_num_threads())
"""


@pytest.mark.timeout(90)
def test_a_process_forked_from_one_with_threads_refines_and_does_not_hang(refiner_file):
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FORKS), str(refiner_file)],
        capture_output=True,
        text=True,
        timeout=80,
        check=True,
    )

    answers = [f"{name} True" for name in ("held", "made", "pickled", "open")]
    assert ran.stdout.splitlines() == [*answers, "threads 2"]


# Devices.


def test_a_device_that_is_not_here_is_an_error_at_the_call_and_not_before(refiner_file, image):
    refiner = SharedRefiner(refiner_file, device="cuda:99")

    with pytest.raises(ConfigError, match="no device 'cuda:99' here"):
        refiner(image)


@NO_GPU
def test_without_a_gpu_cuda_is_an_error_at_the_call_and_not_before(refiner_file, image):
    refiner = SharedRefiner(refiner_file, device="cuda")

    with pytest.raises(ConfigError, match="no device 'cuda' here"):
        refiner(image)


@pytest.mark.parametrize("form", [lambda image: image, lambda image: [image], lambda i: i[None]])
def test_auto_is_the_device_of_a_tensor_that_is_not_on_the_cpu(refiner_file, loads, form):
    images = form(torch.zeros(3, 4, 5, device="meta"))  # as a GPU: not on the CPU

    with pytest.raises(ConfigError, match="no device 'meta' here"):
        SharedRefiner(refiner_file)(images)

    assert loads == []


@pytest.mark.gpu
def test_auto_gives_a_tensor_back_where_it_was(refiner_file):
    for device in (torch.device("cuda:0"), torch.device("cpu")):
        refined = SharedRefiner(refiner_file)(torch.zeros(3, 4, 5, device=device))

        assert refined.device == device


# Mistakes that are heard of at once.


@pytest.mark.parametrize("device", ["gpu", "", "cuda:x", "cuda:-3", None, 1.5])
def test_a_device_that_is_none_is_an_error_that_shows_some(refiner_file, device):
    with pytest.raises(ConfigError, match=rf"no device is named {device!r}; take 'auto', 'cpu'"):
        SharedRefiner(refiner_file, device=device)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"precision": "fp8"}, "precision must be .*got 'fp8'"),
        ({"cache": "memory", "cache_mb": 0}, "cache_mb must be 1 or more, got 0"),
    ],
)
def test_an_impossible_setting_is_an_error_that_names_it(refiner_file, options, said):
    with pytest.raises(ConfigError, match=said):
        SharedRefiner(refiner_file, **options)


def torn(path):
    path.write_bytes(path.read_bytes()[:-9])
    return path


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda path: path.with_name("missing.safetensors"), "missing.safetensors: no such file"),
        (torn, "not a readable .safetensors file"),
        (lambda path: path.parent.parent, "no such file"),
        (lambda path: "night", "no refiner 'night': it is neither a file nor a name"),
        (lambda path: "unshuffle", "'unshuffle' is a network without weights.*simgan-aug train"),
    ],
    ids=["missing", "torn", "folder", "unknown name", "network"],
)
def test_a_refiner_that_cannot_be_used_is_an_error_at_once(refiner_file, given, said):
    with pytest.raises(CheckpointError, match=said):
        SharedRefiner(given(refiner_file))


def test_a_file_that_has_gone_since_is_an_error_at_the_call(refiner_file, image):
    refiner = SharedRefiner(refiner_file, device="cpu")
    refiner_file.unlink()

    with pytest.raises(CheckpointError, match="no such file"):
        refiner(image)


# Its cache.


@pytest.mark.parametrize("cache", ["memory", "folder"])
def test_a_cache_gives_the_same_pixels_and_is_shared_by_all_of_one_file(
    refiner_file, image, tmp_path, computed, cache
):
    cache = cache if cache == "memory" else tmp_path / cache
    plain = SharedRefiner(refiner_file, device="cpu")(image, seed=5)
    computed.clear()

    refined = [
        SharedRefiner(refiner_file, device="cpu", cache=cache)(image, seed=5) for _ in range(2)
    ]

    assert computed == [1]
    assert all(np.array_equal(each, plain) for each in refined)


def test_a_cache_holds_no_more_than_it_may(refiner_file, tmp_path):
    refiner = SharedRefiner(refiner_file, device="cpu", cache=tmp_path / "cache", cache_mb=1)

    refiner(np.zeros((5, 300, 300, 3), np.uint8))  # 270 kB each

    assert len(entries(tmp_path / "cache")) == 3


def test_a_folder_that_cannot_be_one_is_an_error_that_names_it(refiner_file, image, tmp_path):
    (tmp_path / "cache").write_text("kept")
    refiner = SharedRefiner(refiner_file, device="cpu", cache=tmp_path / "cache")

    with pytest.raises(ConfigError, match=f"cache {tmp_path / 'cache'}: cannot be made"):
        refiner(image)


def test_the_same_weights_under_another_name_find_the_same_entries(
    refiner_file, image, tmp_path, computed
):
    twin = shutil.copy(refiner_file, tmp_path / "twin.safetensors")

    for path in (refiner_file, twin):
        SharedRefiner(path, device="cpu", cache=tmp_path / "cache")(image)

    assert computed == [1]


def test_other_weights_find_nothing_of_these(refiner_file, image, tmp_path):
    other = other_weights(refiner_file, tmp_path / "other.safetensors")

    refined = [
        SharedRefiner(path, device="cpu", cache=tmp_path / "cache")(image)
        for path in (refiner_file, other)
    ]

    assert len(spaces(tmp_path / "cache")) == 2
    assert np.array_equal(refined[1], ImageRefiner.load(other, device="cpu")(image))
    assert not np.array_equal(*refined)


def test_another_precision_finds_nothing_of_this(refiner_file, image, tmp_path):
    for precision in ("fp32", "bf16"):
        options = {"precision": precision, "cache": tmp_path / "cache"}
        SharedRefiner(refiner_file, device="cpu", **options)(image)

    assert len(spaces(tmp_path / "cache")) == 2


@pytest.mark.parametrize(
    ("place", "attribute"),
    [(shared_module, "version"), (plugins, "provider")],
    ids=["ours", "the network's"],
)
def test_another_version_of_the_code_finds_nothing_of_this(
    refiner_file, image, tmp_path, monkeypatch, place, attribute
):
    later = shutil.copy(refiner_file, tmp_path / "later.safetensors")

    SharedRefiner(refiner_file, device="cpu", cache=tmp_path / "cache")(image)
    monkeypatch.setattr(place, attribute, lambda *_: ("simgan_aug", "99.0"))
    SharedRefiner(later, device="cpu", cache=tmp_path / "cache")(image)

    assert len(spaces(tmp_path / "cache")) == 2


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
def test_a_device_is_torchs_own_or_its_name(refiner_file, image, device):
    refiner = SharedRefiner(refiner_file, device=device)

    assert refiner.device == "cpu"
    assert refiner(image).shape == image.shape


def test_a_refiner_in_the_home_folder_is_found(refiner_file, image, monkeypatch):
    monkeypatch.setenv("HOME", str(Path(refiner_file).parent))

    assert SharedRefiner(f"~/{Path(refiner_file).name}", device="cpu")(image).shape == image.shape


# What a transform is given.


def test_a_name_becomes_a_shared_refiner_with_the_options(refiner_file, tmp_path):
    options = {"device": "cpu", "precision": "fp32", "cache": str(tmp_path), "cache_mb": 7}

    refiner = as_refiner(str(refiner_file), **options)

    assert isinstance(refiner, SharedRefiner)
    assert {name: getattr(refiner, name) for name in options} == options


def test_a_refiner_that_is_open_is_taken_as_it_is(refiner_file):
    opened = ImageRefiner.load(refiner_file, device="cpu")
    left_out = {"device": "auto", "precision": "auto", "cache": None, "cache_mb": 4096}

    assert as_refiner(opened) is opened
    assert as_refiner(opened, **left_out) is opened


@pytest.mark.parametrize(
    ("option", "value"),
    [("device", "cuda"), ("precision", "bf16"), ("cache", "memory"), ("cache_mb", 1)],
)
def test_an_option_for_a_refiner_that_is_open_is_an_error_that_names_it(
    refiner_file, option, value
):
    opened = ImageRefiner.load(refiner_file, device="cpu")

    with pytest.raises(ConfigError, match=f"^{option} goes with a refiner given by its file"):
        as_refiner(opened, **{option: value})


@pytest.mark.parametrize("thing", [None, 7, ["refiner.safetensors"]])
def test_what_can_be_no_refiner_is_an_error_that_names_its_type(thing):
    with pytest.raises(ConfigError, match=f"an ImageRefiner, got {type(thing).__name__}"):
        as_refiner(thing)


def test_a_bare_network_is_an_error_that_shows_how_to_wrap_it(refiner_file):
    with pytest.raises(ConfigError, match=r"wrap it: ImageRefiner\(network, channels\)"):
        as_refiner(load(refiner_file).network)


class Faults(Dataset):
    """How many pages the system has had to hand out for each image."""

    def __init__(self, refiner, count=6):
        self.refiner, self.count = refiner, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        self.refiner(np.zeros((480, 640, 3), np.uint8))
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
@pytest.mark.timeout(60)
def test_a_worker_keeps_its_memory_for_the_next_image(refiner_file):
    loader = DataLoader(Faults(SharedRefiner(refiner_file)), None, num_workers=1)

    faults = [int(count) for count in loader]

    assert min(faults[2:]) < 500  # of 4 KiB; one image in float32 alone is 900
