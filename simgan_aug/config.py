"""Settings: frozen dataclasses, JSON out. `simgan_aug.configfile` reads TOML and presets."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import msgspec

from simgan_aug.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Part:
    """A registered part, by name, and what its factory is called with."""

    name: str
    """As listed by `simgan-aug plugins`."""
    options: dict[str, Any] = field(default_factory=dict)
    """Plain values; in TOML they stand beside `name`."""


@dataclass(frozen=True, kw_only=True)
class Term:
    """A further term of regularization: a registered part, and how much it counts."""

    name: str
    """As listed by `simgan-aug plugins`."""
    weight: float = 1.0
    """Factor on its value, which is a mean."""
    options: dict[str, Any] = field(default_factory=dict)
    """What its factory is called with; in TOML they stand beside `name`."""

    def __post_init__(self) -> None:
        """Reject impossible values."""
        _require(0 <= self.weight < float("inf"), f"weight must be 0 or more, got {self.weight}")


@dataclass(frozen=True, kw_only=True)
class Regularization:
    """What holds the refined image to the synthetic one (eq. 1 and 4)."""

    weight: float = 0.05
    """lambda."""
    features: str = "identity"
    """psi, a registered feature transform."""
    contours: float = 0.1
    """Weight of a further term, the change of psi `edge_direction`: it holds contours where they
    are and leaves tone free; not weighed by label. 0: there is no such term."""
    drift: float = 0.25
    """Px that 1 of 20 labels may move: what `contours` is turned towards during training, beginning
    with the weight above, between 0.02 and 4; 0: the weight stays."""
    reduction: str = "mean"
    """"mean": per value, the same at every size; "paper_sum": the L1 norm, as printed in eq. 4."""
    labels: dict[str, float] = field(default_factory=dict)
    """Factor on lambda by category name; "background": outside all labels, "labels": all other
    categories. 1 if absent."""
    terms: tuple[Term, ...] = ()
    """Further terms, by plugins; each name once."""

    def __post_init__(self) -> None:
        """Reject impossible values."""
        for name in ("weight", "contours", "drift"):
            value = getattr(self, name)
            _require(0 <= value < float("inf"), f"{name} must be 0 or more, got {value}")
        _require(
            self.reduction in ("mean", "paper_sum"),
            f"reduction must be 'mean' or 'paper_sum', got {self.reduction!r}",
        )
        for name, factor in self.labels.items():
            _require(0 <= factor <= 10_000, f"labels.{name} must lie in [0, 10000], got {factor}")
        names = Counter(term.name for term in self.terms)
        for name, count in names.items():
            _require(count == 1, f"terms: {name!r} is given more than once")
        _require(
            not names or self.reduction == "mean",
            "terms are means and have no weight beside a sum: set reduction = 'mean' (and "
            "loss.reduction, if it is 'paper_sum'), or leave out terms",
        )


@dataclass(frozen=True, kw_only=True)
class Tone:
    """The tones of real photos, of which an image takes the one that its seed draws."""

    photos: int = 256
    """Real photos whose tone is kept in the checkpoint; 0: none."""
    choice: str = "alike"
    """Which photos an image draws from: "alike", most likely one whose tone is like its own, while
    all images together take every photo as often as any other, and a match after the network goes
    as far as tones of the two sides differ by more than those of one (`simgan_aug.bank`); or "any"
    of them, and the whole way."""
    match: str = "after"
    """When an image's histogram is matched to the tone: "after" the network, which gives one image
    as many forms as there are tones; "before" it; or "never", and only a network that takes a
    reference sees the tone. What matching changes is bound neither by label weights nor by a
    refiner's `max_change`."""
    share: tuple[float, float] = (0.5, 1.0)
    """Share of the way that the match after the network goes, drawn from this range per image by
    its seed; before the network the match is whole."""

    def __post_init__(self) -> None:
        """Reject impossible values."""
        _require(0 <= self.photos <= 4096, f"photos must lie in [0, 4096], got {self.photos}")
        _require(
            self.choice in ("alike", "any"),
            f"choice must be 'alike' or 'any', got {self.choice!r}",
        )
        _require(
            self.match in ("after", "before", "never"),
            f"match must be 'after', 'before' or 'never', got {self.match!r}",
        )
        _require(
            0 <= self.share[0] <= self.share[1] <= 1,
            f"share must be two ascending numbers in [0, 1], got {self.share}",
        )


@dataclass(frozen=True, kw_only=True)
class Data:
    """How both sides are read and cropped."""

    channels: int = 0
    """1 (grey) or 3 (RGB), images of the other kind are converted; 4: RGBA, whose fourth channel is
    no alpha but depth, infrared or the like, which the network sees and changes, and to which no
    tone is matched; 0: grey or RGB, as all images are, else an error."""
    crop: tuple[int, int] = (64, 64)
    """Height and width of a training crop, in px; each is shortened to that of the median image of
    the smaller side, though not below 32. Smaller images are enlarged to it."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Each crop is resized by a factor drawn from this range, on both sides."""
    white: int = 0
    """Level of 16-bit images that a network is shown as white, brighter ones too; 0: that of all
    bits that they use, 4095 of 12 bits, 8191 for depth up to 8 m in mm."""
    flip: bool = True
    """Mirror half of the crops left to right."""
    match_size: bool = True
    """Shrink real photos whose shorter side exceeds the synthetic images' median to it."""
    alike: int = 1
    """Real crops that are drawn for each synthetic one, of which it meets the one that is laid out
    most like it (`simgan_aug.alike`), where photos hold much else; 1: any. Of a set that is not
    held in memory one is drawn, for each would be a photo to decode."""
    memory_mb: int = 2048
    """Decoded images held in memory, each side, with their weights by label; what of a larger set
    is not held is decoded when it is drawn."""
    reuse: int = 1
    """Crops drawn of each image of a set of more than `simgan_aug.data.crops.POOL`, on average,
    before others take its place; 1: any image at any time. More decode less of a set that does not
    fit into memory."""

    def __post_init__(self) -> None:
        """Reject impossible values."""
        channels = self.channels
        _require(channels in (0, 1, 3, 4), f"channels must be 0, 1, 3 or 4, got {channels}")
        _require(
            min(self.crop) >= 8 and max(self.crop) <= 4096,
            f"crop must be 8 to 4096 px each way, got {self.crop}",
        )
        _require(
            0 < self.scale[0] <= self.scale[1] < 100,
            f"scale must be two ascending factors, got {self.scale}",
        )
        _require(0 <= self.white <= 65535, f"white must lie in [0, 65535], got {self.white}")
        _require(1 <= self.alike <= 64, f"alike must lie in [1, 64], got {self.alike}")
        _require(self.memory_mb >= 1, f"memory_mb must be 1 or more, got {self.memory_mb}")
        _require(1 <= self.reuse <= 64, f"reuse must lie in [1, 64], got {self.reuse}")


@dataclass(frozen=True, kw_only=True)
class Training:
    """How Algorithm 1 is run."""

    steps: int = 1000
    """Adversarial steps (T). A file that sets them changes `student_steps` in proportion."""
    batch_size: int = 16
    """Images per batch (b), of all processes together; half of each refined discriminator batch
    comes from the history."""
    accumulate: int = 1
    """Shares that a process cuts its part of a batch into, to go through one after the other: less
    memory, same update. Every share has an even number of images, and a history of its own."""
    refiner_updates: int = 1
    """Updates of the refiner a step (K_g)."""
    discriminator_updates: int = 1
    """Updates of the discriminator a step (K_d)."""
    refiner_warmup: int = 0
    """Refiner updates on self-regularization alone, before all else."""
    discriminator_warmup: int = 0
    """Discriminator updates after that, before the first step."""
    optimizer: str = "adam"
    """"adam" or "sgd"."""
    refiner_rate: float = 6e-4
    """Learning rate of the refiner."""
    discriminator_rate: float = 6e-4
    """Learning rate of the discriminator."""
    betas: tuple[float, float] = (0.0, 0.99)
    """Adam's decay rates."""
    decay_after: int = 0
    """Step after which both rates are multiplied by `decay_factor`; 0: never."""
    decay_factor: float = 0.25
    """See `decay_after`."""
    history: int = 640
    """Images held by the history buffer (B), or by those of all shares together; 0: no history."""
    average: float = 0.99
    """Decay a step of the refiner's moving average, which is what is kept; 0: the last weights."""
    precision: str = "auto"
    """"fp32", "bf16" (weights stay fp32), or "auto": bf16 on a GPU and a CPU with units for it."""
    rollbacks: int = 3
    """How often a training that diverges goes back to its last good state, before it stops."""
    rollback_factor: float = 0.5
    """What all rates are multiplied by when it goes back."""
    student_steps: int = 0
    """Updates, after all else, of a smaller network that learns to do what the refiner's average
    does and is kept in its place (Hinton et al., arXiv:1503.02531); 0: there is none."""
    student_rate: float = 1e-3
    """Learning rate of the student; it rises over its first steps, and falls to 0."""
    seed: int = 0
    """Of all draws; same seed, same machine, same result (on a CPU)."""

    def __post_init__(self) -> None:
        """Reject impossible values."""
        _require(
            self.batch_size >= 2 and self.batch_size % 2 == 0,
            f"batch_size must be even, got {self.batch_size}",
        )
        _require(
            self.accumulate >= 1 and self.batch_size % (2 * self.accumulate) == 0,
            f"accumulate must cut batch_size = {self.batch_size} into shares of an even number, "
            f"got {self.accumulate}",
        )
        _require(
            not 0 < self.history < self.batch_size // 2,
            f"history must be 0 or at least half a batch, got {self.history}",
        )
        for name in (
            "steps",
            "refiner_warmup",
            "discriminator_warmup",
            "decay_after",
            "history",
            "rollbacks",
            "student_steps",
            "seed",
        ):
            _require(
                getattr(self, name) >= 0, f"{name} must be 0 or more, got {getattr(self, name)}"
            )
        _require(self.seed < 2**64, f"seed must be less than 2^64, got {self.seed}")
        for name in ("refiner_updates", "discriminator_updates"):
            _require(
                getattr(self, name) >= 1, f"{name} must be 1 or more, got {getattr(self, name)}"
            )
        _require(
            0 < self.rollback_factor < 1,
            f"rollback_factor must lie in (0, 1), got {self.rollback_factor}",
        )
        for name in ("refiner_rate", "discriminator_rate", "student_rate", "decay_factor"):
            _require(
                0 < getattr(self, name) < float("inf"),
                f"{name} must be positive, got {getattr(self, name)}",
            )
        for name, value in (
            ("average", self.average),
            ("betas[0]", self.betas[0]),
            ("betas[1]", self.betas[1]),
        ):
            _require(0 <= value < 1, f"{name} must lie in [0, 1), got {value}")
        _require(
            self.optimizer in ("adam", "sgd"),
            f"optimizer must be 'adam' or 'sgd', got {self.optimizer!r}",
        )
        _require(
            self.precision in ("auto", "fp32", "bf16"),
            f"precision must be 'auto', 'fp32' or 'bf16', got {self.precision!r}",
        )

    @property
    def warmup(self) -> int:
        """Steps before the first adversarial one."""
        return self.refiner_warmup + self.discriminator_warmup

    @property
    def game(self) -> int:
        """Steps before a student's."""
        return self.warmup + self.steps

    @property
    def total(self) -> int:
        """Steps of all kinds."""
        return self.game + self.student_steps

    def of_steps(self, steps: int) -> Training:
        """The same with so many adversarial steps, and those of a student in proportion."""
        share = steps / self.steps if self.steps else 1
        student = max(1, round(self.student_steps * share)) if self.student_steps else 0
        return dataclasses.replace(self, steps=steps, student_steps=student)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that a training run is made of; the defaults are the preset "wide"."""

    refiner: Part = field(default_factory=lambda: Part(name="unshuffle"))
    """R."""
    student: Part = field(
        default_factory=lambda: Part(
            name="unshuffle", options={"factor": 4, "blocks": 1, "pixel_features": 8}
        )
    )
    """What learns from R, for `training.student_steps`, and is kept. Where it is of the name of R,
    it has the options of R but for its own."""
    discriminator: Part = field(default_factory=lambda: Part(name="patch"))
    """D."""
    loss: Part = field(default_factory=lambda: Part(name="relativistic"))
    """The adversarial terms."""
    regularization: Regularization = field(default_factory=Regularization)
    """The term that holds labels."""
    tone: Tone = field(default_factory=Tone)
    """The tones of real photos."""
    data: Data = field(default_factory=Data)
    """Reading and cropping."""
    training: Training = field(default_factory=Training)
    """Algorithm 1."""

    def __post_init__(self) -> None:
        """Reject a sum beside a mean, whose weights have nothing to do with each other; and a match
        of channels of which one has no tone."""
        sums = [self.loss.options.get("reduction"), self.regularization.reduction]
        _require(
            sums.count("paper_sum") != 1,
            "loss.reduction and regularization.reduction must both be 'paper_sum' or neither",
        )
        is_toned = self.tone.photos and self.tone.match == "before"
        _require(
            not (is_toned and self.data.channels == 4),
            "tone.match = 'before' is for channels that all have a tone: of data.channels 1 or 3",
        )

    def of_student(self) -> Config:
        """What the file of a student says: that it is the refiner, and has none."""
        shared = self.refiner.options if self.student.name == self.refiner.name else {}
        return dataclasses.replace(
            self,
            refiner=Part(name=self.student.name, options={**shared, **self.student.options}),
            training=dataclasses.replace(self.training, student_steps=0),
        )

    def to_builtins(self) -> dict[str, Any]:
        """Plain JSON values, as kept in a checkpoint."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)
