"""What a training step depends on, and its form as flat tensors that safetensors can hold."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from simgan_aug.config import Training
from simgan_aug.errors import ConfigError
from simgan_aug.history import HistoryBuffer
from simgan_aug.networks.contract import to_channels_last
from simgan_aug.ranks import Ranks
from simgan_aug.terms import Terms

STUDENT_BETAS = (0.9, 0.99)
"""Adam's decay rates of a student, which has no opponent that would turn against its momentum."""


COUNTS = 5
"""Numbers in a saved state's "counts"."""


class TrainingState:
    """All that a step depends on: networks, optimisers, the average, the histories, the counts.

    Terms of regularization may have weights of their own, which train with the refiner's. A
    student, if there is one, learns from the average once that is trained.

    A batch is cut into shares, `config.accumulate` for each rank. What a share is given depends on
    its number among all shares alone, so that two ranks do what one does with two shares.

    Raises:
        ConfigError: batches cannot be cut so, or a network would see that they are.
    """

    def __init__(
        self,
        refiner: nn.Module,
        discriminator: nn.Module,
        config: Training,
        ranks: Ranks | None = None,
        terms: Terms | None = None,
        student: nn.Module | None = None,
    ) -> None:
        self.ranks, self.terms = ranks or Ranks(), terms or Terms()
        self.shares = self.ranks.world * config.accumulate
        """Of a batch, over all ranks."""
        first = self.ranks.number * config.accumulate
        self.own_shares = range(first, first + config.accumulate)
        """The numbers of those that this rank works on."""
        self.networks = (refiner, discriminator, *(() if student is None else (student,)))
        """The players, and the student, if there is one."""
        _check_shares(self.shares, config, (*self.networks, self.terms))
        for network in self.networks:
            network.train()  # a term stays in the mode that its author chose
        for network in (*self.networks, self.terms):
            to_channels_last(network)
        self.refiner = refiner
        self.discriminator = discriminator
        self.student, self._student_steps = student, config.student_steps
        self.average = AveragedModel(refiner, multi_avg_fn=get_ema_multi_avg_fn(config.average))  # type: ignore[no-untyped-call]
        self.averaged.eval()  # it only ever shows what it can do
        self.optimizers = {
            "refiner": _optimizer((refiner, self.terms), config, config.refiner_rate),
            "discriminator": _optimizer((discriminator,), config, config.discriminator_rate),
        }
        if student is not None:
            weights = student.parameters()
            self.optimizers["student"] = _adam(weights, config.student_rate, STUDENT_BETAS)
        self.histories = [HistoryBuffer(config.history // self.shares) for _ in self.own_shares]
        """One for each share of this rank; they fill alike."""
        self.scalars: dict[str, Any] = {"rate": 1.0, "rollbacks": 0.0}
        """Further numbers that a step depends on, saved by name: what rollbacks have left of both
        rates, and how many there were."""
        self.rates: dict[str, float] = {}
        """Learning rates by player, of the step that is done or under way."""
        self.step = 0
        """Steps of the game, its warm-ups included."""
        self.student_step = 0
        """Steps of the student since."""
        self.synthetic_batches = 0
        """Batches taken from the synthetic iterator; a resumed iterator starts there."""
        self.real_batches = 0
        """The same for the real iterator."""

    @property
    def number(self) -> int:
        """Steps that are done, of all kinds."""
        return self.step + self.student_step

    def unteach(self) -> None:
        """Before the game goes on: what a student has learned is where it will begin again."""
        self.synthetic_batches -= self.student_step
        self.student_step = 0

    def set_rate(self, player: str, rate: float) -> None:
        """The learning rate of a player from now on."""
        self.rates[player] = rate
        group = self.optimizers[player].param_groups[0]
        if isinstance(group["lr"], Tensor):  # on a GPU, where a recording reads it
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate

    @contextlib.contextmanager
    def scalars_in(self, values: Tensor) -> Iterator[None]:
        """Within it, `scalars` are these values, on the device, which a recording reads."""
        before = dict(self.scalars)
        self.scalars.update(zip(before, values.unbind(), strict=True))
        try:
            yield
        finally:
            self.scalars.update(before)

    @property
    def averaged(self) -> nn.Module:
        """The refiner as it has been trained: the moving average of its weights."""
        return self.average.module

    @property
    def kept(self) -> nn.Module:
        """The network to keep: the student once it has learned all, before that its teacher."""
        taught = self.student_step >= self._student_steps
        return self.averaged if self.student is None or not taught else self.student

    def tensors(self, of_all: bool = False) -> dict[str, Tensor]:
        """Everything as flat tensors by name, ready for safetensors.

        Args:
            of_all: with the histories of all ranks, which must all ask for them at once; else with
                those of this rank alone.
        """
        flat: dict[str, Tensor] = {}
        for name, module in self._modules().items():
            flat |= {f"{name}.{k}": v for k, v in module.state_dict().items()}
        for player, optimizer in self.optimizers.items():
            for index, slots in optimizer.state_dict()["state"].items():
                flat |= {
                    f"optimizer.{player}.{index}.{slot}": v
                    for slot, v in slots.items()
                    if v is not None
                }
        held = [history.images for history in self.histories if history.images is not None]
        if held:
            own = torch.stack(held)  # (shares, capacity, C, H, W)
            flat["history"] = torch.cat(self.ranks.gather(own)) if of_all else own
        flat |= {f"scalar.{name}": _double(value) for name, value in self.scalars.items()}
        counts = (self.step, self.synthetic_batches, self.real_batches, self.histories[0].size)
        flat["counts"] = torch.tensor([*counts, self.student_step])
        return flat

    def load(self, flat: Mapping[str, Tensor]) -> None:
        """The inverse of `tensors`, for networks and a config of the same shapes.

        Raises:
            KeyError, RuntimeError, ValueError: the tensors belong to other networks, or histories
                to other shares.
        """
        for name, module in self._modules().items():
            module.load_state_dict(_under(flat, name))
        for player, optimizer in self.optimizers.items():
            slots: dict[int, dict[str, Tensor]] = {}
            for name, value in _under(flat, f"optimizer.{player}").items():
                index, slot = name.split(".")
                slots.setdefault(int(index), {})[slot] = value.clone()
            optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})
            _lay_out(optimizer)
        self.scalars |= {name: value.item() for name, value in _under(flat, "scalar").items()}
        counts = flat["counts"].tolist()
        self.step, self.synthetic_batches, self.real_batches, size, self.student_step = counts
        self._load_histories(flat.get("history"), size)

    def _modules(self) -> dict[str, nn.Module]:
        """All that has weights, by the name under which it is saved."""
        modules = {
            "discriminator": self.discriminator,
            "refiner": self.refiner,
            "average": self.average,
            "terms": self.terms,
        }
        return modules if self.student is None else {**modules, "student": self.student}

    def is_finite(self) -> bool:
        """Whether all weights, averages and moments are."""
        return all(
            bool(torch.isfinite(value).all())
            for name, value in self.tensors().items()
            if value.is_floating_point() and name != "history"
        )

    def _load_histories(self, held: Tensor | None, size: int) -> None:
        """From (shares, capacity, ...), of all ranks or of this one."""
        if held is not None and len(held) == self.shares:
            held = held[self.own_shares.start : self.own_shares.stop]
        if held is not None and len(held) != len(self.histories):
            raise ValueError(f"{len(held)} histories, where there are {self.shares} shares")
        device = next(self.refiner.parameters()).device
        for share, history in enumerate(self.histories):
            history.restore(None if held is None else held[share].to(device), size)


def _check_shares(shares: int, config: Training, networks: tuple[nn.Module, ...]) -> None:
    if config.batch_size % (2 * shares):
        raise ConfigError(
            f"{shares} shares (ranks x training.accumulate) of an even number of images do not "
            f"make a batch of {config.batch_size}: set training.batch_size to a multiple of "
            f"{2 * shares}"
        )
    for layer in (layer for network in networks for layer in network.modules()):
        synchronised = isinstance(layer, nn.SyncBatchNorm) and config.accumulate == 1
        if shares > 1 and isinstance(layer, nn.modules.batchnorm._BatchNorm) and not synchronised:
            raise ConfigError(
                f"a network has {type(layer).__name__} layers, whose statistics would be those of "
                f"{config.batch_size // shares} images and not of the batch: train it on one rank "
                "with training.accumulate = 1, or take GroupNorm"
            )


def _double(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def _optimizer(
    networks: tuple[nn.Module, ...], config: Training, rate: float
) -> torch.optim.Optimizer:
    weights = [weight for network in networks for weight in network.parameters()]
    if config.optimizer == "sgd":
        return torch.optim.SGD(weights, lr=rate, fused=True)
    return _adam(weights, rate, config.betas)


def _adam(
    parameters: Iterable[nn.Parameter], rate: float, betas: tuple[float, float]
) -> torch.optim.Optimizer:
    weights = list(parameters)
    optimizer = torch.optim.Adam(weights, lr=rate, betas=betas, fused=True)
    if weights and weights[0].is_cuda:
        optimizer.param_groups[0]["lr"] = torch.tensor(rate, device=weights[0].device)
    return optimizer


@contextlib.contextmanager
def capturable(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Within it, a step of Adam may be recorded; it would else refuse, or warn where it is not."""
    recording = torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
    for group in optimizer.param_groups:
        group["capturable"] = recording
    try:
        yield
    finally:
        for group in optimizer.param_groups:
            group["capturable"] = False


def _lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Give moments the memory layout of their weights: fused updates read both alike."""
    for weight, slots in optimizer.state.items():
        for name, value in slots.items():
            if value.shape == weight.shape:
                slots[name] = torch.empty_like(weight).copy_(value)


def _under(flat: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {
        name[len(prefix) + 1 :]: value
        for name, value in flat.items()
        if name.startswith(prefix + ".")
    }
