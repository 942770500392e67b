"""A training run: its folder, its resumption, its end in bad weather."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from simgan_aug import hookimpl, plugins
from simgan_aug.alarms import Watch
from simgan_aug.cli.options import follow
from simgan_aug.config import Config, Data, Part, Regularization, Tone, Training
from simgan_aug.data import Crops
from simgan_aug.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    OutputError,
    PluginError,
    TrainingError,
)
from simgan_aug.imagefile import read_image
from simgan_aug.inference import ImageRefiner
from simgan_aug.ranks import Ranks
from simgan_aug.run import REFINER, STATE, Inputs, Run, read_info

SMALL = Config(
    refiner=Part(name="unshuffle", options={"features": 8, "blocks": 1}),
    discriminator=Part(name="patch", options={"features": 8}),
    regularization=Regularization(labels={"background": 0.5}),
    tone=Tone(photos=3),
    data=Data(crop=(16, 16), scale=(0.8, 1.2)),
    training=Training(steps=6, batch_size=4, history=8, precision="fp32", seed=1),
)


@pytest.fixture
def inputs(tmp_path):
    rng = np.random.default_rng(0)
    entries, labels = [], []
    for side, high in (("synthetic", 255), ("real", 120)):
        (tmp_path / side).mkdir()
        for number in range(5):
            pixels = rng.integers(0, high, (24, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / side / f"{number}.png")
    for number in range(5):
        entries.append({"id": number, "file_name": f"{number}.png", "width": 32, "height": 24})
        labels.append({"id": number, "image_id": number, "category_id": 1, "bbox": [2, 2, 9, 9]})
    coco = {
        "images": entries,
        "annotations": labels,
        "categories": [{"id": 1, "name": "hand"}],
    }
    (tmp_path / "synthetic.json").write_text(json.dumps(coco))
    return Inputs(
        annotations=tmp_path / "synthetic.json",
        images=tmp_path / "synthetic",
        real=tmp_path / "real",
    )


def weights(out):
    return load_file(out / "refiner.safetensors")


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_a_run_leaves_a_refiner_that_refines(inputs, tmp_path, image):
    list(Run(SMALL, inputs, tmp_path / "out").steps())

    refined = ImageRefiner.load(tmp_path / "out" / "refiner.safetensors")(image)

    assert refined.shape == image.shape
    assert not np.array_equal(refined, image)


def test_a_seed_gives_the_same_refiner_again(inputs, tmp_path):
    for out in ("a", "b"):
        list(Run(SMALL, inputs, tmp_path / out).steps())

    assert equal(weights(tmp_path / "a"), weights(tmp_path / "b"))


@pytest.mark.parametrize(("memory_mb", "drawn"), [(64, 5), (1, 1)])
def test_photos_to_choose_from_are_drawn_where_they_are_held(
    inputs, tmp_path, monkeypatch, memory_mb, drawn
):
    for path in inputs.real.iterdir():
        pixels = np.random.default_rng(0).integers(0, 120, (640, 400, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    asked = []

    class Seen(Crops):
        def __init__(self, source, *arguments, candidates=1, **options):
            asked.append(candidates)
            super().__init__(source, *arguments, candidates=candidates, **options)

    monkeypatch.setattr("simgan_aug.data.Crops", Seen)
    config = dataclasses.replace(
        SMALL,
        data=Data(crop=(16, 16), alike=5, memory_mb=memory_mb, match_size=False),
        training=dataclasses.replace(SMALL.training, steps=1),
    )

    list(Run(config, inputs, tmp_path / "out").steps())

    assert asked == [1, drawn]


def test_an_interrupted_and_resumed_run_equals_an_uninterrupted_one(inputs, tmp_path):
    list(Run(SMALL, inputs, tmp_path / "whole").steps())
    running = Run(SMALL, inputs, tmp_path / "parts").steps()
    for _ in range(3):
        next(running)
    running.close()

    rest = list(Run(SMALL, inputs, tmp_path / "parts", resume=True).steps())

    assert [step.number for step in rest] == [4, 5, 6]
    assert equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


@pytest.mark.parametrize("resume", [False, True])
def test_two_trainings_do_not_work_in_one_folder_at_once(inputs, tmp_path, resume):
    first, second = (Run(SMALL, inputs, tmp_path / "out") for _ in range(2))
    running = first.steps()
    next(running)
    if resume:
        second = Run(SMALL, inputs, tmp_path / "out", resume=True)

    with pytest.raises(ConfigError, match=r"another training is at work in .*/out: wait for its"):
        next(second.steps())

    rest = list(running)
    assert [step.number for step in rest] == [2, 3, 4, 5, 6]


@pytest.mark.parametrize("resume", [False, True])
def test_a_training_does_not_begin_where_another_has_written_since_it_was_prepared(
    inputs, tmp_path, resume
):
    if resume:
        running = Run(SMALL, inputs, tmp_path / "out").steps()
        next(running)
        running.close()
    first, second = (Run(SMALL, inputs, tmp_path / "out", resume=resume) for _ in range(2))
    list(first.steps())
    before = weights(tmp_path / "out")

    with pytest.raises(ConfigError, match=r"another training has written to .*since this one was"):
        next(second.steps())

    assert equal(weights(tmp_path / "out"), before)


def test_metrics_of_steps_taken_again_are_not_doubled(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr("simgan_aug.observers.LOG_EVERY", 1)
    running = Run(SMALL, inputs, tmp_path / "out").steps()
    for _ in range(3):
        next(running)
    running.close()
    with (tmp_path / "out" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "phase": "adversarial"}\n{"step": 5, "ph')

    list(Run(SMALL, inputs, tmp_path / "out", resume=True).steps())

    lines = (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5, 6]


def test_a_run_in_the_folder_is_not_overwritten(inputs, tmp_path):
    list(Run(SMALL, inputs, tmp_path / "out").steps())

    with pytest.raises(ConfigError, match="--resume"):
        Run(SMALL, inputs, tmp_path / "out")


def test_a_run_of_an_earlier_version_goes_on_with_any_tone(inputs, tmp_path):
    list(Run(SMALL, inputs, tmp_path / "out").steps())
    path = tmp_path / "out" / "run.json"
    info = json.loads(path.read_text())
    assert read_info(tmp_path / "out")["config"]["tone"]["choice"] == "alike"

    del info["config"]["tone"]["choice"]
    path.write_text(json.dumps(info))

    assert read_info(tmp_path / "out")["config"]["tone"]["choice"] == "any"


def test_of_four_channels_a_network_that_takes_a_reference_is_refused(inputs, tmp_path):
    for path in [*tmp_path.glob("synthetic/*.png"), *tmp_path.glob("real/*.png")]:
        pixels = read_image(path).pixels
        Image.fromarray(np.dstack([pixels, pixels[..., 0]])).save(path)
    four = dataclasses.replace(SMALL, data=dataclasses.replace(SMALL.data, channels=4))
    asking = Part(name="unshuffle", options={"features": 8, "blocks": 1, "takes_reference": True})

    assert Run(four, inputs, tmp_path / "out").bank.channels == 3
    with pytest.raises(ConfigError, match=r"takes_reference needs tones .* of each channel"):
        Run(dataclasses.replace(four, refiner=asking), inputs, tmp_path / "out")


def test_there_is_nothing_to_resume_in_an_empty_folder(inputs, tmp_path):
    with pytest.raises(ConfigError, match="without --resume"):
        Run(SMALL, inputs, tmp_path / "out", resume=True)
    with pytest.raises(CheckpointError, match="without --resume"):
        read_info(tmp_path / "out")


def test_a_finished_run_without_its_state_is_not_begun_again_over_its_refiner(inputs, tmp_path):
    list(Run(SMALL, inputs, tmp_path / "out").steps())
    (tmp_path / "out" / STATE).unlink()
    kept = (tmp_path / "out" / REFINER).read_bytes()

    with pytest.raises(CheckpointError, match=r"holds a refiner and no state\.safetensors"):
        Run(SMALL, inputs, tmp_path / "out", resume=True)

    assert (tmp_path / "out" / REFINER).read_bytes() == kept


@pytest.mark.parametrize("side", ["synthetic", "real"])
def test_a_run_does_not_go_on_with_other_data(inputs, tmp_path, side):
    running = Run(SMALL, inputs, tmp_path / "out").steps()
    next(running)
    running.close()
    if side == "real":
        (tmp_path / "real" / "0.png").rename(tmp_path / "real" / "new.png")
    else:
        content = inputs.annotations.read_text()
        inputs.annotations.write_text(content + " ")

    with pytest.raises(DataError, match=f"the {side} data has changed"):
        Run(SMALL, inputs, tmp_path / "out", resume=True)


def test_a_state_of_other_networks_is_refused(inputs, tmp_path):
    list(Run(SMALL, inputs, tmp_path / "out").steps())
    wider = Part(name="unshuffle", options={"features": 16, "blocks": 1})

    with pytest.raises(CheckpointError, match="another config"):
        Run(dataclasses.replace(SMALL, refiner=wider), inputs, tmp_path / "out", resume=True)


def test_a_loss_that_is_not_finite_keeps_the_last_good_state(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr("simgan_aug.run.SAVE_EVERY", 2)
    config = dataclasses.replace(SMALL, training=dataclasses.replace(SMALL.training, rollbacks=0))
    running = Run(config, inputs, tmp_path / "out")
    steps = running.steps()
    next(steps), next(steps)
    good = weights(tmp_path / "out")
    with torch.no_grad():
        next(running.state.discriminator.parameters()).fill_(float("nan"))

    with pytest.raises(TrainingError, match="rate"):
        next(steps)

    assert equal(weights(tmp_path / "out"), good)


def test_labels_of_the_real_side_are_never_read(inputs, tmp_path):
    (tmp_path / "real" / "annotations.json").write_text("this is no JSON")

    run = Run(SMALL, inputs, tmp_path / "out")

    assert len(run.real.images) == 5


def test_nothing_is_written_before_the_data_has_been_read(inputs, tmp_path):
    (tmp_path / "synthetic" / "3.png").write_bytes(b"broken")

    with pytest.raises(DataError, match=r"3\.png"):
        Run(SMALL, inputs, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_provenance_travels_in_the_refiner(inputs, tmp_path):
    list(Run(SMALL, inputs, tmp_path / "out", licence="CC0").steps())

    provenance = ImageRefiner.load(tmp_path / "out" / "refiner.safetensors").provenance

    assert provenance["steps"] == 6
    assert provenance["licence"] == "CC0"
    assert len(provenance["real"]["sha256"]) == 64
    assert set(provenance["versions"]) == {"simgan-aug", "torch", "numpy", "python"}


def test_samples_show_three_rows_while_training(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr("simgan_aug.observers.SAMPLE_EVERY", 3)

    list(Run(SMALL, inputs, tmp_path / "out").steps())

    names = sorted(path.name for path in (tmp_path / "out" / "samples").iterdir())
    assert names == ["last.png", "step-000003.png", "step-000006.png"]


def test_drawing_a_sample_does_not_change_the_training(inputs, tmp_path, monkeypatch):
    list(Run(SMALL, inputs, tmp_path / "plain").steps())
    monkeypatch.setattr("simgan_aug.observers.SAMPLE_EVERY", 1)

    list(Run(SMALL, inputs, tmp_path / "drawn").steps())

    assert equal(weights(tmp_path / "plain"), weights(tmp_path / "drawn"))


@pytest.mark.filterwarnings("ignore:plugin 'observers'")  # cannot write its metrics either
def test_a_full_disk_is_one_clear_error(inputs, small_disk):
    with pytest.raises(OutputError, match="No space left"):
        list(Run(SMALL, inputs, small_disk / "out").steps())

    assert not list(small_disk.rglob("*.tmp"))


@pytest.mark.parametrize("preset", ["paper-eyes", "paper-hands", "wide", "default"])
def test_every_preset_trains(inputs, tmp_path, preset):
    from simgan_aug.configfile import load_preset

    config = load_preset(preset)
    few = dataclasses.replace(
        config.training.of_steps(1), batch_size=2, refiner_warmup=1, discriminator_warmup=1
    )
    small = dataclasses.replace(config.data, crop=(20, 28))

    steps = list(
        Run(dataclasses.replace(config, training=few, data=small), inputs, tmp_path / "out").steps()
    )

    assert [step.phase for step in steps] == [
        "refiner warm-up",
        "discriminator warm-up",
        "adversarial",
        *["student"] * (3 if preset == "default" else 0),
    ]
    assert (tmp_path / "out" / "refiner.safetensors").exists()


def test_losses_go_to_tensorboard_where_it_is_installed(inputs, tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setattr("simgan_aug.observers.LOG_EVERY", 2)

    list(Run(SMALL, inputs, tmp_path / "out").steps())

    board = EventAccumulator(str(tmp_path / "out" / "tensorboard")).Reload()
    assert [event.step for event in board.Scalars("loss/discriminator")] == [1, 2, 4, 6]
    assert [event.value for event in board.Scalars("rate/refiner")] == [pytest.approx(6e-4)] * 4
    assert all(event.value > 0 for event in board.Scalars("seconds"))


def test_a_line_of_metrics_tells_losses_rates_and_seconds(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr("simgan_aug.observers.LOG_EVERY", 3)
    rates = {"refiner_rate": 0.01, "discriminator_rate": 0.02, "decay_after": 4}
    training = dataclasses.replace(SMALL.training, **rates)

    list(Run(dataclasses.replace(SMALL, training=training), inputs, tmp_path / "out").steps())

    lines = (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    first, third, last = (json.loads(line) for line in lines)
    assert set(first) >= {"step", "phase", "time", "seconds", "rates"} | {
        "adversarial",
        "regularization",
        "discriminator",
    }
    assert third["rates"] == {"refiner": 0.01, "discriminator": 0.02}
    assert last["rates"] == {"refiner": 0.0025, "discriminator": 0.005}
    assert 0 < last["seconds"] < last["time"] - third["time"] + 0.1


def test_a_run_killed_before_its_first_save_starts_again(inputs, tmp_path):
    list(Run(SMALL, inputs, tmp_path / "whole").steps())
    running = Run(SMALL, inputs, tmp_path / "out").steps()
    next(running)
    running.close()
    for name in (STATE, REFINER):
        (tmp_path / "out" / name).unlink()

    list(Run(SMALL, inputs, tmp_path / "out", resume=True).steps())

    assert equal(weights(tmp_path / "out"), weights(tmp_path / "whole"))


def test_an_error_in_the_midst_of_a_step_does_not_replace_the_last_save(inputs, tmp_path):
    running = Run(SMALL, inputs, tmp_path / "out")
    steps = running.steps()
    next(steps)
    running.save()
    good = weights(tmp_path / "out")

    with pytest.raises(KeyboardInterrupt):
        steps.throw(KeyboardInterrupt)

    assert equal(weights(tmp_path / "out"), good)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": Part(name="typo")}, "no loss named 'typo'"),
        ({"regularization": Regularization(features="typo")}, "no feature transform named 'typo'"),
        ({"refiner": Part(name="unshuffle", options={"takes_reference": True})}, "set tone.photos"),
        ({"discriminator": Part(name="patch", options={"takes_reference": True})}, "tone.photos"),
    ],
)
def test_a_config_that_cannot_train_leaves_no_folder(inputs, tmp_path, change, message):
    without_tone = dataclasses.replace(SMALL, tone=Tone(photos=0), **change)

    with pytest.raises((ConfigError, PluginError), match=message):
        Run(without_tone, inputs, tmp_path / "out")

    assert not (tmp_path / "out").exists()


def test_a_reference_is_trained_with_and_refined_with(inputs, tmp_path, image):
    takes = {"takes_reference": True, "features": 8}
    config = dataclasses.replace(
        SMALL,
        refiner=Part(name="unshuffle", options=takes | {"noise_channels": 0}),
        discriminator=Part(name="patch", options=takes),
        tone=Tone(photos=5, match="never", choice="any"),
    )

    list(Run(config, inputs, tmp_path / "out").steps())
    refiner = ImageRefiner.load(tmp_path / "out" / "refiner.safetensors")

    assert len(refiner.bank) == 5
    values = (image / 255).astype(np.float32)  # few steps change less than a grey level
    assert len({refiner(values, seed=seed).tobytes() for seed in range(30)}) == 5


@pytest.mark.parametrize("out", ["real/run", "synthetic/run"])
def test_a_run_does_not_lie_in_its_own_data(inputs, tmp_path, out):
    with pytest.raises(ConfigError, match="overlap"):
        Run(SMALL, inputs, tmp_path / out)


def test_a_run_goes_on_with_ranks_that_divide_its_shares_alone(inputs, tmp_path):
    training = dataclasses.replace(SMALL.training, batch_size=8, accumulate=4, steps=1)
    config = dataclasses.replace(SMALL, training=training)
    list(Run(config, inputs, tmp_path / "out").steps())

    with pytest.raises(ConfigError, match=r"in 4 share.*a number of ranks that divides 4, not 3"):
        Run(config, inputs, tmp_path / "out", resume=True, ranks=Ranks(number=0, world=3))


class Negative(nn.Module):
    """A refiner whose result is a negative in every way that a watch could leave a trace in: it
    draws from the global generator, it learns from all that it sees, and part of it is frozen."""

    def __init__(self, channels):
        super().__init__()
        self.statistics = nn.BatchNorm2d(channels)
        self.frozen = nn.BatchNorm2d(channels)
        self.frozen.weight.requires_grad_(False)

    def forward(self, images):
        small = self.statistics(images) + self.frozen(images) + torch.randn_like(images)
        return 0.01 * small - images


@pytest.fixture
def negative(monkeypatch):
    """A config whose refiner is a negative, looked at after each step."""
    part = plugins.RegisteredPart(Negative, "builtin")
    monkeypatch.setitem(plugins.registry().parts["refiner"], "negative", part)
    monkeypatch.setattr("simgan_aug.run.SAVE_EVERY", 1)
    return dataclasses.replace(
        SMALL,
        refiner=Part(name="negative"),
        discriminator=Part(name="patch", options={"features": 8, "spectral": True}),
    )


def alarm_lines(out):
    return [json.loads(line) for line in (out / "alarms.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", ["unshuffle", "negative"])
def test_watching_leaves_no_trace_in_the_training(inputs, tmp_path, negative, monkeypatch, name):
    part = SMALL.refiner if name == "unshuffle" else negative.refiner
    config = dataclasses.replace(negative, refiner=part)
    list(Run(config, inputs, tmp_path / "watched").steps())
    monkeypatch.setattr(Watch, "look", lambda self, state, steps: [])

    list(Run(config, inputs, tmp_path / "alone").steps())

    for file in ("refiner.safetensors", "state.safetensors"):
        assert (tmp_path / "watched" / file).read_bytes() == (
            tmp_path / "alone" / file
        ).read_bytes()


def test_networks_are_in_the_same_modes_after_a_look(inputs, tmp_path, negative):
    run = Run(negative, inputs, tmp_path / "out")
    networks = run.state.refiner, run.state.averaged, run.state.discriminator
    for network in networks[:2]:
        network.frozen.eval()

    def modes():
        parts = [part.training for network in networks for part in network.modules()]
        return parts + [w.requires_grad for network in networks for w in network.parameters()]

    before = modes()
    for step in run.steps():
        assert run.alarms
        assert modes() == before
        if step.number == 2:
            break


def test_an_alarm_is_a_line_with_its_step_value_and_message(inputs, tmp_path, negative):
    run = Run(negative, inputs, tmp_path / "out")
    list(run.steps())

    lines = [line for line in alarm_lines(tmp_path / "out") if line["name"] == "colours inverted"]

    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert set(lines[0]) == {"step", "name", "value", "limit", "message"}
    assert lines[-1]["value"] < lines[-1]["limit"] < 0
    assert "colours inverted" in [alarm.name for alarm in run.alarms]


def test_alarms_of_steps_taken_again_are_not_doubled(inputs, tmp_path, negative):
    out = tmp_path / "out"
    running = Run(negative, inputs, out).steps()
    for _ in range(3):
        next(running)
    running.close()
    with (out / "alarms.jsonl").open("a") as file:
        file.write('{"step": 4, "name": "colours inverted"}\n{"step": 5, "na')

    list(Run(negative, inputs, out, resume=True).steps())

    steps = [line["step"] for line in alarm_lines(out) if line["name"] == "colours inverted"]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_nothing_is_looked_for_before_the_networks_play(inputs, tmp_path, negative):
    warm = dataclasses.replace(negative.training, steps=1, refiner_warmup=2, discriminator_warmup=2)

    list(Run(dataclasses.replace(negative, training=warm), inputs, tmp_path / "out").steps())

    assert {line["step"] for line in alarm_lines(tmp_path / "out")} == {5}


def test_a_plugin_hears_of_an_alarm(inputs, tmp_path, negative):
    heard = []

    class Listener:
        @hookimpl
        def simgan_training_alarm(self, out, step, alarm):
            heard.append((out, step.number, alarm.name))

    manager, listener = plugins.registry().manager, Listener()
    manager.register(listener, name="listener")
    try:
        list(Run(negative, inputs, tmp_path / "out").steps())
    finally:
        manager.unregister(listener)

    assert (tmp_path / "out", 1, "colours inverted") in heard


def test_alarms_go_to_tensorboard_where_it_is_installed(inputs, tmp_path, negative):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    list(Run(negative, inputs, tmp_path / "out").steps())

    board = EventAccumulator(str(tmp_path / "out" / "tensorboard")).Reload()
    inverted = board.Scalars("alarm/colours inverted")
    assert [event.step for event in inverted] == [1, 2, 3, 4, 5, 6]
    assert all(event.value < 0 for event in inverted)


def test_an_alarm_is_told_once_when_it_begins(inputs, tmp_path, negative, capsys):
    follow(Run(negative, inputs, tmp_path / "out"), tmp_path / "out")

    told = [line for line in capsys.readouterr().err.splitlines() if "colours inverted" in line]
    assert len(told) == 1
    assert told[0].startswith("warning: step 1: colours inverted: ")
    assert "regularization.weight" in told[0]


def test_the_weight_of_contours_follows_what_is_measured_and_outlives_a_resume(
    inputs, tmp_path, monkeypatch
):
    monkeypatch.setattr("simgan_aug.leash.LOOKS", 3)  # every other step
    held = dataclasses.replace(SMALL, regularization=Regularization(contours=0.5, drift=0.4))
    whole, parts = (Run(held, inputs, tmp_path / name) for name in ("whole", "parts"))

    weights = [step.state.scalars["contours"] for step in whole.steps()]
    steps = parts.steps()
    for _ in range(3):
        next(steps)
    steps.close()
    resumed = Run(held, inputs, tmp_path / "parts", resume=True)
    again = [step.state.scalars["contours"] for step in resumed.steps()]

    assert weights[0] == 0.5
    assert weights[1] != 0.5
    assert weights[3:] == again


def test_the_leash_is_told_how_many_looks_are_left_of_the_game(inputs, tmp_path, monkeypatch):
    told = []

    def turn(leash, weight, network, seed, left):
        told.append(left)
        return weight, None

    monkeypatch.setattr("simgan_aug.leash.Leash.turn", turn)
    held = dataclasses.replace(
        SMALL,
        regularization=Regularization(contours=0.5, drift=0.4),
        training=dataclasses.replace(SMALL.training, discriminator_warmup=2, steps=5),
    )

    list(Run(held, inputs, tmp_path / "out").steps())

    assert told == pytest.approx([3, 2, 1, 0, -1])


def test_a_weight_of_contours_without_a_target_stays(inputs, tmp_path):
    fixed = dataclasses.replace(SMALL, regularization=Regularization(contours=0.3, drift=0))

    weights = {s.state.scalars["contours"] for s in Run(fixed, inputs, tmp_path / "out").steps()}

    assert weights == {0.3}


def test_without_a_term_for_contours_no_drift_brings_one_in(inputs, tmp_path):
    free = dataclasses.replace(SMALL, regularization=Regularization(contours=0, drift=0.01))

    weights = {s.state.scalars["contours"] for s in Run(free, inputs, tmp_path / "out").steps()}

    assert weights == {0}


def test_a_run_of_an_earlier_version_is_refused_in_words(inputs, tmp_path):
    list(Run(SMALL, inputs, tmp_path / "out").steps())
    path = tmp_path / "out" / "run.json"
    info = json.loads(path.read_text())
    info["config"]["tone"]["match"] = True
    path.write_text(json.dumps(info))

    with pytest.raises(CheckpointError, match="run of an earlier simgan_aug; begin a new one"):
        read_info(tmp_path / "out")


def deepen(folder, bits):
    """The images of a folder, grey, with so many bits in 16."""
    for path in folder.iterdir():
        grey = np.array(Image.open(path).convert("L")).astype(np.uint16)
        Image.fromarray(grey << (bits - 8)).save(path)


@pytest.mark.parametrize(("stated", "white"), [(0, 4095), (3000, 3000)])
def test_of_16_bits_a_refiner_sees_those_that_images_use(inputs, tmp_path, stated, white):
    deepen(tmp_path / "synthetic", 12)
    deepen(tmp_path / "real", 10)
    config = dataclasses.replace(SMALL, data=dataclasses.replace(SMALL.data, white=stated))
    list(Run(config, inputs, tmp_path / "out").steps())

    refiner = ImageRefiner.load(tmp_path / "out" / "refiner.safetensors")
    image = np.array(Image.open(tmp_path / "synthetic" / "0.png")).astype(np.uint16)
    seen = []
    refiner.network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    refined = refiner(image)

    assert refiner.white == read_info(tmp_path / "out")["config"]["data"]["white"] == white
    assert refined.dtype == np.uint16
    assert seen[0].max() > 0.8
    assert 0 < np.abs(refined.astype(int) - image).max() <= white


def test_a_run_of_deep_images_resumes_to_the_same_refiner(inputs, tmp_path):
    deepen(tmp_path / "synthetic", 12)
    deepen(tmp_path / "real", 12)
    list(Run(SMALL, inputs, tmp_path / "whole").steps())
    running = Run(SMALL, inputs, tmp_path / "parts").steps()
    for _ in range(3):
        next(running)
    running.close()

    list(Run(SMALL, inputs, tmp_path / "parts", resume=True).steps())

    assert equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
