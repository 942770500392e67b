"""Layers whose gradient is differentiated once more, as a gradient penalty asks for.

torch finds the gradient of a gradient by a convolution's weight with a convolution whose kernel is
as large as the image. It is an ordinary weight gradient, for which there are fast ways: on a CPU
with AMX five times as fast. The same remedy: `conv2d_gradfix` of Karras et al., arXiv:2006.06676.
And of a leaky ReLU, whose second derivative is nothing, torch adds up zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

IMAGES, WEIGHT, CHANGE = range(3)
"""A convolution's operands, and a change of what comes out. The sum over that change times the
convolution is linear in each of the three: its derivative by one is made of the other two, and so
on for ever."""


class Twice(TorchFunctionMode):
    """Within it, `torch.conv2d` and `F.leaky_relu` have a gradient that is quickly differentiated.

    Values and derivatives of any order are those of torch. What is not called as `nn.Conv2d` and
    `nn.LeakyReLU` call it, is padded to "same" or "valid", or works in place, stays torch's own.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Ours in place of these two; all else as it is."""
        given = kwargs or {}
        if func is F.leaky_relu and given.get("negative_slope", 0) and not given["inplace"]:
            return _apply(_Bent, args[0], given["negative_slope"])
        if func is torch.conv2d and len(args) == 7 and torch.is_grad_enabled():
            images, _, _, _, padding, *_ = args
            if images.ndim == 4 and not isinstance(padding, str):
                return _convolved(*args)
        return func(*args, **given)


def _convolved(
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> Tensor:
    kind = images.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        images, weight = images.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    like = images.detach(), weight.detach()
    form = _Form(_pair(stride), _pair(padding), _pair(dilation), groups, like)
    return _made(form, CHANGE, {IMAGES: images, WEIGHT: weight}, bias)


@dataclass(frozen=True)
class _Form:
    """Makes one of the three of the other two."""

    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]
    groups: int
    like: tuple[Tensor, Tensor]
    """Images and weight, whose shapes and order in memory those made have."""

    def make(self, wanted: int, others: dict[int, Tensor], bias: Tensor | None) -> Tensor:
        images, weight = (others.get(role, self.like[role]) for role in (IMAGES, WEIGHT))
        form = self.stride, self.padding, self.dilation
        if wanted == CHANGE:
            return torch.conv2d(images, weight, bias, *form, self.groups)
        mask = [wanted == IMAGES, wanted == WEIGHT, False]
        made = torch.ops.aten.convolution_backward(
            others[CHANGE], images, weight, None, *form, False, [0, 0], self.groups, mask
        )
        return cast(Tensor, made[wanted])


def _made(
    form: _Form, wanted: int, others: dict[int, Tensor], bias: Tensor | None = None
) -> Tensor:
    """One of the three, in the graph by a node for each of the others that asks for a gradient.

    So the engine can ask for a gradient by one of them alone, as it does of torch's convolution: a
    `Function` of both would always be asked for both.
    """
    with torch.no_grad():
        value = form.make(wanted, others, bias)
    if not torch.is_grad_enabled():
        return value
    parts = [] if bias is None else [bias[:, None, None].expand_as(value)]
    for own, other in (tuple(others), tuple(reversed(others))):
        if others[own].requires_grad:
            roles = own, other, wanted
            parts.append(_apply(_Part, others[own], (others[other], value), form, roles))
    return _apply(_Joined, (value,), *parts) if parts else value


class _Part(Function):
    """Stands in the graph for what two have made, as a function of the first alone."""

    @staticmethod
    def forward(
        ctx: Any, own: Tensor, held: tuple[Tensor, Tensor], form: _Form, roles: tuple[int, ...]
    ) -> Tensor:
        """Zeros of the value's shape, which take no memory."""
        other, value = held
        ctx.save_for_backward(other)
        ctx.form, ctx.roles = form, roles
        return value.new_zeros(()).expand_as(value)

    @staticmethod
    def backward(ctx: Any, change: Tensor) -> tuple[Tensor | None, ...]:
        """The derivative by the first."""
        (other,), (own, role, wanted) = ctx.saved_tensors, ctx.roles
        return _made(ctx.form, own, {role: other, wanted: change}), None, None, None


class _Joined(Function):
    """The value itself, whose gradient goes to all that stand for it."""

    @staticmethod
    def forward(ctx: Any, value: tuple[Tensor], *parts: Tensor) -> Tensor:
        """The value."""
        ctx.count = len(parts)
        return value[0]

    @staticmethod
    def backward(ctx: Any, change: Tensor) -> tuple[Tensor | None, ...]:
        """The same for all."""
        return None, *[change] * ctx.count


class _Bent(Function):
    """A leaky ReLU."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, slope: float) -> Tensor:
        """The values bent."""
        ctx.save_for_backward(values)
        ctx.slope = slope
        return F.leaky_relu(values, slope)

    @staticmethod
    def backward(ctx: Any, change: Tensor) -> tuple[Tensor | None, ...]:
        """Of the change alone: nothing depends on how large the values are."""
        (values,) = ctx.saved_tensors
        return _apply(_Slope, change, values.detach(), ctx.slope), None


class _Slope(Function):
    """The slope at each of the values, times a change."""

    @staticmethod
    def forward(ctx: Any, change: Tensor, values: Tensor, slope: float) -> Tensor:
        """Linear in the change."""
        ctx.save_for_backward(values)
        ctx.slope = slope
        return cast(Tensor, torch.ops.aten.leaky_relu_backward(change, values, slope, False))

    @staticmethod
    def backward(ctx: Any, change: Tensor) -> tuple[Tensor | None, ...]:
        """The same of a change of the change."""
        return _apply(_Slope, change, *ctx.saved_tensors, ctx.slope), None, None


def _apply(function: type[Function], *arguments: Any) -> Tensor:
    return cast(Tensor, function.apply(*arguments))  # type: ignore[no-untyped-call]


def _pair(number: int | Sequence[int]) -> Sequence[int]:
    return (number, number) if isinstance(number, int) else number
