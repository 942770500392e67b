"""The command line as a user meets it: real processes, one line that helps, honest exit codes."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simgan_aug.checkpoint import load_state
from simgan_aug.cli import main
from simgan_aug.imagefile import read_image
from simgan_aug.testing import write_pair

FAST = """
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
precision = "fp32"
"""


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Synthetic and real images and a fast config, in the working folder."""
    monkeypatch.chdir(tmp_path)
    write_pair(tmp_path)
    (tmp_path / "fast.toml").write_text(FAST)
    return tmp_path


def start(*arguments, **options):
    command = [sys.executable, "-m", "simgan_aug.cli", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **pipes, **options)


TRAIN = ("train", "--synthetic", "synthetic.json", "--real", "real", "--config", "fast.toml")


def test_train_then_refine_then_preview(data, capsys):
    assert main([*TRAIN, "--out", "run", "--steps", "3"]) == 0
    printed = capsys.readouterr().out
    refiner = "run/refiner.safetensors"

    refine = ["refine", "--annotations", "synthetic.json", "--refiner", refiner, "--out", "out"]
    assert main(refine) == 0
    question = capsys.readouterr().out.partition("did a label move? simgan-aug ")[2]
    assert main(shlex.split(question.splitlines()[0])) in (0, 3)
    assert main(["report", "out", "--out", "report.html"]) == 0
    sheet = ["preview", "--refiner", refiner, "--images", "synthetic", "--real", "real"]
    assert main([*sheet, "--out", "sheet.png"]) == 0

    assert "next:    simgan-aug refine" in printed
    assert (data / "out" / "synthetic.json").read_bytes() == (data / "synthetic.json").read_bytes()
    with Image.open(data / "sheet.png") as picture:
        assert picture.format == "PNG"


def test_a_fourth_channel_is_trained_on_refined_and_shown(data, capsys):
    rng = np.random.default_rng(0)
    for path in [*data.glob("synthetic/*.png"), *data.glob("real/*.png")]:
        colour = read_image(path).pixels
        depth = rng.integers(0, 256, (*colour.shape[:2], 1), dtype=np.uint8)
        Image.fromarray(np.dstack([colour, depth])).save(path)
    Image.fromarray(colour).save(data / "colour.png")
    files = sorted((data / "synthetic").glob("*.png"))
    before = [read_image(path).pixels for path in files]

    assert main([*TRAIN, "--out", "run", "--steps", "3", "--channels", "4"]) == 0
    refiner = ["--refiner", "run/refiner.safetensors"]
    assert main(["refine", "--annotations", "synthetic.json", *refiner, "--out", "out"]) == 0
    sheet = ["preview", *refiner, "--images", "synthetic", "--out"]
    assert main([*sheet, "one.png"]) == 0
    (data / "photos").mkdir()
    (data / "colour.png").rename(data / "photos" / "colour.png")
    assert main([*sheet, "two.png", "--real", "photos"]) == 0

    after = [read_image(data / "out" / "images" / path.name).pixels for path in files]
    assert all(image.shape == old.shape for image, old in zip(after, before, strict=True))
    apart = np.abs(np.stack(after).astype(int) - np.stack(before)).mean((0, 1, 2))
    assert apart[3] < min(apart[:3])  # in which colours have a tone
    heights = [len(read_image(data / name).pixels) for name in ("one.png", "two.png")]
    assert heights[1] > heights[0]  # the photos' row, though they have no fourth
    assert "4 channel(s)" in capsys.readouterr().err


def test_the_next_command_that_train_prints_can_be_typed(data, capsys):
    main([*TRAIN, "--out", "run", "--steps", "1"])
    line = capsys.readouterr().out.split("next:    simgan-aug ")[1].strip()

    assert main(line.split()) == 0


def test_ctrl_c_saves_and_resume_goes_on(data):
    process = start(*TRAIN, "--out", "run", "--steps", "100000")
    deadline = time.monotonic() + 60
    while not (data / "run" / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "go on with: simgan-aug train --resume --out run" in out
    step = int(out.split("saved after step ")[1].split(";")[0])
    assert main(["train", "--resume", "--out", "run", "--steps", str(step + 2)]) == 0
    lines = (data / "run" / "run.json").read_text()
    training = json.loads(lines)["config"]["training"]
    assert (training["steps"], training["student_steps"]) == (step + 2, 3 * (step + 2))


def test_a_killed_training_leaves_no_torn_file(data):
    process = start(*TRAIN, "--out", "run", "--steps", "100000")
    while not (data / "run" / "state.safetensors").exists() and process.poll() is None:
        time.sleep(0.02)
    process.kill()
    process.communicate()

    assert process.returncode == -signal.SIGKILL
    done = load_state(data / "run" / "state.safetensors")[1]["step"]
    assert main(["train", "--resume", "--out", "run", "--steps", str(done + 1)]) == 0


def test_ctrl_c_while_refining_says_that_the_same_command_goes_on(data, refiner_file):
    entries = [{"id": n, "file_name": f"{n % 4}/{n}.png"} for n in range(400)]
    pixels = Image.fromarray(np.zeros((200, 200, 3), np.uint8))
    for entry in entries:
        path = data / "many" / entry["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels.save(path)
    (data / "many.json").write_text(json.dumps({"images": entries}))
    command = ("refine", "--annotations", "many.json", "--refiner", refiner_file, "--out", "out")
    process = start(*command)
    while not list((data / "out").rglob("*.png")) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "the same command goes on" in out
    assert not (data / "out" / "many.json").exists()
    assert main([str(part) for part in command]) == 0
    assert (data / "out" / "many.json").exists()


MISTAKES = {
    "no such annotation file": ["--synthetic", "nope.json"],
    "no such folder; expected": ["--synthetic", "nothing"],
    "not a JSON file": ["--synthetic", "fast.toml"],
    "no such folder": ["--real", "nowhere"],
    "no image files": ["--real", "empty"],
    "no preset named": ["--preset", "defalt"],
    "cannot read the config file": ["--config", "nope.toml"],
    "no device": ["--device", "gpu"],
    "are grey": ["--real", "mixed"],
    "not a readable image": ["--real", "broken"],
}


@pytest.mark.parametrize(("message", "change"), MISTAKES.items(), ids=list(MISTAKES))
def test_a_users_mistake_is_one_line_and_exit_code_2(data, capsys, message, change):
    for folder in ("empty", "mixed", "broken"):
        (data / folder).mkdir()
    Image.new("L", (24, 20)).save(data / "mixed" / "grey.png")
    Image.new("RGB", (24, 20)).save(data / "mixed" / "rgb.png")
    (data / "broken" / "a.png").write_bytes(b"\x89PNG broken")
    options = {"--synthetic": "synthetic.json", "--real": "real", "--out": "run"}
    options |= dict([change])
    expected = "cannot read the annotation file" if message.startswith("no such anno") else message

    code = main(["train", *(part for pair in options.items() for part in pair)])

    printed = capsys.readouterr().err
    assert code == 2
    assert expected in printed or "is a directory" in printed
    assert "Traceback" not in printed
    assert not (data / "run").exists()


def test_a_config_mistake_names_file_table_and_key(data, capsys):
    (data / "bad.toml").write_text("[training]\nbach_size = 4\n")

    code = main([*TRAIN[:-1], "bad.toml", "--out", "run"])

    assert code == 2
    message = capsys.readouterr().err
    assert "bad.toml: [training]: unknown key 'bach_size'; did you mean 'batch_size'?" in message


def test_a_wrong_checkpoint_is_one_line(data, capsys):
    (data / "w.safetensors").write_bytes(b"\x80\x04pickle")

    code = main(["preview", "--refiner", "w.safetensors", "--images", "real", "--out", "a.png"])

    assert code == 2
    assert "not a readable .safetensors file" in capsys.readouterr().err


def test_settings_cannot_change_on_resume(data, capsys):
    main([*TRAIN, "--out", "run", "--steps", "1"])

    Path("some.toml").touch()
    code = main(["train", "--resume", "--out", "run", "--seed", "3", "--config", "some.toml"])

    assert code == 2
    assert "leave out --seed, --config" in capsys.readouterr().err


def test_plugins_lists_our_own_parts_for_people_and_programs(capsys):
    assert main(["plugins"]) == 0
    assert "unshuffle" in capsys.readouterr().out

    assert main(["plugins", "--json"]) == 0
    listed = {plugin["name"]: plugin for plugin in json.loads(capsys.readouterr().out)}
    assert "resnet" in listed["builtin"]["parts"]["refiner"]
    assert listed["builtin"]["error"] == ""


@pytest.mark.parametrize("command", ["train", "refine", "audit", "preview", "plugins", "demo"])
def test_help_fits_80_columns(capsys, command):
    assert main([command, "--help"]) == 0

    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_training_shows_rate_and_time_left_without_a_terminal(data, monkeypatch, capsys):
    monkeypatch.setattr("simgan_aug.progress.LINE_EVERY", 0.0)

    main([*TRAIN, "--out", "run", "--steps", "2"])

    assert "1/8 steps" in capsys.readouterr().err


def test_help_starts_quickly_because_it_imports_no_torch():
    code = "import sys, simgan_aug.cli; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_package_can_be_run_as_the_command():
    command = [sys.executable, "-m", "simgan_aug", "preview", "absent.safetensors", "absent"]

    ran = subprocess.run(command, check=False, capture_output=True, text=True)

    assert (ran.returncode, ran.stdout) == (2, "")
    assert "error: " in ran.stderr.lower()
    assert "Traceback" not in ran.stderr


def test_the_demo_writes_a_sheet_numbers_and_the_refined_set(tmp_path, capsys):
    code = main(["demo", "--out", str(tmp_path / "demo"), "--steps", "2"])

    numbers = json.loads((tmp_path / "demo" / "numbers.json").read_text())
    assert code == 0
    assert set(numbers["distance"]) == {"synthetic to real", "refined to real", "real to real"}
    assert numbers["labels"]["labels"] == 300
    assert (tmp_path / "demo" / "sheet.png").exists()
    assert "scissors" in (tmp_path / "demo" / "report.html").read_text()
    assert len(os.listdir(tmp_path / "demo" / "refined" / "images")) == 300


def test_the_demo_replaces_only_its_own_folder(tmp_path, capsys):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "thesis.txt").write_text("mine")

    assert main(["demo", "--out", str(tmp_path / "demo")]) == 2
    assert (tmp_path / "demo" / "thesis.txt").exists()


def test_the_demo_leaves_a_project_alone_that_has_a_run_of_its_own(data, capsys):
    main([*TRAIN, "--out", "run", "--steps", "1"])

    assert main(["demo", "--out", "."]) == 2
    assert (data / "run" / "refiner.safetensors").exists()
    assert (data / "real" / "0.png").exists()


def test_a_demo_that_cannot_start_removes_nothing(data, capsys):
    (data / "demo").mkdir()
    (data / "demo" / "demo.txt").touch()
    (data / "demo" / "sheet.png").touch()

    assert main(["demo", "--out", "demo", "--data", "nowhere"]) == 2
    assert (data / "demo" / "sheet.png").exists()


def test_a_name_too_long_for_the_system_is_one_line(data, capsys):
    assert main([*TRAIN, "--out", "x" * 300]) == 2

    assert "File name too long" in capsys.readouterr().err


def test_a_device_that_is_not_there_is_one_line(data, capsys):
    assert main([*TRAIN, "--out", "run", "--device", "mps"]) == 2

    assert "no device 'mps' here" in capsys.readouterr().err


def test_more_memory_than_there_is_says_what_to_lower(data, capsys):
    (data / "huge.toml").write_text("[training]\nhistory = 1000000000000\n[data]\ncrop=[16,16]\n")

    assert main([*TRAIN[:-1], "huge.toml", "--out", "run"]) == 1
    assert "training.history" in capsys.readouterr().err


def test_file_names_that_look_like_markup_are_only_names(data, refiner_file, capsys):
    name = "a[/b] [bold]0.png"
    (data / "odd" / "a[").mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(data / "odd" / name)
    (data / "odd.json").write_text(json.dumps({"images": [{"id": 1, "file_name": name}]}))
    options = ["--annotations", "odd.json", "--refiner", str(refiner_file), "--out", "out"]

    assert main(["refine", *options]) == 0
    assert (data / "out" / "images" / name).exists()


def test_a_mistake_in_a_parts_table_names_file_and_table(data, capsys):
    (data / "bad.toml").write_text('[refiner]\nfeatures = "many"\n')

    assert main([*TRAIN[:-1], "bad.toml", "--out", "run"]) == 2
    assert "bad.toml: [refiner]: refiner 'unshuffle': features" in capsys.readouterr().err


def test_an_image_that_a_refiner_does_not_take_is_named_in_a_preview(data, refiner_file, capsys):
    (data / "odd").mkdir()
    np_image = np.zeros((9, 9, 3), np.uint8)
    Image.fromarray(np_image).save(data / "odd" / "a.png")
    main([*TRAIN, "--out", "grey", "--steps", "1", "--channels", "1"])
    options = ["--refiner", "grey/refiner.safetensors", "--images", "odd", "--out", "a.png"]

    assert main(["preview", *options]) == 2
    assert "odd/a.png: this refiner takes 1 channel" in capsys.readouterr().err


AUDIT = ("audit", "--annotations", "synthetic.json", "--images", "synthetic", "--workers", "0")


def with_label(data):
    """Give the first image a label, and refined images in which nothing has changed."""
    content = json.loads((data / "synthetic.json").read_text())
    label = {"id": 1, "image_id": 0, "category_id": 1, "bbox": [2, 2, 18, 16]}
    content |= {"annotations": [label], "categories": [{"id": 1, "name": "[hand]"}]}
    (data / "synthetic.json").write_text(json.dumps(content))
    shutil.copytree(data / "synthetic", data / "refined")


def test_an_audit_in_which_all_labels_pass_is_exit_code_0(data, capsys):
    with_label(data)

    assert main([*AUDIT, "--refined", "refined"]) == 0
    printed = capsys.readouterr().out
    assert "4 images, 1 labels: 0 beyond a limit" in printed
    assert "[hand]" in printed
    assert "audit: audit.json; every label: audit.jsonl" in printed
    assert (data / "audit.json").exists()


def test_an_audit_in_which_a_label_has_moved_is_exit_code_3_and_says_how_far(data, capsys):
    with_label(data)
    pixels = np.asarray(Image.open(data / "synthetic" / "0.png"))
    Image.fromarray(np.roll(pixels, 2, axis=1)).save(data / "refined" / "0.png")

    assert main([*AUDIT, "--refined", "refined"]) == 3
    printed = capsys.readouterr().out
    assert "0.png: [hand] 1: displacement +" in printed
    assert "1 labels: 1 beyond a limit" in printed


def test_an_image_that_could_not_be_audited_is_exit_code_3_and_named(data, capsys):
    with_label(data)
    (data / "refined" / "2.png").unlink()

    assert main([*AUDIT, "--refined", "refined"]) == 3
    printed = capsys.readouterr().out
    assert "not audited: 2.png: " in printed
    assert "1 images not audited" in printed


def test_limits_decide_what_has_moved(data, capsys):
    with_label(data)

    assert main([*AUDIT, "--refined", "refined", "--limit", "displacement=-1"]) == 3
    assert main([*AUDIT, "--refined", "refined", "--limit", "displacement=1"]) == 0


def test_refine_then_audit_needs_no_names_of_files_but_two(data, refiner_file, capsys):
    with_label(data)
    where = ["--annotations", "synthetic.json"]
    assert main(["refine", *where, "--refiner", str(refiner_file), "--out", "out"]) == 0

    assert main(["audit", *where, "--refined", "out"]) in (0, 3)
    assert json.loads((data / "out" / "audit.json").read_text())["counts"]["images"] == 4
    assert main(["refine", "--verify", "out"]) == 0
