"""Further terms, beside the self-regularization, that hold a refined image to its synthetic one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from simgan_aug.errors import PluginError

Term = Callable[[nn.Module, Tensor, Tensor, Tensor | None], Tensor]
"""(refiner, refined, synthetic, weights) -> a scalar, the mean over images."""

TOTAL = "regularization"
"""Name of all that holds the refined image, the self-regularization and these, among the losses."""


class Terms(nn.Module):
    """Terms by name, each with its weight.

    A module, so that weights of their own are trained, moved and saved with those of the refiner.
    """

    def __init__(self, terms: Mapping[str, tuple[float, Term]] | None = None) -> None:
        super().__init__()
        self.terms = dict(terms or {})
        self.trained = nn.ModuleList(
            term for _, term in self.terms.values() if isinstance(term, nn.Module)
        )

    def forward(
        self, refiner: nn.Module, refined: Tensor, synthetic: Tensor, weights: Tensor | None
    ) -> dict[str, Tensor]:
        """Weight times value of each term, under "regularization/NAME".

        Args:
            refiner: as it trains.
            refined, synthetic: (B, C, H, W) in [-1, 1].
            weights: (B, 1, H, W), how much a pixel's change counts; None: 1 everywhere.

        Raises:
            PluginError: a term is no scalar tensor.
        """
        values = {}
        for name, (weight, term) in self.terms.items():
            value = term(refiner, refined, synthetic, weights)
            if not isinstance(value, Tensor) or value.numel() != 1:
                got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value)
                raise PluginError(f"regularization {name!r}: expected a scalar tensor, got {got}")
            values[f"{TOTAL}/{name}"] = weight * value.float().reshape(())
        return values


def in_total(losses: Mapping[str, float]) -> dict[str, float]:
    """Losses, in which `TOTAL` stands for the self-regularization and all terms beside it."""
    if TOTAL not in losses:
        return dict(losses)
    parts = [value for name, value in losses.items() if name.split("/")[0] == TOTAL]
    return {**losses, TOTAL: sum(parts)}


def check_own(terms: Mapping[str, Term], refiner: nn.Module) -> None:
    """Make sure that no term has weights of the refiner, or of another term, among its own.

    Raises:
        PluginError: one has; they would be trained and saved twice.
    """
    owners = {id(weight): "the refiner" for weight in refiner.parameters()}
    for name, term in terms.items():
        for weight in term.parameters() if isinstance(term, nn.Module) else ():
            if isinstance(weight, nn.UninitializedParameter):
                raise PluginError(
                    f"regularization {name!r}: has weights without a shape; its factory may take "
                    "`refiner` to find out"
                )
            if id(weight) in owners:
                raise PluginError(
                    f"regularization {name!r}: holds weights of {owners[id(weight)]}; a term is "
                    "given the refiner at each call and must not keep it as a part of itself"
                )
        if isinstance(term, nn.Module):
            owners |= {id(weight): f"regularization {name!r}" for weight in term.parameters()}
