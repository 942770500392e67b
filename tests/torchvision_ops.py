"""The operators that torchvision lacks beside a torch it was not built for, in plain torch.

The wheel on PyPI does not import beside a CPU-only torch ("operator torchvision::nms does not
exist"). `install()` defines what is missing, so that its transforms and its detectors run. As a
script it does so for another one:

    python tests/torchvision_ops.py SCRIPT [ARGUMENTS]
"""

import importlib
import runpy
import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

_held: list[torch.library.Library] = []
"""A library's operators vanish with it."""


def install() -> None:
    """Make torchvision importable; where it is, or is not installed, nothing happens."""
    try:
        importlib.import_module("torchvision")
    except ModuleNotFoundError:
        return
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        _define()


def _define() -> None:
    library = torch.library.Library("torchvision", "DEF")
    _held.append(library)
    for name, kernel in (("nms", nms), ("qnms", None)):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        if kernel is not None:
            library.impl(name, kernel, "CompositeExplicitAutograd")
    importlib.import_module("torchvision")
    # Without its extension torchvision refuses nms, and has a roi_align that is compiled at its
    # first call, or else takes ten times as long as this one.
    sys.modules["torchvision.ops.boxes"]._assert_has_ops = lambda: None
    sys.modules["torchvision.ops.roi_align"]._roi_align = roi_align


def nms(dets: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Indices of the boxes kept, best first: each drops those after it that it overlaps too much.

    Args:
        dets: (N, 4) as x1, y1, x2, y2.
        scores: (N,).
        iou_threshold: a share of the union above which two boxes are one.
    """
    order = scores.argsort(descending=True, stable=True)
    boxes = dets[order]
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    dropped = torch.zeros_like(order, dtype=torch.bool)
    for index, box in enumerate(boxes):
        if dropped[index]:
            continue
        sides = torch.minimum(boxes[:, 2:], box[2:]) - torch.maximum(boxes[:, :2], box[:2])
        shared = sides.clamp(min=0).prod(1)
        overlaps = shared / (areas + areas[index] - shared) > iou_threshold
        dropped[index + 1 :] |= overlaps[index + 1 :]
    return order[~dropped]


def roi_align(
    features: Tensor,
    rois: Tensor,
    scale: float,
    height: int,
    width: int,
    ratio: int,
    aligned: bool,
) -> Tensor:
    """Means of `ratio` x `ratio` bilinear samples in each bin of each region.

    Args:
        features: (B, C, H, W).
        rois: (K, 5): row of the batch, x1, y1, x2, y2; times `scale` in pixels of the features.
        height, width: bins of a region; the result is (K, C, height, width).
        ratio: 1 or more.
        aligned: a pixel's centre lies at one half, not at zero.
    """
    assert ratio > 0, "an adaptive ratio is not written: no detector of torchvision's has one"
    corners = rois[:, 1:] * scale - (0.5 if aligned else 0.0)
    out = features.new_zeros(len(rois), features.shape[1], height, width)
    for row in range(len(features)):
        picked = rois[:, 0] == row
        x1, y1, x2, y2 = corners[picked].T
        x, x_within = _samples(x1, x2, width * ratio, features.shape[3], aligned)
        y, y_within = _samples(y1, y2, height * ratio, features.shape[2], aligned)
        grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), dim=-1)
        sampled = F.grid_sample(
            features[row : row + 1],
            grid.flatten(0, 1)[None],
            padding_mode="border",
            align_corners=True,
        )  # (1, C, K * height * ratio, width * ratio)
        sampled = sampled[0].unflatten(1, (len(x), height * ratio)).transpose(0, 1)  # (K, C, ...)
        within = y_within[:, None, :, None] & x_within[:, None, None, :]
        out[picked] = F.avg_pool2d(sampled * within, ratio)
    return out


def _samples(
    start: Tensor, end: Tensor, count: int, length: int, aligned: bool
) -> tuple[Tensor, Tensor]:
    """Along one axis, (K, count): where the samples lie in [-1, 1], and which of them count."""
    side = end - start if aligned else (end - start).clamp(min=1)
    at = start[:, None] + side[:, None] * (torch.arange(count).to(start) + 0.5) / count
    return at * 2 / max(length - 1, 1) - 1, (at >= -1) & (at <= length)


if __name__ == "__main__":
    install()
    script = Path(sys.argv[1]).absolute()
    sys.argv[:2] = [str(script)]
    sys.path[0] = str(script.parent)
    runpy.run_path(str(script), run_name="__main__")
