"""A refiner file is trusted with nothing: it is whole, ours, of installed parts, or an error."""

import contextlib
import json
import os
import pickle
import struct
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from simgan_aug import plugins
from simgan_aug.bank import Bank
from simgan_aug.checkpoint import (
    Checkpoint,
    load,
    load_state,
    locate,
    save_checkpoint,
    save_state,
)
from simgan_aug.config import Config, Part, Tone
from simgan_aug.errors import CheckpointError, OutputError
from simgan_aug.inference import ImageRefiner
from simgan_aug.tone import QUANTILES

resource = pytest.importorskip("resource", reason="limits of a process, to fill a disk")

WEIGHT = "refiner.first.weight"
OPTIONS = {"features": 4, "blocks": 1}
SHARED_PATH = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def make_checkpoint(photos=3, refiner=None, network=None):
    refiner = refiner or Part(name="unshuffle", options=OPTIONS)
    torch.manual_seed(0)
    if network is None:
        network = plugins.build("refiner", refiner.name, channels=3, **refiner.options)
        nn.init.normal_(network.head.weight, std=0.1)
    bank = Bank(torch.rand(photos, 3, QUANTILES).sort().values, torch.rand(photos), 0.75)
    config = Config(refiner=refiner, tone=Tone(photos=photos))
    return Checkpoint(network, 3, bank if photos else None, config, {"steps": 7, "licence": "CC0"})


@pytest.fixture
def path(tmp_path):
    """A refiner file without a fault."""
    path = tmp_path / "refiner.safetensors"
    save_checkpoint(path, make_checkpoint())
    load(path)  # what torch imports at first use is imported now; see `rejected`
    return path


def contents(path, key="simgan_aug"):
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()[key])
        return header, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def forge(path, change_header=None, tensors=None, text=None):
    """Rewrite a file: its header by a function, some tensors, or all of the header's text."""
    header, kept = contents(path)
    if change_header:
        change_header(header)
    kept = {name: value for name, value in {**kept, **(tensors or {})}.items() if value is not None}
    text = json.dumps(header) if text is None else text
    path.write_bytes(save(kept, metadata={"simgan_aug": text}))


def rejected(path):
    """The message that loading fails with; nothing may be imported on the way."""
    before = set(sys.modules)
    with pytest.raises(CheckpointError) as caught:
        load(path)
    assert set(sys.modules) - before == set()
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


def test_what_is_saved_is_loaded(tmp_path):
    path, saved = tmp_path / "new folder" / "refiner.safetensors", make_checkpoint()

    save_checkpoint(path, saved)
    loaded = load(path)

    weights, expected = loaded.network.state_dict(), saved.network.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert torch.equal(loaded.bank.tones, saved.bank.tones)
    assert torch.equal(loaded.bank.bias, saved.bank.bias)
    assert loaded.bank.reach == 0.75
    assert (loaded.channels, loaded.config, loaded.provenance) == (
        saved.channels,
        saved.config,
        saved.provenance,
    )
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_refiner_without_a_tone_step_has_no_bank(tmp_path):
    path = tmp_path / "refiner.safetensors"
    save_checkpoint(path, make_checkpoint(photos=0))

    loaded = load(path)

    assert loaded.bank is None


def test_a_refiner_of_an_earlier_version_takes_any_tone(path):
    def forget(header):
        del header["config"]["tone"]["choice"], header["reach"]

    forge(path, forget, {"tone.bias": None})

    loaded = load(path)

    assert (loaded.bank.bias, loaded.bank.reach) == (None, 1)
    assert loaded.config.tone.choice == "any"


def test_the_refiner_carries_its_provenance(path):
    refiner = ImageRefiner.load(path, device="cpu")

    assert refiner.provenance == {"steps": 7, "licence": "CC0"}


def test_a_fresh_process_refines_to_the_same_bytes(path):
    image = np.random.default_rng(0).integers(0, 256, (21, 34, 3), dtype=np.uint8)
    here = ImageRefiner.load(path, device="cpu")(image, seed=3)
    script = """
        import sys
        import numpy as np, torch
        from simgan_aug import ImageRefiner
        torch.set_num_threads(int(sys.argv[2]))
        image = np.random.default_rng(0).integers(0, 256, (21, 34, 3), dtype=np.uint8)
        refined = ImageRefiner.load(sys.argv[1], device="cpu")(image, seed=3)
        sys.stdout.buffer.write(refined.tobytes())
    """

    there = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), path, str(torch.get_num_threads())],
        capture_output=True,
        check=True,
    )

    assert there.stdout == here.tobytes()
    assert not np.array_equal(here, image)


def test_the_file_is_json_and_raw_numbers(path):
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])

    header = json.loads(content[8 : 8 + length])
    ours = json.loads(header.pop("__metadata__")["simgan_aug"])

    assert max(entry["data_offsets"][1] for entry in header.values()) == len(content) - 8 - length
    assert {entry["dtype"] for entry in header.values()} == {"F32"}
    assert ours["format"] == 2
    assert ours["refiner"]["name"] == "unshuffle"
    assert ours["config"]["refiner"]["options"] == OPTIONS


def test_loading_leaves_the_random_numbers_of_the_caller_alone(path):
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)

    load(path)

    assert torch.equal(torch.rand(1), expected)


class Unusual(nn.Module):
    """A third party's: tied weights, a buffer that is not saved, numbers at construction."""

    def __init__(self, channels: int = 3):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 1)
        self.second = nn.Conv2d(channels, channels, 1)
        self.second.weight = self.first.weight
        self.register_buffer("kernel", torch.tensor([1.0, 2.0, 1.0]), persistent=False)
        self.rates = torch.linspace(0, 1, 3).tolist()

    def forward(self, images):
        return self.second(self.first(images)) * self.kernel.sum() + self.rates[1]


def test_a_third_partys_refiner_need_not_be_built_like_ours(tmp_path, monkeypatch):
    part = plugins.RegisteredPart(Unusual, "builtin")
    monkeypatch.setitem(plugins.registry().parts["refiner"], "unusual", part)
    path, network, images = tmp_path / "r.safetensors", Unusual(), torch.rand(1, 3, 4, 4)
    save_checkpoint(path, make_checkpoint(refiner=Part(name="unusual"), network=network))

    loaded = load(path).network

    assert torch.equal(loaded(images), network(images))


def test_the_folder_of_a_run_stands_for_its_refiner(path):
    assert locate(path.parent) == path
    assert load(path.parent).provenance == load(path).provenance


@pytest.mark.parametrize("name", ["missing.safetensors", "nul\0", ".", "missing/x.safetensors"])
def test_a_missing_file_is_named_with_what_was_expected(tmp_path, name):
    path = tmp_path / name

    message = rejected(path)

    assert message.startswith("no such file; expected a .safetensors file")


@pytest.mark.parametrize(
    "content",
    [b"", b"\0", b"not a checkpoint", b"{}", bytes(8), b"\xff" * 64, b"PK\3\4" + bytes(60)],
    ids=["empty", "one byte", "text", "json", "zeros", "huge header", "zip"],
)
def test_a_file_of_another_kind_is_refused(path, content):
    path.write_bytes(content)

    message = rejected(path)

    assert message.startswith("not a readable .safetensors file")


class Trap:
    """Unpickling it would leave a mark."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("write", [pickle.dump, torch.save])
def test_a_pickle_is_refused_and_not_run(tmp_path, write):
    path, mark = tmp_path / "refiner.safetensors", tmp_path / "mark"
    with path.open("wb") as file:
        write(Trap(mark), file)

    message = rejected(path)

    assert message.startswith("not a readable .safetensors file")
    assert not mark.exists()


@SHARED_PATH
@given(data=st.data())
def test_a_truncated_file_is_refused_wherever_it_is_cut(tmp_path, data):
    path = tmp_path / "whole.safetensors"
    if not path.exists():
        save_checkpoint(path, make_checkpoint())
    content = path.read_bytes()
    length = data.draw(st.integers(0, len(content) - 1))
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(content[:length])

    message = rejected(torn)

    assert message.startswith("not a readable .safetensors file")


@SHARED_PATH
@given(data=st.data())
def test_a_file_with_changed_bytes_is_refused_or_still_refines(tmp_path, data):
    path = tmp_path / "whole.safetensors"
    if not path.exists():
        save_checkpoint(path, make_checkpoint())
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(content)

    with contextlib.suppress(CheckpointError), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of another distribution, when its name is torn
        loaded = load(torn)
        assert loaded.network(torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 4, 4)).shape[1] == 3


def test_a_safetensors_file_of_someone_else_is_refused(path):
    path.write_bytes(save({"weight": torch.zeros(2)}, metadata={"format": "pt"}))

    message = rejected(path)

    assert message == "a safetensors file, but not one that simgan-aug train has written"


def test_a_safetensors_file_without_metadata_is_refused(path):
    path.write_bytes(save({"weight": torch.zeros(2)}))

    message = rejected(path)

    assert message.startswith("a safetensors file, but not one")


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({WEIGHT: None}, f"{WEIGHT}: expected float32 (4, 16, 3, 3), got nothing"),
        ({"refiner.more": torch.zeros(2)}, "refiner.more: expected nothing, got float32 (2,)"),
        ({"stowaway": torch.zeros(2)}, "stowaway: expected nothing, got float32 (2,)"),
        ({WEIGHT: torch.zeros(4, 16, 3)}, "expected float32 (4, 16, 3, 3), got float32 (4, 16, 3)"),
        ({WEIGHT: torch.zeros(())}, "expected float32 (4, 16, 3, 3), got float32 ()"),
        ({WEIGHT: torch.zeros(4, 16, 3, 3).half()}, "got float16 (4, 16, 3, 3)"),
        ({WEIGHT: torch.zeros(4, 16, 3, 3).double()}, "got float64 (4, 16, 3, 3)"),
        ({WEIGHT: torch.zeros(4, 16, 3, 3).int()}, "got int32 (4, 16, 3, 3)"),
        ({WEIGHT: torch.zeros(4, 16, 3, 3).to(torch.float8_e4m3fn)}, "got float8_e4m3fn (4, 16"),
        ({WEIGHT: torch.full((4, 16, 3, 3), torch.nan)}, f"{WEIGHT} has values that are not fin"),
        ({WEIGHT: torch.full((4, 16, 3, 3), torch.inf)}, f"{WEIGHT} has values that are not fin"),
        ({"tone.bank": torch.full((2, 3, QUANTILES), torch.nan)}, "tone.bank has values that are"),
        ({"tone.bank": None}, "its config has a tone step, but the tones (tone.bank) are missing"),
        (
            {"tone.bank": torch.zeros(2, 1, QUANTILES)},
            "tone.bank: expected float32 (photos, 3, 64)",
        ),
        (
            {"tone.bank": torch.zeros(0, 3, QUANTILES)},
            "tone.bank: expected float32 (photos, 3, 64)",
        ),
        ({"tone.bank": torch.zeros(3)}, "tone.bank: expected float32 (photos, 3, 64)"),
        ({"tone.bank": torch.zeros(2, 3, QUANTILES).half()}, "tone.bank: expected float32 (photos"),
        ({"tone.bias": torch.zeros(2)}, "tone.bias: expected float32 (3,), got float32 (2,)"),
        ({"tone.bias": torch.zeros(3, 1)}, "tone.bias: expected float32 (3,), got float32 (3, 1)"),
        ({"tone.bias": torch.zeros(3).double()}, "tone.bias: expected float32 (3,), got float64"),
        ({"tone.bias": torch.full((3,), torch.inf)}, "tone.bias has values that are not finite"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(path, tensors, said):
    forge(path, tensors=tensors)

    message = rejected(path)

    assert said in message


def assign(*keys, value):
    """A change of a header: set what lies under these keys."""

    def change(header):
        *way, last = keys
        for key in way:
            header = header[key]
        header[last] = value

    return change


def option(name, value):
    return assign("config", "refiner", "options", name, value=value)


@pytest.mark.parametrize("format_", [3, 10**30, 2.5, float("nan")])
def test_a_file_of_a_later_version_says_to_upgrade(path, format_):
    forge(path, assign("format", value=format_))

    message = rejected(path)

    assert message == f"format {format_} is newer than this simgan_aug (format 2); upgrade it"


def test_a_file_of_an_earlier_version_says_to_train_again(path):
    forge(path, assign("format", value=1))

    message = rejected(path)

    assert "earlier simgan_aug (format 1)" in message
    assert "train it again" in message


def test_a_part_that_is_not_installed_is_named_with_who_offers_it(path):
    def change(header):
        header["config"]["refiner"]["name"] = "unet"
        header["refiner"] = {"name": "unet", "distribution": "simgan-unet", "version": "3.1"}

    forge(path, change)

    message = rejected(path)

    assert message.startswith("needs the refiner 'unet' of simgan-unet 3.1, which is not installed")
    assert "known: resnet, unshuffle" in message


@pytest.mark.parametrize("name", ["os.system", "antigravity", "antigravity:fly", "../evil", "\0"])
def test_a_name_is_never_a_path_to_code(path, name):
    forge(path, assign("config", "refiner", "name", value=name))

    message = rejected(path)

    assert "no refiner named" in message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (option("features", 10**9), "features must lie between 1 and 1024"),
        (option("features", 10**400), "features must lie between 1 and 1024"),
        (option("features", "64"), "features: Expected `int`, got `str`"),
        (option("blocks", 10**9), "blocks must lie between 1 and 64"),
        (option("blocks", -1), "blocks must lie between 1 and 64"),
        (option("factor", 10**9), "factor must be 2 or 4"),
        (option("max_change", float("nan")), "max_change must lie between"),
        (option("evil", 1), "no option 'evil'"),
        (option("kind", "loss"), "no option 'kind'"),
        (option("channels", 4), "damaged"),
        (assign("channels", value=10**9), "channels must lie between 1 and 64"),
        (assign("channels", value=float("inf")), "damaged"),
        (assign("channels", value=[3]), "damaged"),
        (assign("channels", value=1), "expected float32 (4, 8, 3, 3), got float32 (4, 16, 3, 3)"),
        (assign("format", value="one"), "damaged"),
        (assign("format", value=None), "damaged"),
        (assign("config", value=5), "damaged"),
        (assign("config", value={"evil": {}}), "unknown table or key 'evil'"),
        (assign("config", "refiner", value="unshuffle"), "refiner must be a table"),
        (assign("config", "refiner", "name", value=5), "expected a name and its options"),
        (assign("config", "training", "batch_size", value=3), "batch_size must be even"),
        (assign("provenance", value=5), "damaged"),
        (assign("reach", value="far"), "damaged"),
        (assign("reach", value=1.5), "reach must lie in [0, 1], got 1.5"),
        (assign("reach", value=float("nan")), "reach must lie in [0, 1], got nan"),
        (assign("refiner", value="unshuffle"), "damaged"),
        (lambda header: header.clear(), "damaged"),
        (lambda header: header.pop("refiner"), "damaged"),
    ],
)
def test_a_hostile_header_is_refused(path, change, said):
    forge(path, change)

    message = rejected(path)

    assert said in message


def test_a_network_that_would_fill_the_machine_is_refused_before_it_is_built(path):
    options = {"features": 1024, "blocks": 64, "kernel": 15}  # 121 GB of weights
    forge(path, assign("config", "refiner", value={"name": "resnet", "options": options}))

    message = rejected(path)

    assert "expected float32 (1024,), got " in message


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "7", '"text"', "{", "[" * 100_000, '{"a":' * 100_000, "9" * 5000],
    ids=lambda text: text[:8],
)
def test_a_header_that_is_no_object_is_refused(path, text):
    forge(path, text=text)

    message = rejected(path)

    assert "damaged" in message or "not a readable" in message


@pytest.mark.parametrize("depth", [100, 900, 970, 980, 985])
@pytest.mark.parametrize("place", ['"blocks": 1', '"name": "unshuffle"'])
def test_a_deeply_nested_value_is_refused(path, depth, place):
    key = place.split(":")[0]
    text = json.dumps(contents(path)[0]).replace(place, f"{key}: {'[' * depth}{']' * depth}")
    forge(path, text=text)

    message = rejected(path)

    assert message


@pytest.mark.parametrize("blocked", ["below a file", "onto a folder"])
def test_where_nothing_can_be_written_nothing_is_left(tmp_path, blocked):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    path = tmp_path / ("file/r.safetensors" if blocked == "below a file" else "folder")

    with pytest.raises(OutputError, match=f"cannot write {path}: "):
        save_checkpoint(path, make_checkpoint())

    assert sorted(item.name for item in tmp_path.rglob("*")) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "kept"


def test_a_full_disk_leaves_the_previous_refiner_whole(path):
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        with pytest.raises(OutputError, match="cannot write"):
            save_checkpoint(path, make_checkpoint())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert path.read_bytes() == before
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_a_state_comes_back_with_tied_and_strided_tensors(tmp_path):
    path, whole = tmp_path / "state.safetensors", torch.arange(12.0).view(3, 4)
    tensors = {"whole": whole, "same": whole, "turned": whole.T, "count": torch.tensor(3)}

    save_state(path, tensors, {"step": 5})
    loaded, header = load_state(path)

    assert header == {"step": 5}
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)


def test_a_refiner_of_another_distribution_is_warned_of(path):
    header, tensors = contents(path)
    header["refiner"] |= {"distribution": "simgan-aug-lab", "version": "0.1.0"}
    path.write_bytes(save(tensors, metadata={"simgan_aug": json.dumps(header)}))

    with pytest.warns(UserWarning, match=r"written with simgan-aug-lab 0.1.0, here is simgan_aug"):
        load(path)


def test_a_constructor_that_no_meta_tensor_passes_is_loaded_all_the_same(tmp_path, monkeypatch):
    class Numpy(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.register_buffer("k", torch.from_numpy(torch.linspace(-1, 1, 3).numpy() * 2))

    part = plugins.RegisteredPart(Numpy, "builtin")
    monkeypatch.setitem(plugins.registry().parts["refiner"], "numpy", part)
    path = tmp_path / "numpy.safetensors"
    save_checkpoint(path, make_checkpoint(refiner=Part(name="numpy"), network=Numpy(3)))

    assert load(path).network.k.tolist() == [-2, 0, 2]


def test_a_refiner_is_no_state_and_a_state_no_refiner(path, tmp_path):
    state = tmp_path / "state.safetensors"
    save_state(state, {"x": torch.zeros(1)}, {"step": 1})

    message = rejected(state)

    assert "the state that a training goes on from; its refiner is refiner.safetensors" in message
    with pytest.raises(CheckpointError, match="not one that simgan-aug train has written"):
        load_state(path)


@pytest.fixture
def ship(monkeypatch, tmp_path):
    """Offer files by name, as a plugin does; the working folder is an empty one."""
    (tmp_path / "working").mkdir()
    monkeypatch.chdir(tmp_path / "working")

    def ship(**functions):
        for name, function in functions.items():
            part = plugins.RegisteredPart(function, "builtin")
            monkeypatch.setitem(plugins.registry().parts["checkpoint"], name, part)

    return ship


def test_a_refiner_that_a_plugin_ships_is_found_by_its_name(ship, path):
    ship(night=lambda: path, day=lambda: str(path))

    assert locate("night") == locate("day") == path
    assert load("night").provenance == load(path).provenance


@pytest.mark.parametrize("given", ["night", "./night"])
def test_a_file_of_that_name_goes_before_what_a_plugin_ships(ship, path, given):
    ship(night=lambda: path)
    save_checkpoint("night", make_checkpoint(photos=0))

    assert load(given).bank is None
    assert load(path).bank is not None


def test_a_folder_of_that_name_does_not(ship, path):
    ship(night=lambda: path)
    os.mkdir("night")

    assert locate("night") == path


@pytest.mark.parametrize("given", ["night.safetensors", "folder/night", "/night"])
def test_what_looks_like_a_path_is_one_and_no_name(ship, path, given):
    ship(night=lambda: path)

    assert str(locate(given)) == given
    assert rejected(given).startswith("no such file")


def test_a_name_that_nobody_ships_is_answered_with_the_nearest(ship, path):
    ship(night=lambda: path)

    with pytest.raises(CheckpointError, match=r"no refiner 'nigt': .*did you mean 'night'"):
        load("nigt")


def test_a_network_without_weights_is_said_to_be_one(ship):
    with pytest.raises(CheckpointError, match=r"'resnet' is a network without weights.*train it"):
        load("resnet")


def test_a_plugin_that_fails_to_give_its_file_is_named_with_the_fault(ship):
    def fails():
        raise FileNotFoundError("no weights in the wheel")

    ship(night=fails, day=lambda: 5)

    for name, fault in (("night", "FileNotFoundError: no weights in"), ("day", "TypeError: ")):
        with pytest.raises(CheckpointError, match=f"refiner {name!r} of simgan_aug .*{fault}"):
            load(name)


def test_a_file_that_a_plugin_ships_and_that_is_not_there_is_named(ship, tmp_path):
    ship(night=lambda: tmp_path / "gone.safetensors")

    with pytest.raises(CheckpointError, match=rf"{tmp_path}/gone.safetensors: no such file"):
        load("night")
