"""Keys of a summary in W&B: one thing each, and not too many."""

import json

import pytest

from sweeps.runs.numbers import headlines_of, table_of_numbers
from sweeps.runs.store import RunStore
from sweeps.tracking.media import Picture, Table, wandb_values
from sweeps.tracking.mirror import results_of
from tests.conftest import tiny_config

RESULT = {
    "clusters": 3, "silhouette": 0.5, "silhouette_low": 0.4, "silhouette_high": 0.6, "silhouette_null": 0.1,
    "silhouette_p": 0.01, "low": 2.0, "untrained/silhouette": 0.2, "pixels/clusters": 4, "undefined": None,
    "options": {"seed": 0}, "notes": ["expert 3 is dead"],
}  # fmt: skip


@pytest.fixture
def run(isolated):
    """With results whose number, figure and table bear one name."""
    made = RunStore().create(tiny_config(seed=3))
    folder = made.probe("tiny", "similarity")
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(RESULT))
    (folder / "clusters.png").write_bytes(b"")
    (folder / "clusters.csv").write_text("E,members\nall,4\n")
    (folder / "silhouette.csv").write_text("clusters,silhouette\n2,0.5\n")
    return made


def test_no_key_is_two_things(run):
    values, start = results_of(run, "tiny", "similarity"), "probe/tiny/similarity"
    assert {key for key, value in values.items() if isinstance(value, Picture)} == {f"{start}/figures/clusters"}
    assert {key for key, value in values.items() if isinstance(value, Table)} == {
        f"{start}/tables/{name}" for name in ("clusters", "silhouette", "all_numbers")
    }
    assert (values[f"{start}/clusters"], values[f"{start}/silhouette"]) == (3, 0.5)


def test_intervals_null_values_and_baselines_are_in_a_table_beside_their_number():
    assert headlines_of("a", RESULT) == {"a/clusters": 3, "a/silhouette": 0.5, "a/silhouette_p": 0.01, "a/low": 2.0}
    header, *rows = table_of_numbers(RESULT)
    assert header == ["number", "value", "low", "high", "null", "untrained", "pixels"]
    assert rows == [
        ["clusters", 3, None, None, None, None, 4],
        ["silhouette", 0.5, 0.4, 0.6, 0.1, 0.2, None],
        ["silhouette_p", 0.01, None, None, None, None, None],
        ["low", 2.0, None, None, None, None, None],
    ]


def test_tables_of_a_run_say_whose_they_are(run):
    values = wandb_values({
        key.rpartition("/")[2]: value for key, value in results_of(run, "tiny", "similarity").items()
        if isinstance(value, Table)
    })  # fmt: skip
    assert (values["silhouette"].columns, values["silhouette"].data) == (
        ["E", "seed", "clusters", "silhouette"], [[4, 3, 2.0, 0.5]],
    )  # fmt: skip
    assert values["clusters"].columns == ["seed", "E", "members"]  # it has a column E of its own
    assert values["all_numbers"].data[1][:4] == [4, 3, "silhouette", 0.5]
