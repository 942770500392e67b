"""The examples for other people's trainers, run as a user runs them: as processes, on the hands.

Whether images are refined is seen from outside: with the same seeds, a run that refines has other
losses than two runs that do not, which are alike.
"""

import ast
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import types
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from simgan_aug.data import BatchRefiner

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "examples" / "integrations"
HANDS = ROOT / "examples" / "data" / "hands"
TORCHVISION_OPS = ROOT / "tests" / "torchvision_ops.py"
"""Runs a script where torchvision's wheel does not fit torch; elsewhere it changes nothing."""

TRAINED = 22
"""Images that the detectors train on: nine tenths of 25."""


def needs(*packages):
    missing = [name for name in packages if find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


@pytest.fixture
def hands(tmp_path):
    """25 of the shipped hands, as a COCO file."""
    coco = json.loads((HANDS / "synthetic.json").read_text())
    coco["images"] = coco["images"][::12]
    ids = {entry["id"] for entry in coco["images"]}
    coco["annotations"] = [each for each in coco["annotations"] if each["image_id"] in ids]
    path = tmp_path / "hands.json"
    path.write_text(json.dumps(coco))
    return path


@pytest.fixture
def start(tmp_path):
    """Starts a script, or code, in a process that is offline and keeps its settings to itself."""
    environment = {
        **os.environ,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "1",
        "NO_ALBUMENTATIONS_UPDATE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(SCRIPTS), os.environ.get("PYTHONPATH", "")]),
        "YOLO_AUTOINSTALL": "false",
        "YOLO_CONFIG_DIR": str(tmp_path / "yolo"),
        "YOLO_OFFLINE": "true",
    }
    (tmp_path / "yolo").mkdir()
    started = []

    def run(script, *arguments, python=()):
        if not isinstance(script, Path):
            path = tmp_path / f"code{len(started)}.py"
            path.write_text(script)
            script = path
        process = subprocess.Popen(
            [sys.executable, *python, TORCHVISION_OPS, script, *map(str, arguments)],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def output(process, code=0):
    """What a process has printed, once it has ended as expected."""
    text, _ = process.communicate(timeout=150)
    assert process.returncode == code, text
    return re.sub(r"\x1b\[\d*[mK]", "", text)


def lines(text, beginning):
    return [line for line in text.splitlines() if line.startswith(beginning)]


# Loops that are yours


@pytest.mark.parametrize("where", ["batch", "worker"])
def test_the_plain_loop_trains_on_refined_images(where, hands, refiner_file, start):
    command = [SCRIPTS / "plain_pytorch.py", "--annotations", hands, "--refiner", refiner_file]
    options = ["--where", where, "--batch-size", 13, "--device", "cpu", "--p"]
    runs = [start(*command, *options, p, python=["-Werror"]) for p in (0, 0, 1)]

    plain, again, refined = (lines(output(run), "epoch") for run in runs)

    assert len(plain) == len(refined) == 4
    assert plain == again != refined


@needs("lightning")
def test_lightning_trains_on_refined_images_and_validates_on_plain_ones(
    hands, refiner_file, start, tmp_path
):
    command = [SCRIPTS / "lightning_module.py", "--annotations", hands, "--refiner", refiner_file]
    options = ["--batch-size", 13, "--steps", 2, "--workers", 0, "--accelerator", "cpu"]
    runs = [start(*command, *options, "--p", p, "--out", tmp_path / f"p{p}") for p in (0, 1)]

    plain, refined = (output(run) for run in runs)

    assert len(lines(plain, "step")) == len(lines(refined, "step")) == 2
    assert lines(plain, "step 0") != lines(refined, "step 0")
    before, _ = lines(plain, "validation")  # of the untrained network, and of the trained one
    assert before == lines(refined, "validation")[0]
    saved = torch.load(tmp_path / "p1" / "model.ckpt", weights_only=True)
    assert {name.split(".")[0] for name in saved["state_dict"]} == {"network"}
    (optimizer,) = saved["optimizer_states"]
    assert len(optimizer["state"]) == len(saved["state_dict"])


@needs("datasets")
def test_a_hugging_face_dataset_is_refined_in_the_workers(hands, refiner_file, start):
    script = SCRIPTS / "huggingface_datasets.py"
    command = [script, "--annotations", hands, "--refiner", refiner_file, "--batch-size", 13]
    runs = [start(*command, "--p", p, python=["-Werror"]) for p in (0, 0, 1)]

    plain, again, refined = (lines(output(run), "epoch") for run in runs)

    assert len(plain) == len(refined) == 2
    assert plain == again != refined


# Ultralytics


YOLO = ["--epochs", 1, "--imgsz", 64, "--device", "cpu", "--workers", 0, "--model", "yolov8n.yaml"]


@needs("ultralytics")
def test_yolo_trains_an_epoch_with_refine_in_its_pipeline(hands, refiner_file, start, tmp_path):
    script = SCRIPTS / "ultralytics_yolo.py"
    run = start(script, "--annotations", hands, "--refiner", refiner_file, "--out", tmp_path, *YOLO)

    text = output(run)

    assert lines(text, "albumentations: Refine(p=0.5")
    assert (tmp_path / "train" / "weights" / "last.pt").exists()


TRAIN = """
import os, sys
from pathlib import Path
import ultralytics_yolo as example

hands, out, refiner = map(Path, sys.argv[1:4])
refine = example.Refine(refiner, p=1, channel_order="bgr", variants=1, cache=out / "cache")
options = {
    "data": example.to_yolo(hands, example.HANDS / "synthetic", out / "data"),
    "imgsz": 64, "device": "cpu", "plots": False, "project": str(out), "name": "train",
}
"""
"""With variants of 1, a cache holds one file for each image that was refined."""

CUT_OFF = """
model = example.YOLO("yolov8n.yaml")
model.add_callback("on_model_save", lambda trainer: os._exit(7))  # after the first epoch
model.train(trainer=example.CheckedTrainer, augmentations=[refine], epochs=2, **options)
"""

FRESH = """
import sys
import numpy as np
from ultralytics.data.augment import Albumentations
from ultralytics.utils.patches import torch_load

stored = torch_load(sys.argv[1], map_location="cpu")["train_args"]["augmentations"]
stored[0]["transform"]["cache"] = None
image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
print("without the import:", Albumentations(transforms=stored).transform)
import simgan_aug.transforms.albumentations
refined = Albumentations(transforms=stored)({"img": image})["img"]
print("with the import:", (refined != image).mean() > 0.5)
"""


def refined_images(cache):
    return sum(path.is_file() for path in cache.rglob("*"))


@needs("ultralytics")
def test_a_yolo_run_that_was_cut_off_goes_on_with_refine_where_it_is_imported(
    hands, refiner_file, start, tmp_path
):
    output(start(TRAIN + CUT_OFF, hands, tmp_path, refiner_file), code=7)
    before = refined_images(tmp_path / "cache")
    shutil.rmtree(tmp_path / "cache")  # for Ultralytics draws anew from the same seed
    last = tmp_path / "train" / "weights" / "last.pt"
    copy = shutil.copy(last, tmp_path)
    resumed, fresh = start(SCRIPTS / "ultralytics_yolo.py", "--resume", last), start(FRESH, copy)

    resumed, fresh = output(resumed), output(fresh)

    assert before == TRAINED
    assert "1 epochs completed" in resumed
    assert refined_images(tmp_path / "cache") == TRAINED
    assert lines(fresh, "albumentations: 'simgan_aug.transforms.albumentations.Refine'")
    assert "without the import: None" in fresh
    assert "with the import: True" in fresh


UNCHECKED = """
example.YOLO("yolov8n.yaml").train(trainer=example.CheckedTrainer, epochs=1, **options)
"""


@needs("ultralytics")
def test_the_checked_trainer_stops_where_refine_is_absent(hands, refiner_file, start, tmp_path):
    run = start(TRAIN + UNCHECKED, hands, tmp_path, refiner_file)

    text = output(run, code=1)

    assert "RuntimeError: Refine is not in the pipeline" in text


MULTI_GPU = """
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils.dist import generate_ddp_file
import cloudpickle

def script(trainer, name):
    cache = out / "cache" / name
    refine = example.Refine(refiner, p=1, channel_order="bgr", variants=1, cache=cache)
    overrides = {**options, "model": "yolov8n.yaml", "epochs": 1, "augmentations": [refine]}
    print("script", generate_ddp_file(trainer(overrides={**overrides, "name": name})))

script(DetectionTrainer, "plain")
script(example.CheckedTrainer, "imported")
cloudpickle.register_pickle_by_value(example)  # as classes are that stand in the script itself
script(example.CheckedTrainer, "own")
"""


@needs("ultralytics", "cloudpickle")
def test_the_checked_trainer_brings_refine_to_the_processes_of_multi_gpu_training(
    hands, refiner_file, start, tmp_path
):
    """The script that each of them runs, here as the only one and on the CPU."""
    parent = output(start(TRAIN + MULTI_GPU, hands, tmp_path, refiner_file))
    children = [start(Path(line.split()[1])) for line in lines(parent, "script")]

    texts = [output(child) for child in children]

    names = ("plain", "imported", "own")
    assert [refined_images(tmp_path / "cache" / name) for name in names] == [0, TRAINED, TRAINED]
    assert all("1 epochs completed" in text for text in texts)


ON_THE_DEVICE = """
import sys
import ultralytics_yolo as example

class Watched(example.BatchRefiner):
    def __call__(self, batch):
        out, images = super().__call__(batch), batch["img"]
        assert 0 <= images.min() and images.max() <= 1
        changed = (out["img"] != images).flatten(1).any(1)
        print("\\nrefined", self.epoch, int(changed.sum()), len(changed))
        return out

example.BatchRefiner = Watched
example.main()
"""


@needs("ultralytics")
def test_yolo_refines_training_batches_on_the_device(hands, refiner_file, start, tmp_path):
    arguments = ["--annotations", hands, "--refiner", refiner_file, "--out", tmp_path, *YOLO]
    run = start(ON_THE_DEVICE, *arguments, "--path", "gpu", "--epochs", 2)

    counts = np.array([line.split()[1:] for line in lines(output(run), "refined")], int)

    for epoch in (0, 1):
        _, refined, trained = counts[counts[:, 0] == epoch].sum(0)
        assert trained == TRAINED  # and none that is validated
        assert 0 < refined < TRAINED


# RF-DETR


WATCHED_RFDETR = """
import rfdetr_detection as example

class Watched(example.BatchRefiner):
    def __call__(self, batch):
        out = super().__call__(batch)
        assert out[1] is batch[1] and all("image_id" in target for target in out[1])
        print("\\nrefined", int((out[0] != batch[0]).flatten(1).any(1).sum()), len(out[0]))
        return out

example.BatchRefiner = Watched
example.main()
"""


@pytest.mark.slow
@needs("rfdetr", "torch_hungarian")
def test_rf_detr_trains_on_refined_images(hands, refiner_file, start, tmp_path):
    options = ["--resolution", 64, "--batch-size", 2, "--workers", 0, "--accelerator", "cpu"]
    run = start(
        WATCHED_RFDETR,
        *("--annotations", hands, "--refiner", refiner_file, "--out", tmp_path, "--p", 1),
        *("--fast-dev-run", 1, *options),
    )

    text = output(run)

    assert lines(text, "refined") == ["refined 2 2"]  # one batch trained on, one validated


# Recipes


def recipes():
    readme = (SCRIPTS / "README.md").read_text()
    return re.findall(r"```python\n(.*?)```", readme, re.DOTALL)


def recipe(containing, **names):
    """The names that a recipe defines."""
    (code,) = [code for code in recipes() if containing in code]
    exec(compile(code, "README.md", "exec"), names)
    return names


@pytest.fixture
def stand_in(monkeypatch):
    """Puts a module in the place of one that is not installed."""

    def put(name, **contents):
        module = types.ModuleType(name)
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, name, module)

    return put


def test_every_recipe_is_python():
    assert len(recipes()) == 6
    for code in recipes():
        ast.parse(code)


def test_the_recipe_for_detectron2s_mapper_refines_bgr_and_pickles(refiner_file, image):
    code = next(code for code in recipes() if "class RefineBGR" in code)
    module = types.ModuleType("recipe_of_the_mapper")
    sys.modules[module.__name__] = module
    vars(module)["__name__"] = module.__name__
    exec(compile(code, "README.md", "exec"), vars(module))
    refine = pickle.loads(pickle.dumps(module.RefineBGR(refiner_file, p=1)))
    del sys.modules[module.__name__]

    out = refine(image)

    assert (out.shape, out.dtype) == (image.shape, np.uint8)
    assert (out != image).mean() > 0.5


def detectron2_batch(step):
    rng = np.random.default_rng(step)
    images = [rng.integers(0, 256, (3, 12, width), dtype=np.uint8) for width in (20, 14)]
    return [
        {"image": torch.from_numpy(image), "image_id": n, "instances": object()}
        for n, image in enumerate(images)
    ]


def test_the_recipe_for_detectron2s_trainer_refines_and_draws_anew_at_each_step(
    refiner_file, stand_in
):
    batch = detectron2_batch(0)

    class DefaultTrainer:
        @classmethod
        def build_train_loader(cls, cfg):
            return iter([batch] * 20)

    stand_in("detectron2")
    stand_in("detectron2.engine", DefaultTrainer=DefaultTrainer)
    steps = recipe("class RefinedSteps")["RefinedSteps"]
    names = recipe("DefaultTrainer", RefinedSteps=lambda loader, _: steps(loader, refiner_file))

    seen = list(names["RefiningTrainer"].build_train_loader(None))

    refined = [not torch.equal(out[0]["image"], batch[0]["image"]) for out in seen]
    assert 0 < sum(refined) < 20
    for out in seen:
        for sample, original in zip(out, batch, strict=True):
            assert sample["image"].shape == original["image"].shape
            assert sample["instances"] is original["instances"]


def test_the_recipe_for_mmdetections_preprocessor_refines_in_training_only(refiner_file, stand_in):
    class Base(torch.nn.Module):
        def __init__(self, mean):
            super().__init__()
            self.mean = mean

        def forward(self, data, training=False):
            return data

    class Registry:
        def register_module(self):
            return lambda cls: cls

    for name in ("mmdet", "mmdet.models"):
        stand_in(name)
    stand_in("mmdet.models.data_preprocessors", DetDataPreprocessor=Base)
    stand_in("mmdet.registry", MODELS=Registry())
    refining = recipe("class RefiningPreprocessor")["RefiningPreprocessor"]
    preprocessor = refining(refiner_file, p=1, mean=[0])
    inputs = [sample["image"] for sample in detectron2_batch(0)]
    batch = {"inputs": inputs, "data_samples": [object(), object()]}

    trained, tested = preprocessor(batch, training=True), preprocessor(batch)

    assert tested is batch
    assert trained["data_samples"] is batch["data_samples"]
    for out, image in zip(trained["inputs"], inputs, strict=True):
        assert (out.shape, out.dtype) == (image.shape, torch.uint8)
        assert (out != image).float().mean() > 0.5
    assert not preprocessor.state_dict()
    assert not list(preprocessor.parameters())


def test_bgr_of_the_hosts_is_rgb_to_the_refiner(refiner_file):
    (sample, _) = detectron2_batch(0)
    options = {"p": 1, "device": "cpu"}

    bgr = BatchRefiner(refiner_file, channel_order="bgr", **options)([sample])[0]["image"]

    flipped = {**sample, "image": sample["image"].flip(0)}
    rgb = BatchRefiner(refiner_file, **options)([flipped])[0]["image"]
    assert torch.equal(bgr, rgb.flip(0))
