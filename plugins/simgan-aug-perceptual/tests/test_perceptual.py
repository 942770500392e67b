"""What the features promise: any size, grey or colour, gradients, and nothing that changes them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from simgan_aug_perceptual import imagenet, network, perceptual

from simgan_aug import plugins
from simgan_aug.errors import CheckpointError, ImageError
from simgan_aug.realism import extractor, kid
from simgan_aug.testing import feature_transform_checks, train_briefly

HANDS = Path(__file__).parents[3] / "examples/data/hands"
CPU = torch.device("cpu")


def picture(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def hands(side, count):
    files = sorted((HANDS / side).glob("*.jpg"))[:count]
    return [np.array(Image.open(file).convert("RGB")) for file in files]


def as_batch(images):
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def test_the_plugin_is_found_and_whole():
    (found,) = [each for each in plugins.plugins() if each.name == "perceptual"]

    assert (found.distribution, found.error) == ("simgan-aug-perceptual", "")
    assert plugins.parts("feature transform")["perceptual"].make is perceptual


@pytest.mark.parametrize("check", feature_transform_checks(perceptual))
def test_psi_keeps_the_contract(check):
    check()


def test_nothing_is_read_before_it_is_needed_and_then_once():
    script = (
        "from simgan_aug import plugins\n"
        "from simgan_aug_perceptual import network, perceptual\n"
        "import torch\n"
        "plugins.plugins()\n"
        "assert network._tensors.cache_info().currsize == 0\n"
        "for _ in range(2): perceptual(torch.zeros(1, 3, 8, 8))\n"
        "assert network._tensors.cache_info().misses == 1\n"
    )

    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


@settings(max_examples=20, deadline=None)
@given(height=st.integers(1, 70), width=st.integers(1, 70), channels=st.sampled_from([1, 3]))
def test_psi_takes_every_size_and_gradient_flows_to_it(height, width, channels):
    images = picture(2, channels, height, width).requires_grad_()

    found = perceptual(images)
    found.square().sum().backward()

    assert found.shape == (2, 24, -(-height // 8), -(-width // 8))
    assert images.grad.isfinite().all()
    assert images.grad.flatten(1).any(1).all()


def test_a_grey_image_is_one_of_three_equal_channels():
    grey = picture(1, 1, 48, 48)

    assert torch.equal(perceptual(grey), perceptual(grey.expand(-1, 3, -1, -1)))


def test_images_of_other_channels_are_refused_with_a_way_out():
    with pytest.raises(ImageError, match=r"1 or 3 channels, got \(1, 4, 8, 8\); take another"):
        perceptual(torch.zeros(1, 4, 8, 8))


def test_psi_minds_a_shift_more_than_tone_and_pixels_do_not():
    images = as_batch(hands("synthetic", 16))
    shifted, darker = images.roll(2, 3), images * 0.8

    def change(psi, other):
        return float((psi(other) - psi(images)).abs().mean())

    assert change(perceptual, shifted) > change(perceptual, darker)
    assert change(torch.nn.Identity(), shifted) < change(torch.nn.Identity(), darker)


def test_two_pictures_differ_about_as_much_as_in_pixels():
    images = as_batch(hands("synthetic", 16))
    others = images.roll(1, 0)

    pixels = float((images - others).abs().mean())
    features = float((perceptual(images) - perceptual(others)).abs().mean())

    assert 0.5 < features / pixels < 2


def test_it_is_the_network_that_the_weights_were_trained_in():
    reference = pytest.importorskip("efficientnet_lite_pytorch")
    theirs = reference.EfficientNet.from_name("efficientnet-lite0").eval()
    theirs.load_state_dict(network._tensors())
    images = picture(2, 3, 224, 224)

    with torch.no_grad():
        wanted = theirs.extract_features((images * 127.5 + 127.5 - 127) / 128).mean((2, 3))
        found = network.network(CPU).pooled(images)

    assert torch.allclose(found, wanted, atol=1e-4)


def test_other_weights_are_refused(tmp_path, monkeypatch):
    (tmp_path / "other.pth").write_bytes(b"weights")
    for name, got in (("other.pth", "got 9a"), ("absent.pth", "got no file")):
        monkeypatch.setattr(network, "FILE", str(tmp_path / name))
        with pytest.raises(CheckpointError, match=f"expected the file of .*{got}.*pip install"):
            network._tensors.__wrapped__()


@pytest.mark.parametrize(
    "image",
    [
        np.full((48, 48), 90, np.uint8),
        np.full((16, 300, 3), 60000, np.uint16),
        np.full((224, 224, 3), 0.5, np.float32),
    ],
)
def test_the_space_takes_small_and_large_images_of_any_kind(image):
    extract = extractor("imagenet")

    found = extract(image)

    assert (found.shape, found.dtype) == ((1280,), torch.float64)
    assert found.isfinite().all()
    assert torch.equal(found, extract(image))


def test_rendered_hands_are_further_from_photos_than_photos_are():
    extract = imagenet()
    real = torch.stack([extract(image) for image in hands("real", 32)[::2]])
    more = torch.stack([extract(image) for image in hands("real", 32)[1::2]])
    synthetic = torch.stack([extract(image) for image in hands("synthetic", 16)])

    floor, ceiling = kid(more, real), kid(synthetic, real)

    assert ceiling.low > floor.high


def test_one_trains_with_it_by_its_name(tmp_path):
    file = train_briefly(tmp_path, regularization={"features": "perceptual"})

    assert file.exists()
