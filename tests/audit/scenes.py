"""Scenes with a label, changes of appearance that move nothing, and faults."""

import cv2
import numpy as np

from simgan_aug.coco import Annotation

SIDE = 128
RADIUS = 28
CENTRE = 56
BOX = [28.0, 28.0, 56.0, 56.0]


def texture(seed, mean, sigma, contrast=25, side=SIDE):
    """Coloured clouds, (side, side, 3) float32 in levels."""
    noise = np.random.default_rng(seed).normal(size=(side, side, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), sigma)
    return smooth / smooth.std() * contrast + np.float32(mean)


def outline(radius=RADIUS):
    """A circle about the middle as a COCO polygon."""
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    x, y = CENTRE + radius * np.cos(angles), CENTRE + radius * np.sin(angles)
    return np.stack([x, y], 1).ravel().tolist()


def label(**more):
    """The annotation of the disc."""
    return Annotation(
        **{"image_id": 0, "id": 7, "category_id": 1, "bbox": BOX, "segmentation": [outline()]}
        | more
    )


def disc(radius=RADIUS):
    """(SIDE, SIDE) float32: 1 on the disc, softly 0 outside."""
    rows, columns = np.indices((SIDE, SIDE), dtype=np.float32)
    away = np.hypot(rows - CENTRE, columns - CENTRE)
    return np.clip(radius - away + 0.5, 0, 1)


def scene(seed=0):
    """A bright disc of one texture on a darker ground of another, (128, 128, 3) uint8."""
    ground, thing = texture(seed, (70, 90, 100), 4), texture(seed + 1000, (170, 150, 120), 2.5)
    return mixed(ground, thing, disc())


def plain(seed=0):
    """As `scene`, of which little but the outline and a cross in the middle is to be seen."""
    ground, thing = texture(seed, 80, 14, 8), texture(seed + 1000, 150, 10, 8)
    image = mixed(as_bytes(ground), thing, disc())
    cv2.drawMarker(image, (CENTRE, CENTRE), (30, 40, 50), cv2.MARKER_CROSS, 16, 4)
    return image


def crossing(lit=(230, 40, 30)):
    """A street with a traffic light, and with red and green things, (128, 128, 3) uint8."""
    image = as_bytes(texture(0, (90, 100, 110), 3, 30))
    cv2.rectangle(image, (8, 90), (40, 120), (200, 60, 50), -1)
    cv2.rectangle(image, (90, 80), (124, 120), (60, 150, 70), -1)
    cv2.rectangle(image, (50, 20), (69, 75), (25, 25, 28), -1)
    for y, colour in ((30, lit), (47, (50, 45, 25)), (64, (25, 50, 30))):
        cv2.circle(image, (60, y), 6, colour, -1)
    return image


def plate(digits):
    """A bright plate with two digits, (128, 128, 3) uint8."""
    image = as_bytes(texture(0, (90, 100, 110), 3, 15))
    cv2.rectangle(image, (20, 30), (110, 90), (225, 225, 215), -1)
    cv2.putText(image, digits, (28, 78), cv2.FONT_HERSHEY_SIMPLEX, 1.6, (20, 20, 30), 5)
    return image


SECOND_DIGIT = [56.0, 32.0, 34.0, 49.0]
"""Its box on a `plate`."""


def mixed(image, other, share):
    """A picture softly laid over another."""
    return as_bytes(image + (other - image.astype(np.float32)) * share[..., None])


def as_bytes(image):
    """As uint8."""
    return np.clip(np.round(image), 0, 255).astype(np.uint8)


def remapped(image, x, y):
    """Each pixel from so many px to the left and above."""
    rows, columns = np.indices(image.shape[:2], dtype=np.float32)
    mode = cv2.BORDER_REFLECT
    return cv2.remap(image, columns - x, rows - y, cv2.INTER_CUBIC, borderMode=mode)


def near(box=BOX, by=12):
    """1 in a box and `by` px around, softly 0 outside."""
    x, y, width, height = (int(side) for side in box)
    share = np.zeros((SIDE, SIDE), np.float32)
    share[max(0, y - by) : y + height + by, max(0, x - by) : x + width + by] = 1
    return cv2.GaussianBlur(share, (0, 0), 3)


def shifted(image, x=3.0, y=0.0, box=BOX, by=12):
    """The picture under a box, and `by` px around, moved."""
    share = near(box, by)
    return remapped(image, np.float32(x) * share, np.float32(y) * share)


def warped(image, px=4.0):
    """Bent: up in the left half of the disc, down in the right one."""
    columns = np.indices(image.shape[:2], dtype=np.float32)[1]
    by = np.clip((columns - CENTRE) / 8, -1, 1) * px
    return remapped(image, 0 * by, by * near())


def faded(image, share=0.85):
    """The ground, painted over the disc."""
    return mixed(image, texture(77, (70, 90, 100), 3), disc(RADIUS + 3) * share)


def erased(image):
    """The disc gone."""
    return faded(image, 1.0)


def repainted(image, seed=5):
    """Another texture of the same colours in the middle of the disc; its outline stays."""
    return mixed(image, texture(seed + 2000, (170, 150, 120), 2.5), disc(RADIUS - 3))


def recoloured(image):
    """Red to green, green to blue, on the disc."""
    return mixed(image, image[..., [2, 0, 1]], disc())


def swollen(image, px=5.0):
    """Grown by `px` at its outline; the middle stays."""
    rows, columns = np.indices(image.shape[:2], dtype=np.float32)
    away = np.hypot(rows - CENTRE, columns - CENTRE)
    by = px / RADIUS * np.clip((away - 14) / 10, 0, 1) * np.clip((50 - away) / 10, 0, 1)
    return remapped(image, (columns - CENTRE) * by, (rows - CENTRE) * by)


def jpeg(image, quality=50):
    """Encoded and decoded."""
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 1)


def noisy(image, sigma=10.0, seed=3):
    """With grain."""
    return as_bytes(image + np.random.default_rng(seed).normal(0, sigma, image.shape))


LOOKS = {
    "the same": lambda image: image,
    "darker": lambda image: as_bytes(255 * (image / 255.0) ** 2),
    "lighter": lambda image: as_bytes(255 * (image / 255.0) ** 0.5),
    "a colour cast": lambda image: as_bytes(image * [1.2, 0.7, 0.9] + [-20, 30, 10]),
    "noise": noisy,
    "blur": lambda image: cv2.GaussianBlur(image, (0, 0), 1.5),
    "JPEG": jpeg,
}
"""What may become of an image without any label being touched."""
