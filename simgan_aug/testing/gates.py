"""What a quality gate is held to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from simgan_aug.coco import Annotation
from simgan_aug.testing.checks import generators_kept, lesson, seeded

Array = np.ndarray[Any, Any]
Gate = Callable[[Array, Array, Sequence[Annotation]], Sequence[str]]
"""(old, new, annotations) -> reasons why the new image may not be used; none: it may."""

SHAPES = ((32, 40, 3), (32, 40), (32, 40, 4), (31, 17, 3), (5, 7), (1, 1, 3))
"""Of images: colour, grey, with alpha, odd and small."""

LABELS: dict[str, list[Annotation]] = {
    "no labels": [],
    "a box": [Annotation(image_id=1, category_id=1, bbox=[2, 2, 12.5, 9], id=1)],
    "a box outside of the image": [Annotation(image_id=1, category_id=1, bbox=[90, 90, 5, 5])],
    "a polygon": [
        Annotation(image_id=1, segmentation=[[1, 1, 20, 2, 14, 20]], bbox=[1, 1, 19, 19])
    ],
    "a crowd as RLE": [
        Annotation(
            image_id=1, iscrowd=1, segmentation={"size": [32, 40], "counts": [100, 60, 1120]}
        )
    ],
    "keypoints": [Annotation(image_id=1, bbox=[0, 0, 9, 9], keypoints=[3, 4, 2, 0, 0, 0, 5, 5, 1])],
    "nothing but an id": [Annotation(image_id="a", id="b")],
}
"""Annotations as COCO files have them, by what they are."""


def reasons(gate: Gate) -> None:
    """A sequence of strings that say something, for every kind of image and label."""
    for what, old, new, labels in _cases():
        said = gate(old, new, labels)
        assert not isinstance(said, str), lesson(
            "a list of reasons",
            f"the string {said!r}, whose letters would be the reasons",
            "return 'too dark' for return ['too dark']",
        )
        are_strings = isinstance(said, (list, tuple)) and all(
            isinstance(each, str) for each in said
        )
        assert are_strings and all(said), lesson(  # noqa: PT018 (one claim)
            f"a list of strings, empty if the image may be used ({what})",
            repr(said),
            "True or False, None (no `return`), a generator, or an empty reason",
            "return ['what was measured, and the limit'], or []",
        )


def unchanged(gate: Gate) -> None:
    """An ordinary image, sharp and neither dark nor tiny, is let through if it has not changed."""
    for what, old, _, labels in _cases():
        if min(old.shape[:2]) < 16 or np.ptp(old) == 0:  # a gate may refuse such images
            continue
        said = gate(old, old.copy(), labels)
        assert not said, lesson(
            f"no reason against an ordinary image that has not changed ({what})",
            repr(said),
            "a comparison the wrong way round; a measure that is 0/0 where nothing has changed",
            "measure how `new` differs from `old`, and refuse what is above a limit",
        )


def input_untouched(gate: Gate) -> None:
    """Neither image nor the list of annotations is changed."""
    for what, old, new, labels in _cases():
        given = old.copy(), new.copy(), list(labels)
        gate(*given)
        held = zip(("old", "new"), (old, new), given[:2], strict=True)
        changed = [name for name, was, now in held if not np.array_equal(was, now)]
        changed += ["annotations"] if given[2] != labels else []
        assert not changed, lesson(
            f"its arguments as they were ({what})",
            f"{' and '.join(changed)} changed in place",
            "new -= old, cv2 with dst=, annotations.pop()",
            "new - old; mind that uint8 wraps round: new.astype(int) - old",
        )


def determinism(gate: Gate) -> None:
    """The same pair gives the same reasons; global generators are neither asked nor moved."""
    for what, old, new, labels in _cases():
        said = []
        for seed in (1, 2):
            with seeded(seed):
                said.append(list(gate(old, new, labels)))
        assert said[0] == said[1], lesson(
            f"the same reasons twice ({what})", f"{said[0]} and {said[1]}", "a random sample"
        )
        with generators_kept("in the gate"):
            gate(old, new, labels)


def _cases() -> Iterator[tuple[str, Array, Array, list[Annotation]]]:
    """What it is in words, an image, what became of it, its labels; made anew each time."""
    for shape in SHAPES:
        for dtype in (np.uint8, np.uint16):
            old, new = _pictures(shape, dtype)
            yield f"{dtype.__name__} {shape}, a box", old, new, list(LABELS["a box"])
    for what, labels in LABELS.items():
        yield what, *_pictures(SHAPES[0], np.uint8), list(labels)
    for level in (0, 255):
        _, new = _pictures(SHAPES[0], np.uint8)
        yield f"all {level}", np.full_like(new, level), new, list(LABELS["a box"])


def _pictures(shape: tuple[int, ...], dtype: type) -> tuple[Array, Array]:
    """A picture with structure and alpha, if any, opaque; and the same with other light."""
    rng, top = np.random.default_rng(0), np.iinfo(dtype).max
    coarse = rng.uniform(0.2, 0.8, tuple(-(-side // 4) for side in shape[:2]) + shape[2:])
    fine = coarse.repeat(4, axis=0).repeat(4, axis=1)[: shape[0], : shape[1]]
    pair = [fine, np.clip(fine * 1.1 + rng.normal(0, 0.02, fine.shape), 0, 1)]
    if shape[2:] == (4,):
        for each in pair:
            each[..., 3] = 1
    return (pair[0] * top).astype(dtype), (pair[1] * top).astype(dtype)


CLAIMS = (reasons, input_untouched, unchanged, determinism)
