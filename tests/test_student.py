"""A student: what it learns, what of it is kept, and what it leaves alone."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file
from test_run import SMALL, equal, inputs, weights  # noqa: F401
from test_training import QUIET, Shift, batches, real_batches, weighed
from torch import nn

from simgan_aug import checkpoint
from simgan_aug.alarms import check
from simgan_aug.config import Part
from simgan_aug.configfile import parse
from simgan_aug.errors import CheckpointError, ConfigError, TrainingError
from simgan_aug.inference import ImageRefiner
from simgan_aug.losses import CrossEntropy, Relativistic, imitation
from simgan_aug.networks import Patch, UnshuffleRefiner
from simgan_aug.run import Run, check_parts
from simgan_aug.training import TrainingState, train

TAUGHT = dataclasses.replace(
    SMALL,
    student=Part(name="unshuffle", options={"factor": 4, "features": 4}),
    training=dataclasses.replace(SMALL.training, student_steps=5),
)


def with_training(config, **changes):
    return dataclasses.replace(config, training=dataclasses.replace(config.training, **changes))


def teaching(student, refiner, loss=None, **training):
    """The state of a training whose game is over at once, and its steps."""
    config = dataclasses.replace(QUIET, steps=0, **training)
    state = TrainingState(refiner, Patch(3, 8), config, student=student)
    sides, players = (batches(), real_batches()), (refiner, state.discriminator)
    return state, train(*players, loss or Relativistic(), weighed, *sides, config, state)


def painter(seed=0):
    """A refiner that changes pictures."""
    torch.manual_seed(seed)
    network = UnshuffleRefiner(3, 2, 8, 1)
    nn.init.normal_(network.head.weight, std=0.1)
    return network


def copy_of(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def test_a_student_comes_to_do_what_its_teacher_does_noise_and_all():
    torch.manual_seed(1)
    student, teacher = UnshuffleRefiner(3, 2, 8, 1), painter()

    _, steps = teaching(student, teacher, student_steps=300, student_rate=1e-2)
    list(steps)

    images = torch.rand(4, 3, 24, 24, generator=torch.Generator().manual_seed(5)) * 2 - 1
    for seed in (6, 7):
        noise = torch.randn(4, 1, 24, 24, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            wanted, made = teacher(images, noise), student(images, noise)
        assert (made - wanted).abs().mean() < 0.2 * (wanted - images).abs().mean()


def test_a_student_learns_and_nothing_else_does():
    state, steps = teaching(UnshuffleRefiner(3, 4, 8, 1), painter(), student_steps=3)
    players = (state.refiner, state.discriminator, state.averaged, state.student)
    before = [copy_of(network) for network in players]

    done = [(step.number, step.phase, [*step.losses]) for step in steps]

    assert done == [(number, "student", ["student"]) for number in (1, 2, 3)]
    after = [copy_of(network) for network in players]
    same = [equal(*pair) for pair in zip(before, after, strict=True)]
    assert same == [True, True, True, False]


def test_a_student_learns_from_the_average_not_from_the_last_weights():
    state, steps = teaching(Shift(), Shift(), student_steps=200, student_rate=0.05)
    nn.init.constant_(state.averaged.shift, 0.5)
    nn.init.constant_(state.refiner.shift, -0.5)

    list(steps)

    assert state.student.shift.item() == pytest.approx(0.5, abs=0.02)


def test_a_student_learns_from_a_teacher_at_rest():
    class Dropping(Shift):
        def forward(self, images):
            return images + nn.functional.dropout(self.shift.expand(1), 0.5, self.training)

    state, steps = teaching(Shift(), Dropping(), student_steps=1)
    nn.init.constant_(state.averaged.shift, 0.5)

    (step,) = steps

    assert step.losses["student"] == pytest.approx(0.5)


def test_the_rate_of_a_student_rises_and_falls_to_nothing():
    _, steps = teaching(Shift(), Shift(), student_steps=40, student_rate=0.01)

    rates = [step.rates["student"] for step in steps]

    assert rates[:3] == pytest.approx([0.005, 0.01, 0.01])
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[20] == pytest.approx(0.005, rel=0.1)
    assert 0 < rates[-1] < 1e-4


@pytest.mark.parametrize("reduction", ["mean", "paper_sum"])
def test_two_shares_teach_as_one(reduction):
    made, losses = [], []
    for accumulate in (1, 2):
        torch.manual_seed(3)
        student = UnshuffleRefiner(3, 4, 8, 1)
        loss = CrossEntropy(reduction)
        _, steps = teaching(student, painter(), loss, student_steps=4, accumulate=accumulate)
        losses.append([step.losses["student"] for step in steps])
        made.append(copy_of(student))

    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert all(torch.allclose(made[0][name], made[1][name], atol=1e-5) for name in made[0])


def test_contours_count_more_than_tone():
    wanted = torch.zeros(1, 1, 8, 8)
    flat, edge = torch.full_like(wanted, 0.1), torch.zeros_like(wanted)
    edge[..., :4] = 0.2

    assert imitation(wanted, wanted) == 0
    assert flat.mean() == pytest.approx(edge.mean())
    assert imitation(flat, wanted) == pytest.approx(0.1)
    assert imitation(edge, wanted) == pytest.approx(0.1 + 0.2 / 7)


def test_a_student_is_kept_in_place_of_its_teacher_which_lies_beside_it(
    inputs,  # noqa: F811
    tmp_path,
    image,
):
    steps = list(Run(TAUGHT, inputs, tmp_path / "out").steps())

    assert [step.phase for step in steps] == ["adversarial"] * 6 + ["student"] * 5
    student, teacher = (
        checkpoint.load(tmp_path / "out" / f"{name}.safetensors") for name in ("refiner", "teacher")
    )
    assert student.config.refiner.options == {"factor": 4, "features": 4, "blocks": 1}
    assert student.config.training.student_steps == 0
    assert teacher.config.refiner == TAUGHT.refiner
    assert torch.equal(student.bank.tones, teacher.bank.tones)
    assert torch.equal(student.bank.bias, teacher.bank.bias)
    assert student.provenance["student_steps"] == 5
    refined = ImageRefiner.load(tmp_path / "out" / "refiner.safetensors")(image)
    assert refined.shape == image.shape


def test_the_teacher_is_kept_until_the_student_has_learned_all(inputs, tmp_path):  # noqa: F811
    list(Run(SMALL, inputs, tmp_path / "untaught").steps())
    running = Run(TAUGHT, inputs, tmp_path / "out").steps()
    for _ in range(6 + 4):
        next(running)
    running.close()

    assert equal(weights(tmp_path / "out"), weights(tmp_path / "untaught"))
    assert not (tmp_path / "out" / "teacher.safetensors").exists()

    list(Run(TAUGHT, inputs, tmp_path / "out", resume=True).steps())

    teacher = load_file(tmp_path / "out" / "teacher.safetensors")
    assert equal(teacher, weights(tmp_path / "untaught"))


@pytest.mark.parametrize("done", [3, 6, 8, 10])
def test_a_run_with_a_student_that_is_resumed_equals_an_uninterrupted_one(
    inputs,  # noqa: F811
    tmp_path,
    done,
):
    list(Run(TAUGHT, inputs, tmp_path / "whole").steps())
    running = Run(TAUGHT, inputs, tmp_path / "parts").steps()
    for _ in range(done):
        next(running)
    running.close()

    rest = list(Run(TAUGHT, inputs, tmp_path / "parts", resume=True).steps())

    assert [step.number for step in rest] == list(range(done + 1, 12))
    assert equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_a_run_that_goes_on_for_longer_trains_its_teacher_on_and_teaches_anew(
    inputs,  # noqa: F811
    tmp_path,
):
    longer = with_training(TAUGHT, steps=9)
    list(Run(longer, inputs, tmp_path / "whole").steps())
    list(Run(TAUGHT, inputs, tmp_path / "parts").steps())

    rest = list(Run(longer, inputs, tmp_path / "parts", resume=True).steps())

    assert [step.number for step in rest] == list(range(7, 15))
    teachers = [load_file(tmp_path / out / "teacher.safetensors") for out in ("whole", "parts")]
    assert equal(*teachers)
    assert rest[-1].state.student_step == 5


def test_a_student_and_its_teacher_stay_until_a_longer_run_has_taught_anew(
    inputs,  # noqa: F811
    tmp_path,
):
    files = [tmp_path / "out" / f"{name}.safetensors" for name in ("refiner", "teacher")]
    longer = with_training(TAUGHT, steps=9)
    list(Run(TAUGHT, inputs, tmp_path / "out").steps())
    before = [file.read_bytes() for file in files]

    for count in (1, 4):  # in the game, and of the student
        run = Run(longer, inputs, tmp_path / "out", resume=True)
        assert run.keeps_earlier
        running = run.steps()
        for _ in range(count):
            next(running)
        running.close()
        assert [file.read_bytes() for file in files] == before

    run = Run(longer, inputs, tmp_path / "out", resume=True)
    list(run.steps())

    assert not run.keeps_earlier
    assert checkpoint.load(files[0]).provenance["steps"] == 9
    assert checkpoint.load(files[1]).provenance["steps"] == 9


def test_a_student_that_diverges_leaves_its_finished_teacher_as_it_is(
    inputs,  # noqa: F811
    tmp_path,
):
    list(Run(SMALL, inputs, tmp_path / "untaught").steps())
    run = Run(with_training(TAUGHT, student_rate=1e38), inputs, tmp_path / "out")

    with pytest.raises(TrainingError):
        list(run.steps())

    assert [rollback.step for rollback in run.rollbacks] == [6, 6, 6]
    assert equal(weights(tmp_path / "out"), weights(tmp_path / "untaught"))


def test_a_run_of_before_there_were_students_is_told_so(inputs, tmp_path):  # noqa: F811
    running = Run(TAUGHT, inputs, tmp_path / "out").steps()
    next(running)
    running.close()
    tensors, header = checkpoint.load_state(tmp_path / "out" / "state.safetensors")
    tensors["counts"] = tensors["counts"][:4].clone()
    checkpoint.save_state(tmp_path / "out" / "state.safetensors", tensors, header)

    with pytest.raises(CheckpointError, match="written by an earlier version; begin a new run"):
        Run(TAUGHT, inputs, tmp_path / "out", resume=True)


@pytest.mark.filterwarnings("ignore")
def test_a_student_that_diverges_is_taken_back_and_the_teacher_kept(
    inputs,  # noqa: F811
    tmp_path,
):
    run = Run(with_training(TAUGHT, student_rate=1e38), inputs, tmp_path / "out")

    with pytest.raises(TrainingError, match=r"student.* in step [78].*gone back 3 times"):
        list(run.steps())

    assert len(run.rollbacks) == 3
    ImageRefiner.load(tmp_path / "out" / "refiner.safetensors")


def test_a_student_that_lags_behind_is_an_alarm_and_one_that_does_not_is_none():
    images = [torch.rand(24, 24, 3, generator=torch.Generator().manual_seed(1)).numpy()]
    shifted = [image + 0.02 for image in images]

    def names(taught):
        return [alarm.name for alarm in check(images, shifted, taught=taught, settled=False)]

    assert "student lags behind" in names(images)
    assert "student lags behind" not in names(shifted)
    (alarm,) = (a for a in check(images, shifted, taught=images) if "student" in a.name)
    assert alarm.value == pytest.approx(5.1, abs=0.01)
    assert "teacher.safetensors" in alarm.message


def test_at_the_end_it_is_the_students_pictures_that_are_looked_at(
    inputs,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    looked = []

    def check_seen(before, after, boxes, real, logits, settled, taught):
        looked.append((after, taught, logits is None))
        return []

    monkeypatch.setattr("simgan_aug.alarms.watch.check", check_seen)
    run = Run(TAUGHT, inputs, tmp_path / "out")

    list(run.steps())

    (game, none, alone), (student, teacher, without) = looked
    assert none is None
    assert (alone, without) == (False, True)
    assert all((a == b).all() for a, b in zip(game, teacher, strict=True))
    assert any((a != b).any() for a, b in zip(student, teacher, strict=True))


def test_a_student_has_the_options_of_its_teacher_but_for_its_own():
    config = parse({"refiner": {"max_change": 9, "blocks": 3, "features": 16}}, "test")

    assert config.of_student().refiner == Part(
        name="unshuffle",
        options={
            "max_change": 9,
            "blocks": 1,
            "features": 16,
            "factor": 4,
            "pixel_features": 8,
        },
    )


@pytest.mark.parametrize(
    ("tables", "steps"),
    [
        ({}, 3000),
        ({"refiner": {"features": 8}}, 3000),
        ({"refiner": {"name": "resnet"}}, 0),
        ({"refiner": {"name": "resnet"}, "student": {"blocks": 2}}, 3000),
        ({"preset": "wide"}, 0),
        ({"preset": "paper-eyes"}, 0),
    ],
)
def test_a_refiner_of_another_kind_has_no_student_unless_one_is_asked_for(tables, steps):
    assert parse(tables, "test").training.student_steps == steps


def test_a_student_that_asks_for_other_noise_than_its_teacher_is_refused():
    config = parse({"student": {"noise_channels": 2}}, "my.toml")

    with pytest.raises(ConfigError, match=r"my.toml: \[student\]: .*noise_channels.* to 1"):
        check_parts(config, "my.toml")


def test_an_unknown_option_of_a_student_names_its_table():
    config = parse({"student": {"blokcs": 2}}, "my.toml")

    with pytest.raises(ConfigError, match=r"my.toml: \[student\]: .*blokcs"):
        check_parts(config, "my.toml")


def test_other_steps_leave_a_student_its_share():
    training = parse({}, "test").training

    assert training.of_steps(10).student_steps == 30
    assert training.of_steps(10).total == 40
    assert dataclasses.replace(training, steps=10**6).of_steps(3).student_steps == 1
    assert dataclasses.replace(training, student_steps=0).of_steps(3).student_steps == 0
    assert training.of_steps(2000).student_steps == 6000


def test_metrics_tell_of_the_student(inputs, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr("simgan_aug.observers.LOG_EVERY", 1)

    list(Run(TAUGHT, inputs, tmp_path / "out").steps())

    lines = (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    assert (last["step"], last["phase"]) == (11, "student")
    assert last["student"] > 0
