"""Limits: names and numbers that can be compared with."""

import dataclasses

import pytest
from scenes import label, scene, shifted

from simgan_aug.audit import MEASURES, Limits, audit
from simgan_aug.audit.limits import LOW_IS_BAD
from simgan_aug.errors import ConfigError

NUMBERS = [float("nan"), float("inf"), float("-inf")]
"""That JSON does not have."""


def test_every_measure_has_a_limit():
    names = {field.name for field in dataclasses.fields(Limits)}

    assert names == {*MEASURES, "appeared"}
    assert {*MEASURES} >= LOW_IS_BAD


def test_some_are_replaced_and_the_others_stay():
    assert Limits.of({"local": 3, "colour": 9.5}) == Limits(local=3, colour=9.5)
    assert Limits.of({}) == Limits()


@pytest.mark.parametrize(
    ("name", "near"), [("displacment", "displacement"), ("color", "colour"), ("Local", "local")]
)
def test_an_unknown_name_is_an_error_that_names_the_nearest(name, near):
    with pytest.raises(ConfigError, match=f"no limit named '{name}'.*did you mean '{near}'"):
        Limits.of({name: 1.0})


@pytest.mark.parametrize("value", [*NUMBERS, True, False, None, "1", [1.0]])
@pytest.mark.parametrize("name", ["displacement", "appeared"])
def test_what_is_no_number_is_an_error_that_shows_it(name, value):
    with pytest.raises(ConfigError, match=f"limit {name} must be a finite number, got"):
        Limits.of({name: value})


@pytest.mark.parametrize("moved", [1.0, 2.0])
def test_a_limit_says_from_where_on_a_label_has_moved(moved):
    new = shifted(scene(), moved)
    limits = Limits(displacement=1.5, local=1.5)

    (found,) = audit(scene(), new, [label()], limits=limits).labels

    assert ("displacement" in found.failures) == (moved > 1.5)
    assert ("local" in found.failures) == (moved > 1.5)


def test_limits_that_nothing_reaches_switch_their_measures_off():
    far, low = 1e6, -1
    limits = Limits(
        **{name: low if name in LOW_IS_BAD else far for name in [*MEASURES, "appeared"]}
    )

    assert audit(scene(), shifted(scene(), 5), [label()], limits=limits).passes
