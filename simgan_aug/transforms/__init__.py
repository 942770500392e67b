"""One line in the pipeline that you have: `Refine` for albumentations, kornia and torchvision v2.

Each module is a thin translation to `ImageRefiner` and needs only its own host library.
"""
