"""Conditions on runs, as one writes them."""

import pytest

from moe.errors import UserError
from sweeps.views.query import parse

ROWS = [
    {"id": "a", "model.experts": 4, "gate.noisy": True, "data.name": "stl10", "val/loss": 4.5},
    {"id": "b", "model.experts": 8, "gate.noisy": False, "data.name": "STL10-small", "val/loss": 5.5},
    {"id": "c", "model.experts": 8, "gate.noisy": True, "data.name": "black and white", "val/loss": 1e-6},
    {"id": "d", "model.experts": 16, "gate.noisy": True, "data.name": "a=b"},
]
KNOWN = {key for row in ROWS for key in row}


def chosen(text):
    return "".join(str(ROWS[place]["id"]) for place in parse(text).select(ROWS, KNOWN))


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("model.experts=8", "bc"),
        ("model.experts==8 and val/loss<5", "c"),
        ("model.experts=8 AND val/loss>5 or id=d", "bd"),
        ("val/loss<=4.5", "ac"),
        ("val/loss<1e-5", "c"),
        ("val/loss>=-1e3", "abc"),
        ("val/loss=none", "d"),
        ("val/loss!=none", "abc"),
        ("model.experts!=8", "ad"),
        ("val/loss!=4.5", "bc"),  # what is not there is neither
        ("gate.noisy=true", "acd"),
        ("gate.noisy=false", "b"),
        ("gate.noisy=1", ""),
        ("data.name=stl10", "a"),
        ("data.name~stl", "ab"),
        ("data.name='black and white'", "c"),
        ('data.name="a=b"', "d"),
        ("  id = a  or  id = b ", "ab"),
    ],
)
def test_rows_that_meet_a_condition(text, ids):
    assert chosen(text) == ids


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is no condition; write one as in: model.experts=8 and val/loss<5"),
        ("model.experts", "is no condition"),
        ("model.experts=", "is no condition"),
        ("=8", "is no condition"),
        ("model.experts=8 and", "is no condition"),
        ("val/loss<small", "small is no number; < compares numbers"),
        ("experts=8", 'no run has "experts": did you mean "model.experts"?'),
        ("data.name<3", "which is neither more nor less; use = or ~"),
        ("val/loss=[1", "is not a value in YAML"),
    ],
)
def test_what_is_no_condition_is_one_sentence(text, why):
    with pytest.raises(UserError, match=why):
        chosen(text)
