"""A small labelled data set, what may become of its images, and a refiner that moves them."""

import json

import cv2
import numpy as np
import torch
from PIL import Image

from simgan_aug.checkpoint import Checkpoint, save_checkpoint
from simgan_aug.config import Config, Part, Tone
from simgan_aug.networks import ResNetRefiner

SIZE = (72, 96)
"""Height and width of the images."""

SHIFT = 3
"""Px that the refiner, and `moved`, move a picture to the right."""

CATEGORIES = [{"id": 1, "name": "hand"}, {"id": 2, "name": "foot"}]


def scene(seed, size=SIZE):
    """A picture with structure everywhere, (H, W, 3) uint8."""
    noise = np.random.default_rng(seed).normal(size=(*size, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 1.5)
    return np.clip(smooth / smooth.std() * 40 + 128, 0, 255).astype(np.uint8)


def moved(pixels):
    return np.roll(pixels, SHIFT, axis=1)


def relit(pixels):
    return (255 * (pixels / 255) ** 1.3).astype(np.uint8)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def labels_of(image):
    """Two labels of an image, for COCO."""
    outline = [[20, 16, 52, 16, 52, 48, 20, 48]]
    hand = {"category_id": 1, "bbox": [20, 16, 32, 32], "segmentation": outline}
    foot = {"category_id": 2, "bbox": [60, 30, 30, 30], "keypoints": [70, 40, 2, 75, 50, 1]}
    return [
        {"id": 2 * image + 1, "image_id": image, **hand},
        {"id": 2 * image + 2, "image_id": image, **foot},
    ]


def write_coco(path, names, annotations=None, size=SIZE):
    """A COCO file of images by name, with two labels each if nothing else is said."""
    images = [
        {"id": number, "file_name": name, "width": size[1], "height": size[0]}
        for number, name in enumerate(names)
    ]
    if annotations is None:
        annotations = [label for number in range(len(names)) for label in labels_of(number)]
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def save_shifting_refiner(path):
    """A refiner that moves every picture `SHIFT` px to the right."""
    options = {"kernel": 2 * SHIFT + 1, "features": 3, "blocks": 1}
    network = ResNetRefiner(3, **options)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        for channel in range(3):
            network.first.weight[channel, channel, SHIFT, 0] = 1
            network.last.weight[channel, channel] = 1
        network.first.bias.fill_(1)  # from [-1, 1] to where ReLU changes nothing, and back
        network.last.bias.fill_(-1)
    config = Config(refiner=Part(name="resnet", options=options), tone=Tone(photos=0))
    save_checkpoint(path, Checkpoint(network, 3, None, config, {"steps": 1}))
    return path
