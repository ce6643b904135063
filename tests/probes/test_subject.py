"""What a probe is given."""

import json
from dataclasses import replace

import numpy as np

from callbacks.keys import fewest_views
from probes.subject import Subject, evenly, few_notes, rated_rows, representative_rows
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


def trained(subject, *epochs):
    """Write a history in which the experts had so few views in some step of each epoch."""
    rows = [
        {"epoch": number} | {fewest_views(expert): float(count) for expert, count in enumerate(fewest)}
        for number, fewest in enumerate(epochs, 1)
    ]
    subject.run.history_file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_experts_with_few_views_a_step_are_named(tmp_path):
    one = example_subject(tmp_path / "1")
    assert one.few() == {}
    assert few_notes([one]) == []  # a run whose training did not count them
    trained(one, [1, 90, 90, 90], [40, 16, 15, 0])
    assert one.few() == {2: 15, 3: 0}
    assert replace(one, epoch=1).few() == {0: 1}
    (note,) = few_notes([one])
    assert note.startswith("experts 2 (15), 3 (0): under 16 views in some training step")
    other = example_subject(tmp_path / "2", seed=1)
    trained(other, [20, 20, 2, 20])
    assert few_notes([other, other])[0].startswith("expert 2 (2): under 16")
    assert [note.partition(":")[0] for note in few_notes([one, other])] == [
        f"experts 2 (15), 3 (0) of run {one.run.id}", f"expert 2 (2) of run {other.run.id}",
    ]  # fmt: skip
