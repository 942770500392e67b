"""Each task learns what can be learnt, and labels go where augmentation moves the picture."""

import contextlib
import io
import json

import numpy as np
import pytest
import torch
from conftest import write_toy

from simgan_aug.coco import Annotation
from simgan_aug.errors import ConfigError
from simgan_aug.study.augment import JITTER, SEARCH, Policy, draw_warp
from simgan_aug.study.average_precision import average_precision, jackknife
from simgan_aug.study.labelled import open_labelled
from simgan_aug.study.probe import Budget, predict, train_probe
from simgan_aug.study.split import CROWD, read_split
from simgan_aug.study.tasks import task_of

NAMES = ("disc", "square")


def read(path, kind, size=(32, 32), names=NAMES):
    return read_split(open_labelled(path, None, 1000), kind, size, names, kind.maps)


def train(task, split, steps, seed=0):
    work = train_probe(
        task,
        split,
        lambda rows, epoch: split.images[rows],
        Policy("none"),
        seed,
        Budget(steps, 16, False, torch.device("cpu")),
    )
    while True:
        try:
            next(work)
        except StopIteration as done:
            return done.value


@pytest.mark.parametrize(
    ("name", "steps", "least"),
    [("classify", 30, 1.0), ("segment", 60, 0.9), ("keypoints", 100, 0.95), ("detect", 120, 0.95)],
)
def test_a_probe_learns_what_is_easy(tmp_path, name, steps, least):
    kind = task_of(name)
    split = read(write_toy(tmp_path / "train", 48, seed=0), kind)
    test = read(write_toy(tmp_path / "test", 32, seed=1), kind)
    task = kind(NAMES, 2, (32, 32))

    network = train(task, split, steps)

    answers = predict(task, network, test.images, Budget(1, 1, False, torch.device("cpu")))
    assert task.values(answers, test).mean() >= least


def perfect(name, split):
    """What a task would say of a split if it knew it."""
    labels = [each[0] for each in split.labels]
    if name == "classify":
        return np.array([label.category for label in labels])
    if name == "segment":
        return split.maps
    if name == "keypoints":
        return np.stack([label.points[:, :2] for label in labels])
    return np.array([[[label.category, 1, *label.box]] for label in labels])


@pytest.mark.parametrize("name", ["classify", "segment", "keypoints", "detect"])
def test_the_truth_scores_one_and_the_truth_of_other_images_less(tmp_path, name):
    kind = task_of(name)
    split = read(write_toy(tmp_path / "a", 16, seed=0), kind)
    task = kind(NAMES, 2, (32, 32))
    truth = perfect(name, split)

    assert task.values(truth, split) == pytest.approx(np.ones(16))
    assert task.values(np.roll(truth, 1, axis=0), split).mean() < 0.7


@pytest.mark.parametrize("name", ["classify", "segment", "keypoints", "detect"])
def test_one_seed_gives_one_probe(tmp_path, name):
    kind = task_of(name)
    split = read(write_toy(tmp_path / "a", 16, seed=0), kind)
    task = kind(NAMES, 2, (32, 32))

    torch.manual_seed(1)
    first = train(task, split, 10)
    torch.manual_seed(2)  # what others draw must not matter
    second = train(task, split, 10)
    other = train(task, split, 10, seed=1)

    weights = [torch.cat([p.flatten() for p in net.parameters()]) for net in (first, second, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def warped(seed, turn=0.2, flip=True, size=(40, 24)):
    return draw_warp(64, size, turn, flip, torch.Generator().manual_seed(seed))


def test_points_go_where_the_picture_goes():
    size, warp = (40, 24), warped(0)
    rng = np.random.default_rng(0)
    points = torch.from_numpy(rng.uniform([12, 8], [28, 16], (64, 1, 2))).float()
    y, x = torch.meshgrid(torch.arange(24) + 0.5, torch.arange(40) + 0.5, indexing="ij")
    squares = (x - points[..., :1, None]) ** 2 + (y - points[..., 1:, None]) ** 2
    batch = (-squares / 4).exp()  # (64, 1, 24, 40): a blob at each point

    moved = warp.images(batch)[:, 0]

    total = moved.sum((1, 2))
    middle = torch.stack([(moved * x).sum((1, 2)) / total, (moved * y).sum((1, 2)) / total], 1)
    expected = warp.points(points)[:, 0]
    inside = ((expected > 5) & (expected < torch.tensor(size) - 5)).all(1)
    assert inside.sum() > 30
    assert (middle - expected)[inside].abs().max() < 0.1


def test_boxes_hold_the_corners_of_what_they_held():
    warp = warped(1, turn=0.0)
    boxes = torch.tensor([[[10.0, 6.0, 8.0, 5.0]]]).repeat(64, 1, 1)

    moved = warp.boxes(boxes)[:, 0]

    corners = warp.points(torch.tensor([[[10.0, 6.0], [18.0, 11.0]]]).repeat(64, 1, 1))
    assert torch.allclose(moved[:, :2], corners.amin(1), atol=1e-4)
    assert torch.allclose(moved[:, 2:], corners.amax(1) - corners.amin(1), atol=1e-4)


def test_half_of_the_images_are_mirrored_where_that_is_allowed():
    flipped = torch.linalg.det(warped(0).forward[:, :, :2]) < 0
    assert 16 < int(flipped.sum()) < 48
    assert not bool((torch.linalg.det(warped(0, flip=False).forward[:, :, :2]) < 0).any())


def test_light_jitter_is_none_and_each_further_one_changes_more():
    images = torch.rand(32, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    changes = [
        float((policy(images, torch.Generator().manual_seed(1)) - images).abs().mean())
        for policy in (*SEARCH, *JITTER)
    ]

    assert changes[0] == 0
    assert changes == sorted(changes)


def scattered(rng, count):
    """Labels and rather good predictions of some images, two categories."""
    truth, said = [], []
    for _ in range(count):
        boxes = rng.uniform([0, 0, 5, 5], [60, 60, 30, 30], (rng.integers(0, 4), 4))
        categories = rng.integers(0, 2, len(boxes))
        truth.append(np.column_stack([categories, boxes]))
        found = np.vstack([boxes + rng.normal(0, 2, boxes.shape), rng.uniform(5, 50, (3, 4))])
        answers = np.r_[categories, rng.integers(0, 2, 3)]
        scores = rng.permutation(len(found)) / 100 + rng.random() / 1000 + 0.1
        said.append(np.column_stack([answers, scores, found]))
    return said, truth


def cocoeval(said, truth, crowds=()):
    """AP50 of pycocotools."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    gold, answers = COCO(), []
    gold.dataset = {
        "images": [{"id": n} for n in range(len(truth))],
        "categories": [{"id": 0}, {"id": 1}],
        "annotations": [
            {
                "image_id": n,
                "category_id": int(c),
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": int(side is crowds),
            }
            for side in (truth, crowds)
            for n, rows in enumerate(side)
            for c, *box in rows.tolist()
        ],
    }
    for number, each in enumerate(gold.dataset["annotations"], start=1):
        each["id"] = number
    for n, rows in enumerate(said):
        answers += [
            {"image_id": n, "category_id": int(c), "score": score, "bbox": box}
            for c, score, *box in rows.tolist()
        ]
    with contextlib.redirect_stdout(io.StringIO()):
        gold.createIndex()
        job = COCOeval(gold, gold.loadRes(answers), "bbox")
        job.evaluate()
        job.accumulate()
        job.summarize()
    return job.stats[1]


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_that_of_pycocotools(seed):
    said, truth = scattered(np.random.default_rng(seed), 25)

    assert average_precision(said, truth) == pytest.approx(cocoeval(said, truth), abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_what_is_found_in_crowds_counts_as_in_pycocotools(seed):
    rng = np.random.default_rng(seed)
    said, truth = scattered(rng, 25)
    boxes = rng.uniform([0, 0, 20, 20], [30, 30, 60, 60], (25, 1, 4))
    crowds = [np.insert(each, 0, rng.integers(2), 1) for each in boxes]

    found = average_precision(said, truth, crowds)

    assert found == pytest.approx(cocoeval(said, truth, crowds), abs=1e-9)
    assert found != pytest.approx(average_precision(said, truth), abs=1e-3)


def changed(path, **fields):
    content = json.loads(path.read_text())
    for label in content["annotations"][:4]:
        label |= fields
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("name", ["segment", "detect"])
def test_crowds_are_neither_learnt_nor_missed(tmp_path, name):
    kind = task_of(name)
    split = read(changed(write_toy(tmp_path / "a", 16, seed=0), iscrowd=1), kind)
    whole = read(write_toy(tmp_path / "b", 16, seed=0), kind)
    task = kind(NAMES, 2, (32, 32))

    assert [len(labels) for labels in split.labels] == [0] * 4 + [1] * 12
    for key, targets in task.targets(split).items():
        assert not bool(((targets[:4] > 0) & (targets[:4] < CROWD)).any()), key
    assert task.values(perfect(name, whole), split) == pytest.approx(np.ones(16))


def test_boxes_that_are_missing_are_those_around_masks(tmp_path):
    kind = task_of("detect")
    split = read(changed(write_toy(tmp_path / "a", 16, seed=0), bbox=None), kind)
    whole = read(write_toy(tmp_path / "b", 16, seed=0), kind)

    boxes = [np.array([labels[0].box for labels in each.labels]) for each in (split, whole)]
    assert boxes[0] == pytest.approx(boxes[1], abs=1)
    assert (boxes[0][1] == boxes[1][1]).all()  # a square fills its box


def test_more_categories_than_a_map_has_levels_still_say_where_labels_are(tmp_path):
    names = (*(f"a{number}" for number in range(300)), *NAMES)

    path = write_toy(tmp_path / "a", 8, seed=0)
    split = read_split(open_labelled(path, None, 100), task_of("detect"), (32, 32), names, True)

    assert (split.maps > 0).any((1, 2)).all()


def test_values_of_images_spread_as_the_average_precision_does():
    rng, means, errors = np.random.default_rng(0), [], []
    for _ in range(60):
        values = jackknife(*scattered(rng, 40))
        means.append(values.mean())
        errors.append(values.std(ddof=1) / 40**0.5)

    assert np.mean(errors) == pytest.approx(np.std(means, ddof=1), rel=0.35)


def test_one_category_is_nothing_to_classify():
    with pytest.raises(ConfigError, match="two categories or more, got hand; take another task"):
        task_of("classify")(("hand",), 0, (32, 32))


def test_labels_without_keypoints_are_nothing_to_learn_keypoints_from():
    with pytest.raises(ConfigError, match="no label of the synthetic images has any"):
        task_of("keypoints")(("hand",), 0, (32, 32))


@pytest.mark.parametrize("flags", [(-1, -1), (0, 0)])
def test_a_label_of_which_no_keypoint_is_labelled_is_no_instance(flags):
    joints = [number for x, flag in zip((5, 9), flags, strict=True) for number in (x, 20, flag)]
    label = Annotation(0, bbox=[0, 10, 20, 40], keypoints=joints)

    assert task_of("keypoints").views([label], (30, 48)) == []


@pytest.mark.parametrize("side", [float("inf"), float("nan")])
def test_a_label_whose_box_is_not_finite_is_no_instance(side):
    label = Annotation(0, bbox=[0, 10, side, 40], keypoints=[5, 20, 2])

    assert task_of("keypoints").views([label], (30, 48)) == []


def test_a_crop_around_a_box_stays_within_the_image():
    label = Annotation(0, bbox=[0, 10, 20, 40], keypoints=[5, 20, 2])

    ((region, _),) = task_of("keypoints").views([label], (30, 48))

    assert region == (0, 5, 23, 43)
