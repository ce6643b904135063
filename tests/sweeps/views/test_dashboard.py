"""Workspace and report, saved through the real client to the double of its server."""

import io
import json

import PIL.Image
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


def within(node, key):
    """Every mapping with a key, anywhere in a view."""
    if isinstance(node, dict) and key in node:
        yield node
    for part in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from within(part, key)


def asked_for(view):
    """Keys of the history or the summary that the panels of a view ask for."""
    for panel in within(view.spec, "viewType"):
        config = panel["config"]
        yield from [*config.get("metrics", ()), *config.get("mediaKeys", ())]
        yield from [config["xAxis"]] if config.get("xAxis") else []
        columns = (column["accessor"].partition(":") for column in config.get("columns", ()))
        yield from (key for section, _, key in columns if section == "summary")
        yield from (
            one["val"] for one in within(config, "val") if one["type"] == "string" and "/" in one["val"]
        )  # tables


def selects(view, run):
    """Whether the first set of runs of a view shows a run."""
    return holds(next(within(view.spec, "filterFormat"))["filters"], run)


def holds(filters, run):
    fields = {"group": run.group, "name": run.name, "jobType": run.job_type, "sweep": run.sweep}
    found = None
    for one in filters:
        if "filters" in one:
            true = holds(one["filters"], run)
        else:
            have, want = fields[one["key"]["name"]], one["value"]
            true = {"=": have == want, "!=": have != want, "IN": have in want}[one["op"]]
        found = true if found is None else (found or true) if one["connector"] == "OR" else (found and true)
    return found


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
    logged = {key for run in wandb_server.runs() for row in (run.summary, *run.history) for key in row}
    for view in views.values():
        keys = set(asked_for(view))
        assert len(keys) > 20
        assert keys <= logged
        assert {key for key in keys if "/tables/" in key}
    for run in wandb_server.runs():
        for value in run.summary.values():
            if isinstance(value, dict) and value.get("_type") == "image-file":
                with PIL.Image.open(io.BytesIO(wandb_server.content(run, value["path"]))) as picture:
                    picture.verify()
                assert (picture.format, picture.size) == ("PNG", (value["width"], value["height"]))
                assert 200 <= min(picture.size) <= max(picture.size) <= 2000, value["path"]
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
    assert compare(there).said == [
        "2 runs were finished on another machine: `moe probe --sweep little`",
        "2 runs are not finished: `moe sweep resume little`",
    ]


def test_runs_that_another_sweep_trained_first_are_shown(wandb_server, sweep):
    """And one run of a cell, though a third sweep may have trained it under another id."""
    summary = {"val/loss": 1.0, "epoch": 2}
    mine, theirs, renamed, coming = [cell.run_id for cell in sweep.cells]
    known = [
        (mine, "little", mine, "train"),
        (theirs, "other", theirs, "train"),
        (renamed, "other", "ab12cd34", "train"),
        (mine, "other", "ef56ab78", "train"),
        ("0" * 12, "other", "0" * 12, "train"),
        ("", "little", "analysis-1", "analysis"),
    ]
    runs = []
    for identity, group, name, kind in known:
        run = wandb_server.state.make_run("me", "moe", name)
        run.raw_config = {"identity": {"value": identity}} if identity else {}
        run.group, run.job_type, run.summary = group, kind, summary
        runs.append(run)
    dashboard.save(sweep)
    for view in saved_views(wandb_server).values():
        assert [run.name for run in runs if selects(view, run)] == [mine, theirs, "ab12cd34"]
    runs[0].name, runs[0].group = coming, "other"  # another sweep was faster
    assert selects(view, runs[0])


def test_panels_ask_for_nothing_that_no_run_has_logged(wandb_server, sweep):
    run = wandb_server.state.make_run("me", "moe", sweep.cells[0].run_id)
    run.group, run.job_type, run.summary = "little", "train", {"val/loss": 1.0, "epoch": 2}
    dashboard.save(sweep)
    for view in saved_views(wandb_server).values():
        assert set(asked_for(view)) == {"val/loss", "epoch"}


def test_without_runs_on_the_server_the_message_says_what_to_do(wandb_server, sweep):
    with pytest.raises(UserError, match="moe runs sync"):
        dashboard.save(sweep)


def test_without_a_server_too(sweep):
    with pytest.raises(UserError, match="WANDB_MODE=disabled"):
        dashboard.save(sweep)
