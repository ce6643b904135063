"""Workspace and report, saved through the real client to the double of its server."""

import json

import pytest

from moe.config import from_flat
from moe.errors import UserError
from probes.probing import probe_sweep
from sweeps.launching import plan, register_planned
from sweeps.queue.opening import open_sweep
from sweeps.queue.server import prepare
from sweeps.runs.store import RunStore
from sweeps.tracking.record import Remote
from sweeps.training.trial import train
from sweeps.views import dashboard
from sweeps.views.compare import compare
from tests.conftest import TINY, tiny_store


def silent(_line):
    return None


@pytest.fixture
def spec(tmp_path):
    tiny_store()
    lines = [
        "name: little",
        "method: grid",
        "parameters:",
        "  model.experts: {values: [4, 2]}",
        "  seed: {values: [0, 1]}",
    ]
    lines += [f"  {path}: {{value: {value!r}}}" for path, value in (TINY | {"train.epochs": 1}).items()]
    (tmp_path / "little.yaml").write_text("\n".join(lines) + "\n")
    return str(tmp_path / "little.yaml")


@pytest.fixture
def sweep(spec):
    return register_planned(*plan(spec, {}))


def saved_views(server):
    return {view.display_name: view for view in server.state.views.values()}


@pytest.mark.slow
def test_one_dashboard_of_all_that_was_logged_from_any_machine(wandb_server, spec, monkeypatch):
    sweep = register_planned(*plan(spec, {}), "wandb")
    for cell in sweep.cells[::2]:  # a seed of each group
        prepare(Remote.of(str(sweep.address)), cell, sweep.store, [])
        train(from_flat(cell.values), group="little", report=silent)
    probe_sweep(sweep.name, ["similarity"], ["tiny"], silent)
    saved = dashboard.save(sweep)
    views = saved_views(wandb_server)
    assert set(views) == {"sweep little", "Sweep little"}
    start = "probe/tiny/similarity"
    for view in views.values():
        text = json.dumps(view.spec)
        for key in ("val/loss", "balance/cv2", "balance/dead", "agreement/top_k", "agreement/chance_observed",
                    "routing/heatmap", "routing/coactivation", f"{start}/figures/clusters", f"{start}/clusters",
                    f"{start}/tables/members"):  # fmt: skip
            assert f'"{key}"' in text, key
        assert '"stddev"' in text  # bars of a group with intervals
    assert '"analysis"' in json.dumps(views["Sweep little"].spec)
    assert "me/moe" in saved["workspace"]
    assert not wandb_server.seen_text(wandb_server.key)
    # another machine, which has no run: the same views, changed
    ids = {view.id for view in views.values()}
    for view in views.values():
        view.spec = {key: view.spec[key] for key in ("version",) if key in view.spec}
    monkeypatch.setenv("MOE_HOME", str(RunStore().root / "elsewhere"))
    there = open_sweep(str(sweep.address))
    assert dashboard.save(there) == saved
    assert {view.id for view in saved_views(wandb_server).values()} == ids
    assert all(f"{start}/figures/clusters" in json.dumps(view.spec) for view in saved_views(wandb_server).values())
    assert compare(there).notes == [
        "2 runs were finished on another machine; `moe probe --sweep little` fetches the results",
        "2 runs are not finished; `moe sweep resume little` goes on",
    ]


def test_without_runs_on_the_server_the_message_says_what_to_do(wandb_server, sweep):
    with pytest.raises(UserError, match="moe runs sync"):
        dashboard.save(sweep)


def test_without_a_server_too(sweep):
    with pytest.raises(UserError, match="WANDB_MODE=disabled"):
        dashboard.save(sweep)
