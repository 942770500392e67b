"""The study as a whole: resumed, refused, honest where it must be equal, and said in words."""

import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import FAST
from PIL import Image

from simgan_aug.cli import main
from simgan_aug.errors import ConfigError, DataError, SimganAugError
from simgan_aug.study import Settings, Study, study
from simgan_aug.study.journal import Journal


def finished(settings):
    """A study that has been run to its end."""
    made = Study(Settings(**settings))
    for _ in made.run():
        pass
    return made


def cells(out):
    return [json.loads(line) for line in (out / "cells.jsonl").read_text().splitlines()]


def test_a_study_leaves_table_plot_sheet_and_record(settings, toy):
    settings["arms"] = ("raw", "hm", "default", "mixed", "strength")

    made = finished(settings)

    table = (settings["out"] / "table.md").read_text()
    assert table.startswith("# Did refining help?\n\n**default**: ")
    assert all(f"\n| {name} | " in table for name in settings["arms"])
    assert (settings["out"] / "plot.svg").read_text().startswith("<svg")
    with Image.open(settings["out"] / "arms.png") as picture:
        assert picture.format == "PNG"
    info = json.loads((settings["out"] / "study.json").read_text())
    assert info["settings"]["steps"] == 12
    assert set(info["inputs"]) == {"synthetic", "real photos", "real test"}
    assert "torch" in info["versions"]
    assert len(cells(settings["out"])) == len(settings["arms"]) * 2
    assert made.pending == []


@pytest.mark.parametrize("task", ["segment", "keypoints", "detect"])
def test_every_task_has_its_study(settings, task):
    settings |= {"task": task, "arms": ("raw", "hm", "default"), "seeds": 1}

    made = finished(settings)

    assert [row.arm.name for row in made.results().rows] == ["raw", "hm", "default"]
    assert f"| arm | {made.material.metric} |" in made.table()
    assert "no verdict: " in made.table()


def test_grey_images_are_studied_too(settings, toy):
    for path in toy.rglob("*.png"):
        Image.open(path).convert("L").save(path)
    settings |= {"arms": ("raw", "colour", "hm", "fda", "pda", "default"), "seeds": 1}

    made = finished(settings)

    assert len(made.results().rows) == 6
    with Image.open(settings["out"] / "pictures" / "default.png") as picture:
        shown = np.asarray(picture)
    assert (shown == shown[..., :1]).all()


def test_arms_that_share_a_refiner_train_it_once(settings):
    settings["arms"] = ("strength", "raw", "mixed", "default")

    finished(settings)

    assert sorted(path.name for path in (settings["out"] / "runs").iterdir()) == [
        "default-0",
        "default-1",
    ]
    info = json.loads((settings["out"] / "runs" / "default-1" / "run.json").read_text())
    assert info["config"]["training"]["seed"] == 1


def test_a_study_that_was_stopped_runs_nothing_twice(settings, monkeypatch):
    settings["arms"] = ("raw", "hm", "default")
    work = Study(Settings(**settings)).run()
    while not (settings["out"] / "cells.jsonl").exists() or len(cells(settings["out"])) < 2:
        next(work)
    work.close()
    done = cells(settings["out"])
    trained = []
    real = study.train_probe

    def counting(task, split, feed, policy, seed, budget):
        trained.append(seed)
        return real(task, split, feed, policy, seed, budget)

    monkeypatch.setattr(study, "train_probe", counting)
    finished(settings)

    assert cells(settings["out"])[: len(done)] == done
    assert len(trained) == 2 * (6 - len(done))  # two augmentations a cell
    trained.clear()
    finished(settings)
    assert trained == []


def test_two_studies_do_not_work_in_one_folder_at_once(settings):
    running = Study(Settings(**settings)).run()
    next(running)

    with pytest.raises(ConfigError, match="another study is at work in"):
        next(Study(Settings(**settings)).run())

    running.close()


def test_a_stopped_study_gives_what_an_uninterrupted_one_gives(settings):
    settings["arms"] = ("raw", "hm", "default")
    whole = finished({**settings, "out": settings["out"].with_name("whole")})

    for stop_after in (1, 9, 21):
        work = Study(Settings(**settings)).run()
        for _, _ in zip(range(stop_after), work, strict=False):
            pass
        work.close()
    made = finished(settings)

    values = [
        {key: cell["values"] for key, cell in each.journal.cells.items()} for each in (whole, made)
    ]
    assert values[0] == values[1]


def test_arms_and_seeds_may_be_added(settings):
    finished(settings)
    first = cells(settings["out"])

    finished({**settings, "arms": ("raw", "colour"), "seeds": 3})

    assert cells(settings["out"])[: len(first)] == first
    done = {(cell["arm"], cell["seed"]) for cell in cells(settings["out"])}
    assert done >= {("colour", 0), ("colour", 2), ("raw", 2), ("hm", 1)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"steps": 20}, "steps: 12, now 20"),
        ({"size": (24, 24)}, r"size: \[32, 32\], now \[24, 24\]"),
    ],
)
def test_other_settings_in_the_same_folder_are_refused(settings, change, said):
    finished(settings)

    with pytest.raises(ConfigError, match=f"holds a study that differs: {said}.*another --out"):
        Study(Settings(**{**settings, **change}))


def test_other_data_in_the_same_folder_are_refused(settings, toy):
    finished(settings)
    Image.new("RGB", (32, 32)).save(toy / "real" / "images" / "0.png")

    with pytest.raises(ConfigError, match="differs: real photos: "):
        Study(Settings(**settings))


def test_an_arm_that_is_another_now_is_refused(settings, toy):
    shutil.copytree(toy / "synthetic" / "images", toy / "mine")
    settings["arms"] = (f"mine={toy / 'mine'}",)
    finished(settings)
    Image.new("RGB", (32, 32)).save(toy / "mine" / "0.png")

    with pytest.raises(ConfigError, match="differs: arm mine sha256: "):
        Study(Settings(**settings))


def test_a_folder_with_other_things_in_it_is_refused(settings, toy):
    settings["out"] = toy / "synthetic" / ".." / "real"

    with pytest.raises(ConfigError, match="overlap"):
        Study(Settings(**settings))
    settings["out"] = toy / "other"
    settings["out"].mkdir()
    (settings["out"] / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="not empty and of no study"):
        Study(Settings(**settings))


def test_a_damaged_record_is_told_and_kept(settings):
    finished(settings)
    (settings["out"] / "cells.jsonl").write_text('{"arm": "raw", "se')

    with pytest.raises(DataError, match="record of its study is damaged"):
        Study(Settings(**settings))


def test_real_labels_as_synthetic_reach_the_oracle_exactly(settings, toy):
    settings |= {
        "synthetic": toy / "real" / "labels.json",
        "real_labels": toy / "real" / "labels.json",
        "arms": ("raw", "oracle"),
    }

    made = finished(settings)

    raw, oracle = made.results().rows
    assert raw.scores == oracle.scores
    assert oracle.over_raw.value == 0


def test_a_folder_of_raw_images_makes_no_difference(settings, toy):
    shutil.copytree(toy / "synthetic" / "images", toy / "mine")
    settings["arms"] = ("raw", f"mine={toy / 'mine'}")

    (verdict,) = finished(settings).results().verdicts

    assert verdict.arm == "mine"
    assert str(verdict).startswith("no difference: +0.000 [0.000, 0.000] over the best baseline")
    assert verdict.moved is None


def test_photos_of_the_test_among_those_for_training_are_noted(settings, toy):
    shutil.copy(toy / "test" / "images" / "3.png", toy / "real" / "images" / "copy.png")

    assert any(
        "1 of 32 test photos lie in --real-train" in n for n in Study(Settings(**settings)).notes
    )


@pytest.mark.parametrize("task", ["classify", "keypoints"])
def test_leaks_are_found_in_copies_beyond_the_limit_too(settings, toy, task):
    with Image.open(toy / "test" / "images" / "3.png") as photo:
        for number in range(3):
            photo.save(toy / "real" / "images" / f"copy{number}.jpg", quality=100, subsampling=0)

    notes = Study(Settings(**{**settings, "task": task, "limit": 32})).notes

    assert any("1 of 32 test photos lie in --real-train too" in note for note in notes)
    assert any(
        "see 32 of 35 photos" in note and "refiners learn from all" in note for note in notes
    )


def test_categories_are_matched_by_name_and_others_do_not_count(settings, toy):
    path = toy / "test" / "labels.json"
    content = json.loads(path.read_text())
    content["categories"] = [{"id": 1, "name": "disc"}, {"id": 2, "name": "cup"}]
    for label in content["annotations"]:
        label["category_id"] = 1 if label["category_id"] == 9 else 2
    path.write_text(json.dumps(content))

    made = Study(Settings(**settings))

    assert len(made.material.test) == 16
    assert any("labels of cup do not count" in note for note in made.notes)


def test_test_labels_of_no_common_category_are_refused(settings, toy):
    path = toy / "test" / "labels.json"
    content = json.loads(path.read_text())
    content["categories"] = [{"id": 7, "name": "cup"}, {"id": 9, "name": "plate"}]
    path.write_text(json.dumps(content))

    with pytest.raises(DataError, match=r"\(disc, square\); it has: cup, plate; .* by name"):
        Study(Settings(**settings))


def test_test_photos_that_are_all_alike_cannot_be_halved(settings, toy):
    for number in range(1, 32):
        shutil.copy(toy / "test" / "images" / "0.png", toy / "test" / "images" / f"{number}.png")

    with pytest.raises(DataError, match=r"32 test images in 1 groups .* --groups what does"):
        Study(Settings(**settings))


@pytest.mark.parametrize(("way", "groups"), [("similar", 30), ("folder", 8), ("none", 32)])
def test_what_belongs_together_can_be_said(settings, toy, way, groups):
    path = toy / "test" / "labels.json"
    content = json.loads(path.read_text())
    for entry in content["images"]:
        old, entry["file_name"] = entry["file_name"], f"{entry['id'] % 8}/{entry['file_name']}"
        (toy / "test" / "images" / entry["file_name"]).parent.mkdir(exist_ok=True)
        source = toy / "test" / "images" / ("0.png" if entry["id"] < 3 else old)
        shutil.copy(source, toy / "test" / "images" / entry["file_name"])
    path.write_text(json.dumps(content))

    material = Study(Settings(**{**settings, "groups": way})).material

    assert len(np.unique(material.groups)) == groups
    assert not set(material.groups[material.halves]) & set(material.groups[~material.halves])


def test_bars_do_not_make_photos_alike(settings, toy):
    rng = np.random.default_rng(0)
    for path in (toy / "test" / "images").iterdir():
        Image.fromarray(rng.integers(0, 60, (32, 32, 3), np.uint8)).save(path)

    material = Study(Settings(**{**settings, "size": (96, 32)})).material

    assert len(np.unique(material.groups)) == 32


def test_bars_are_no_sign_of_realism(settings, toy, monkeypatch):
    seen = []
    monkeypatch.setattr(study, "compare", lambda *sides, **_: seen.extend(sides) or 1 / 0)
    settings |= {"real_test": None, "arms": ("hm",), "size": (64, 32)}

    with pytest.raises(ZeroDivisionError):
        finished(settings)

    assert {image.shape for side in seen for image in side} == {(32, 32, 3)}


def test_crops_of_one_photo_belong_together(settings, toy):
    path = toy / "test" / "labels.json"
    content = json.loads(path.read_text())
    second = {**content["annotations"][5], "id": 99, "bbox": [1, 1, 20, 20]}
    content["annotations"].append(second)
    path.write_text(json.dumps(content))

    material = Study(Settings(**{**settings, "task": "keypoints", "groups": "none"})).material

    rows = [row for row, view in enumerate(material.test.views) if view.name == "5.png"]
    assert len(material.test) == 33
    assert len(set(material.groups[rows])) == 1
    assert len(np.unique(material.groups)) == 32


def test_the_oracle_may_be_added_later(settings, toy):
    finished(settings)

    made = finished(
        {**settings, "real_labels": toy / "real" / "labels.json", "arms": ("raw", "hm", "oracle")}
    )

    assert [row.arm.name for row in made.results().rows] == ["raw", "hm", "oracle"]


def test_without_test_photos_there_is_realism_and_no_verdict(settings, toy):
    path = toy / "synthetic" / "labels.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "annotations": []}))
    settings |= {"real_test": None, "arms": ("raw", "hm", "default"), "seeds": 3}
    settings |= {"features": "channel_mean"}

    made = finished(settings)

    assert [cell["arm"] for cell in cells(settings["out"])] == ["hm", "default"]
    table = made.table()
    assert "proxies: realism, no labels; does not say that labels are true" in table
    assert "real to real (floor)" in table
    assert "\n| hm | " in table
    assert "helped" not in table
    with pytest.raises(ConfigError, match="no scores"):
        made.results()
    with pytest.raises(ConfigError, match="other"):  # measures of two spaces are not mixed
        Study(Settings(**{**settings, "features": "blur"}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"task": "classfy"}, "no task named 'classfy'.*did you mean 'classify'"),
        ({"seeds": 0}, "seeds must be 1 to 100, got 0"),
        ({"steps": 1}, "steps must be 10"),
        ({"size": (8, 8)}, "size must be 16 to 2048"),
        ({"arms": ("oracle",)}, "real-labels"),
        ({"features": "channel_mean"}, "features are of realism"),
        ({"features": "chanel", "real_test": None}, "did you mean 'channel_mean'"),
        ({"device": "cuda:99"}, "no device 'cuda:99' here"),
    ],
)
def test_a_wrong_setting_is_one_line(settings, change, said):
    with pytest.raises(SimganAugError, match=said):
        Study(Settings(**{**settings, **change}))
    assert not settings["out"].exists()


def command_line(settings):
    options = []
    for name, value in settings.items():
        for each in value if name == "arms" else [value]:
            options += [f"--{name.replace('_', '-')}", str(each)]
    return ["study", *options]


def test_the_command_prints_the_table_and_where_all_lies(settings, capsys, toy, monkeypatch):
    monkeypatch.chdir(toy)
    script = "import shutil, sys; shutil.copytree(sys.argv[1], sys.argv[2], dirs_exist_ok=True)"
    (toy / "it is.py").write_text(script)
    own = f"mine=cmd:{sys.executable} 'it is.py' {{images}} {{out}}"
    settings |= {"arms": ("raw", own), "out": "a study"}

    assert main(command_line(settings)) == 0

    printed = capsys.readouterr().out
    assert "**mine**: no difference: +0.000" in printed
    assert "study: a study/table.md, a study/plot.svg, a study/arms.png" in printed
    assert (toy / "a study" / "made" / "mine" / "0.png").exists()


def test_a_wrong_arm_on_the_command_line_is_exit_code_2_and_one_line(settings, capsys):
    settings["arms"] = ("hmm",)

    assert main(command_line(settings)) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: no arm named 'hmm'")


def test_ctrl_c_says_that_the_same_command_goes_on(settings):
    settings |= {"steps": 100_000, "arms": ("raw",)}
    words = [sys.executable, "-m", "simgan_aug.cli", *command_line(settings)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 100
    while not (settings["out"] / "pictures" / "raw.png").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=100)

    assert process.returncode == 130
    assert "interrupted: 0 of 2 cells done; the same command goes on" in out
    assert (settings["out"] / "study.json").exists()


def test_a_journal_keeps_arms_that_are_not_asked_for_now(tmp_path):
    out, facts = tmp_path / "out", {"settings": {"steps": 1}, "inputs": {}}
    Journal(out, facts, {"raw": {"kind": "raw"}}, {}).start()

    Journal(out, facts, {"hm": {"kind": "hm"}}, {}).start()

    assert set(json.loads((out / "study.json").read_text())["arms"]) == {"raw", "hm"}


def test_values_of_cells_are_kept_as_they_are(tmp_path):
    out, facts = tmp_path / "out", {"settings": {}, "inputs": {}}
    journal = Journal(out, facts, {}, {})
    journal.start()
    cell = {"arm": "raw", "seed": 0, "values": {"light": np.eye(3)[0].tolist()}, "drift": None}
    journal.add(cell)

    assert Journal(out, facts, {}, {}).cells == {("raw", 0): cell}


def test_an_own_arm_that_cannot_be_used_is_told_before_anything_runs(settings, toy):
    shutil.copytree(toy / "synthetic" / "images", toy / "mine")
    (toy / "mine" / "7.png").unlink()
    (toy / "bad.safetensors").write_bytes(b"no refiner")
    for source in ("mine", "bad.safetensors"):
        with pytest.raises(SimganAugError, match=r"7\.png|bad\.safetensors"):
            Study(Settings(**{**settings, "arms": (f"own={toy / source}",)}))

    assert not settings["out"].exists()


def edited(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def one_point_more(content):
    for label in content["annotations"]:
        label["keypoints"] += [9, 9, 2]


def named(*names):
    def change(content):
        for category in content["categories"]:
            category["keypoints"] = list(names)

    return change


def test_test_labels_with_more_keypoints_than_synthetic_ones_are_refused(settings, toy):
    edited(toy / "test" / "labels.json", one_point_more)

    with pytest.raises(DataError, match=r"labels of disc have 3 keypoints, .* images 2; expected"):
        Study(Settings(**{**settings, "task": "keypoints"}))


def test_keypoints_of_other_names_are_refused(settings, toy):
    edited(toy / "synthetic" / "labels.json", named("dot", "end"))
    Study(Settings(**{**settings, "task": "keypoints"}))  # the test file has no names
    edited(toy / "test" / "labels.json", named("end", "dot"))

    with pytest.raises(DataError, match=r"keypoints of disc are end, dot, .* images dot, end; exp"):
        Study(Settings(**{**settings, "task": "keypoints"}))


@pytest.mark.parametrize("change", ["config", "refiner_steps"])
def test_a_refiner_that_arms_share_stays_what_it_is(settings, toy, change):
    finished({**settings, "arms": ("raw", "default"), "seeds": 1})
    (toy / "other.toml").write_text(FAST.replace("features = 8", "features = 12", 1))
    other = {"config": toy / "other.toml", "refiner_steps": 3}

    with pytest.raises(ConfigError, match=r"arm default config [a-z_ ]+: [^{]+, now [^{]+; take"):
        Study(Settings(**{**settings, "arms": ("raw", "mixed"), change: other[change]}))


def test_a_command_that_wrote_too_little_is_run_again(settings, toy):
    script = "import shutil, sys; shutil.copytree(sys.argv[1], sys.argv[2], dirs_exist_ok=True)"
    (toy / "copy.py").write_text(script)
    shutil.copytree(toy / "synthetic" / "images", toy / "from")
    (toy / "from" / "7.png").unlink()
    own = f"mine=cmd:{sys.executable} {toy / 'copy.py'} {toy / 'from'} {{out}}"
    settings |= {"arms": ("raw", own), "seeds": 1}

    with pytest.raises(DataError, match=r"1 are missing, the first is '7\.png'"):
        finished(settings)
    shutil.copy(toy / "synthetic" / "images" / "7.png", toy / "from")

    assert [row.arm.name for row in finished(settings).results().rows] == ["raw", "mine"]


def test_an_arm_that_fails_stops_no_other(settings):
    bad = f"bad=cmd:{sys.executable} -c 1/0 {{out}}"
    settings["arms"] = (bad, "raw", "hm")

    with pytest.raises(DataError, match=r"failed with exit code 1: .*ZeroDivisionError"):
        finished(settings)

    table = (settings["out"] / "table.md").read_text()
    assert "\n| raw | " in table
    assert "\n| hm | " in table
    assert "- not finished: bad; the same command goes on" in table


def test_what_is_finished_is_written_after_an_interruption(settings):
    work = Study(Settings(**settings)).run()
    next(work)
    work.close()

    assert "not finished: raw, hm" in (settings["out"] / "table.md").read_text()


def test_jitter_trains_only_the_probes_that_raw_has_not(settings, monkeypatch):
    trained, real = [], study.train_probe

    def counting(*args):
        trained.append(args[3].name)
        return real(*args)

    monkeypatch.setattr(study, "train_probe", counting)
    made = finished({**settings, "arms": ("raw", "jitter")})

    raw, jitter = (made.journal.cells[name, 0]["values"] for name in ("raw", "jitter"))
    assert trained == ["light", "strong", "colour", "heavy"] * 2
    assert list(jitter) == trained[:4]
    assert {name: jitter[name] for name in raw} == raw
    assert "jitter chooses among four, which favours this baseline" in made.table()


def without(*fields):
    def change(content):
        for label in content["annotations"]:
            for field in fields:
                del label[field]

    return change


def test_labels_without_box_and_outline_are_nothing_to_detect(settings, toy):
    edited(toy / "test" / "labels.json", without("bbox", "segmentation"))

    with pytest.raises(DataError, match=r"test/labels.json: no label has a box or an outline"):
        Study(Settings(**{**settings, "task": "detect"}))


@pytest.mark.parametrize(
    ("side", "option"), [("test", "--real-test-images"), ("real", "--real-train")]
)
def test_missing_images_are_told_with_the_option_of_their_side(settings, toy, side, option):
    settings |= {"real_labels": toy / "real" / "labels.json"}
    (toy / side / "images" / "5.png").unlink()

    with pytest.raises(DataError, match=f"'5.png'; say with {option} where they lie"):
        Study(Settings(**settings))


def test_versions_that_computed_earlier_cells_are_kept(tmp_path):
    out, facts = tmp_path / "out", {"settings": {}, "inputs": {}}
    for version in ("1", "1", "2", "3"):
        Journal(out, facts, {}, {"torch": version, "device": "cpu"}).start()

    info = json.loads((out / "study.json").read_text())
    assert info["versions"]["torch"] == "3"
    assert [each["torch"] for each in info["earlier versions"]] == ["1", "2"]


def test_what_a_table_does_not_hold_is_said_below_it(settings, toy):
    shutil.copytree(toy / "synthetic" / "images", toy / "mine")

    table = finished({**settings, "arms": ("raw", f"mine={toy / 'mine'}")}).table()

    assert "- mine: made once for all seeds, so that its intervals hold the noise of" in table
    assert "- raw is the only baseline: " in table
    assert "0.00 (" in table
    assert " of 32)" in table
