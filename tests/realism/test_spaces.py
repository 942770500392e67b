"""Feature spaces of plugins: chosen by name, and held to what a space is."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from plugged import plugged

from simgan_aug import plugins
from simgan_aug.cli import main
from simgan_aug.errors import DependencyError, PluginError
from simgan_aug.realism import compare, extractor

SPACES = """
    import numpy as np
    import torch
    from simgan_aug import hookimpl
    from simgan_aug.errors import DependencyError

    def means():
        return lambda image: image.reshape(-1, image.shape[-1]).mean(0)

    def absent():
        raise DependencyError("needs weights: pip install them")

    def broken():
        raise OSError("no file of weights")

    @hookimpl
    def simgan_register_spaces():
        return {
            "means": means,
            "tensors": lambda: lambda image: torch.tensor(image[0, 0, :2]).float().requires_grad_(),
            "blur": lambda: lambda image: np.zeros(2),
            "absent": absent,
            "broken": broken,
            "raises": lambda: lambda image: image["pixels"],
            "flat": lambda: lambda image: 1.0,
            "list": lambda: lambda image: [1.0, 2.0],
            "map": lambda: lambda image: torch.zeros(1, 3),
            "nan": lambda: lambda image: np.full(3, np.nan),
            "varying": lambda: lambda image: np.zeros(len(image)),
        }
"""

IMAGE = np.arange(20 * 24 * 3, dtype=np.uint8).reshape(20, 24, 3)


@pytest.fixture(autouse=True)
def spaces(tmp_path):
    with plugged(tmp_path / "site", spaces_plugin=SPACES):
        yield


def test_a_space_gives_features_in_double_precision():
    assert torch.equal(extractor("means")(IMAGE), torch.tensor(IMAGE.reshape(-1, 3).mean(0)))

    found = extractor("tensors")(IMAGE)

    assert found.tolist() == [0, 1]
    assert (found.dtype, found.requires_grad) == (torch.float64, False)


def test_a_space_goes_before_a_feature_transform_of_its_name():
    assert extractor("blur")(IMAGE).tolist() == [0, 0]


def test_sets_are_compared_in_a_space_by_name(textures):
    sets = textures(40, 1), textures(40, 2), textures(40, 1)

    found = compare(*sets, features="means", groups="none", repeats=1, resamples=5)

    assert found.features == "means"
    assert {measure.name for measure in found.measures} >= {"KID", "classifier AUC"}


def test_a_space_by_command(tmp_path, textures, capsys):
    for name, seed in (("synthetic", 1), ("real", 2)):
        (tmp_path / name).mkdir()
        for number, pixels in enumerate(textures(24, seed)):
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    sides = ["--synthetic", str(tmp_path / "synthetic"), "--real", str(tmp_path / "real")]

    assert main(["realism", *sides, "--repeats", "1", "--features", "means", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["features"] == "means"
    assert main(["realism", *sides, "--features", "meens"]) == 2

    assert "no feature space named 'meens' (known: absent, " in (said := capsys.readouterr().err)
    assert "did you mean 'means'?" in said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("broken", "OSError: no file of weights"),
        ("raises", "IndexError: "),
        ("flat", r"expected finite \(F,\) of an image, got float"),
        ("list", r"expected finite \(F,\) of an image, got list"),
        ("map", r"expected finite \(F,\) of an image, got \(1, 3\)"),
        ("nan", r"expected finite \(F,\) of an image, got \(3,\)"),
        ("varying", "16 features, after 20"),
    ],
)
def test_a_broken_space_is_named_with_its_plugin(name, said):
    who = f"space '{name}' of 'spaces_plugin' of spaces_plugin-dist 1.2: {said}"

    def all_of_it():
        extract = extractor(name)
        return [extract(image) for image in (IMAGE, IMAGE[:16])]

    with pytest.raises(PluginError, match=who):
        all_of_it()


def test_what_a_space_says_it_needs_is_passed_on():
    with pytest.raises(DependencyError, match=r"^needs weights: pip install them$"):
        extractor("absent")


@pytest.mark.filterwarnings("ignore:plugin")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("random", "the space 'random' is already offered by simgan_aug; rename one"),
        ("resnet18:mine", "expected names without a colon, got 'resnet18:mine'"),
    ],
)
def test_names_that_would_hide_ours_are_refused(tmp_path, name, said):
    source = f"""
        from simgan_aug import hookimpl

        @hookimpl
        def simgan_register_spaces():
            return {{"{name}": print}}
    """
    with plugged(tmp_path / "other", odd_plugin=source):
        assert said in plugins.failures()["odd_plugin"]
