"""The guard in the refine job: what moved a label is taken back, and all else is as without it."""

import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from faults.conftest import kill
from labelled import SIZE, labels_of, save, save_shifting_refiner, scene, write_coco
from plugged import plugged

from simgan_aug.audit import Guard
from simgan_aug.cli import main
from simgan_aug.coco import Annotation
from simgan_aug.dataset import AuditJob, RefineJob, verify
from simgan_aug.dataset.journal import read_lines
from simgan_aug.dataset.plan import Settings
from simgan_aug.dataset.storage import LocalFolder
from simgan_aug.errors import ConfigError, DataError, ImageError
from simgan_aug.imagefile import read_image
from simgan_aug.inference import ImageRefiner

NAMES = ["a/ü 0.png", "b 1.png", "2.png"]


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Images whose labels a refiner moves, and one in which there is nothing to move."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(NAMES):
        flat = np.full((*SIZE, 3), 128, np.uint8)
        save(tmp_path / "images" / name, flat if number == 2 else scene(number))
    write_coco(tmp_path / "ann.json", NAMES)
    save_shifting_refiner(tmp_path / "shift.safetensors")
    return tmp_path


@pytest.fixture
def job(data):
    def make(**options):
        options = {"out": data / "out", "workers": 0, "device": "cpu"} | options
        refiner = options.pop("refiner", data / "shift.safetensors")
        return RefineJob(
            [data / "ann.json"], data / "images", refiner, options.pop("out"), **options
        )

    return make


def run(job):
    """Outcomes of a job by name: their status."""
    return {outcome.name: outcome.status for outcome in job.run()}


def report(out):
    return json.loads((out / "report.json").read_text())


def files(out):
    """The bytes of all files of a result but those in .simgan, by name."""
    paths = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    return {n: path.read_bytes() for n, path in paths.items() if not n.startswith(".simgan/")}


def decisions(out):
    """What the journal says that the guard did, by name."""
    lines = read_lines(LocalFolder(out))
    return {line.name: line.guard for line in lines if line.guard is not None}


def audited(data, out, **options):
    """The audit of a result."""
    made = AuditJob([data / "ann.json"], data / "images", out, workers=0, **options)
    for _ in made.run():
        pass
    return made.summary()


def pixels(folder, name):
    return read_image(folder / "images" / name).pixels


# What it does.


def test_without_a_guard_labels_move(data, job):
    run(job())

    assert audited(data, data / "out")["counts"]["rejected"] == 4


@pytest.mark.parametrize("policy", ["label", "image"])
def test_after_a_guard_no_label_is_beyond_a_limit(data, job, policy):
    run(job(guard=policy))

    said = audited(data, data / "out")
    assert said["counts"] | {"rejected": 0, "appeared": 0, "failed": 0} == said["counts"]
    assert said["overall"]["displacement"]["worst"] < 0.5
    assert verify(data / "out").complete
    assert verify(data / "out").unknown == []


@pytest.mark.parametrize("policy", ["label", "image"])
def test_after_a_guard_no_label_is_beyond_a_limit_that_was_named(data, job, policy):
    run(job(guard=policy, limits={"displacement": 0.05, "content": 0.99}))

    limits = {"displacement": 0.05, "content": 0.99}
    assert audited(data, data / "out", limits=limits)["counts"]["rejected"] == 0


def test_limits_that_nothing_exceeds_take_nothing_back(data, job):
    wide = {"displacement": 50, "local": 50, "keypoints": 50, "colour": 500, "appeared": 500}
    run(job(guard="label", limits=wide | {"contour": -1, "content": -2, "contrast": -1}))
    run(job(out=data / "plain"))

    assert report(data / "out")["guard"]["decisions"] == {}
    for name in NAMES:
        assert np.array_equal(pixels(data / "out", name), pixels(data / "plain", name))


def test_the_report_and_the_journal_tell_of_each_decision(data, job):
    run(job(guard="label"))

    said = report(data / "out")["guard"]
    assert (said["policy"], said["images"], said["blended"], said["kept"]) == ("label", 3, 2, 0)
    assert said["decisions"] == decisions(data / "out")
    assert [*said["decisions"]] == sorted(NAMES[:2])
    for number, name in enumerate(NAMES[:2]):
        decision = said["decisions"][name]
        assert decision["strength"] == 1
        assert {id for id, _ in decision["labels"]} == {2 * number + 1, 2 * number + 2}
        assert all(0 <= share < 1 for _, share in decision["labels"])
        assert "displacement" in decision["failures"]


def test_an_image_of_which_nothing_may_change_is_kept_and_counted_so(data, job):
    run(job(guard="image", limits={"displacement": -1}))

    said = report(data / "out")["guard"]
    assert (said["policy"], said["blended"], said["kept"]) == ("image", 0, 2)
    for name in NAMES[:2]:
        assert said["decisions"][name]["strength"] == 0
        assert np.array_equal(pixels(data / "out", name), pixels(data, name))


def test_the_image_policy_blends_the_whole_and_the_label_policy_what_is_under_labels(data, job):
    changed = {}
    for policy in ("off", "image", "label"):
        run(job(out=data / policy, guard=policy))
        difference = np.abs(pixels(data / policy, NAMES[0]) - pixels(data, NAMES[0]).astype(float))
        changed[policy] = difference[:4, 84:].mean(), difference[24:40, 28:44].mean()

    (off, _), (image, under_image), (label, under_label) = changed.values()
    assert label == off  # far from all labels
    assert image < off / 2
    assert max(under_image, under_label) < changed["off"][1] / 2


def test_a_job_does_to_an_image_what_the_guard_itself_does(data, job):
    run(job(guard="label", strength=0.9))

    old = pixels(data, NAMES[1])
    refiner = ImageRefiner.load(data / "shift.safetensors", "cpu", precision="fp32")
    new = refiner(old, seed=Settings().seed_of(NAMES[1]), strength=0.9)
    labels = [Annotation(**label) for label in map(_plain, labels_of(1))]
    expected, decision = Guard("label")(old, new, labels)
    assert np.array_equal(pixels(data / "out", NAMES[1]), expected)
    assert decisions(data / "out")[NAMES[1]]["labels"] == [list(each) for each in decision.labels]


def _plain(label):
    return {key: label[key] for key in label if key in Annotation.__struct_fields__}


@pytest.mark.parametrize("annotations", ["none", "captions", "no list"])
def test_images_without_labels_pass_the_guard(data, job, annotations):
    some = [{"id": n, "image_id": n, "caption": "a hand"} for n in range(3)]
    write_coco(data / "ann.json", NAMES, some if annotations == "captions" else [])
    if annotations == "no list":
        content = json.loads((data / "ann.json").read_text())
        (data / "ann.json").write_text(json.dumps({"images": content["images"]}))
    run(job(guard="label", limits={"appeared": 99}))
    run(job(out=data / "plain"))

    assert report(data / "out")["guard"]["decisions"] == {}
    for name in NAMES:
        assert np.array_equal(pixels(data / "out", name), pixels(data / "plain", name))


@pytest.mark.parametrize("policy", ["label", "image"])
@pytest.mark.parametrize("awkward", ["NaN", "BOM", "string ids", "no ids"])
def test_annotations_as_they_are_met_in_the_wild_are_guarded(data, job, awkward, policy):
    content = json.loads((data / "ann.json").read_text())
    for entry in content["images"] if awkward == "string ids" else ():
        entry["id"] = f"id {entry['id']}"
    for label in content["annotations"]:
        if awkward == "string ids":
            label["image_id"] = f"id {label['image_id']}"
        if awkward == "no ids":
            del label["id"]
    content |= {"info": float("nan")} if awkward == "NaN" else {}
    start = b"\xef\xbb\xbf" if awkward == "BOM" else b""
    (data / "ann.json").write_bytes(start + json.dumps(content).encode())
    run(job(guard=policy))

    assert len(report(data / "out")["guard"]["decisions"]) == 2
    assert (data / "out" / "ann.json").read_bytes() == (data / "ann.json").read_bytes()
    assert audited(data, data / "out")["counts"]["rejected"] == 0


def test_another_format_is_guarded_too_up_to_what_its_encoding_changes(data, job):
    run(job(guard="label", format="webp", quality=100))

    assert [*report(data / "out")["guard"]["decisions"]] == sorted(NAMES[:2])
    assert audited(data, data / "out")["overall"]["displacement"]["worst"] < 0.6


# What it leaves alone.


def test_results_without_a_guard_are_what_they_were_before_there_was_one(data, job):
    run(job())
    run(job(out=data / "off", guard="off"))

    assert files(data / "out") == files(data / "off")
    assert "guard" not in report(data / "out")
    settings = json.loads((data / "out" / "run.json").read_text())["settings"]
    assert settings == {"strength": 1, "seed": 0, "format": "keep", "quality": 95}
    assert decisions(data / "out") == {}
    refiner = ImageRefiner.load(data / "shift.safetensors", "cpu", precision="fp32")
    for name in NAMES:
        plain = refiner(pixels(data, name), seed=Settings().seed_of(name))
        assert np.array_equal(pixels(data / "out", name), plain)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"guard": "label"}),
        ({"guard": "label"}, {}),
        ({"guard": "label"}, {"guard": "image"}),
        ({"guard": "label"}, {"guard": "label", "limits": {"local": 9}}),
    ],
)
def test_a_result_of_another_guard_is_not_mixed_in(data, job, before, after):
    running = job(**before).run()
    next(running)
    running.close()

    with pytest.raises(ConfigError, match=r"settings.*another --out"):
        job(**after)
    assert set(run(job(**before)).values()) == {"done"}


def test_a_guard_whose_limits_are_the_default_by_name_goes_on(data, job):
    running = job(guard="label").run()
    next(running)
    running.close()

    run(job(guard="label", limits={"displacement": 0.5}))

    assert len(report(data / "out")["guard"]["decisions"]) == 2


# Any number of workers, and kills.


def test_any_number_of_workers_takes_back_the_same(data, job):
    for workers in (0, 2):
        run(job(out=data / str(workers), guard="label", workers=workers))

    assert files(data / "0") == files(data / "2")
    assert decisions(data / "0") == decisions(data / "2")


def command(*options):
    where = ["--annotations", "ann.json", "--refiner", "shift.safetensors", "--out", "out"]
    return ["refine", *where, "--guard", "label", *map(str, options)]


def start(*options, **environment):
    words = [sys.executable, "-m", "simgan_aug.cli", *command(*options)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(words, **pipes, env=os.environ | environment)


def test_a_killed_job_takes_back_what_an_undisturbed_one_does(data, job):
    names = [f"many/{number}.png" for number in range(8)]
    for number, name in enumerate(names):
        save(data / "images" / name, scene(number))
    write_coco(data / "ann.json", names)
    run(job(out=data / "whole", guard="label"))
    for count in (2, 5):
        process = start("--workers", 2)
        until = time.monotonic() + 120
        while len([*(data / "out").rglob("*.png")]) < count and process.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.01)
        kill(process, "all")
        assert not (data / "out" / "ann.json").exists()

    assert main(command("--workers", "0")) == 0
    assert len(report(data / "whole")["guard"]["decisions"]) == 8
    assert files(data / "out") == files(data / "whole")
    assert verify(data / "out").complete


@pytest.mark.slow
def test_ray_takes_back_what_one_process_does(data, job):
    pytest.importorskip("ray", reason="the extra simgan-aug[ray]")
    run(job(out=data / "whole", guard="label"))

    process = start("--engine", "ray", "--workers", 2, RAY_AUTH_MODE="disabled", RAY_TMPDIR="/tmp")
    printed, errors = process.communicate(timeout=240)

    assert process.returncode == 0, printed + errors
    assert files(data / "out") == files(data / "whole")
    assert decisions(data / "out") == decisions(data / "whole")


# Gates of plugins.

GATES = """
    from simgan_aug import hookimpl

    def same(old, new, annotations):
        return [] if (old == new).all() else [f"not as it was, with {len(annotations)} labels"]

    def labelled(old, new, annotations):
        return [str(annotations[3].id)]  # an IndexError

    @hookimpl
    def simgan_register_gates():
        return {"same": same, "any": lambda old, new, annotations: [], "labelled": labelled}
"""


@pytest.fixture
def gates(data):
    with plugged(data / "site", gates_plugin=GATES):
        yield


def test_what_a_gate_refuses_is_taken_back_by_any_number_of_workers(data, job, gates):
    for workers in (0, 2):
        run(job(out=data / str(workers), guard="label", gates=["same", "any"], workers=workers))

    assert files(data / "0") == files(data / "2")
    said = report(data / "0")["guard"]
    assert (said["blended"], said["kept"]) == (1, 2)
    for name in NAMES[:2]:
        assert "gate same: not as it was, with 2 labels" in said["decisions"][name]["failures"]
        assert np.array_equal(pixels(data / "0", name), pixels(data, name))
    settings = json.loads((data / "0" / "run.json").read_text())["settings"]
    assert settings["gates"] == {"any": "gates_plugin-dist 1.2", "same": "gates_plugin-dist 1.2"}


@pytest.mark.parametrize(("before", "after"), [(["same"], ["any"]), (["same"], []), ([], ["any"])])
def test_a_result_of_other_gates_is_not_mixed_in(data, job, gates, before, after):
    running = job(guard="label", gates=before).run()
    next(running)
    running.close()

    with pytest.raises(ConfigError, match=r"settings.*another --out"):
        job(guard="label", gates=after)
    assert set(run(job(guard="label", gates=before)).values()) == {"done"}


def test_a_gate_that_raises_stops_the_job_or_sets_the_image_aside_and_is_named(data, job, gates):
    who = r"a/ü 0\.png: gate 'labelled' of 'gates_plugin' of gates_plugin-dist 1\.2: IndexError"

    with pytest.raises(ImageError, match=who):
        run(job(guard="image", gates=["labelled"]))
    found = run(job(out=data / "skip", guard="image", gates=["labelled"], on_error="skip"))

    assert set(found.values()) == {"failed"}
    assert not [*(data / "skip").rglob("*.png")]
    assert "gate 'labelled' of 'gates_plugin'" in report(data / "skip")["failed"][NAMES[0]]


def test_gates_by_command(data, gates, capsys):
    named = ["--gate", "any", "--gate", "same"]
    assert main([*command("--workers", "0"), *named]) == 0
    assert main([*command("--workers", "0"), "--gate", "any"]) == 2
    assert main([*command("--workers", "0"), "--gate", "sane"]) == 2
    assert main([*command("--workers", "0"), "--guard", "off", *named]) == 2

    printed = capsys.readouterr().err
    assert "(settings); choose another --out" in printed
    assert "error: no gate named 'sane' (known: any, labelled, same); did you mean" in printed
    assert "error: gates are of the guard: choose --guard label or image" in printed


def test_an_audit_asks_gates_too_and_goes_on_with_the_same_alone(data, job, gates, capsys):
    run(job())
    words = ["audit", "--annotations", "ann.json", "--refined", "out", "--workers", "0"]
    wide = {"displacement": 50, "local": 50, "keypoints": 50, "colour": 500, "appeared": 500}
    wide |= {"contour": -1, "content": -2, "contrast": -1}
    words += [word for limit in wide.items() for word in ("--limit", "{}={}".format(*limit))]

    assert main([*words, "--gate", "any"]) == 0
    assert main([*words, "--gate", "any", "--gate", "same"]) == 3
    printed = capsys.readouterr().out
    assert main([*words, "--gate", "labelled"]) == 3

    assert "b 1.png: gate same: not as it was, with 2 labels" in printed
    assert "; 3 refused by a gate" in printed
    assert "not audited: 2.png: gate 'labelled' of" in capsys.readouterr().out
    said = audited(data, data / "out", limits=wide, gates=["same"])
    assert said["counts"]["refused"] == 3
    assert [*said["refused"]] == sorted(NAMES)


def test_an_audit_that_was_interrupted_does_not_go_on_with_other_gates(data, job, gates):
    shutil.copytree(data / "images", data / "same")

    def planned(*names):
        where = [data / "ann.json"], data / "images", data / "same", data / "a.json"
        return AuditJob(*where, gates=names, workers=0)

    running = planned("any").run()
    next(running)
    running.close()

    assert [planned(*names).present for names in ((), ("same",), ("any",))] == [0, 0, 1]


# Annotations that make no sense.


@pytest.fixture
def senseless(data, request):
    """The data set, of which the first image has a label that cannot be made out."""
    content = json.loads((data / "ann.json").read_text())
    content["annotations"][0] |= request.param
    (data / "ann.json").write_text(json.dumps(content))
    return data


SENSELESS = [{"bbox": "wide"}, {"segmentation": [[1, 2, "x", 4, 5, 6]]}, {"bbox": [1, 2]}]


@pytest.mark.parametrize("policy", ["copy", "skip"])
@pytest.mark.parametrize("senseless", SENSELESS, indirect=True)
def test_an_image_whose_label_makes_no_sense_is_set_aside(senseless, job, policy):
    found = run(job(guard="label", on_error=policy))

    assert found == {NAMES[0]: "failed", NAMES[1]: "done", NAMES[2]: "done"}
    ((name, error),) = report(senseless / "out")["failed"].items()
    assert name == NAMES[0]
    assert f"{senseless / 'images' / name}: " in error
    written = files(senseless / "out").get(f"images/{name}")
    original = (senseless / "images" / name).read_bytes()
    assert written == (original if policy == "copy" else None)
    assert [*report(senseless / "out")["guard"]["decisions"]] == [NAMES[1]]
    assert report(senseless / "out")["guard"]["images"] == 2


@pytest.mark.parametrize("senseless", SENSELESS[:1], indirect=True)
def test_an_image_whose_label_makes_no_sense_stops_a_job_that_is_to_be_complete(senseless, job):
    with pytest.raises(ImageError, match=r"a/ü 0\.png: an annotation cannot be read"):
        run(job(guard="label"))
    assert not (senseless / "out" / "ann.json").exists()


@pytest.mark.parametrize("annotations", [{}, [{"id": 1}], [7]])
def test_without_a_guard_nobody_looks_at_labels(data, job, annotations):
    content = json.loads((data / "ann.json").read_text()) | {"annotations": annotations}
    (data / "ann.json").write_text(json.dumps(content))

    with pytest.raises(DataError, match="not a COCO file"):
        job(guard="label")
    assert set(run(job()).values()) == {"done"}


# The command line.


def test_the_command_says_what_the_guard_did(data, capsys):
    assert main(command("--workers", "0", "--limit", "displacement=0.4")) == 0

    printed = capsys.readouterr().out
    assert "partly taken back (--guard label)" in printed
    limits = json.loads((data / "out" / "run.json").read_text())["settings"]["limits"]
    assert limits["displacement"] == 0.4


MISTAKES = {
    "choose --guard label or image": ["--guard", "off", "--limit", "local=1"],
    "expected NAME=NUMBER": ["--limit", "local:1"],
    "got 'local=wide'": ["--limit", "local=wide"],
    "no limit named 'BAD'": ["--limit", "BAD=1"],
    "got 'BAD=limit'": ["--limit", "BAD=limit"],
    "must be a finite number": ["--limit", "local=nan"],
    "is not one of": ["--guard", "labels"],
}


@pytest.mark.parametrize(("message", "change"), MISTAKES.items(), ids=[*MISTAKES])
def test_a_users_mistake_is_a_line_or_two_and_exit_code_2(data, capsys, message, change):
    code = main([*command("--workers", "0"), *change])

    printed = capsys.readouterr().err
    assert code == 2
    assert message in printed
    assert "Traceback" not in printed
    assert not (data / "out").exists()


def test_the_message_of_another_guard_names_the_settings(data, capsys):
    assert main([*command("--workers", "0"), "--guard", "off"]) == 0
    capsys.readouterr()

    assert main(command("--workers", "0")) == 2
    assert "(settings); choose another --out" in capsys.readouterr().err
