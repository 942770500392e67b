"""The nine alarms: a measure, its limit, and what to turn.

The limits were set on 12 handfuls of the shipped hands and 6 of COCO photos, of up to 16 images:
"healthy" below means a tone curve, a colour cast, contrast at 0.3, noise of 12 and 25 grey levels,
a blur of 1.5 px, JPEG at quality 50, all of a camera, and the histogram of another photo. In 360
looks none of them raised an alarm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from simgan_aug.alarms import measures
from simgan_aug.alarms.measures import Array, Box
from simgan_aug.audit.growth import MOST_GROWN, grown

SATURATED = "discriminator saturated"

LEAST_CHANGE = 0.5
"""Grey levels, mean: rounding to 8 bits takes away what is less."""

MOST_SEPARATION = 0.97
"""Share of pairs of patches, a refined and a real one, that the discriminator puts in order,
whatever the loss makes of its logits. Games in which the refiner keeps up go above it at a look or
two and come back to 0.8 or 0.9 (so that `Watch` waits until it has lasted). Against a refiner that
stands still it is 0.97 to 1.00 with the relativistic loss and its penalties, 1.00 with others."""

MOST_LIKENESS = 0.3
"""Median correlation of two images' changes: healthy ones reach 0.06, the first steps of a training
0.12, one texture of 10 grey levels under noise of as many 0.77, alone 0.95."""

LEAST_VARIETY = 0.05
"""Variance of layouts over that of the synthetic or real images, whichever differ less: contrast at
0.3 leaves 0.09, one texture for all 0.00."""

MOST_LATTICE = 1.0
"""Grey levels, RMS: at 1.7 the pattern is plain to see on a flat backdrop; healthy changes have
none."""

LEAST_AGREEMENT = -0.2
"""Median correlation within cells: healthy changes keep 0.47 or more, a backdrop that turns from
white to dark leaves 0.0, a negative gives -1."""

MOST_DRIFT = 0.5
"""Px: half of one, from which on a tight box is another box. Healthy changes reach 0.37 under boxes
and 0.45 in cells, a training that went wrong on the hands 2.8 after 400 steps."""

MOST_LAG = 4.0
"""Grey levels, mean, between a student's images and its teacher's: taught in full it is 0.6 where
light and sensor are the gap, 2 where a white backdrop turns green."""


MOST_UNLIKENESS = 0.4
"""Mean squared distance of mean features, in deviations of the photos'. Of 64 images and 64 photos,
drawn 200 times: other photos reach 0.08, refiners of trainings that went well 0.35 (their median is
0.09 to 0.20); one that painted dark hands in their backdrop's colours has 0.44 or more (0.69)."""


@dataclass(frozen=True)
class Alarm:
    """Something that has gone wrong."""

    name: str
    """Such as "labels drift"; there are nine of them, see `check`."""
    value: float
    """What was measured."""
    limit: float
    """What it has passed."""
    message: str
    """What was seen, and what to turn, by the keys of the config."""


def check(
    before: Sequence[Array],
    after: Sequence[Array],
    boxes: Sequence[Sequence[Box]] = (),
    real: Sequence[Array] = (),
    logits: tuple[Array, Array] | None = None,
    settled: bool = True,
    taught: Sequence[Array] | None = None,
) -> list[Alarm]:
    """What is wrong with a refiner, as far as a handful of images can tell.

    "refiner changes nothing", "discriminator saturated", "collapsed to one texture",
    "checkerboard", "colours inverted", "labels drift", "student lags behind"; two take more images,
    "unlike the photos" and "labels grow": `check_likeness`, `check_growth`.

    Args:
        before, after: (H, W, C) float32 in [0, 1] each, of any sizes, alike before and after.
        boxes: of the labels in each image, x, y, width, height in px; without any, the images are
            seen in cells.
        real: photos, whose variety the refined images may come down to.
        logits: of "refined", for refined and for real images, from the discriminator.
        settled: whether training has gone on long enough to say that nothing happens, or that one
            player has won.
        taught: what the teacher makes of them, if `after` is of a student.
    """
    if len(before) == 0:
        return []
    found = [
        _unchanged(before, after) if settled else None,
        _saturated(*logits) if settled and logits else None,
        _collapsed(before, after, real),
        _checkerboard(before, after),
        _inverted(before, after),
        _drifting(before, after, boxes),
        _lagging(taught, after) if taught is not None else None,
    ]
    return [alarm for alarm in found if alarm is not None]


def check_likeness(after: Sequence[Array], real: Sequence[Array]) -> list[Alarm]:
    """Whether what a game has ended with is unlike the photos.

    Args:
        after: refined images as the network draws them, before the tone of any photo, which would
            be far from that of most others; (H, W, C) float32 in [0, 1].
        real: photos, likewise; of either `measures.LEAST_IMAGES` or more, or nothing is told.
    """
    value = measures.unlikeness(after, real)
    if value is None or value <= MOST_UNLIKENESS:
        return []
    message = (
        f"what its network draws is far from the photos ({value:.2f}; trainings that go well end "
        "at 0.1 to 0.2): look at the samples. Colours where they do not belong: train again with "
        "another training.seed. Much left to do: more training.steps, or free a backdrop that may "
        "change (regularization.labels). A gap of shape stays, since labels are held"
    )
    return [Alarm("unlike the photos", value, MOST_UNLIKENESS, message)]


def check_growth(
    before: Sequence[Array], after: Sequence[Array], boxes: Sequence[Sequence[Box]]
) -> list[Alarm]:
    """Whether labels look larger than their boxes when a game is over.

    Args:
        before, after, boxes: as in `check`; of many images, and of all labels that a box has to be
            told from.
    """
    found = grown(before, after, boxes)
    if not found.is_much:
        return []
    message = (
        f"{found} labels that this can be told of look larger than their boxes: what the photos "
        "show is larger or thicker than what is rendered, or has a shadow. Look at the samples: "
        "a classifier may gain by it, but a detector learns boxes that are too small. Render such "
        "objects as large as the photos show them, leave photos out that show them larger, or "
        "refine with --only-labels, which keeps what is outside of labels"
    )
    return [Alarm("labels grow", found.share, MOST_GROWN, message)]


def _unchanged(before: Sequence[Array], after: Sequence[Array]) -> Alarm | None:
    value = measures.mean_change(before, after)
    if value >= LEAST_CHANGE:
        return None
    return Alarm(
        "refiner changes nothing",
        value,
        LEAST_CHANGE,
        f"its network changes images by {value:.2f} grey levels: lower regularization.weight (or "
        "the factors in regularization.labels), or raise training.refiner_rate",
    )


def _saturated(refined: Array, real: Array) -> Alarm | None:
    value = measures.separation(refined, real)
    if value <= MOST_SEPARATION:
        return None
    return Alarm(
        SATURATED,
        value,
        MOST_SEPARATION,
        f"it tells refined from real in {value:.1%} of pairs of patches: lower "
        "training.discriminator_rate, raise training.refiner_rate or training.refiner_updates, "
        "raise loss.r1 (or loss.smoothing of cross_entropy), or lower regularization.weight if "
        "the refiner is held too tightly",
    )


def _collapsed(
    before: Sequence[Array], after: Sequence[Array], real: Sequence[Array]
) -> Alarm | None:
    cure = (
        "raise regularization.weight, lower training.refiner_rate, raise loss.r1, or give the "
        "refiner noise (refiner.noise_channels)"
    )
    alike = measures.likeness(before, after)
    if alike is not None and alike > MOST_LIKENESS:
        said = f"the changes of different images have one texture (correlation {alike:.2f})"
        return Alarm("collapsed to one texture", alike, MOST_LIKENESS, f"{said}: {cure}")
    usual = min(measures.variety(images) for images in (before, real) if len(images))
    share = measures.variety(after) / usual if usual > 0 else 1.0
    if share >= LEAST_VARIETY:
        return None
    said = f"refined images differ from each other {share:.1%} as much as others do"
    return Alarm("collapsed to one texture", share, LEAST_VARIETY, f"{said}: {cure}")


def _checkerboard(before: Sequence[Array], after: Sequence[Array]) -> Alarm | None:
    value = measures.lattice(before, after)
    if value is None or value <= MOST_LATTICE:
        return None
    return Alarm(
        "checkerboard",
        value,
        MOST_LATTICE,
        f"a pattern of 2 or 4 px with {value:.1f} grey levels lies over all images: lower "
        "training.refiner_rate, raise regularization.weight, lower refiner.factor from 4 to 2, or "
        "take a refiner that works at full resolution (refiner.name = 'resnet')",
    )


def _inverted(before: Sequence[Array], after: Sequence[Array]) -> Alarm | None:
    value = measures.agreement(before, after)
    if value is None or value >= LEAST_AGREEMENT:
        return None
    return Alarm(
        "colours inverted",
        value,
        LEAST_AGREEMENT,
        f"light has become dark (correlation {value:.2f} of luminance or a channel): as it should "
        "be, if a light backdrop was to turn dark behind what stands before it; else raise "
        "regularization.weight, set regularization.features to 'identity', or let tone.photos "
        "carry the colours",
    )


def _drifting(
    before: Sequence[Array], after: Sequence[Array], boxes: Sequence[Sequence[Box]]
) -> Alarm | None:
    where = "under 1 of 20 labels" if any(boxes) else "in a quarter of all places"
    value = measures.drift(before, after, boxes)
    if value is None or value <= MOST_DRIFT:
        return None
    return Alarm(
        "labels drift",
        value,
        MOST_DRIFT,
        f"{where} the picture has moved by {value:.1f} px or more, or is lost: give it time, if "
        "regularization.drift is set (contours are held ever more tightly); "
        "else raise regularization.contours if regularization.drift is 0, regularization.weight, "
        "or the labels' factors in regularization.labels, set refiner.max_change, or give the "
        "refiner noise (refiner.noise_channels), so that it need not repaint",
    )


def _lagging(taught: Sequence[Array], after: Sequence[Array]) -> Alarm | None:
    value = measures.mean_change(taught, after)
    if value <= MOST_LAG:
        return None
    return Alarm(
        "student lags behind",
        value,
        MOST_LAG,
        f"its images are {value:.1f} grey levels from its teacher's: raise training.student_steps "
        "or student.features, or keep the teacher (teacher.safetensors of the run; "
        "training.student_steps = 0 trains no student)",
    )
