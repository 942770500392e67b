"""What every network is held to, refiner or discriminator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from simgan_aug.graphs import is_recordable
from simgan_aug.testing.checks import differs, drawn, generators_kept, lesson, seeded
from simgan_aug.testing.subject import Sample, Subject


def mode(network: nn.Module) -> str:
    """How a network is called at the moment, in words."""
    return "in training" if network.training else "at inference"


def weights(subject: Subject) -> None:
    """It has weights to train, and no tensor that `.to(device)` and a checkpoint would miss."""
    for network, _ in subject.cases():
        assert any(weight.requires_grad for weight in network.parameters()), lesson(
            "at least one trainable parameter",
            "none",
            "a fixed function, or layers kept in a plain list",
            "register layers as attributes, nn.ModuleList or nn.Parameter",
        )
        stray = list(_stray_tensors(network))
        assert not stray, lesson(
            "every tensor a parameter or a buffer",
            f"plain attributes: {', '.join(stray)}",
            "`self.kernel = torch.tensor(...)`, which stays on the CPU and is not saved",
            "self.register_buffer('kernel', ...), or nn.Parameter if it is trained",
        )


def determinism(subject: Subject) -> None:
    """The same input gives the same bits, whatever the global seeds, in training as well."""
    for train in (False, True):
        for network, sample in subject.cases(train=train):
            state = _copied(network)
            with torch.no_grad():
                with seeded(1):
                    first = sample.through(network)
                if train:  # spectral normalisation goes on with each call
                    network.load_state_dict(state)
                with seeded(2):
                    second = sample.through(network)
            assert torch.equal(first, second), lesson(
                "the same bits from two calls with the same input",
                f"values {_apart(first, second)} apart, {mode(network)}",
                "dropout, torch.randn in forward, or a counter that a call moves on",
                "declare noise_channels and take `noise`, which is drawn from the image's seed"
                if subject.is_refiner
                else "leave out what draws: a training that is resumed has to go on alike",
            )


def global_random_state(subject: Subject) -> None:
    """A call neither seeds nor draws from the global generators."""
    for train in (False, True):
        for network, sample in subject.cases(train=train):
            with generators_kept(mode(network)), torch.no_grad():
                sample.through(network)


def input_untouched(subject: Subject) -> None:
    """What a network is called with is not changed in place."""
    for network, sample in subject.cases():
        given = sample.map(Tensor.clone)
        with torch.no_grad():
            given.through(network)
        check_untouched(sample.tensors(), given.tensors())


def check_untouched(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> None:
    """Hold tensors to what they were."""
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert not changed, lesson(
        "the input as it was",
        f"{' and '.join(changed)} changed in place",
        "x += ..., x.clamp_(), nn.ReLU(inplace=True) as the first layer",
        "x = x + ...: the caller still needs the input, to tell what was changed",
    )


def finite(subject: Subject) -> None:
    """All values are finite, of black, grey, white and random images, down to the smallest."""
    for size in ((1, 1), (16, 16)):
        for network, sample in subject.cases(size):
            for value in (-1.0, 0.0, 1.0, None):
                _check_finite(network, sample if value is None else _flat(sample, value), value)


def autocast(subject: Subject) -> None:
    """In bfloat16 (autocast) all values are finite; a refiner answers in the input's dtype."""
    for network, sample in subject.cases():
        for value in (-1.0, 1.0, None):
            shown = sample if value is None else _flat(sample, value)
            with torch.autocast("cpu", torch.bfloat16):
                out = _check_finite(network, shown, value)
            if subject.is_refiner:
                assert out.dtype == torch.float32, lesson(
                    "torch.float32 under autocast, as the input",
                    str(out.dtype),
                    "the last layer's bfloat16 is returned, which rounds to a grey level",
                    "add the change to the input, or end with .to(images.dtype)",
                )


def batch_independence(subject: Subject) -> None:
    """An image alone gives what it gives in a batch, in training as well."""
    for train in (False, True):
        for network, sample in subject.cases(train=train, batch=3):
            state = _copied(network)
            with torch.no_grad():
                together = sample.through(network)[1:2]
                network.load_state_dict(state)
                alone = sample.map(lambda each: each[1:2]).through(network)
            assert not differs(together, alone), lesson(
                "of an image alone what it gives in a batch of 3",
                f"values {_apart(together, alone)} apart, {mode(network)}",
                "BatchNorm, or another mean over the batch",
                "no normalisation at all (GroupNorm and InstanceNorm look at the whole image, "
                "which breaks tiles); a smaller learning rate does for stability",
            )


def gradients(subject: Subject) -> None:
    """A gradient reaches every weight, and the input in every channel; all of it is finite."""
    for network, sample in subject.cases(train=True):
        given = Sample(sample.images.requires_grad_(), sample.extra)
        for seed in range(3):  # one draw may meet a ReLU at rest
            out = given.through(network)
            (out * drawn(*out.shape, seed=seed)).sum().backward()  # type: ignore[no-untyped-call]
        for name, weight in network.named_parameters():
            if weight.requires_grad:
                _check_gradient(f"weight {name}", weight.grad)
        reached = given.images.grad
        for channel in range(given.images.shape[1]):
            at = None if reached is None else reached[:, channel]
            _check_gradient(f"channel {channel} of the input", at)


def state_round_trip(subject: Subject) -> None:
    """What a state_dict holds, saved as safetensors, makes a fresh network the same."""
    for channels in subject.channels:
        network, fresh = subject.build(channels), subject.build(channels, seed=1)
        sample = subject.sample(network, channels, (max(16, subject.smallest),) * 2)
        saved = save({name: value.clone() for name, value in _plain(network).items()})
        fresh.load_state_dict(load(saved))
        with torch.no_grad():
            before, after = sample.through(network), sample.through(fresh)
        assert torch.equal(before, after), lesson(
            "of a fresh network with the saved state the same bits",
            f"values {_apart(before, after)} apart",
            "random values outside of the state: a buffer with persistent=False, a drawn constant",
            "make it a parameter or a persistent buffer, or draw it from a fixed seed",
        )


def device(subject: Subject) -> None:
    """On a GPU, where there is one, it gives what it gives on the CPU."""
    if not torch.cuda.is_available():
        return
    for network, sample in subject.cases():
        with torch.no_grad():
            here = sample.through(network)
            there = sample.map(Tensor.cuda).through(network.cuda())
        assert there.device.type == "cuda", lesson(
            "an answer on the input's device",
            str(there.device),
            "a tensor made with torch.zeros(...) and no device",
            "torch.zeros(..., device=images.device), or images.new_zeros(...)",
        )
        apart = differs(here, there.cpu(), 1e-2)
        assert not apart, lesson("what the CPU gives", f"values {apart:.2g} apart", "TF32 at most")


def recordable(subject: Subject) -> None:
    """One that declares itself `recordable` looks at no value and makes no tensor of the host's."""
    for train in (False, True):
        for network, sample in subject.cases(train=train):
            if not is_recordable(network):
                continue
            with _HostWork() as work:
                sample.through(network)
            assert not work.seen, lesson(
                "work that a GPU can record and replay, as `recordable` declares",
                f"{', '.join(sorted(work.seen))}, {mode(network)}",
                "`if values.max() > 1`, .item(), an index by a mask; or torch.tensor(...) in "
                "forward, which a GPU fetches from the host",
                "torch.where, and buffers for constants; or do not declare it",
            )


class _HostWork(TorchDispatchMode):
    """Sees what looks at values, and what is made of Python's numbers."""

    KINDS: ClassVar = {
        "_local_scalar_dense": "a value that is read",
        "is_nonzero": "a value that is read",
        "equal": "a value that is read",
        "nonzero": "places that are counted",
        "masked_select": "places that are counted",
        "lift_fresh": "a tensor of Python's numbers",
    }

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen = set[str]()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """As it is, noticed."""
        if said := self.KINDS.get(func.overloadpacket.__name__):
            self.seen.add(said)
        return func(*args, **(kwargs or {}))


def _stray_tensors(network: nn.Module) -> Iterator[str]:
    """Names of what a module holds beside its parameters, buffers and modules."""
    known = {id(each) for each in (*network.parameters(), *network.buffers(), *network.modules())}
    for place, module in network.named_modules():
        for name, value in vars(module).items():
            inside = value.values() if isinstance(value, dict) else value
            inside = list(inside) if isinstance(value, (list, tuple, dict)) else [value]
            held = [each for each in inside if isinstance(each, (Tensor, nn.Module))]
            if any(_has_values(each) and id(each) not in known for each in held):
                yield f"{place}.{name}".lstrip(".")


def _has_values(part: Tensor | nn.Module) -> bool:
    # A plain number may stay on the CPU.
    return isinstance(part, (nn.Module, nn.Parameter)) or part.ndim > 0


def _copied(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def _plain(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.contiguous() for name, value in network.state_dict().items()}


def _flat(sample: Sample, value: float) -> Sample:
    return Sample(torch.full_like(sample.images, value), sample.extra)


def _apart(one: Tensor, other: Tensor) -> str:
    return f"up to {(one.double() - other.double()).abs().max().item():.2g}"


def _check_finite(network: nn.Module, sample: Sample, value: float | None) -> Tensor:
    with torch.no_grad():
        out = sample.through(network)
    what = "a random image" if value is None else f"an image that is {value:g} everywhere"
    assert out.isfinite().all(), lesson(
        f"finite values of {what}, {tuple(sample.images.shape)}",
        f"{int((~out.isfinite()).sum())} that are not",
        "a division by a standard deviation or a range that is 0, a logarithm of 0",
        "add a small constant inside of the root or below the fraction",
    )
    return out


def _check_gradient(what: str, gradient: Tensor | None) -> None:
    reached = gradient is not None and bool(gradient.any())
    is_finite = gradient is not None and bool(gradient.isfinite().all())
    got = "none" if gradient is None else "0 everywhere" if is_finite else "values that are not"
    assert reached and is_finite, lesson(  # noqa: PT018 (one claim)
        f"a finite gradient at {what}",
        got,
        ".detach(), .item(), torch.no_grad() or rounding on the way; a layer that forward leaves "
        "out",
        "keep to operations that torch can derive; requires_grad_(False) on a weight that is fixed",
    )
