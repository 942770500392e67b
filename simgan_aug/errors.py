"""Every error a user can cause, as one tree.

    SimganAugError
    ├── ConfigError       a setting in a file, an option or an argument (also a ValueError)
    ├── DataError         an annotation file or a folder of images (also a ValueError)
    │   └── ImageError    one image: its type, shape, range or file
    ├── PluginError       a part that is unknown, doubled or broken
    ├── CheckpointError   a refiner file that cannot be trusted or used
    ├── TrainingError     training cannot go on
    │   └── DivergenceError   a loss, a gradient or a weight is not finite
    ├── OutputError       a result that cannot be written
    ├── ExportError       a graph that does not compute what the refiner does
    └── DependencyError   a host library that cannot be imported (also an ImportError)

Each message says what was expected, what came, and the way out.
"""

import difflib
from collections.abc import Iterable


class SimganAugError(Exception):
    """The root of all errors that a user can cause."""


class ConfigError(SimganAugError, ValueError):
    """A setting has an unknown name, a wrong type or an impossible value."""


class DataError(SimganAugError, ValueError):
    """An annotation file or a folder of images cannot be used."""


class ImageError(DataError):
    """One image has a type, shape, range or file that cannot be used."""


class PluginError(SimganAugError):
    """A part is unknown, offered twice, or its plugin is broken."""


class CheckpointError(SimganAugError):
    """A refiner file is missing, damaged, of another version, or needs a part that is absent."""


class TrainingError(SimganAugError):
    """Training cannot go on: it diverges, or another rank is lost."""


class DivergenceError(TrainingError):
    """A loss, a gradient or a weight is not finite; from the last good state one may go on.

    Args:
        what: was not finite, and in which step.
        tried: what has been done about it, for the message.
    """

    def __init__(self, what: str, tried: str = "") -> None:
        super().__init__(
            f"{what}{tried}; lower training.refiner_rate and training.discriminator_rate (or "
            "training.student_rate, if it is the student), or set training.precision = 'fp32'; if "
            "it is so from the first steps on, look at what parts of your own give"
        )
        self.what = what


class OutputError(SimganAugError):
    """A result cannot be written: the disk is full, the folder read-only or already in use."""


class ExportError(SimganAugError):
    """An exported graph's images are too far from the refiner's own."""


class DependencyError(SimganAugError, ImportError):
    """An optional library is not installed, or does not go with what is."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, as Python, torch on a GPU, torch on a CPU or OpenCV say it."""
    said = type(error).__name__ == "OutOfMemoryError" or any(
        words in str(error) for words in ("can't allocate memory", "Insufficient memory")
    )
    return isinstance(error, MemoryError) or said


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The tail of a message about an unknown name: the known names, and the nearest of them."""
    names = sorted(known)
    listed = f" (known: {', '.join(names) or 'none'})"
    near = difflib.get_close_matches(name, names, n=1)
    return f"{listed}; did you mean {near[0]!r}?" if near else listed
