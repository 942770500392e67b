"""Real trainings, of a few steps, read back from MLflow's own store in a folder."""

import json
from types import SimpleNamespace

import mlflow
import numpy as np
import pytest
import simgan_aug_mlflow
from PIL import Image

from simgan_aug import plugins
from simgan_aug.alarms import Alarm
from simgan_aug.cli import main
from simgan_aug.rollback import Rollback

FAST = """
preset = "wide"
[refiner]
features = 8
blocks = 1
[discriminator]
features = 8
[tone]
photos = 2
[data]
crop = [16, 16]
[training]
batch_size = 4
history = 8
steps = 2
"""


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Begins or resumes a training with these options; gives what the store knows of it."""
    rng = np.random.default_rng(0)
    for side in ("synthetic", "real"):
        (tmp_path / side).mkdir()
        for number in range(4):
            pixels = rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / side / f"{number}.png")
    entries = [{"id": n, "file_name": f"{n}.png", "width": 24, "height": 20} for n in range(4)]
    (tmp_path / "synthetic.json").write_text(json.dumps({"images": entries, "annotations": []}))
    (tmp_path / "fast.toml").write_text(FAST)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("simgan_aug_mlflow.EVERY", 1)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow 3 asks for it
    mlflow.set_tracking_uri((tmp_path / "store").as_uri())

    def train(*options):
        assert main(["train", "--device", "cpu", "--out", "out", *options]) == 0
        (run,) = mlflow.MlflowClient().search_runs(["0"])
        return run

    return train


BEGIN = ("--synthetic", "synthetic.json", "--real", "real", "--config", "fast.toml")


def history(run, metric):
    found = mlflow.MlflowClient().get_metric_history(run.info.run_id, metric)
    return [(each.step, each.value) for each in found]


def test_the_plugin_is_found_and_whole():
    (found,) = [each for each in plugins.plugins() if each.name == "mlflow"]

    assert (found.distribution, found.error) == ("simgan-aug-mlflow", "")


def test_a_training_is_in_the_store(train):
    run = train(*BEGIN)

    assert (run.info.run_name, run.info.status) == ("out", "FINISHED")
    assert run.data.params["training.steps"] == "2"
    assert run.data.params["refiner.name"] == "unshuffle"
    assert [step for step, _ in history(run, "discriminator")] == [1, 2]
    assert history(run, "rate/refiner") == [(1, 6e-4), (2, 6e-4)]
    assert run.data.tags["reason"] == "finished"
    files = mlflow.MlflowClient().list_artifacts(run.info.run_id)
    assert [file.path for file in files] == ["sheet.png"]


def test_alarms_and_rollbacks_are_told(train):
    run = train(*BEGIN)
    alarm = Alarm("labels drift", 0.7, 0.5, "")
    with mlflow.start_run(run_id=run.info.run_id):
        simgan_aug_mlflow.simgan_training_alarm(SimpleNamespace(number=200), alarm)
        back = Rollback(step=200, rate=0.5, reason="the discriminator loss is nan in step 250")
        simgan_aug_mlflow.simgan_training_rollback(back)

    run = mlflow.get_run(run.info.run_id)

    assert history(run, "alarm/labels drift") == [(200, 0.7)]
    assert run.data.tags["rollback/200"] == "the discriminator loss is nan in step 250"


def test_a_resumed_training_goes_on_in_the_same_run(train):
    first = train(*BEGIN)

    run = train("--resume", "--steps", "4")

    assert run.info.run_id == first.info.run_id
    assert [step for step, _ in history(run, "discriminator")] == [1, 2, 3, 4]
