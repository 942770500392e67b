"""Gates of plugins: what they refuse is taken back, and none is passed over in silence."""

import importlib

import numpy as np
import pytest
from plugged import plugged
from scenes import LOOKS, label, scene, shifted

from simgan_aug.audit import Guard, Limits
from simgan_aug.audit.gates import Gates
from simgan_aug.audit.guard import POLICIES, STEPS
from simgan_aug.coco import Annotation
from simgan_aug.data import BatchRefiner
from simgan_aug.errors import ConfigError, PluginError
from simgan_aug.pixels import blend

GATES = """
    import numpy as np
    from simgan_aug import hookimpl

    seen = []

    def dark(old, new, annotations):
        seen.append((old, new, annotations))
        lost = old.mean() - new.mean()
        return [f"{lost:.1f} levels darker"] if lost > 12 else []

    def never(old, new, annotations):
        return ("one", "two")

    def raises(old, new, annotations):
        raise KeyError("no such thing")

    def writes(old, new, annotations):
        new[:] = old
        return []

    @hookimpl
    def simgan_register_gates():
        return {
            "dark": dark,
            "never": never,
            "raises": raises,
            "writes": writes,
            "yes": lambda old, new, annotations: True,
            "none": lambda old, new, annotations: None,
            "text": lambda old, new, annotations: "too dark",
            "numbers": lambda old, new, annotations: [1],
            "nothing": lambda old, new: [],
        }
"""

WIDE = Limits(displacement=50, local=50, contour=-1, content=-2, contrast=-1, colour=500)


@pytest.fixture(autouse=True)
def gates(tmp_path):
    with plugged(tmp_path / "site", gates_plugin=GATES):
        yield


def darker(by):
    return (scene() - np.minimum(scene(), by)).astype(np.uint8)


def test_an_image_that_passes_gates_is_the_same_object():
    new = darker(5)

    out, done = Guard(gates=["dark"])(scene(), new, [label()])

    assert out is new
    assert done.is_untouched


@pytest.mark.parametrize("policy", POLICIES)
def test_what_a_gate_refuses_is_blended_back_until_it_passes(policy):
    old, new = scene(), darker(40)

    out, done = Guard(policy, WIDE, ("dark",))(old, new, [label()])

    assert Guard(policy, WIDE)(old, new, [label()])[1].is_untouched  # of the gate alone
    assert len(importlib.import_module("gates_plugin").seen) <= STEPS  # labels are not tried
    assert np.array_equal(out, blend(old, new, done.strength))
    assert 0 < done.strength < 1
    assert Gates(["dark"])(old, out, []) == []
    assert Gates(["dark"])(old, blend(old, new, done.strength + 1 / STEPS), []) != []
    assert done.labels == []
    lost = old.mean() - new.mean()
    assert done.failures == [f"gate dark: {lost:.1f} levels darker"]


def test_labels_are_taken_back_first_and_the_whole_where_that_leaves_a_gate_unsatisfied():
    old, moved = scene(), shifted(scene(), 6)
    dark = (moved - np.minimum(moved, 40)).astype(np.uint8)

    _, lit = Guard("label", gates=("dark",))(old, moved, [label()])
    out, done = Guard("label", gates=("dark",))(old, dark, [label()])

    assert (lit.strength, [id for id, _ in lit.labels]) == (1, [label().id])
    assert not any(reason.startswith("gate") for reason in lit.failures)
    assert done.strength < 1
    assert done.labels == []
    assert "displacement" in done.failures
    assert done.failures[-1].startswith("gate dark: ")
    assert Guard("image", gates=("dark",))(old, out, [label()])[1].is_untouched


def test_of_an_image_that_a_gate_never_lets_pass_the_original_is_left():
    out, done = Guard("label", gates=("never", "dark"))(scene(), darker(5), [label()])

    assert np.array_equal(out, scene())
    assert done.strength == 0
    assert done.failures == ["gate never: one", "gate never: two"]


def test_a_gate_sees_what_is_saved_and_the_annotations_of_the_image():
    from gates_plugin import seen

    caption, held = Annotation(image_id=1, id=5), label()

    Guard(gates=("dark",))(scene(), darker(5), [caption, held], saved=lambda pixels: pixels + 1)
    Guard(gates=("dark",))(scene(), darker(5))

    (old, new, annotations), (_, _, unknown) = seen
    assert np.array_equal(old, scene())
    assert np.array_equal(new, darker(5) + 1)
    assert (old.dtype, new.dtype) == (np.uint8, np.uint8)
    assert annotations == [caption, held]
    assert unknown == []  # cells are no labels


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("raises", "KeyError: 'no such thing'"),
        ("writes", "ValueError: assignment destination is read-only"),
        ("nothing", "TypeError: .*argument"),
        ("yes", "expected a list of reasons, .*got True"),
        ("none", "expected a list of reasons, .*got None"),
        ("text", "expected a list of reasons, .*got 'too dark'"),
        ("numbers", r"expected a list of reasons, .*got \[1\]"),
    ],
)
def test_a_broken_gate_is_named_with_its_plugin_and_passes_nothing(name, said):
    new = LOOKS["darker"](scene())

    who = f"gate '{name}' of 'gates_plugin' of gates_plugin-dist 1.2: {said}"
    with pytest.raises(PluginError, match=who):
        Guard(gates=(name,))(scene(), new, [label()])


def test_an_unknown_gate_is_answered_with_the_nearest():
    with pytest.raises(PluginError, match=r"no gate named 'drak' \(known: .*did you mean 'dark'"):
        Guard(gates=("drak",))


def test_gates_are_a_list_of_names():
    for gates in ("dark", [len]):
        with pytest.raises(ConfigError, match="expected a list of names of gates"):
            Guard(gates=gates)


def test_a_batch_is_held_to_gates_and_a_broken_one_is_named_with_the_image(refiner_file):
    images = np.stack([scene(0), scene(1)])
    options = {"p": 1.0, "device": "cpu"}

    kept = BatchRefiner(refiner_file, guard=Guard("image", gates=("never",)), **options)
    broken = BatchRefiner(refiner_file, guard=Guard("image", gates=("raises",)), **options)

    assert np.array_equal(kept(images), images)
    assert kept.guarded == {"images": 2, "kept": 2}
    with pytest.raises(PluginError, match=r"image 0 of the batch: gate 'raises' of"):
        broken(images)
