"""Back to the last good state where a training diverges, and on with lower rates."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from simgan_aug.config import Training
from simgan_aug.errors import DivergenceError
from simgan_aug.state import TrainingState


@dataclass(frozen=True, kw_only=True)
class Rollback:
    """A training that diverged and was taken back."""

    step: int
    """After which it goes on."""
    rate: float
    """What is left of the learning rates, a factor."""
    reason: str
    """What was not finite, and in which step."""


class LastGood:
    """The last state known to be good, held in memory; a rank holds its own.

    Args:
        state: of the run, which is good now.
        config: see `Training`.

    Raises:
        DivergenceError: it is not.
    """

    def __init__(self, state: TrainingState, config: Training) -> None:
        self._state, self._config = state, config
        self._held: dict[str, Tensor] = {}
        self.hold()

    def hold(self) -> None:
        """Hold the state as it is now.

        Raises:
            DivergenceError: it is not good; what was held still is.
        """
        if not self._state.is_finite():
            raise DivergenceError(f"a weight is not finite after step {self._state.number}")
        tensors = self._state.tensors()
        self._held = {name: value.detach().to("cpu", copy=True) for name, value in tensors.items()}

    def go_back(self, error: DivergenceError) -> Rollback:
        """Set the state back to what is held, and lower its rates.

        Raises:
            DivergenceError: it has been done as often as the config allows.
        """
        scalars, config = self._state.scalars, self._config
        count, rate = scalars["rollbacks"] + 1, scalars["rate"] * config.rollback_factor
        if count > config.rollbacks:
            tried = f" (gone back {count - 1:.0f} times, to {scalars['rate']:g} of the rates)"
            raise DivergenceError(error.what, tried) from error
        self._state.load(self._held)
        scalars |= {"rollbacks": count, "rate": rate}
        return Rollback(step=self._state.number, rate=rate, reason=error.what)
