"""What a probe is given."""

from dataclasses import replace

import numpy as np

from probes.subject import Subject, evenly, rated_rows, representative_rows
from probes.testing import example_subject
from tests.probes.suite.made import store_of


def test_rows_to_look_at(tmp_path):
    assert evenly(5, 9).tolist() == [0, 1, 2, 3, 4]
    assert evenly(9, 3).tolist() == [0, 4, 8]
    factors = np.full((6, 2), np.nan, np.float32)
    factors[[1, 2, 5]] = 1
    rated = store_of(tmp_path, [0] * 6, ["a"], factors_NF=factors, factors=("x", "y"))
    assert rated_rows(rated).tolist() == representative_rows(rated).tolist() == [1, 2, 5]
    assert representative_rows(rated, 2).tolist() == [1, 5]
    assert representative_rows(store_of(tmp_path, [0] * 6, ["a"]), 2).tolist() == [0, 5]


def test_a_subject_knows_its_dead_experts_and_units(tmp_path):
    s = example_subject(tmp_path, dead=(0, 3))
    assert s.dead() == [0, 3]
    assert isinstance(s, Subject)
    assert np.unique(s.units).tolist() == list(range(60))
    assert s.title == f"run {s.run.id}"
    assert replace(s, epoch=3).title == f"run {s.run.id} after epoch 3"
