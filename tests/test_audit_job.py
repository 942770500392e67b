"""The audit job: every label of every image once, however it is disturbed; faults set aside."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest
from faults.conftest import children, kill
from fsspec.implementations.memory import MemoryFileSystem
from labelled import CATEGORIES, labels_of, moved, relit, save, scene, write_coco
from PIL import Image

from simgan_aug.audit import MEASURES
from simgan_aug.cli import main
from simgan_aug.dataset import AuditJob, refine, verify
from simgan_aug.dataset.storage import folder_of
from simgan_aug.errors import ConfigError, DataError, OutputError
from simgan_aug.imagefile import read_image


class Bucket(MemoryFileSystem):
    """An object store in this process."""

    protocol = "auditbucket"


fsspec.register_implementation("auditbucket", Bucket)

COUNT = 6
NAMES = [f"{'abc'[number % 3]}/ü {number}.png" for number in range(COUNT)]
MOVED = NAMES[::3]
"""Images whose picture has moved."""


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Originals, refined images, and a COCO file, in the working folder."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(NAMES):
        pixels = scene(number)
        save(tmp_path / "images" / name, pixels)
        save(tmp_path / "refined" / name, moved(pixels) if name in MOVED else relit(pixels))
    write_coco(tmp_path / "ann.json", NAMES)
    return tmp_path


@pytest.fixture
def job(data):
    def make(annotations=("ann.json",), **options):
        paths = [data / name for name in annotations]
        options = {"images": data / "images", "refined": data / "refined"} | options
        options = {"out": data / "audit.json", "workers": 0} | options
        return AuditJob(paths, options.pop("images"), options.pop("refined"), **options)

    return make


def run(job):
    """Outcomes of a job by name: their status."""
    return {outcome.name: outcome.status for outcome in job.run()}


def test_a_folder_without_any_of_the_images_is_an_error_that_says_where_to_say(job, data):
    (data / "elsewhere").mkdir()

    with pytest.raises(DataError, match=r"none of \d+ images lies in .*--images"):
        job(images=data / "elsewhere")


def begin(job, count):
    """Audit so many images, then be interrupted."""
    outcomes = job.run()
    for _ in range(count):
        next(outcomes)
    outcomes.close()


def result(data, name="audit.json"):
    return json.loads((data / name).read_text())


def lines(data, name="audit.jsonl"):
    return [json.loads(line) for line in (data / name).read_text().splitlines()]


def command(*changed):
    """The command line of an audit in the working folder."""
    options = {"--annotations": "ann.json", "--images": "images", "--refined": "refined"}
    options |= {"--out": "audit.json"} | dict(
        zip(changed[::2], map(str, changed[1::2]), strict=True)
    )
    return ["audit", *(word for option in options.items() for word in option)]


def start(*changed):
    """The same as a real process."""
    words = [sys.executable, "-m", "simgan_aug.cli", *command(*changed)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(count, process):
    """Until so many images have their line, or the process has ended."""
    until = time.monotonic() + 120
    path = Path("audit.jsonl")
    while process.poll() is None:
        if path.exists() and path.read_bytes().count(b"\n") > count:
            return
        assert time.monotonic() < until
        time.sleep(0.005)


# What is written.


def test_every_image_has_one_line_and_every_label_its_numbers(data, job):
    found = run(job())

    head, *images = lines(data)
    assert found == dict.fromkeys(NAMES, "done")
    assert [line["image"] for line in images] == NAMES
    assert (head["audit"], [*head["annotations"]]) == (1, [str(data / "ann.json")])
    for number, line in enumerate(images):
        assert (line["width"], line["height"], line["appeared"]) == (96, 72, [])
        assert [label["id"] for label in line["labels"]] == [2 * number + 1, 2 * number + 2]
        for label in line["labels"]:
            assert {*MEASURES, "id", "category", "bbox", "match", "growth", "failures"} == {*label}
            assert ("displacement" in label["failures"]) == (line["image"] in MOVED)


def test_the_result_has_the_form_that_is_documented(data, job):
    run(job())

    said = result(data)
    counts = {"images": 6, "failed": 0, "labels": 12, "rejected": 4, "unmeasurable": 0}
    assert said["counts"] == counts | {"grown": 0, "grown_of": 0, "appeared": 0, "refused": 0}
    assert said["version"] == 1
    assert said["annotations"] == [str(data / "ann.json")]
    assert (said["images"], said["refined"]) == (str(data / "images"), str(data / "refined"))
    assert [*said["categories"]] == ["foot", "hand"]
    for summary in (said["overall"], *said["categories"].values()):
        assert {*summary} == {*MEASURES, "labels", "rejected", "unmeasurable"}
    assert said["overall"]["displacement"]["measured"] == 12
    assert said["overall"]["displacement"]["worst"] == pytest.approx(3, abs=0.1)
    assert said["categories"]["hand"]["keypoints"] == {"measured": 0}
    assert {label["image"] for label in said["worst"][:4]} == {*MOVED}
    assert len(said["worst"]) == 12
    assert {*said["limits"]} > {*MEASURES}
    assert (said["appeared"], said["refused"], said["failed"]) == ([], {}, {})


def test_the_result_is_not_there_before_the_last_image_is(data, job):
    for _ in job().run():
        assert not (data / "audit.json").exists()

    assert (data / "audit.json").exists()
    assert not list(data.glob("*.tmp"))


def test_any_number_of_workers_gives_the_same_result(data, job):
    pixels = scene(99, (450, 600))  # of which one worker has long, so that the order changes
    for folder in ("images", "refined"):
        save(data / folder / "a" / "large.png", pixels)
        for number in range(18):  # all alike, so that only the order tells them apart
            save(data / folder / f"{number}.png", pixels[:72, :96])
    write_coco(data / "ann.json", ["a/large.png", *(f"{n}.png" for n in range(18)), *NAMES])
    found = []
    for workers in (0, 1, 2):
        assert len(run(job(out=data / f"{workers}.json", workers=workers))) == 25
        found.append((data / f"{workers}.json").read_bytes())

    assert found[0] == found[1]
    assert found[0] == found[2]
    assert not list(data.glob(".*-logs"))


def test_a_finished_audit_starts_anew(data, job):
    run(job())
    before = (data / "audit.json").read_bytes()

    again = job()

    assert again.present == 0
    for _ in again.run():
        assert not (data / "audit.json").exists()
    assert again.totals.images == COUNT
    assert (data / "audit.json").read_bytes() == before
    assert len(lines(data)) == COUNT + 1


def test_several_annotation_files_may_share_images(data, job):
    third = data / "images" / "new.png"
    shutil.copy(data / "images" / NAMES[1], third)
    shutil.copy(third, data / "refined" / "new.png")
    more = [{**labels_of(0)[0], "id": "z", "category_id": 7}, *labels_of(1)]
    write_coco(data / "more.json", [NAMES[0], "new.png"], more)

    run(job(["ann.json", "more.json"]))

    images = {line["image"]: line for line in lines(data)[1:]}
    assert len(images) == len(lines(data)) - 1 == COUNT + 1
    assert [label["id"] for label in images[NAMES[0]]["labels"]] == [1, 2, "z"]
    assert images[NAMES[0]]["labels"][2]["category"] == ""
    assert len(images["new.png"]["labels"]) == 2
    assert result(data)["counts"]["labels"] == 15


@pytest.mark.parametrize("awkward", ["NaN", "BOM", "ids", "caption", "no annotations"])
def test_annotation_files_as_they_are_met_in_the_wild(data, job, awkward):
    content = json.loads((data / "ann.json").read_text())
    if awkward == "ids":
        for entry in content["images"]:
            entry["id"] = f"id {entry['id']}"
        for label in content["annotations"]:
            label |= {"image_id": f"id {label['image_id']}", "id": [label["id"], "x"]}
    content |= {"info": float("nan")} if awkward == "NaN" else {}
    if awkward == "caption":
        content["annotations"] = [{"id": 1, "image_id": 0, "caption": "a hand"}]
    if awkward == "no annotations":
        del content["annotations"], content["categories"]
    text = json.dumps(content, indent=3)
    (data / "ann.json").write_bytes(b"\xef\xbb\xbf" * (awkward == "BOM") + text.encode())

    assert run(job()) == dict.fromkeys(NAMES, "done")
    none = awkward in ("caption", "no annotations")
    assert result(data)["counts"]["labels"] == (0 if none else 12)


def test_files_of_other_formats_are_found_under_their_other_endings(data, job):
    for name in NAMES:
        path = data / "refined" / name
        with Image.open(path) as image:
            image.save(path.with_suffix(".webp"), lossless=True)
        path.unlink()

    run(job())

    assert result(data)["counts"]["failed"] == 0
    assert result(data)["counts"]["rejected"] == 4


def test_a_file_under_another_ending_that_is_another_images_is_not_taken_for_it(data, job):
    name = NAMES[0].replace(".png", ".jpg")
    Image.fromarray(scene(0)).save(data / "images" / name)
    write_coco(data / "ann.json", [name, *NAMES])

    run(job())

    assert result(data)["failed"].keys() == {name}
    assert "no such image file" in result(data)["failed"][name]


@pytest.mark.parametrize("format", ["keep", "png"])
def test_the_result_of_a_refine_job_holds_its_audit_and_is_still_complete(
    data, refiner_file, capsys, format
):
    Image.fromarray(scene(7)).save(data / "images" / "d.jpg", quality=95)
    write_coco(data / "ann.json", ["d.jpg", *NAMES])
    refined = ([data / "ann.json"], data / "images", refiner_file, data / "OUT")
    refine(*refined, format=format, workers=0)

    where = ["--annotations", "ann.json", "--images", "images", "--refined", "OUT"]
    code = main(["audit", *where, "--workers", "0"])

    said = result(data / "OUT")
    assert code in (0, 3)
    assert (said["refined"], said["counts"]["images"]) == (str(data / "OUT" / "images"), 7)
    assert len(lines(data / "OUT")) == 8
    assert main(["refine", "--verify", "OUT"]) == 0
    assert verify(data / "OUT").unknown == []
    assert refine(*refined, format=format, workers=0).present == 7


def test_a_result_in_an_object_store_is_audited_into_the_working_folder(data, job):
    store = folder_of("auditbucket://data/out")
    store.write("run.json", b"{}")
    for name in NAMES:
        store.write(f"images/{name}", (data / "refined" / name).read_bytes())

    made = job(refined="auditbucket://data/out", out=None)
    run(made)

    assert made.out.absolute() == data / "audit.json"
    assert result(data)["refined"] == "auditbucket://data/out/images"
    assert result(data)["counts"] | {"images": 6, "failed": 0} == result(data)["counts"]


# An audit that is interrupted.


def test_an_interrupted_audit_goes_on_to_the_same_result(data, job):
    run(job(out=data / "whole.json"))
    begin(job(), 3)
    before = (data / "audit.jsonl").read_bytes()

    again = job()

    assert again.present == 3
    assert [*run(again)] == NAMES[3:]
    assert (data / "audit.jsonl").read_bytes().startswith(before)
    assert (data / "audit.json").read_bytes() == (data / "whole.json").read_bytes()


def test_an_audit_that_measured_less_does_not_go_on(data, job):
    begin(job(), 3)
    header, *others = (data / "audit.jsonl").read_text().splitlines()
    older = {key: value for key, value in json.loads(header).items() if key != "measures"}
    (data / "audit.jsonl").write_text("\n".join([json.dumps(older), *others, ""]))

    assert job().present == 0


@pytest.mark.parametrize("change", ["pixels", "mtime", "gone", "original"])
def test_an_image_that_changed_meanwhile_and_those_after_it_are_measured_again(data, job, change):
    begin(job(), 4)
    path = data / ("images" if change == "original" else "refined") / NAMES[1]
    if change == "mtime":
        os.utime(path, (1, 1))
    elif change == "gone":
        path.unlink()
    else:
        save(path, scene(50))

    again = job()

    assert again.present == 1
    assert [*run(again)] == NAMES[1:]
    said = result(data)["counts"]
    assert said["failed"] == (change == "gone")
    assert said["rejected"] == {"pixels": 6, "original": 6}.get(change, 4)


def test_a_refined_image_that_was_missing_is_measured_when_it_is_there(data, job):
    (data / "refined" / NAMES[2]).rename(data / "away.png")
    begin(job(), 4)
    (data / "away.png").rename(data / "refined" / NAMES[2])

    assert [*run(job())] == NAMES[2:]
    assert result(data)["failed"] == {}


GARBAGE = [
    b"no JSON\n",
    b"\xff\xfe\x00\n",
    b"[1, 2]\n",
    b"null\n",
    b"{}\n",
    b'{"image": []}\n',
    b'{"image": {"a": 1}, "labels": []}\n',
    b'{"image": "nobody.png", "labels": [], "stamp": [1, 1, 1, 1]}\n',
    b"[" * 100_000 + b"\n",
    b'{"image": "torn',
]


@pytest.mark.parametrize("at", [0, 1, 3])
@pytest.mark.parametrize("garbage", GARBAGE, ids=[repr(each[:20]) for each in GARBAGE])
def test_what_is_damaged_costs_work_and_nothing_else(data, job, garbage, at):
    begin(job(), 3)
    kept = (data / "audit.jsonl").read_bytes().splitlines(keepends=True)
    (data / "audit.jsonl").write_bytes(b"".join([*kept[:at], garbage, *kept[at:]]))

    again = job()

    assert again.present == max(0, at - 1)
    assert run(again) == dict.fromkeys(NAMES[again.present :], "done")
    assert [line["image"] for line in lines(data)[1:]] == NAMES
    assert result(data)["counts"]["labels"] == 12


@pytest.mark.parametrize("damage", ["labels", "twice", "error"])
def test_a_line_that_speaks_of_an_image_but_makes_no_sense_is_not_believed(data, job, damage):
    begin(job(), 3)
    kept = lines(data)
    if damage == "labels":
        kept[2]["labels"] = [{"id": 1}]
    elif damage == "twice":
        kept[2] = kept[1]
    else:
        kept[2] = {"image": kept[2]["image"], "error": "made up", "stamp": [0]}
    (data / "audit.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in kept))

    assert [*run(job())] == NAMES[1:]
    assert result(data)["counts"] | {"images": 6, "labels": 12} == result(data)["counts"]


@pytest.mark.parametrize("change", ["limits", "annotations", "images", "refined"])
def test_another_audit_under_the_same_name_starts_anew(data, job, change):
    begin(job(), 3)
    options = {}
    if change == "annotations":
        (data / "ann.json").write_text((data / "ann.json").read_text() + " ")
    elif change == "limits":
        options["limits"] = {"displacement": 9}
    else:
        shutil.copytree(data / change, data / "elsewhere")
        options[change] = data / "elsewhere"

    again = job(**options)

    assert again.present == 0
    assert len(run(again)) == COUNT
    assert len(lines(data)) == COUNT + 1


def test_the_default_limits_named_are_the_same_audit(data, job):
    begin(job(), 2)

    assert job(limits={"displacement": 0.5}).present == 2


@pytest.fixture
def many(data):
    """Images enough that an audit takes a while."""
    names = [f"many/{number:02}.png" for number in range(30)]
    for number, name in enumerate(names):
        save(data / "images" / name, scene(number))
        save(data / "refined" / name, moved(scene(number)) if number % 5 else scene(number))
    write_coco(data / "ann.json", names)
    return names


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_a_killed_audit_goes_on_to_the_same_result(data, job, many, workers):
    run(job(out=data / "whole.json"))
    measured = 0
    for _ in range(2):
        process = start("--workers", workers)
        wait_for(measured + 6, process)
        kill(process, "all")
        assert not (data / "audit.json").exists()
        whole = (data / "audit.jsonl").read_bytes().rpartition(b"\n")[0]
        measured = whole.count(b"\n")
    with (data / "audit.jsonl").open("ab") as file:
        file.write(b'{"image": "many/2')  # as a kill in the midst of a line leaves it
    process = start("--workers", workers)
    printed, errors = process.communicate(timeout=120)

    assert process.returncode == 3, errors
    assert 0 < measured < len(many)
    assert (data / "audit.json").read_bytes() == (data / "whole.json").read_bytes()
    assert (data / "audit.jsonl").read_bytes().startswith(whole)
    assert sorted(line["image"] for line in lines(data)[1:]) == many
    assert "30 images, 60 labels: 48 beyond a limit" in printed


@pytest.mark.slow
def test_a_killed_worker_costs_no_image(data, many):
    process = start("--workers", 2)
    wait_for(4, process)
    kill(process, "worker")
    _, errors = process.communicate(timeout=120)

    assert process.returncode == 3, errors
    assert result(data)["failed"] == {}
    assert sorted(line["image"] for line in lines(data)[1:]) == many


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_ctrl_c_says_how_many_are_left_and_that_the_same_command_goes_on(data, many, workers):
    process = start("--workers", workers)
    wait_for(3, process)
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate(timeout=120)

    assert process.returncode == 130, errors
    left = len(many) - len(lines(data)[1:])
    assert f"interrupted: {left} of 30 images left; the same command goes on" in printed
    assert "Traceback" not in errors
    assert not (data / "audit.json").exists()
    assert not children(process.pid)
    assert main(command("--workers", 0)) == 3
    assert sorted(line["image"] for line in lines(data)[1:]) == many


# Images that cannot be audited.


def undo(data, fault):
    """Make an image one that cannot be audited; returns what its error says."""
    old, new = (data / folder / NAMES[1] for folder in ("images", "refined"))
    if fault in ("no refined", "no original"):
        (new if fault == "no refined" else old).unlink()
        return "no such image file"
    if fault == "truncated":
        new.write_bytes(new.read_bytes()[:-2000])
        return "not a readable image"
    if fault == "size":
        save(new, scene(1)[:-1])
        return "one size"
    content = json.loads((data / "ann.json").read_text())
    label = content["annotations"][2]
    label["segmentation"], message = {
        "polygon": ([[1, 2, "x", 4, 5, 6]], "cannot be decoded"),
        "huge polygon": ([[0, 0, 1e15, 0, 1e15, 1e15]], "outline"),
        "RLE": ({"size": [72, 96], "counts": [5]}, "counts must"),
        "box": ([[20, 16, 52, 16, 52, 48]], "bbox"),
        "owner": (None, "cannot be read"),
    }[fault]
    if fault == "box":
        label["bbox"] = [1, 2]
    if fault == "owner":
        label["bbox"] = "wide"
    (data / "ann.json").write_text(json.dumps(content))
    return message


FAULTS = ["no refined", "no original", "truncated", "size", "polygon", "huge polygon", "RLE"]
FAULTS += ["box", "owner"]


@pytest.mark.parametrize("fault", FAULTS)
def test_an_image_that_cannot_be_audited_is_set_aside_with_its_reason(data, job, fault):
    message = undo(data, fault)

    found = run(job())

    assert found == dict.fromkeys(NAMES, "done") | {NAMES[1]: "failed"}
    (name, error), *others = result(data)["failed"].items()
    assert (name, others) == (NAMES[1], [])
    assert message in error
    assert error.startswith(NAMES[1])
    assert lines(data)[2] | {"image": NAMES[1], "error": error} == lines(data)[2]
    counts = result(data)["counts"]
    assert (counts["images"], counts["failed"], counts["labels"]) == (5, 1, 10)


def test_faults_are_the_same_in_worker_processes(data, job):
    for fault in ("no refined", "polygon"):
        undo(data, fault)
    run(job(out=data / "0.json"))
    run(job(out=data / "2.json", workers=2))

    assert [*result(data, "0.json")["failed"]] == [NAMES[1]]
    assert (data / "0.json").read_bytes() == (data / "2.json").read_bytes()


KILLER = """
import os, sys
def look(event, arguments):
    if event == "open" and str(arguments[0]).endswith("killer.png"):
        os._exit(9)
sys.addaudithook(look)
"""


def test_an_image_that_kills_its_worker_is_set_aside(data, job, monkeypatch):
    for folder in ("images", "refined"):
        save(data / folder / "killer.png", scene(0))
    write_coco(data / "ann.json", ["killer.png", *NAMES])
    (data / "sitecustomize.py").write_text(KILLER)
    monkeypatch.setenv("PYTHONPATH", str(data), prepend=os.pathsep)

    found = run(job(workers=2))

    assert found == dict.fromkeys(NAMES, "done") | {"killer.png": "killer"}
    assert "exit code 9" in result(data)["failed"]["killer.png"]
    assert result(data)["counts"]["images"] == COUNT


@pytest.mark.parametrize("name", ["a\0.png", "\ud800.png", "x" * 300 + ".png"])
def test_a_name_that_no_file_can_have_is_set_aside(data, job, name):
    write_coco(data / "ann.json", [name, *NAMES])

    found = run(job())

    assert found == dict.fromkeys(NAMES, "done") | {name: "failed"}
    assert [*result(data)["failed"]] == [name]


@pytest.mark.parametrize("limit", [0, -1, 1e308])
@pytest.mark.parametrize("measure", ["displacement", "local", "contour", "colour"])
def test_limits_at_the_ends_of_the_scale_are_limits(data, job, measure, limit):
    write_coco(data / "ann.json", NAMES[:1])

    run(job(limits={measure: limit}))

    assert result(data)["counts"]["labels"] == 2


# Mistakes.


def test_a_file_name_that_leads_out_is_refused(data, job):
    write_coco(data / "ann.json", ["../outside.png"])

    with pytest.raises(DataError, match="leads out"):
        job()


def test_a_folder_is_no_place_for_the_result(data, job):
    (data / "folder.json").mkdir()

    with pytest.raises(ConfigError, match="is a folder"):
        job(out=data / "folder.json")


def test_workers_are_counted_from_0(job):
    with pytest.raises(ConfigError, match="workers must be 0 or more"):
        job(workers=-1)


MISTAKES = {
    "must name a .json file": ["--out", "audit.txt"],
    "is a directory": ["--out", "images"],
    "is an annotation file": ["--out", "images/../ann.json"],
    "no limit named 'dispalcement'": ["--limit", "dispalcement=1"],
    "did you mean 'displacement'": ["--limit", "displacment=1"],
    "expected NAME=NUMBER": ["--limit", "displacement"],
    "got 'local=far'": ["--limit", "local=far"],
    "must be a finite number": ["--limit", "local=nan"],
    "say with --images where": ["--images", "nowhere"],
    "say with --refined where": ["--refined", "nowhere"],
    "cannot read the annotation file": ["--annotations", "nope.json"],
    "not a JSON file": ["--annotations", "broken.json"],
    "not a COCO file": ["--annotations", "list.json"],
    "leads out": ["--annotations", "out.json"],
    "no images listed": ["--annotations", "empty.json"],
    "is not in the range": ["--workers", "-1"],
    "Missing option": None,
}


@pytest.mark.parametrize(("message", "change"), MISTAKES.items(), ids=[*MISTAKES])
def test_a_users_mistake_is_a_line_or_two_and_exit_code_2(data, capsys, message, change):
    (data / "broken.json").write_text('{"images": [')
    (data / "list.json").write_text("[]")
    (data / "empty.json").write_text('{"images": []}')
    write_coco(data / "out.json", ["../a.png"])
    before = (data / "ann.json").read_bytes()

    code = main(["audit"] if change is None else command(*change))

    printed = capsys.readouterr().err
    assert code == 2
    assert message in printed
    assert "Traceback" not in printed
    assert len(printed.strip().splitlines()) <= 2 + printed.startswith("Usage") * 2
    assert (data / "ann.json").read_bytes() == before
    assert not list(data.glob("audit.json*"))


@pytest.mark.parametrize("strokes", [0, 9])
def test_labels_that_look_larger_than_their_boxes_are_told_by_line_and_exit_code(
    data, capsys, strokes
):
    for number, name in enumerate(NAMES):
        pixels = np.random.default_rng(number).integers(30, 50, (72, 96, 3), np.uint8)
        pixels[16:48, 20:52] = scene(number, (32, 32)) // 4 + 150
        save(data / "images" / name, pixels)
        refined = relit(pixels)
        refined[16 - strokes : 16, 24:48] = 105  # the hand is 80 to 130, its edges stay
        save(data / "refined" / name, refined)
    hands = [labels_of(number)[0] for number in range(COUNT)]
    write_coco(data / "ann.json", NAMES, [hand | {"segmentation": []} for hand in hands])

    code = main(command())

    printed = capsys.readouterr().out
    counts = result(data)["counts"]
    assert (counts["rejected"], counts["appeared"]) == (0, 0)  # nothing else sees it
    assert (counts["grown"], counts["grown_of"]) == (COUNT if strokes else 0, COUNT)
    assert code == (3 if strokes else 0)
    assert ("look larger than their boxes" in printed) == bool(strokes)


def test_an_audit_of_no_labels_says_so(data, capsys):
    write_coco(data / "ann.json", NAMES, [])

    assert main(command()) == 0

    assert "note: there are no labels" in capsys.readouterr().out


def test_a_full_disk_ends_the_audit_in_order_and_with_room_it_goes_on(data, job, small_disk):
    many = [label | {"id": f"{n} {label['id']}"} for n in range(8) for label in labels_of(0)]
    more = [label | {"image_id": image} for image in range(COUNT) for label in many]
    write_coco(data / "ann.json", NAMES, more)

    with pytest.raises(OutputError, match="No space left on device"):
        run(job(out=small_disk / "audit.json"))
    assert not (small_disk / "audit.json").exists()
    subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True)
    again = job(out=small_disk / "audit.json")

    assert 0 < again.present < COUNT
    assert len(run(again)) == COUNT - again.present
    run(job(out=data / "whole.json"))
    assert (small_disk / "audit.json").read_bytes() == (data / "whole.json").read_bytes()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_full_disk_is_one_line_and_exit_code_1(data, small_disk, capsys, workers):
    (small_disk / "ballast").write_bytes(bytes(8192))

    code = main(command("--workers", workers, "--out", small_disk / "audit.json"))

    printed = capsys.readouterr().err
    assert code == 1
    assert "error: cannot write" in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize("finished", [False, True])
def test_a_disk_that_is_read_only_is_one_line(data, small_disk, capsys, finished):
    if finished:
        (small_disk / "audit.json").write_text('{"version": 1, "limits": {}, "counts": {}}')
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)

    code = main(command("--workers", 0, "--out", small_disk / "audit.json"))

    assert code == 1
    assert "Read-only file system" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("audit.json", "{}"),
        ("audit.json", '{"images": [], "annotations": []}'),
        ("audit.json", "a thesis"),
        ("audit.jsonl", '{"step": 1, "loss": 0.5}\n'),
    ],
)
def test_a_file_that_is_no_audit_is_not_overwritten(data, job, name, content):
    (data / name).write_text(content)

    with pytest.raises(ConfigError, match="no audit of ours; choose another --out"):
        job()

    assert (data / name).read_text() == content


def test_two_audits_do_not_write_into_one_file(data, job):
    first = job().run()
    next(first)

    with pytest.raises(OutputError, match="another audit writes"):
        run(job())

    first.close()
    assert run(job()) == dict.fromkeys(NAMES[1:], "done")


def test_a_file_where_the_folder_of_the_result_should_be_is_an_error(data, job):
    (data / "file").write_text("mine")

    with pytest.raises(OutputError, match="cannot write"):
        run(job(out=data / "file" / "audit.json"))


# The measure of what is measured.


def test_an_audit_of_the_originals_finds_nothing(data, job):
    shutil.copytree(data / "images", data / "again")

    run(job(refined=data / "again"))

    said = result(data)
    assert said["counts"] | {"rejected": 0, "appeared": 0, "failed": 0} == said["counts"]
    assert said["overall"]["displacement"]["worst"] < 0.02


def test_an_audit_of_a_folder_against_itself_is_an_error_with_the_way_out(data, job):
    with pytest.raises(ConfigError, match=r"--images and --refined are one folder, .*say with --"):
        job(refined=data / "images")


def test_labels_on_nothing_are_unmeasurable_and_do_not_fail(data, job):
    for folder in ("images", "refined"):
        for name in NAMES:
            save(data / folder / name, np.full((72, 96, 3), 128, np.uint8))

    run(job())

    assert result(data)["counts"]["unmeasurable"] == 12
    assert result(data)["counts"]["rejected"] == 0
    assert result(data)["overall"]["displacement"] == {"measured": 0}


def test_images_are_read_as_they_lie_and_never_written(data, job):
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*.png")}

    run(job())

    assert before == {path: path.stat().st_mtime_ns for path in data.rglob("*.png")}
    assert read_image(data / "images" / NAMES[0]).pixels.shape == (72, 96, 3)
    assert json.loads((data / "ann.json").read_text())["categories"] == CATEGORIES
