"""Images that kill what refines them: found, set aside, and the others are refined."""

import json

import numpy as np
import pytest
from PIL import Image

PLUGIN = '''
import ctypes, os, signal
from torch import nn
from simgan_aug import hookimpl
from simgan_aug.networks import UnshuffleRefiner

class Crashing(UnshuffleRefiner):
    """Dies of a black image."""

    def forward(self, images, **extra):
        if images.max() == -1:
            {death}
        return super().forward(images, **extra)

@hookimpl
def simgan_register_refiners():
    return {{"crashing": Crashing}}
'''
DEATHS = {
    "a segmentation fault": "ctypes.string_at(0)",
    "a kill": "os.kill(os.getpid(), signal.SIGKILL)",
    "an exit": "os._exit(7)",
    "an exception": 'raise TypeError("a mistake in a plugin")',
}


@pytest.fixture
def crashing(refining, request, tmp_path):
    """The data set with one image of which the refiner, a plugin, dies."""
    site = tmp_path / "site"
    about = site / "crashing-1.0.dist-info"
    about.mkdir(parents=True)
    (site / "crashing.py").write_text(PLUGIN.format(death=DEATHS[request.param]))
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: crashing\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[simgan_aug]\ncrashing = crashing\n")
    refining.environment["PYTHONPATH"] = str(site)
    refining.killer = refining.images / "a" / "0000.png"
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(refining.killer)
    _rename_refiner(refining.refiner)
    return refining


def _rename_refiner(path):
    """The checkpoint's refiner becomes the plugin's, which has the same weights."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    (key,) = metadata
    header = json.loads(metadata[key])
    header["config"]["refiner"]["name"] = "crashing"
    save_file(load_file(path), path, {key: json.dumps(header)})


@pytest.mark.parametrize(
    ("crashing", "policy"),
    [*((death, "skip") for death in DEATHS), ("a segmentation fault", "copy")],
    indirect=["crashing"],
)
def test_an_image_that_kills_its_worker_is_set_aside(crashing, policy):
    code, said = crashing.run("--workers", 2, "--on-error", policy)

    assert code == 3, said
    assert "its worker died, more than once" in said
    target = crashing.out / "images" / "a" / "0000.png"
    if policy == "copy":
        assert target.read_bytes() == crashing.killer.read_bytes()
        target.unlink()
    assert not target.exists()
    for name in crashing.done():
        written, whole = (out / "images" / name for out in (crashing.out, crashing.whole))
        assert written.read_bytes() == whole.read_bytes()
    assert len(crashing.done()) == 89
    assert (crashing.out / "ann.json").read_bytes() == crashing.annotations.read_bytes()


@pytest.mark.parametrize("crashing", ["a segmentation fault", "an exception"], indirect=True)
def test_an_image_that_kills_its_worker_stops_a_job_that_is_to_be_complete(crashing):
    code, said = crashing.run("--workers", 2)

    assert code == 2, said
    assert "a/0000.png: its worker died, more than once" in said
    assert "set it aside with --on-error copy or skip" in said
    assert not (crashing.out / "ann.json").exists()
    assert len(crashing.done()) == 89
    assert crashing.run("--workers", 2)[0] == 2  # and it is not tried for ever
    assert crashing.run("--workers", 2, "--on-error", "skip")[0] == 3


@pytest.mark.parametrize("crashing", ["a segmentation fault", "an exit"], indirect=True)
def test_an_image_that_kills_the_whole_job_is_set_aside_in_the_end(crashing):
    codes = [crashing.run("--workers", 0, "--on-error", "skip")[0] for _ in range(6)]

    assert codes[0] not in (0, 3)
    assert codes[-1] == 3
    assert len(crashing.done()) == 89


@pytest.mark.parametrize("crashing", ["a segmentation fault", "an exception"], indirect=True)
def test_an_image_that_kills_the_actors_of_ray_is_set_aside(crashing):
    pytest.importorskip("ray", reason="the extra simgan-aug[ray]")
    crashing.environment |= {"RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": "/tmp"}

    code, said = crashing.run("--engine", "ray", "--workers", 2, "--on-error", "skip")

    assert code == 3, said
    assert "its worker died, more than once" in said
    assert len(crashing.done()) == 89
