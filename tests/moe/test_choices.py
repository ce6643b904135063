"""What can be chosen is listed with its options."""

import pytest

from moe.choices import KINDS, listing
from moe.config import from_flat, parameter_types
from moe.errors import UserError


@pytest.mark.parametrize("kind", KINDS)
def test_everything_is_listed_with_settings_that_exist(kind):
    shown = listing(kind)
    assert [one["name"] for one in shown[kind]] == list(KINDS[kind])
    assert shown["broken"] == {}
    for one in shown[kind]:
        assert one["about"]
        assert {option["name"] for option in one["options"]} <= set(parameter_types())
        assert all(option["about"] for option in one["options"])


def test_options_are_given_with_their_defaults():
    gates = {one["name"]: one for one in listing("gates")["gates"]}
    assert gates["noisy_top_k"]["chosen_by"] == "gate.kind=noisy_top_k"
    assert gates["noisy_top_k"]["options"][0]["name"] == "gate.noisy"
    assert gates["noisy_top_k"]["options"][0]["default"] == "true"
    losses = {one["name"]: one for one in listing("losses")["losses"]}
    assert [option["default"] for option in losses["importance"]["options"]] == ["0.1"]
    (objective,) = (one for one in listing("objectives")["objectives"] if one["name"] == "contrastive")
    assert [option["name"] for option in objective["options"]] == ["loss.temperature", "loss.projection"]


def test_how_a_thing_is_chosen_is_how_it_is_chosen():
    for one in listing("gates")["gates"]:
        path, _, name = one["chosen_by"].partition("=")
        assert from_flat({path: name}).gate.kind == name


def test_an_unknown_list_is_answered():
    with pytest.raises(UserError, match='unknown list "gate": did you mean "gates"'):
        listing("gate")
