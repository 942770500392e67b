"""Each distribution in plugins/, installed by pip beside a wheel, used, and removed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from venvs import Venv

from simgan_aug.testing import write_pair

ROOT = Path(__file__).parents[1]

REFINERS = {
    "simgan-aug-bilateral": ["bilateral", "curves"],
    "simgan-aug-cut": ["cut-resnet"],
    "template": ["template"],
}
"""Of the distributions that need nothing but what the tests need."""

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
    """The wheel, installed, and the working folder of a user beside it."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    made = Venv(tmp_path / "venv")
    made.install(wheel)
    (tmp_path / "user").mkdir()
    monkeypatch.chdir(tmp_path / "user")
    return made


def listed(venv):
    return {each["name"]: each for each in json.loads(venv.run("simgan-aug", "plugins", "--json"))}


def write_broken(packages):
    """An installed distribution whose plugin cannot be imported."""
    about = packages / "broken_dist-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Name: broken-dist\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[simgan_aug]\nbroken = no_such_module\n")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", REFINERS)
def test_a_distribution_is_used_everywhere_beside_a_broken_one_and_removed_without_a_trace(
    venv, name
):
    write_broken(venv.packages)
    before, alone = set(venv.packages.iterdir()), listed(venv)
    venv.install(ROOT / "plugins" / name)
    pair = write_pair(Path())
    data = ("--synthetic", pair.annotations, "--images", pair.images, "--real", pair.real)
    images = ("--annotations", pair.annotations, "--images", pair.images)

    new = [each for each in listed(venv).values() if each["name"] not in alone]
    assert [each["error"] for each in new] == [""]
    assert new[0]["parts"]["refiner"] == REFINERS[name]
    for number, refiner in enumerate(REFINERS[name]):
        Path("my.toml").write_text(f'[refiner]\nname = "{refiner}"\n')
        run, out = Path(f"run-{number}"), Path(f"refined-{number}")
        file = run / "refiner.safetensors"
        venv.run("simgan-aug", "train", *data, "--config", "my.toml", "--steps", "5", "--out", run)
        refine = ("simgan-aug", "refine", *images, "--refiner", file, "--workers", "0")
        venv.run(*refine, "--out", out)
        audit = ["simgan_aug.cli", "audit", *images, "--refined", out, "--workers", "0"]
        audited = subprocess.run([venv.bin / "python", "-m", *audit], check=False)
        assert audited.returncode in (0, 3)
        tests = str(ROOT / "tests")
        venv.run("python", "-c", TRANSFORMS.format(path=str(file), tests=tests))

    assert "no_such_module" in listed(venv)["broken"]["error"]
    venv.run("pip", "uninstall", "--quiet", "--yes", new[0]["distribution"])

    assert listed(venv) == alone
    assert {path for path in venv.packages.iterdir() if path.name != "__pycache__"} == before
    missing = venv.run(*refine, "--out", "again", code=2)
    assert f"of {new[0]['distribution']} {new[0]['version']}" in missing
