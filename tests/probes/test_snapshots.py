"""Whose a model is that lies in a run's folder."""

import pytest

from moe.errors import UserError
from moe.export import export_model
from moe.model import build_model
from probes.baselines import initial_snapshot
from probes.snapshots import final_snapshot
from sweeps.runs.store import RunStore
from tests.conftest import tiny_config


@pytest.fixture
def run():
    return RunStore().create(tiny_config())


def export(run, run_id):
    config = run.config
    export_model(
        build_model(config.model, config.gate), run.model, run_id=run_id, seed=config.seed, epoch=2, data=config.data,
        mean=(0.5,) * 3, sd=(0.2,) * 3, data_digest="0",
    )  # fmt: skip


def test_the_model_of_another_run_is_none_of_this_one(run):
    export(run, run.id)
    assert final_snapshot(run).card.run_id == initial_snapshot(run).card.run_id == run.id
    export(run, "0123456789ab")  # of the same shape: its folder was copied, say
    for snapshot in (final_snapshot, initial_snapshot):
        with pytest.raises(
            UserError, match=f"{run.model} holds the model of run 0123456789ab; move it away, and train"
        ):
            snapshot(run)
