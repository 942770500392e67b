"""A training that diverges goes back to its last good state, more slowly, and not for ever."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file
from test_run import SMALL, equal, inputs, weights  # noqa: F401

from simgan_aug import hookimpl, plugins
from simgan_aug.checkpoint import load_state
from simgan_aug.cli.options import follow
from simgan_aug.errors import TrainingError
from simgan_aug.inference import ImageRefiner
from simgan_aug.losses import Relativistic
from simgan_aug.run import Run


class Diverging(Relativistic):
    """A loss that is not finite where it is asked for at a rate above what the networks bear."""

    def __init__(self, run, step, bears):
        super().__init__()
        self.run, self.step, self.bears, self.fell = run, step, bears, []

    def discriminator(self, critic, refined, real):
        loss = super().discriminator(critic, refined, real)
        state = self.run.state
        if state.step + 1 >= self.step and state.scalars["rate"] > self.bears:
            self.fell.append(state.step + 1)
            return loss * float("nan")
        return loss


@pytest.fixture
def diverging(inputs, tmp_path, monkeypatch):  # noqa: F811
    """Makes a run of 6 steps that saves after each second one and diverges in one of them."""
    monkeypatch.setattr("simgan_aug.run.SAVE_EVERY", 2)
    monkeypatch.setattr("simgan_aug.observers.LOG_EVERY", 1)

    def make(step=4, bears=0.5, out="out", resume=False, **training):
        config = dataclasses.replace(
            SMALL, training=dataclasses.replace(SMALL.training, **training)
        )
        run = Run(config, inputs, tmp_path / out, resume=resume)
        run.loss = Diverging(run, step, bears)
        return run

    return make


def lines(run, name):
    return [json.loads(line) for line in (run.out / name).read_text().splitlines()]


def test_a_diverging_training_goes_back_to_the_last_save_with_half_the_rates(diverging):
    run = diverging(step=4)

    steps = [(step.number, step.rates["refiner"]) for step in run.steps()]

    full, half = SMALL.training.refiner_rate, SMALL.training.refiner_rate / 2
    assert steps == [(1, full), (2, full), (3, full), *((n, half) for n in (3, 4, 5, 6))]
    assert [(back.step, back.rate) for back in run.rollbacks] == [(2, 0.5)]
    assert "the discriminator loss is nan in step 4" in run.rollbacks[0].reason


def test_what_was_gone_back_to_is_the_state_as_it_was(diverging):
    run, at = diverging(step=4), {}
    for step in run.steps():
        now = {name: value.clone() for name, value in run.state.tensors().items()}
        if step.number == 2:
            at["before"] = now
        if step.number == 3 and len(run.rollbacks) == 1:
            break
    calm = diverging(step=99, out="calm", refiner_rate=3e-4, discriminator_rate=3e-4)
    calm.state.load(at["before"])

    (*_, last) = zip(range(1), calm.steps(), strict=False)

    again, expected = run.state.tensors(), last[1].state.tensors()
    assert all(
        torch.equal(again[name], expected[name])
        for name in expected
        if not name.startswith("scalar")
    )


def test_it_may_go_back_to_the_very_beginning(diverging):
    run = diverging(step=1)

    assert [step.number for step in run.steps()] == [1, 2, 3, 4, 5, 6]
    assert [back.step for back in run.rollbacks] == [0]


def test_it_goes_back_as_often_as_allowed_and_then_says_what_to_turn(diverging):
    run = diverging(step=4, bears=0, rollbacks=2, rollback_factor=0.1)

    with pytest.raises(
        TrainingError, match=r"in step 4 \(gone back 2 times, to 0\.01 of .*\); lower"
    ):
        list(run.steps())

    assert run.loss.fell == [4, 4, 4]
    kept = ImageRefiner.load(run.out / "refiner.safetensors").provenance
    assert (kept["steps"], kept["rollbacks"]) == (2, 2)


def test_weights_that_are_not_finite_though_no_loss_was_are_not_saved(diverging):
    run = diverging(step=99)
    for step in run.steps():
        if step.number == 3 and not run.rollbacks:
            with torch.no_grad():  # as nothing in the next step's loss depends on it
                next(run.state.averaged.parameters()).fill_(float("inf"))

    assert [(back.step, back.reason) for back in run.rollbacks] == [
        (2, "a weight is not finite after step 4")
    ]
    saved = load_file(run.out / "state.safetensors")
    assert all(value.isfinite().all() for value in saved.values())


def test_an_interrupted_run_does_not_save_weights_that_are_not_finite(diverging):
    run = diverging(step=99)
    for step in run.steps():
        if step.number == 3:
            with torch.no_grad():
                next(run.state.averaged.parameters()).fill_(float("inf"))
            break

    assert load_state(run.out / "state.safetensors")[1]["step"] == 2


def test_metrics_of_steps_taken_again_are_forgotten_and_the_reason_is_kept(diverging):
    run = diverging(step=4)
    list(run.steps())

    assert [line["step"] for line in lines(run, "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]
    (told,) = [line for line in lines(run, "alarms.jsonl") if line["name"] == "diverged"]
    assert (told["step"], told["value"]) == (2, 0.5)
    assert "nan in step 4" in told["message"]


def test_a_resumed_run_keeps_the_lower_rates_and_ends_as_if_uninterrupted(diverging):
    whole = diverging(step=4, out="whole")
    list(whole.steps())
    for step in diverging(step=4, out="parts").steps():
        if step.number == 5:
            break

    resumed = diverging(step=4, out="parts", resume=True)
    rest = [(step.number, step.rates["refiner"]) for step in resumed.steps()]

    assert rest == [(6, SMALL.training.refiner_rate / 2)]
    assert equal(weights(whole.out), weights(resumed.out))


def test_a_run_killed_right_after_it_went_back_keeps_the_lower_rates(diverging):
    run = diverging(step=4)
    for _ in run.steps():
        if run.rollbacks:
            saved, header = load_state(run.out / "state.safetensors")
            break

    assert header["step"] == 2
    assert saved["scalar.rate"].item() == 0.5


def test_the_user_is_told(diverging, capsys):
    follow(run := diverging(step=4), run.out)

    told = [line for line in capsys.readouterr().err.splitlines() if "diverged" in line]
    assert len(told) == 1
    assert "nan in step 4" in told[0]
    assert "went back to step 2, on with 0.5 of the learning rates" in told[0]


def test_a_plugin_hears_of_it(diverging):
    heard = []

    class Listener:
        @hookimpl
        def simgan_training_rollback(self, out, rollback):
            heard.append((out.name, rollback.step, rollback.rate))

    manager, listener = plugins.registry().manager, Listener()
    manager.register(listener, name="listener")
    try:
        list(diverging(step=4).steps())
    finally:
        manager.unregister(listener)

    assert heard == [("out", 2, 0.5)]
