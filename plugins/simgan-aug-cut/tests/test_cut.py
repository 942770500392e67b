"""The parts of CUT by themselves, and a training that is made of them."""

import json
import math

import numpy as np
import pytest
import simgan_aug_cut
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from simgan_aug_cut import CutPatchGAN, CutResNet, PatchNCE
from simgan_aug_cut.networks import _halved
from simgan_aug_cut.patch_nce import contrast
from torch import nn
from torch.nn import functional as F

from simgan_aug import ImageRefiner, networks, plugins
from simgan_aug.cli import main
from simgan_aug.configfile import load_preset
from simgan_aug.errors import ConfigError, ImageError
from simgan_aug.parts import check_parts

LAYERS = ("layers.0", "layers.4", "layers.8", "layers.12")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def small():
    return CutResNet(features=8, blocks=1)


def textured(batch=2, side=32):
    """Images that are alike nowhere."""
    return torch.rand(batch, 3, side, side) * 2 - 1


def millions(network):
    return round(sum(weight.numel() for weight in network.parameters()) / 1e6, 3)


def test_the_plugin_is_found_and_whole():
    (found,) = [each for each in plugins.plugins() if each.name == "cut"]

    assert (found.distribution, found.error) == ("simgan-aug-cut", "")
    assert found.parts["refiner"] == ["cut-resnet"]
    assert found.parts["discriminator"] == ["cut-patchgan"]
    assert found.parts["regularization"] == ["patch_nce"]


# The networks


def test_networks_and_heads_have_as_many_weights_as_the_authors_print():
    refiner = CutResNet()
    term = PatchNCE(refiner, layers=(*LAYERS, "layers.16"))

    assert millions(refiner) == 11.378
    assert millions(CutPatchGAN()) == 2.765
    assert millions(term) == 0.560


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 41), width=st.integers(1, 41))
def test_an_image_of_any_size_keeps_it(height, width):
    with torch.no_grad():
        refined = small()(torch.zeros(1, 3, height, width))

    assert refined.shape == (1, 3, height, width)


def test_a_refined_image_is_never_beyond_white():
    refiner = small()
    for weight in refiner.parameters():
        weight.data.mul_(100)

    assert 0.99 < refiner(textured()).abs().max() <= 1


def test_a_halving_is_every_second_pixel_of_a_binomial_blur():
    maps = textured()
    kernel = torch.tensor([1.0, 2, 1]) / 4
    blurred = F.conv2d(
        F.pad(maps, (1, 1, 1, 1), mode="reflect"),
        (kernel[:, None] * kernel).expand(3, 1, 3, 3),
        groups=3,
    )

    assert torch.allclose(_halved()(maps), blurred[..., ::2, ::2], atol=1e-6)


def test_a_doubling_is_a_transposed_blur_of_four():
    maps = textured(side=9)
    kernel = torch.tensor([1.0, 3, 3, 1]) / 4
    (doubling, *_) = [layer for layer in small().layers if isinstance(layer, nn.Upsample)]
    theirs = F.conv_transpose2d(
        F.pad(maps, (1, 1, 1, 1), mode="replicate"),
        (kernel[:, None] * kernel).expand(3, 1, 4, 4),
        stride=2,
        padding=3,
        groups=3,
    )

    assert torch.allclose(doubling(maps), theirs, atol=1e-6)


def test_an_image_is_refined_by_itself_whatever_is_in_its_batch():
    refiner, images = small(), textured()

    assert torch.allclose(refiner(images)[:1], refiner(images[:1]), atol=1e-5)


@pytest.mark.parametrize(("halvings", "seen"), [(2, 40), (3, 84)])
def test_a_logit_sees_as_many_pixels_as_the_docstring_says(halvings, seen):
    critic = CutPatchGAN(features=2, halvings=halvings)
    for layer in critic.layers:  # by itself: a statistic sees all
        if not isinstance(layer, (nn.Conv2d, nn.Sequential)):
            layer.forward = lambda maps: maps
    for weight in critic.parameters():
        nn.init.ones_(weight)
    image = torch.zeros(1, 3, 128, 128, requires_grad=True)
    logits = critic(image)
    logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2].backward()

    assert (image.grad[0, 0].abs().sum(1) > 0).sum() == seen


@pytest.mark.parametrize(("halvings", "least"), [(1, 6), (2, 12), (3, 24), (5, 96)])
def test_the_smallest_image_gives_one_logit(halvings, least):
    critic = CutPatchGAN(features=2, halvings=halvings)

    assert critic(torch.zeros(2, 3, least, least)).shape == (2, 1, 1, 1)
    assert critic(torch.zeros(2, 3, 1, 5)).shape == (2, 1, 1, 1)


@pytest.mark.parametrize("options", [{"features": 0}, {"blocks": 0}, {"channels": 65}])
def test_a_refiner_beyond_all_measure_is_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        CutResNet(**options)


# The term


def test_keys_that_are_all_alike_cost_the_logarithm_of_their_number():
    alike = F.normalize(torch.ones(1, 50, 8), dim=2)

    assert contrast(alike, alike, 0.07).tolist() == [pytest.approx([math.log(50)] * 50)]


def test_own_keys_among_different_ones_cost_nothing():
    different = torch.eye(16)[None]

    assert contrast(different, different, 0.07).max() < 1e-4


def test_other_images_of_the_batch_are_no_negatives():
    queries, keys = (F.normalize(torch.randn(2, 10, 8), dim=2) for _ in range(2))
    others = torch.stack([keys[0], F.normalize(torch.randn(10, 8), dim=1)])

    before, after = contrast(queries, keys, 0.07), contrast(queries, others, 0.07)

    assert torch.equal(before[0], after[0])
    assert not torch.allclose(before[1], after[1])


def test_keys_get_no_gradient():
    queries, keys = (torch.randn(2, 10, 8, requires_grad=True) for _ in range(2))

    contrast(queries, keys, 0.07).sum().backward()

    assert queries.grad.abs().sum() > 0
    assert keys.grad is None


def test_likeness_is_told_in_float32_in_a_training_of_bfloat16_too():
    queries, keys = (F.normalize(torch.randn(2, 10, 8), dim=2) for _ in range(2))

    with torch.autocast("cpu", torch.bfloat16):
        cast = contrast(queries, keys, 0.07)

    assert torch.equal(cast, contrast(queries, keys, 0.07))


@pytest.mark.parametrize("moved", [4, 8, 15])
def test_an_image_that_stays_costs_less_than_one_that_moves(moved):
    refiner, images = small(), textured()
    term = PatchNCE(refiner, layers=LAYERS)

    stays = term(refiner, images, images)
    moves = term(refiner, images.roll(moved, 3), images)

    assert stays < moves - 0.5


def test_it_pulls_refined_pixels_encoder_and_heads_but_no_synthetic_pixel():
    refiner = small()
    term = PatchNCE(refiner, layers=LAYERS)
    refined, synthetic = textured().requires_grad_(), textured().requires_grad_()

    term(refiner, refined, synthetic).backward()

    assert synthetic.grad is None
    pulled = [refined, refiner.layers[1].weight, *term.parameters()]
    assert all(each.grad.abs().sum() > 0 for each in pulled)
    assert refiner.layers[-2].weight.grad is None


def test_layers_after_the_last_that_is_looked_at_do_not_run():
    refiner, runs = small(), []
    term = PatchNCE(refiner, layers=LAYERS)
    refiner.layers[13].register_forward_hook(lambda *_: runs.append(1))

    term(refiner, textured(), textured())

    assert not runs


def test_a_term_leaves_no_hook_behind():
    refiner = small()
    term = PatchNCE(refiner, layers=LAYERS)

    term(refiner, textured(), textured())

    assert not any(layer._forward_hooks for layer in refiner.modules())


def test_the_same_generator_draws_the_same_places():
    refiner, refined, synthetic = small(), textured(), textured()
    term = PatchNCE(refiner, layers=LAYERS, places=8)
    values = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        values.append(term(refiner, refined, synthetic).item())

    assert values[0] == values[1] != values[2]


def mirrored_or_not(refiner):
    """Values of the term for the same pair, at all places, so that only the mirror is drawn."""
    term = PatchNCE(refiner, layers=LAYERS, places=65_536, flip_equivariance=True)
    refined, synthetic = textured(), textured()
    return [term(refiner, refined, synthetic).item() for _ in range(12)]


def test_some_batches_are_mirrored():
    assert len({round(value, 3) for value in mirrored_or_not(small())}) == 2


def test_mirrored_features_are_mirrored_back():
    """A refiner whose kernels are their own mirror images cannot tell, and nothing changes."""
    refiner = small()
    for layer in refiner.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.data.add_(layer.weight.data.flip(3))
    # Every second px of a blur is another one from the right; without halving there is no such.
    refiner.layers[7], refiner.layers[11] = nn.Identity(), nn.Identity()

    values = mirrored_or_not(refiner)

    assert values == pytest.approx([values[0]] * 12, rel=1e-3)


def test_places_count_by_their_weight():
    refiner, refined, synthetic = small(), textured(), textured()
    term = PatchNCE(refiner, layers=LAYERS, places=65_536)
    ones = torch.ones(2, 1, 32, 32)

    plain = term(refiner, refined, synthetic).item()

    assert term(refiner, refined, synthetic, 0 * ones).item() == 0
    assert term(refiner, refined, synthetic, ones).item() == pytest.approx(plain, rel=1e-4)
    assert term(refiner, refined, synthetic, 3 * ones).item() == pytest.approx(3 * plain, rel=1e-4)


def test_a_place_without_weight_pulls_at_no_pixel():
    refiner = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1))
    refined, synthetic = textured().requires_grad_(), textured()
    term = PatchNCE(refiner, layers=("0",), places=65_536)
    weights = torch.ones(2, 1, 32, 32)
    weights[..., :16] = 0

    term(refiner, refined, synthetic, weights).backward()

    assert refined.grad[..., :15].abs().max() == 0
    assert refined.grad[..., 17:].abs().min() > 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: networks.ResNetRefiner(features=8),
        lambda: networks.UnshuffleRefiner(features=8),
        lambda: networks.UnshuffleRefiner(features=8, noise_channels=0, takes_reference=True),
    ],
    ids=["resnet", "noise", "reference"],
)
def test_it_holds_any_refiner_whose_layers_give_feature_maps(make):
    refiner = make()
    term = PatchNCE(refiner)

    value = term(refiner, textured(), textured())

    assert 1 <= len(term.layers) <= 5
    assert value.isfinite()


def test_a_look_changes_neither_modes_nor_statistics():
    refiner = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1))
    refiner[2].eval()
    before = {name: value.clone() for name, value in refiner.state_dict().items()}

    PatchNCE(refiner)

    assert [layer.training for layer in refiner.modules()] == [True, True, True, False]
    assert all(torch.equal(value, before[name]) for name, value in refiner.state_dict().items())


def test_a_layer_that_is_not_there_is_named_beside_the_nearest():
    with pytest.raises(ConfigError, match=r"no layer 'layers\.44'.*did you mean 'layers\.4'"):
        PatchNCE(small(), layers=("layers.44",))


@pytest.mark.parametrize("options", [{"places": 1}, {"width": 0}, {"temperature": 0.0}])
def test_impossible_options_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        PatchNCE(small(), **options)


# Presets


@pytest.mark.parametrize("name", simgan_aug_cut.PRESETS)
def test_a_preset_can_be_built(name):
    config = load_preset(name)

    check_parts(config, name)
    assert config.refiner.name == "cut-resnet"


# A training

TINY = """
[refiner]
name = "cut-resnet"
features = 8
blocks = 1
[discriminator]
name = "cut-patchgan"
features = 8
halvings = 1
[loss]
name = "least_squares"
[regularization]
weight = 0
contours = 0
drift = 0
[[regularization.terms]]
name = "patch_nce"
weight = 10
places = 16
flip_equivariance = true
[tone]
photos = 0
[data]
crop = [16, 16]
[training]
batch_size = 4
history = 0
"""


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Begins or resumes a training in a folder, with these options."""
    rng = np.random.default_rng(0)
    for side in ("synthetic", "real"):
        (tmp_path / side).mkdir()
        for number in range(4):
            pixels = rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / side / f"{number}.png")
    entries = [{"id": n, "file_name": f"{n}.png", "width": 24, "height": 20} for n in range(4)]
    (tmp_path / "synthetic.json").write_text(json.dumps({"images": entries, "annotations": []}))
    (tmp_path / "tiny.toml").write_text(TINY)
    monkeypatch.chdir(tmp_path)

    def train(out, *options):
        new = ("--synthetic", "synthetic.json", "--real", "real", "--config", "tiny.toml")
        how = ("--resume",) if (tmp_path / out).exists() else new
        assert main(["train", "--device", "cpu", "--out", out, *how, *options]) == 0
        return tmp_path / out

    return train


def test_a_training_that_is_resumed_ends_as_one_that_is_not(train):
    whole = train("whole", "--steps", "4")
    train("halved", "--steps", "2")
    halved = train("halved", "--steps", "4")

    first, second = (load_file(out / "state.safetensors") for out in (whole, halved))
    assert any(name.startswith("terms.") for name in first)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_what_is_trained_refines_and_cannot_be_tiled(train):
    out = train("out", "--steps", "1")
    refiner = ImageRefiner.load(out / "refiner.safetensors", max_workspace_mb=1)
    image = np.full((48, 40, 3), 90, np.uint8)

    assert refiner(image).shape == image.shape
    with pytest.raises(ImageError, match="receptive_field"):
        refiner(np.zeros((256, 256, 3), np.uint8))
