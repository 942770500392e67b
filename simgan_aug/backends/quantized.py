"""A graph of OpenVINO in 8 bits, by NNCF."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from simgan_aug.backends.openvino import untold
from simgan_aug.errors import DependencyError

Array = np.ndarray[Any, Any]


def quantized(model: Any, recorded: Sequence[Sequence[Array]], is_core: bool) -> Any:
    """The model with weights and activations in 8 bits, but for what sees or makes the picture.

    The first convolution sees it beside noise of four times its range; the last one makes it,
    unless the graph is a core. An activation's range is all that was ever seen of it: clipped
    values were 12 to 17 grey levels apart, these 2 to 3.

    Args:
        model: of OpenVINO, in floats.
        recorded: what it is called with, for one image after the other.
        is_core: whether the picture is made outside of it.

    Raises:
        DependencyError: NNCF is not installed.
    """
    nncf = _nncf()
    kinds = nncf.quantization.range_estimator
    ends = {
        end: kinds.StatisticsCollectorParameters(
            statistics_type=kinds.StatisticsType[end.upper()],
            aggregator_type=kinds.AggregatorType[end.upper()],
        )
        for end in ("min", "max")
    }
    layers = [op for op in model.get_ordered_ops() if _is_convolution(op)]
    kept = [op for op in layers if _sees_picture(op)] + ([] if is_core else layers[-1:])
    with contextlib.redirect_stdout(io.StringIO()):  # its bars
        return nncf.quantize(
            model,
            nncf.Dataset([tuple(each) for each in recorded]),
            subset_size=len(recorded),
            ignored_scope=nncf.IgnoredScope(names=[op.get_friendly_name() for op in kept]),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                activations_range_estimator_params=kinds.RangeEstimatorParameters(**ends)
            ),
        )


def _is_convolution(op: Any) -> bool:
    return str(op.get_type_name()) == "Convolution"


def _sees_picture(op: Any) -> bool:
    """Whether no other convolution comes before it."""
    before = [each.get_node() for each in op.input_values()]
    return not any(_is_convolution(each) or not _sees_picture(each) for each in before)


def _nncf() -> Any:
    """The library.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        with untold():
            import nncf
    except ImportError as error:
        raise DependencyError(
            f"int8 needs NNCF: pip install 'simgan-aug[openvino]' ({error})"
        ) from None
    nncf.set_log_level(logging.ERROR)
    return nncf
