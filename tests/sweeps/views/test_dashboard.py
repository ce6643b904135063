"""Workspace and report, saved through the real client to the double of its server."""

import json

import pytest

from moe.errors import UserError
from probes.probing import probe_run
from sweeps.launching import plan, register_planned
from sweeps.training.trial import train
from sweeps.views import dashboard
from tests.conftest import TINY, tiny_config, tiny_store


@pytest.fixture
def sweep(tmp_path):
    tiny_store()
    lines = [
        "name: little",
        "method: grid",
        "parameters:",
        "  model.experts: {values: [4]}",
        "  seed: {values: [0, 1]}",
    ]
    lines += [f"  {path}: {{value: {value!r}}}" for path, value in (TINY | {"train.epochs": 1}).items()]
    (tmp_path / "little.yaml").write_text("\n".join(lines) + "\n")
    return register_planned(*plan(str(tmp_path / "little.yaml"), {}))


@pytest.mark.slow
def test_panels_of_everything_that_was_logged(wandb_server, sweep):
    for seed in range(2):
        run = train(tiny_config(train__epochs=1, seed=seed), group="little", report=lambda _line: None)
    probe_run(run.id, ["routing"], ["tiny"], lambda _line: None)
    saved = dashboard.save(sweep)
    workspace, report = (next(view for view in wandb_server.state.views.values() if view.type == kind)
                         for kind in ("project-view", "runs"))  # fmt: skip
    assert workspace.display_name == "sweep little"
    assert report.display_name == "Sweep little"
    for view in (workspace, report):
        for key in ("val/loss", "balance/cv2", "balance/dead", "agreement/top_k", "agreement/chance_observed",
                    "routing/heatmap", "routing/coactivation", "probe/tiny/routing/figures/routing"):  # fmt: skip
            assert f'"{key}"' in json.dumps(view.spec)
        assert '"little"' in json.dumps(view.spec)
    assert "me/moe" in saved["workspace"]
    assert not wandb_server.seen_text(wandb_server.key)


def test_without_runs_on_the_server_the_message_says_what_to_do(wandb_server, sweep):
    with pytest.raises(UserError, match="moe runs sync"):
        dashboard.save(sweep)


def test_without_a_server_too(sweep):
    with pytest.raises(UserError, match="WANDB_MODE=disabled"):
        dashboard.save(sweep)
