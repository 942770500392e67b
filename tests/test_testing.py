"""The conformance kit: our parts keep the contract, and a planted fault is named by its check."""

import random
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from simgan_aug import hookimpl, plugins, testing
from simgan_aug.coco import read_images, read_labels
from simgan_aug.errors import CheckpointError, PluginError
from simgan_aug.imagefile import read_image
from simgan_aug.inference import ImageRefiner
from simgan_aug.losses import CrossEntropy, LeastSquares, Relativistic, self_regularization
from simgan_aug.networks import PaperPatch, Patch, ResNetRefiner, UnshuffleRefiner

REFINERS = {
    "resnet": (ResNetRefiner, {"features": 4}),
    "resnet, as for hands": (ResNetRefiner, {"features": 2, "kernel": 7, "blocks": 10}),
    "unshuffle": (UnshuffleRefiner, {"features": 8}),
    "unshuffle by 4, with a tone": (
        UnshuffleRefiner,
        {"features": 8, "factor": 4, "blocks": 1, "takes_reference": True},
    ),
    "unshuffle with a limit": (UnshuffleRefiner, {"features": 8, "blocks": 1, "max_change": 8}),
}
DISCRIMINATORS = {
    "paper-patch": (PaperPatch, {}),
    "paper-patch, as for hands": (PaperPatch, {"form": "hands"}),
    "patch": (Patch, {"features": 8}),
    "patch, spectral": (Patch, {"features": 8, "spectral": True}),
    "patch with a tone": (Patch, {"features": 8, "takes_reference": True}),
}
LOSSES = {
    "cross_entropy": (CrossEntropy, {"smoothing": 0.1}),
    "cross_entropy as printed": (CrossEntropy, {"reduction": "paper_sum"}),
    "least_squares": (LeastSquares, {"r1": 1.0, "r2": 1.0}),
    "relativistic": (Relativistic, {}),
}


def named(parts, checks):
    """A test for each check of each part."""
    return [
        pytest.param(check, id=f"{name}-{check.__name__}")
        for name, (make, options) in parts.items()
        for check in checks(make, **options)
    ]


@pytest.mark.parametrize("check", named(REFINERS, testing.refiner_checks))
def test_our_refiners_keep_the_contract(check):
    check()


@pytest.mark.parametrize("check", named(DISCRIMINATORS, testing.discriminator_checks))
def test_our_discriminators_keep_the_contract(check):
    check()


@pytest.mark.parametrize("check", named(LOSSES, testing.loss_checks))
def test_our_losses_keep_the_contract(check):
    check()


@pytest.mark.parametrize(
    "name",
    [n for n, part in plugins.parts("feature transform").items() if part.plugin == "builtin"],
)
def test_our_feature_transforms_keep_the_contract(name):
    testing.check_feature_transform(plugins.parts("feature transform")[name].make)


@pytest.mark.parametrize(
    ("kind", "tried"),
    [("refiner", REFINERS), ("discriminator", DISCRIMINATORS), ("loss", LOSSES)],
)
def test_none_of_our_parts_is_left_out(kind, tried):
    ours = {part.make for part in plugins.parts(kind).values() if part.plugin == "builtin"}

    assert ours == {make for make, _ in tried.values()}


def test_a_plain_term_and_a_gate_that_lets_all_through_keep_the_contract():
    def make():
        return lambda refiner, refined, synthetic, weights: self_regularization(
            refined, synthetic, weights=weights
        )

    testing.check_regularization(make)
    testing.check_gate(lambda old, new, annotations: [])
    testing.check_gate(lambda old, new, annotations: ["dark"] * bool(new.max() < 30))


class Refiner(nn.Module):
    """A sound refiner, which each fault spoils by a little."""

    receptive_field = 3

    def __init__(self, channels=3):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, images):
        return self.change(images) + self.conv(images).to(images.dtype)

    def change(self, images):
        return images


class Halved(Refiner):
    def change(self, images):
        small = F.avg_pool2d(images, 2, ceil_mode=True)
        return F.interpolate(small, scale_factor=2)[..., : images.shape[2] // 2 * 2, :]


class Pooled(Refiner):
    def change(self, images):
        return F.interpolate(F.avg_pool2d(images, 2), images.shape[2:])


class AlwaysColour(Refiner):
    def __init__(self, channels=3):
        super().__init__(3)


class Noisy(Refiner):
    def change(self, images):
        return images + torch.randn_like(images) / 100


class Looks(Refiner):
    recordable = True

    def change(self, images):
        return images + (images.max().item() > 0.5) / 100


class MakesTensors(Refiner):
    recordable = True

    def change(self, images):
        return images + torch.tensor([0.01])


class NoisyOfItsOwn(Refiner):
    def change(self, images):
        return images + np.random.default_rng().normal() / 100


class DropsOut(Refiner):
    def change(self, images):
        return F.dropout(images, 0.1, self.training)


class Reseeds(Refiner):
    def change(self, images):
        torch.manual_seed(0)
        return images + torch.randn(1)


class DrawsFromPython(Refiner):
    def change(self, images):
        return images + 0 * random.random()


class Normalised(Refiner):
    def __init__(self, channels=3):
        super().__init__(channels)
        self.norm = nn.BatchNorm2d(channels)

    def change(self, images):
        return self.norm(images)


class MeansOfBatches(Refiner):
    def change(self, images):
        return images - images.mean(0, keepdim=True)


class Centred(Refiner):
    def change(self, images):
        return images - images.mean((2, 3), keepdim=True)


class CentredUnseen(Refiner):
    def change(self, images):
        return images - images.detach().mean((2, 3), keepdim=True)


class NormalisedByInstance(Refiner):
    def change(self, images):
        return F.layer_norm(images, images.shape[1:])


class Divides(Refiner):
    def change(self, images):
        return images / images.std((1, 2, 3), unbiased=False, keepdim=True)


class DividesInHalfPrecision(Refiner):
    def change(self, images):
        means = F.conv2d(images, images.new_ones(1, images.shape[1], 1, 1) / images.shape[1])
        return images / (1.001 - means.abs())  # in bfloat16 0


class InPlace(Refiner):
    def change(self, images):
        return images.mul_(0.9)


class Wide(Refiner):
    def __init__(self, channels=3):
        super().__init__(channels)
        self.conv = nn.Conv2d(channels, channels, 7, padding=3)


class WiderByOne(Wide):
    receptive_field = 6


class WiderOneWay(Refiner):
    def __init__(self, channels=3):
        super().__init__(channels)
        self.conv = nn.Conv2d(channels, channels, (3, 5), padding=(1, 2))


class NoField(Refiner):
    receptive_field = 2.5


class OnAGrid(Refiner):
    receptive_field = 4

    def change(self, images):
        padded = F.pad(images, (0, 1, 0, 1), mode="replicate")
        small = F.avg_pool2d(padded, 2)
        return F.interpolate(small, scale_factor=2)[..., : images.shape[2], : images.shape[3]]


class OnAGridOfFour(nn.Module):
    multiple = 2

    def __init__(self, channels=3):
        super().__init__()
        self.inner = UnshuffleRefiner(channels, 4, features=4, blocks=1, noise_channels=0)
        self.receptive_field = self.inner.receptive_field

    def forward(self, images):
        return self.inner(images)


class ByPlace(Refiner):
    def change(self, images):
        return images + torch.arange(images.shape[3]) / 100


class OtherwiseWhenLarge(Refiner):
    def change(self, images):
        return images * (0.9 if images.shape[3] > 52 else 1)


class Fixed(nn.Module):
    def __init__(self, channels=3):
        super().__init__()

    def forward(self, images):
        return images * 0.9


class Stray(Refiner):
    def __init__(self, channels=3):
        super().__init__(channels)
        self.scale = torch.full((channels, 1, 1), 0.9)

    def change(self, images):
        return images * self.scale


class ListedLayers(Refiner):
    def __init__(self, channels=3):
        super().__init__(channels)
        self.more = [nn.Conv2d(channels, channels, 1)]

    def change(self, images):
        return self.more[0](images)


class Double(Refiner):
    def change(self, images):
        return images * torch.tensor([0.9], dtype=torch.float64)


class HalfPrecision(Refiner):
    def forward(self, images):
        return self.conv(images)


class Unused(Refiner):
    def __init__(self, channels=3):
        super().__init__(channels)
        self.spare = nn.Parameter(torch.ones(3))


class Rounds(Refiner):
    def __init__(self, channels=3):
        super().__init__(channels)
        self.tone = nn.Parameter(torch.ones(1))

    def change(self, images):
        return images + (self.tone * 10).round() / 10


class Detached(Refiner):
    def forward(self, images):
        return self.conv(images.detach()).to(images.dtype)


class Forgets(Refiner):
    def __init__(self, channels=3):
        super().__init__(channels)
        self.register_buffer("scale", torch.rand(1), persistent=False)

    def change(self, images):
        return images * self.scale


class Views(Refiner):
    def change(self, images):
        return images.view(len(images), -1).view(images.shape)


class BranchesOnValues(Refiner):
    receptive_field = None

    def change(self, images):
        return torch.stack([image if image.sum() > 0 else image * 0.9 for image in images])


class Exceeds(Refiner):
    change_limit = 8

    def forward(self, images):
        return images + 8 * torch.tanh(self.conv(images))


class Silent(Refiner):
    def forward(self, images):
        self.conv(images)


REFINER_FAULTS = {
    Halved: ("sizes", r"came in, \(2, 1, 1, 1\).*got: +\(2, 1, 0, 2\).*pad to a multiple"),
    Pooled: ("sizes", r"RuntimeError.*too small.*called with images \(2, 1, 1, 1\)"),
    AlwaysColour: ("sizes", "RuntimeError.*expected input.* to have 3 channels"),
    Silent: ("sizes", "a tensor.*NoneType"),
    Fixed: ("weights", "at least one trainable parameter"),
    Stray: ("weights", "scale.*register_buffer"),
    ListedLayers: ("weights", "more"),
    Double: ("dtype", "float64"),
    Divides: ("finite", "-1 everywhere.*division"),
    DividesInHalfPrecision: ("autocast", "finite"),
    HalfPrecision: ("autocast", r"bfloat16.*images\.dtype"),
    InPlace: ("input_untouched", "images changed in place"),
    Noisy: ("determinism", "at inference.*torch.randn.*noise_channels"),
    NoisyOfItsOwn: ("determinism", "at inference"),
    Looks: ("recordable", r"a value that is read.*\.item\(\)"),
    MakesTensors: ("recordable", "a tensor of Python's numbers.*buffers"),
    DropsOut: ("determinism", "in training.*dropout"),
    Reseeds: ("global_random_state", "torch has moved"),
    DrawsFromPython: ("global_random_state", "random has moved"),
    Normalised: ("batch_independence", "in training.*BatchNorm"),
    MeansOfBatches: ("batch_independence", "at inference"),
    Unused: ("gradients", "weight spare.*got: +none"),
    Rounds: ("gradients", "weight tone.*got: +0 everywhere.*rounding"),
    Detached: ("gradients", "channel 0 of the input.*got: +none"),
    Forgets: ("state_round_trip", "persistent"),
    Views: ("memory_format", "view"),
    Exceeds: ("change_limit", "8 grey levels"),
    Centred: ("receptive_field", "at most receptive_field = 3 px.*statistic of the whole image"),
    CentredUnseen: ("receptive_field", "further than 2 px from it is replaced"),
    NormalisedByInstance: ("receptive_field", "receptive_field = 3"),
    Wide: ("receptive_field", "receptive_field = 3 px.*got: +7 px"),
    WiderByOne: ("receptive_field", "receptive_field = 6 px.*got: +7 px"),
    WiderOneWay: ("receptive_field", "receptive_field = 3 px.*got: +5 px"),
    NoField: ("receptive_field", "a whole number of px.*2.5"),
    OnAGrid: ("multiple", "multiple = 1 px.*declare multiple = 2"),
    OnAGridOfFour: ("multiple", "declare multiple = 4"),
    ByPlace: ("multiple", "position.*leave receptive_field undeclared"),
    OtherwiseWhenLarge: ("tiles", "grey levels apart"),
    BranchesOnValues: ("export", "raised|data-dependent|GuardOnDataDependent"),
}


class Discriminator(nn.Module):
    """A sound discriminator, which each fault spoils by a little."""

    def __init__(self, channels=3):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 8, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 1, 3, padding=1)
        )

    def forward(self, images):
        return self.end(self.layers(self.begin(images)))

    def begin(self, images):
        return images

    def end(self, logits):
        return logits


class Sigmoid(Discriminator):
    def end(self, logits):
        return logits.sigmoid()


class Tanh(Discriminator):
    def end(self, logits):
        return logits.tanh()


class Rectified(Discriminator):
    def end(self, logits):
        return logits.relu()


class Clamped(Discriminator):
    def end(self, logits):
        return logits.clamp(-10, 10)


class OneLogit(Discriminator):
    def end(self, logits):
        return logits.mean((1, 2, 3))


class TwoMaps(Discriminator):
    def end(self, logits):
        return torch.cat([logits, -logits], dim=1)


class SeesNoGradient(Discriminator):
    def begin(self, images):
        return (images * 255).round() / 255


class KnowsItsBatch(Discriminator):
    independent = True

    def begin(self, images):
        return F.batch_norm(images, None, None, training=True)


class Throws(Discriminator):
    def end(self, logits):
        return logits + torch.rand_like(logits)


class NarrowByWord(Discriminator):
    receptive_field = 4


DISCRIMINATOR_FAULTS = {
    Sigmoid: ("unbounded", "sigmoid"),
    Tanh: ("unbounded", r"\[-1, 1\]"),
    Rectified: ("unbounded", "ReLU"),
    Clamped: ("unbounded", r"\[-10, 10\]"),
    OneLogit: ("logit_map", r"\(2, 1, h, w\).*\(2,\)"),
    TwoMaps: ("logit_map", "return the difference"),
    SeesNoGradient: ("gradients", "channel 0 of the input.*rounding"),
    KnowsItsBatch: ("batch_independence", "BatchNorm"),
    Throws: ("determinism", "resumed"),
    NarrowByWord: ("receptive_field", "receptive_field = 4 px.*got: +8 px"),
}


class Loss:
    """A sound loss, which each fault spoils by a little."""

    def refiner(self, critic, refined, real):
        return F.softplus(critic(refined)).mean()

    def discriminator(self, critic, refined, real):
        return F.softplus(-critic(refined)).mean() + F.softplus(critic(real)).mean()


class PerPatch(Loss):
    def refiner(self, critic, refined, real):
        return F.softplus(critic(refined))


class AsNumber(Loss):
    def discriminator(self, critic, refined, real):
        return super().discriminator(critic, refined, real).item()


class Unstable(Loss):
    def refiner(self, critic, refined, real):
        return -(1 - critic(refined).sigmoid()).log().mean()


class DetachesRefined(Loss):
    def refiner(self, critic, refined, real):
        return super().refiner(critic, refined.detach(), real)


class WithoutGradient(Loss):
    def discriminator(self, critic, refined, real):
        with torch.no_grad():
            return super().discriminator(critic, refined, real)


class WorstAlone(Loss):
    def refiner(self, critic, refined, real):
        return F.softplus(critic(refined).amax())


class OtherWayRound(Loss):
    def refiner(self, critic, refined, real):
        return F.softplus(-critic(refined)).mean()


class CriticOtherWayRound(Loss):
    def discriminator(self, critic, refined, real):
        return super().discriminator(critic, real, refined)


class PairsUnsaid(Loss):
    def refiner(self, critic, refined, real):
        return F.softplus(critic(refined) - critic(real)).mean()


class SumsUnsaid(Loss):
    def refiner(self, critic, refined, real):
        return F.softplus(critic(refined)).sum()


class AsABatch(Loss):
    def refiner(self, critic, refined, real):
        return F.softplus(critic(refined)).mean().square()


class Mixes(Loss):
    def discriminator(self, critic, refined, real):
        share = torch.rand(len(real), 1, 1, 1)
        return super().discriminator(critic, refined * share + real * (1 - share), real)


class LossInPlace(Loss):
    def discriminator(self, critic, refined, real):
        return super().discriminator(critic, refined.mul_(2), real)


class HalfALoss:
    refiner = Loss.refiner


LOSS_FAULTS = {
    HalfALoss: ("scalars", "without discriminator"),
    PerPatch: ("scalars", r"scalar.*\(4, 1, 5, 5\).*mean"),
    AsNumber: ("scalars", r"discriminator's term.*\.item\(\)"),
    Unstable: ("scalars", "finite refiner's term.*inf.*log"),
    LossInPlace: ("input_untouched", "refined changed in place"),
    Mixes: ("determinism", "discriminator's term twice.*torch.rand"),
    DetachesRefined: ("gradients", "refined images.*got: +none"),
    WithoutGradient: ("gradients", "critic.*got: +none.*no_grad"),
    WorstAlone: ("gradients", "every refined image"),
    OtherWayRound: (
        "direction",
        "refiner's term that rises.*the reverse.*here 1 stands for refined",
    ),
    CriticOtherWayRound: ("direction", "discriminator's term that falls as refined logits rise"),
    PairsUnsaid: ("real_ignored", "pairs_real = True"),
    SumsUnsaid: ("shares", "reduction = 'sum'"),
    AsABatch: ("shares", "statistic of the batch"),
}


def in_place(images):
    return images.mul_(2)


def unsmooth(images):
    return images.square().sum(1, keepdim=True).sqrt()


def frozen(images):
    with torch.no_grad():
        return images * 2


def of_the_batch(images):
    return images - images.mean(0)


def noisy(images):
    return images + torch.rand_like(images)


def reseeded(images):
    torch.manual_seed(0)
    return images + torch.rand_like(images)


FEATURE_FAULTS = {
    lambda images: images.flatten(1): ("feature_maps", "flattened"),
    nn.Identity: ("feature_maps", "TypeError|a factory"),
    lambda images: images > 0: ("feature_maps", "torch.bool"),
    in_place: ("input_untouched", "images changed in place"),
    unsmooth: ("finite", "gradients that are not.*root of 0"),
    frozen: ("gradients", "no_grad"),
    noisy: ("determinism", "others"),
    reseeded: ("determinism", "torch has moved"),
    of_the_batch: ("batch_independence", "apart"),
}


def term(function):
    """A factory of this term."""
    return lambda: (
        lambda refiner, refined, synthetic, weights: function(refined, synthetic, weights)
    )


class KeepsTheRefiner(nn.Module):
    def __init__(self, refiner):
        super().__init__()
        self.refiner = refiner

    def forward(self, refiner, refined, synthetic, weights):
        return (refined - synthetic).abs().mean()


class HasAnIdleWeight(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.head = nn.Conv2d(channels, 4, 1)

    def forward(self, refiner, refined, synthetic, weights):
        return (refined - synthetic).abs().mean()


class UsesItsHead(HasAnIdleWeight):
    def forward(self, refiner, refined, synthetic, weights):
        places = torch.randperm(refined[0, 0].numel())[:16]  # of torch's generator, which is seeded
        moved = (self.head(refined) - self.head(synthetic.square())).flatten(2)
        return moved[..., places].square().mean()


TERM_FAULTS = {
    "itself": (lambda refiner, refined, synthetic, weights: refined.mean(), "scalar", "TypeError"),
    "per pixel": (term(lambda r, s, w: (r - s).abs()), "scalar", "scalar tensor of images"),
    "a number": (term(lambda r, s, w: (r - s).abs().mean().item()), "scalar", r"\.item\(\)"),
    "needs weights": (term(lambda r, s, w: ((r - s).abs() * w).mean()), "scalar", "TypeError"),
    "0 / 0": (term(lambda r, s, w: (r - s).mean() / s.std()), "scalar", "0 everywhere|finite"),
    "in place": (
        term(lambda r, s, w: s.sub_(r.detach()).abs().mean() + r.mean()),
        "input_untouched",
        "synthetic changed in place",
    ),
    "the refiner": (KeepsTheRefiner, "owns_no_refiner", "holds weights of the refiner"),
    "detached": (term(lambda r, s, w: (r.detach() - s).abs().mean()), "gradients", "got: +none"),
    "a root": (term(lambda r, s, w: (r - s).square().sum().sqrt()), "gradients", "root of 0"),
    "an idle weight": (HasAnIdleWeight, "gradients", "its weight head"),
    "numpy's draws": (
        term(lambda r, s, w: (r - s).abs().mean() * np.random.rand()),  # noqa: NPY002
        "determinism",
        "draw with torch",
    ),
}


def wants_colour(old, new, annotations):
    return ["narrow"] * (old.shape[2] < 1)


def wants_a_label(old, new, annotations):
    return ["no box"] * (annotations[0].image_id is None)


def wrapped_round(old, new, annotations):
    new[:] = old - new
    return []


def tires(old, new, annotations, seen=[]):  # noqa: B006
    seen.append(1)
    return ["tired"] * (len(seen) % 2 and not np.array_equal(old, new))


def takes_a_label_away(old, new, annotations):
    del annotations[:1]
    return []


def wrong_way_round(old, new, annotations):
    return ["changed"] * bool(np.abs(new.astype(int) - old).mean() < 3)


def undefined(old, new, annotations):
    with np.errstate(all="ignore"):
        change = np.abs(new.astype(float) - old)
        return ["uneven"] * (not change.std() / change.mean() < 99)


GATE_FAULTS = {
    lambda old, new, annotations: "too dark": ("reasons", "the string 'too dark'"),
    lambda old, new, annotations: True: ("reasons", "True or False"),
    lambda old, new, annotations: None: ("reasons", "no `return`"),
    lambda old, new, annotations: [""]: ("reasons", "empty reason"),
    lambda old, new, annotations: [0.5]: ("reasons", r"\[0.5\]"),
    wants_colour: ("reasons", "IndexError"),
    wants_a_label: ("reasons", "IndexError"),
    wrapped_round: ("input_untouched", "new changed in place.*uint8 wraps round"),
    takes_a_label_away: ("input_untouched", "annotations changed"),
    wrong_way_round: ("unchanged", "ordinary image that has not changed.*wrong way round"),
    undefined: ("unchanged", "0/0"),
    tires: ("determinism", "the same reasons twice"),
}


def failing(checks):
    """What fails, by the name of the check."""
    said = {}
    for check in checks:
        try:
            check()
        except AssertionError as error:
            said[check.__name__] = str(error)
    return said


def test_a_sound_refiner_has_no_fault():
    assert failing(testing.refiner_checks(Refiner)) == {}


def test_a_discriminator_may_look_at_its_batch_unless_it_says_that_it_does_not():
    class Normal(Discriminator):
        def __init__(self, channels):
            super().__init__(channels)
            self.norm = nn.BatchNorm2d(1)

        def forward(self, images):
            return self.norm(super().forward(images))

    class Independent(Normal):
        independent = True

    assert failing(testing.discriminator_checks(Normal)) == {}
    assert "batch_independence" in failing(testing.discriminator_checks(Independent))


@pytest.mark.parametrize(
    "kept", [{"a": nn.Parameter(torch.ones(3, 1, 1))}, [nn.Parameter(torch.tensor(1.0))]]
)
def test_weights_in_a_plain_dict_or_list_are_found_to_be_lost(kept):
    class Keeps(Refiner):
        def __init__(self, channels):
            super().__init__(channels)
            self.kept = kept

    assert "weights" in failing(testing.refiner_checks(Keeps))


def test_sound_parts_of_other_kinds_have_no_fault():
    assert failing(testing.discriminator_checks(Discriminator)) == {}
    assert failing(testing.loss_checks(Loss)) == {}
    assert failing(testing.regularization_checks(UsesItsHead)) == {}


def named_by(check, said, kind, name):
    """Whether a check says what it must and is the first to fail."""
    with pytest.raises(AssertionError) as caught:
        check()
    message = str(caught.value)
    assert message.startswith(f"{kind}: {name}\n  expected: "), message
    assert re.search(said, message, re.DOTALL), message


def by_name(fault):
    return getattr(fault, "__name__", None)


@pytest.mark.parametrize("fault", REFINER_FAULTS, ids=by_name)
def test_a_fault_of_a_refiner_is_named_by_its_check(fault):
    name, said = REFINER_FAULTS[fault]

    named_by(lambda: testing.check_refiner(fault), said, "refiner", name)


@pytest.mark.parametrize("fault", DISCRIMINATOR_FAULTS, ids=by_name)
def test_a_fault_of_a_discriminator_is_named_by_its_check(fault):
    name, said = DISCRIMINATOR_FAULTS[fault]

    named_by(lambda: testing.check_discriminator(fault), said, "discriminator", name)


@pytest.mark.parametrize("fault", LOSS_FAULTS, ids=by_name)
def test_a_fault_of_a_loss_is_named_by_its_check(fault):
    name, said = LOSS_FAULTS[fault]

    named_by(lambda: testing.check_loss(fault), said, "loss", name)


@pytest.mark.parametrize("fault", FEATURE_FAULTS, ids=by_name)
def test_a_fault_of_a_feature_transform_is_named_by_its_check(fault):
    name, said = FEATURE_FAULTS[fault]

    named_by(lambda: testing.check_feature_transform(fault), said, "feature transform", name)


@pytest.mark.parametrize("fault", TERM_FAULTS)
def test_a_fault_of_a_term_is_named_by_its_check(fault):
    make, name, said = TERM_FAULTS[fault]

    named_by(lambda: testing.check_regularization(make), said, "regularization", name)


@pytest.mark.parametrize("fault", GATE_FAULTS, ids=by_name)
def test_a_fault_of_a_gate_is_named_by_its_check(fault):
    name, said = GATE_FAULTS[fault]

    named_by(lambda: testing.check_gate(fault), said, "gate", name)


def test_every_check_of_every_kind_has_a_planted_fault():
    planted = {
        "refiner": (REFINER_FAULTS.values(), testing.refiner_checks(Refiner)),
        "discriminator": (DISCRIMINATOR_FAULTS.values(), []),
        "loss": (LOSS_FAULTS.values(), testing.loss_checks(Loss)),
        "feature transform": (FEATURE_FAULTS.values(), testing.feature_transform_checks(noisy)),
        "term": ([each[1:] for each in TERM_FAULTS.values()], testing.regularization_checks(term)),
        "gate": (GATE_FAULTS.values(), testing.gate_checks(tires)),
    }
    untried = {
        f"{kind}: {check.__name__}"
        for kind, (faults, checks) in planted.items()
        for check in checks
        if check.__name__ not in {name for name, _ in faults}
    }

    assert untried == {"refiner: device", "feature transform: device"}  # which ask for a GPU


def test_a_receptive_field_that_is_much_too_wide_is_only_noted():
    class Cautious(Refiner):
        receptive_field = 9

    with pytest.warns(UserWarning, match="receptive_field = 9, of which 3 px were seen to matter"):
        testing.check_refiner(Cautious)


def test_without_a_receptive_field_a_statistic_of_the_whole_image_is_allowed():
    class Whole(Centred):
        receptive_field = None

    testing.check_refiner(Whole)


def test_a_factory_that_cannot_be_called_is_a_failure_of_its_own():
    named_by(
        lambda: testing.check_refiner(nn.Identity, sise=3),
        "ModuleList|trainable",
        "refiner",
        "weights",
    )
    named_by(
        lambda: testing.check_refiner(lambda: None), "TypeError.*channels", "refiner", "weights"
    )
    named_by(lambda: testing.check_refiner(dict), "an nn.Module.*dict", "refiner", "weights")


def test_checks_leave_the_global_generators_alone():
    torch.manual_seed(11)
    before = torch.get_rng_state()

    testing.check_refiner(Refiner)
    testing.check_loss(Loss)
    testing.check_regularization(UsesItsHead)

    assert torch.equal(torch.get_rng_state(), before)


def test_a_check_is_shown_by_its_kind_and_name():
    first = testing.refiner_checks(Refiner)[0]

    assert (repr(first), first.__name__) == ("refiner: weights", "weights")


def test_a_written_pair_can_be_read_and_has_labels_where_its_boxes_are(tmp_path):
    pair = testing.write_pair(tmp_path / "new", count=3, size=(20, 24))

    labels = read_labels(pair.annotations)
    images = [read_image(pair.images / image.file_name) for image in read_images(pair.annotations)]
    assert [image.pixels.shape for image in images] == [(20, 24, 3)] * 3
    assert len(list(pair.real.iterdir())) == 3
    for number, image in enumerate(images):
        (label,) = labels.by_image[number]
        left, top, width, height = map(int, label.bbox)
        inside = image.pixels[top : top + height, left : left + width]
        assert inside.min() > image.pixels.mean()
        assert (image.pixels > 100).sum() == inside.size


@pytest.mark.parametrize("channels", [1, 3])
def test_a_brief_training_gives_a_refiner_that_changes_images(tmp_path, channels):
    data = {"channels": channels, "crop": [16, 16]}

    file = testing.train_briefly(tmp_path, refiner={"name": "resnet", "features": 4}, data=data)

    image = np.full((9, 7, 3) if channels == 3 else (9, 7), 90, np.uint8)
    refined = ImageRefiner.load(file, device="cpu")(image)
    assert refined.shape == image.shape
    assert not np.array_equal(refined, image)


def test_tables_lie_over_the_small_config_and_another_part_starts_without_options():
    config = testing.small_config(
        refiner="resnet",
        discriminator={"features": 4},
        loss={"name": "least_squares", "r1": 1.0},
        training={"seed": 3},
    )

    assert (config.refiner.name, config.refiner.options) == ("resnet", {})
    assert (config.discriminator.name, config.discriminator.options) == ("patch", {"features": 4})
    assert (config.loss.name, config.loss.options) == ("least_squares", {"r1": 1.0})
    assert (config.training.seed, config.training.batch_size) == (3, 4)


def test_the_kit_does_not_need_pytest():
    script = "import sys; sys.modules['pytest'] = None; import simgan_aug.testing"

    subprocess.run([sys.executable, "-c", script], check=True)


class Plugin:
    """A module, as good as."""

    def __init__(self, **refiners):
        self.refiners = refiners

    @hookimpl
    def simgan_register_refiners(self):
        return self.refiners


def test_an_offered_part_is_found_while_it_lasts_and_gone_afterwards(tmp_path):
    before = sorted(plugins.parts("refiner"))

    with testing.offered(Plugin(sound=Refiner), "mine"):
        inside = sorted(plugins.parts("refiner"))
        file = testing.train_briefly(tmp_path, refiner="sound")
        ImageRefiner.load(file, device="cpu")

    assert inside == sorted([*before, "sound"])
    assert sorted(plugins.parts("refiner")) == before
    with pytest.raises(CheckpointError, match=r"needs the refiner 'sound' of mine \(not installed"):
        ImageRefiner.load(file, device="cpu")


class Volume(Refiner):
    """Channels as a third dimension."""

    def __init__(self, channels=3):
        super().__init__(channels)
        self.conv = nn.Conv3d(1, 1, 3, padding=1)

    def forward(self, images):
        return images + self.conv(images[:, None])[:, 0].to(images.dtype)


def test_a_refiner_whose_weights_are_of_three_dimensions_is_sound_and_trains(tmp_path):
    testing.check_refiner(Volume)

    with testing.offered(Plugin(volume=Volume), "mine"):
        file = testing.train_briefly(tmp_path, refiner="volume")
        refined = ImageRefiner.load(file, device="cpu")(np.full((9, 7, 3), 90, np.uint8))

    assert refined.shape == (9, 7, 3)


def test_weights_of_two_dimensions_lie_as_images_do():
    network = UnshuffleRefiner(3, features=8, blocks=1)

    refine = ImageRefiner(network, 3, None, device="cpu")

    last = torch.channels_last
    assert all(
        w.is_contiguous(memory_format=last) for w in refine.network.parameters() if w.ndim == 4
    )


@pytest.mark.parametrize(
    ("module", "name", "said"),
    [
        (Plugin(resnet=Refiner), "mine", "the refiner 'resnet' is already offered by 'builtin'"),
        (Plugin(sound="Refiner"), "mine", "expected names to callables"),
        (Plugin(sound=Refiner), "builtin", "there is a plugin 'builtin' of simgan_aug .* already"),
    ],
    ids=["a part of ours", "no part", "a plugin of ours"],
)
def test_a_broken_offer_is_an_error_at_once_and_leaves_nothing(module, name, said):
    before = plugins.failures(), sorted(plugins.parts("refiner"))

    with pytest.raises(PluginError, match=said), testing.offered(module, name):
        pass

    assert (plugins.failures(), sorted(plugins.parts("refiner"))) == before


def test_the_tutorial_trains_a_refiner_that_is_offered_by_the_script_itself(tmp_path):
    script = Path(__file__).parents[1] / "examples" / "own_refiner.py"
    command = [sys.executable, script, "--steps", "2", "--out", tmp_path / "own"]

    ran = subprocess.run(command, capture_output=True, text=True, check=True)

    assert "the contract is kept" in ran.stdout
    assert "white (250, 250, 250) becomes [" in ran.stdout
    assert (tmp_path / "own" / "sheet.png").is_file()


def test_one_plugin_offered_within_another_leaves_the_outer_one_in_place():
    def plugin(name):
        @hookimpl
        def simgan_register_losses():
            return {name: LeastSquares}

        return types.SimpleNamespace(simgan_register_losses=simgan_register_losses)

    with testing.offered(plugin("outer-loss"), "outer"):
        with testing.offered(plugin("inner-loss"), "inner"):
            assert {"outer-loss", "inner-loss"} <= set(plugins.parts("loss"))
        assert "outer-loss" in plugins.parts("loss")
        assert "inner-loss" not in plugins.parts("loss")
    assert "outer-loss" not in plugins.parts("loss")
