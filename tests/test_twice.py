"""Layers whose gradient is differentiated once more."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from simgan_aug.losses import gradient_penalty
from simgan_aug.networks import PaperPatch, Patch
from simgan_aug.twice import Twice

FORMS = [
    {"stride": 1, "padding": 1},
    {"stride": 2, "padding": 1},
    {"stride": (2, 1), "padding": (0, 2), "dilation": (1, 2)},
    {"stride": 1, "padding": 0, "groups": 2},
]


@pytest.fixture
def images():
    torch.manual_seed(0)
    return torch.rand(2, 4, 9, 8, dtype=torch.float64, requires_grad=True)


def convolution(form):
    torch.manual_seed(1)
    return nn.Conv2d(4, 6, 3, **form).double()


def convolution_of(channels):
    torch.manual_seed(2)
    return nn.Conv2d(channels, 1, 3).double()


def of_penalty(network, images, twice):
    """The gradients of a loss with a gradient penalty, by all weights and by the images."""
    images = images.detach().clone().requires_grad_()
    with torch.enable_grad(), twice:
        scores = network(images)
    loss = scores.square().mean() + gradient_penalty(scores.square(), images)
    return torch.autograd.grad(loss, [images, *network.parameters()])


@pytest.mark.parametrize("form", FORMS)
def test_values_and_derivatives_are_those_of_torch(form, images):
    layer = convolution(form)

    with Twice():
        assert torch.equal(layer(images), F.conv2d(images, layer.weight, layer.bias, **form))
    for ours, its in zip(
        of_penalty(layer, images, Twice()),
        of_penalty(layer, images, torch.enable_grad()),
        strict=True,
    ):
        torch.testing.assert_close(ours, its)


@pytest.mark.parametrize("form", FORMS[:3])
def test_derivatives_are_right_to_the_second_order(form):
    layer = convolution(form)
    images = torch.rand(1, 4, 5, 4, dtype=torch.float64, requires_grad=True)

    def convolve(images, weight, bias):
        with Twice():
            return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (images,))

    operands = (images, layer.weight, layer.bias)
    assert torch.autograd.gradcheck(convolve, operands)
    assert torch.autograd.gradgradcheck(convolve, operands)


@pytest.mark.parametrize("make", [Patch, PaperPatch, lambda: Patch(spectral=True)])
def test_a_discriminator_learns_the_same_from_a_penalty(make):
    torch.manual_seed(0)
    network = make().double().eval()
    images = torch.rand(2, 3, 20, 24, dtype=torch.float64)

    ours, its = (of_penalty(network, images, twice) for twice in (Twice(), torch.enable_grad()))

    for mine, theirs in zip(ours, its, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_no_convolution_with_a_kernel_as_large_as_the_image_is_left(images):
    layer, kernels = nn.Conv2d(4, 6, 3).double(), []

    class Seen(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten.convolution.default:
                kernels.append(args[1].shape[2:])
            return func(*args, **(kwargs or {}))

    with Seen():
        of_penalty(layer, images, Twice())

    assert set(kernels) == {(3, 3)}


def test_a_gradient_by_the_images_asks_for_none_by_the_weights(images):
    layer, made = convolution(FORMS[0]), []

    class Seen(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten.convolution_backward.default:
                made.append(args[-1])
            return func(*args, **(kwargs or {}))

    with Twice():
        values = layer(images)
    with Seen():
        torch.autograd.grad(values.sum(), images, create_graph=True)

    assert made == [[True, False, False]]


def test_it_computes_in_the_type_that_autocast_asks_for():
    layer, images = nn.Conv2d(3, 4, 3), torch.rand(1, 3, 8, 8, requires_grad=True)

    with torch.autocast("cpu", torch.bfloat16):
        plain = layer(images)
        with Twice():
            values = layer(images)
    values.float().sum().backward()

    assert torch.equal(values, plain)
    assert values.dtype == torch.bfloat16
    assert layer.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("inplace", [False, True])
def test_what_comes_out_may_be_changed_in_place(inplace, images):
    layer = convolution(FORMS[0])
    network = nn.Sequential(layer, nn.LeakyReLU(0.2, inplace), convolution_of(6))

    ours, its = (of_penalty(network, images, twice) for twice in (Twice(), torch.enable_grad()))

    for mine, theirs in zip(ours, its, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_a_leaky_relu_adds_no_zeros_to_a_penaltys_gradient(images):
    images = images.detach().requires_grad_()
    with Twice():
        values = F.leaky_relu(images, 0.2, False).square()
    (gradient,) = torch.autograd.grad(values.sum(), images, create_graph=True)

    below = gradient.grad_fn.next_functions

    assert type(gradient.grad_fn).__name__ == "_SlopeBackward"
    assert [edge[0] is None for edge in below] == [False, True]


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_a_padding_by_name_is_left_to_torch(padding, images):
    layer = convolution({"padding": padding})

    with Twice():
        values = layer(images)

    assert type(values.grad_fn).__name__ == "ConvolutionBackward0"
