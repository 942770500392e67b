"""Features of weights that the user points at."""

import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from simgan_aug.errors import CheckpointError, DependencyError
from simgan_aug.realism import compare, extractor

models = pytest.importorskip("torchvision.models")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return models.resnet18(weights=None).eval()


@pytest.fixture
def weights(network, tmp_path):
    """Saves a state dict, changed or not; gives the name of its feature space."""

    def save(changes=None, without=()):
        state = {k: v for k, v in network.state_dict().items() if not k.startswith(tuple(without))}
        save_file(state | (changes or {}), tmp_path / "weights.safetensors")
        return f"resnet18:{tmp_path / 'weights.safetensors'}"

    return save


def test_features_are_what_the_last_layer_gets(network, weights):
    image = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)

    found = extractor(weights())(image)

    colour = torch.from_numpy(image).permute(2, 0, 1) / 255
    mean, spread = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    given = ((colour - mean[:, None, None]) / spread[:, None, None])[None]
    with torch.no_grad():
        logits = network(given)[0]
    assert found.shape == (512,)
    assert torch.allclose(network.fc(found.float()), logits, atol=1e-4)


def test_the_last_layer_may_be_missing_or_of_any_size(weights):
    image = np.full((30, 40, 3), 99, np.uint8)
    whole = extractor(weights())(image)

    assert torch.equal(extractor(weights(without=["fc."]))(image), whole)
    assert torch.equal(extractor(weights({"fc.weight": torch.zeros(3, 512)}))(image), whole)


def test_half_precision_is_accepted(network, weights):
    half = {k: v.half() for k, v in network.state_dict().items() if v.is_floating_point()}
    image = np.full((30, 40, 3), 99, np.uint8)

    assert torch.allclose(extractor(weights(half))(image), extractor(weights())(image), rtol=0.1)


@pytest.mark.parametrize(
    ("changes", "without", "message"),
    [
        ({}, ["bn1.weight"], r"bn1.weight: expected floats \(64,\), got nothing"),
        ({"more": torch.zeros(2)}, [], r"more: expected nothing, got floats \(2,\)"),
        ({"bn1.bias": torch.zeros(3)}, [], r"bn1.bias: expected floats \(64,\), got floats \(3,\)"),
        ({"bn1.bias": torch.full((64,), torch.nan)}, [], "bn1.bias has values that are not finite"),
    ],
)
def test_weights_of_another_network_are_refused(weights, changes, without, message):
    with pytest.raises(CheckpointError, match=message):
        extractor(weights(changes, without))


def test_a_file_that_is_missing_or_no_safetensors_is_refused(tmp_path):
    (tmp_path / "pickled.pth").write_bytes(b"\x80\x04 not ours")

    with pytest.raises(CheckpointError, match="no such file; expected the state dict"):
        extractor(f"vgg16:{tmp_path / 'missing.safetensors'}")
    with pytest.raises(CheckpointError, match=r"not a readable \.safetensors file"):
        extractor(f"resnet18:{tmp_path / 'pickled.pth'}")


def test_without_torchvision_the_way_out_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)

    with pytest.raises(DependencyError, match=r"pip install 'simgan-aug\[torchvision\]'"):
        extractor("resnet18:weights.safetensors")


def test_sets_can_be_compared_in_such_features(weights, textures):
    found = compare(
        textures(8, 1, tint=60), textures(16, 0), features=weights(), repeats=1, resamples=20
    )

    kid = next(measure for measure in found.measures if measure.name == "KID")
    assert kid.ceiling.value > kid.floor.high
