"""What a check is, what it says, and what may not change while a part is called."""

from __future__ import annotations

import contextlib
import random
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor


class Check:
    """One claim about a part; called, it returns nothing or raises an AssertionError that teaches.

    pytest names a parametrized test after it.

    Args:
        kind: of the part.
        name: of the check.
        claim: raises an AssertionError; any other error is the part's own.
        subject: what the claim is called with.
    """

    def __init__(self, kind: str, name: str, claim: Callable[..., None], *subject: Any) -> None:
        self.__name__ = name
        self._kind, self._claim, self._subject = kind, claim, subject

    def __repr__(self) -> str:
        """As "refiner: sizes"."""
        return f"{self._kind}: {self.__name__}"

    def __call__(self) -> None:
        """Hold the part to the claim."""
        try:
            self._claim(*self._subject)
        except AssertionError as error:
            error.args = (f"{self}\n{error}",)
            raise
        except Exception as error:
            expected = textwrap.dedent(self._claim.__doc__ or "").partition("\n\n")[0]
            said = lesson(
                " ".join(expected.split()),
                " ".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())]),
                "see the traceback of the error above this one",
            )
            raise AssertionError(f"{self}\n{said}") from error


def checks(kind: str, claims: Sequence[Callable[..., None]], *subject: Any) -> list[Check]:
    """A check for each claim, named after its function, from the plain to the subtle."""
    return [Check(kind, claim.__name__, claim, *subject) for claim in claims]


def run(each: Sequence[Check]) -> None:
    """Hold a part to all of it; the first that fails is raised."""
    for check in each:
        check()


def lesson(expected: str, got: str, usually: str, remedy: str = "") -> str:
    """A message that teaches: what was expected, what came, why it usually does, what helps."""
    lines = {"expected": expected, "got": got, "usually": usually, "remedy": remedy}
    return "\n".join(f"  {name + ':':<10}{line}" for name, line in lines.items() if line)


@contextlib.contextmanager
def seeded(seed: int, torch_seed: int | None = None) -> Iterator[None]:
    """All global generators (torch, numpy, random) seeded for a while, then as they were."""
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 (theirs to misuse)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed if torch_seed is None else torch_seed)
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)  # noqa: NPY002


def generators() -> dict[str, bytes]:
    """The states of the global generators, by name."""
    legacy = cast("tuple[Any, ...]", np.random.get_state())  # noqa: NPY002
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": legacy[1].tobytes() + repr(legacy[2:]).encode(),
        "random": repr(random.getstate()).encode(),
    }


@contextlib.contextmanager
def generators_kept(when: str, allowed: tuple[str, ...] = ()) -> Iterator[None]:
    """Hold what is done meanwhile to leave the global generators as they are.

    Args:
        when: it is done, for the message.
        allowed: generators that may be drawn from.
    """
    with seeded(5):
        before = generators()
        yield
        after = generators()
    moved = [name for name in before if before[name] != after[name] and name not in allowed]
    assert not moved, lesson(
        "global generators as they were",
        f"that of {' and '.join(moved)} has moved, {when}",
        "torch.manual_seed or a draw inside the call: it shifts all later draws of the user's own",
        "draw from a torch.Generator or np.random.default_rng that is made for the call",
    )


def drawn(*shape: int, seed: int = 0, low: float = -1.0, high: float = 1.0) -> Tensor:
    """Uniform values of a seed, drawn apart from the global generators."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator) * (high - low) + low


def differs(one: Tensor, other: Tensor, tolerance: float = 1e-4) -> float:
    """The largest difference, relative to the values if these are large; 0 below a tolerance."""
    one, other = one.detach().double(), other.detach().double()
    scale = 1 + max(one.abs().max().item(), other.abs().max().item())
    difference = (one - other).abs().max().item() / scale
    return difference if not difference <= tolerance else 0.0
