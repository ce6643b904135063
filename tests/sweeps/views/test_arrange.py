"""A comparison as one asks for it."""

import pytest
from rich.console import Console

from moe.errors import UserError
from sweeps.views import compare
from sweeps.views.arrange import arranged, fitting
from tests.sweeps.views.test_compare import sweep  # noqa: F401


@pytest.fixture
def whole(sweep):  # noqa: F811
    return compare.compare(sweep)


def labels(comparison):
    return [group.label for group in comparison.groups]


def test_columns_by_name_by_key_and_for_all_images_of_a_probe(whole):
    assert arranged(whole, columns="val/loss, gate r2").columns == ["val loss", "gate r2 [tiny]"]
    assert arranged(whole, columns="CV2,CV2").columns == ["CV2"]
    assert arranged(whole, columns="all").columns == whole.columns
    with pytest.raises(UserError, match='no run has a column "gate r3": did you mean'):
        arranged(whole, columns="gate r3")


def test_sorted_by_a_number_a_key_or_a_parameter_either_way(whole):
    losses = ["experts=4 noisy=True", "experts=8 noisy=True", "experts=4 noisy=False", "experts=8 noisy=False"]
    assert labels(arranged(whole, sort="val loss")) == losses  # 2 and 2 keep their order, 5, 7
    assert labels(arranged(whole, sort="-val/loss")) == [losses[3], losses[2], losses[0], losses[1]]
    assert labels(arranged(whole, sort="-model.experts"))[0].startswith("experts=8")
    with pytest.raises(UserError, match='nothing to sort by is called "loss"'):
        arranged(whole, sort="loss")


def test_groups_that_meet_a_condition(whole):
    assert labels(arranged(whole, where="val/loss<3 and model.experts=8")) == ["experts=8 noisy=True"]
    assert labels(arranged(whole, where="n<3")) == ["experts=8 noisy=False"]
    assert labels(arranged(whole, where="gate r2 [tiny]>=0.1")) == labels(whole)[:3]
    with pytest.raises(UserError, match="no run has"):
        arranged(whole, where="val/lost<3")


def test_a_narrow_terminal_gets_what_tells_most_and_is_told_of_the_rest(whole, capsys):
    narrow = fitting(whole, 75)
    assert narrow.columns[0] == "val loss"
    assert set(narrow.columns) < set(whole.columns)
    left = [column for column in whole.columns if column not in narrow.columns]
    assert all(column in narrow.notes[-1] for column in left)
    Console(width=75).print(compare.terminal_table(narrow))
    assert max(len(line.rstrip()) for line in capsys.readouterr().out.splitlines()) <= 75
    assert set(fitting(whole, 1000).columns) == set(whole.columns)
    assert fitting(whole, 1000).notes == whole.notes


def test_nothing_left_is_a_table_without_rows(whole):
    nothing = arranged(whole, where="model.experts=99")
    assert nothing.groups == []
    assert fitting(nothing, 80).columns
