"""The real client logs, resumes, syncs and reads runs through the double."""

import json

import numpy as np
import pytest

pytestmark = pytest.mark.slow


def test_a_run_arrives_whole(wandb_server):
    import wandb

    config = {"model": {"top_k": 2}, "seed": 0}
    with wandb.init(project="moe", id="aa", group="paper", job_type="train", tags=["quick"], config=config) as run:
        run.define_metric("train/*", step_metric="epoch", summary="min,last")
        for epoch in range(4):
            run.log({"epoch": epoch, "train/loss": 1 / (epoch + 1)})
        run.log({
            "map": wandb.Image(np.zeros((4, 4, 3), dtype=np.uint8)),
            "table": wandb.Table(columns=["expert", "share"], data=[[0, 0.5], [1, 0.5]]),
        })  # fmt: skip
        run.summary["best"] = 0.25
    there = wandb_server.run("aa")
    assert (there.state, there.exit_code) == ("finished", 0)
    assert (there.group, there.job_type, there.tags, there.config) == ("paper", "train", ["quick"], config)
    assert [row["_step"] for row in there.history] == [0, 1, 2, 3, 4]
    assert there.series("train/loss") == [1, 1 / 2, 1 / 3, 1 / 4]
    assert there.summary["train/loss"] == {"min": 0.25, "last": 0.25}
    assert there.summary["best"] == 0.25
    assert there.events, "system metrics"
    assert wandb_server.content(there, there.summary["map"]["path"]).startswith(b"\x89PNG")
    assert json.loads(wandb_server.content(there, there.summary["table"]["path"]))["data"] == [[0, 0.5], [1, 0.5]]
    assert wandb_server.artifact("run-aa-table:latest").type == "run_table"


def test_a_failed_run_says_so(wandb_server):
    import wandb

    run = wandb.init(project="moe", id="aa")
    run.finish(exit_code=3)
    assert (wandb_server.run("aa").state, wandb_server.run("aa").exit_code) == ("failed", 3)


def test_a_resumed_run_goes_on_behind_its_history(wandb_server):
    import wandb

    for segment in range(2):
        with wandb.init(project="moe", id="aa", resume="allow", config={"seed": 0}) as run:
            assert (run.resumed, run.starting_step) == (segment == 1, 2 * segment)
            for epoch in (2 * segment, 2 * segment + 1):
                run.log({"epoch": epoch})
    there = wandb_server.run("aa")
    assert there.series("epoch") == [0, 1, 2, 3]
    assert there.series("_step") == [0, 1, 2, 3]
    assert there.state == "finished"


def test_must_resume_wants_a_run(wandb_server):
    import wandb

    with pytest.raises(wandb.errors.UsageError, match="does not exist"):
        wandb.init(project="moe", id="nowhere", resume="must")
    assert not wandb_server.runs()


def test_the_public_api_reads_what_was_logged(wandb_server):
    import wandb

    for number, seed in enumerate((0, 1)):
        config = {"seed": seed, "model": {"top_k": 2}}
        with wandb.init(project="moe", id=f"run{seed}", group="paper", config=config) as run:
            for step in range(3):
                run.log({"loss": number + step})
    api = wandb.Api()
    run = api.run("me/moe/run1")
    assert (run.state, run.config["seed"], run.summary["loss"]) == ("finished", 1, 3)
    assert [row["loss"] for row in run.history(keys=["loss"], pandas=False)] == [1, 2, 3]
    assert [row["loss"] for row in run.history(pandas=False)] == [1, 2, 3]
    assert [row["loss"] for row in run.scan_history()] == [1, 2, 3]
    assert [row["loss"] for row in run.scan_history(keys=["loss"], page_size=2)] == [1, 2, 3]
    assert {"config.yaml", "wandb-summary.json"} <= {file.name for file in run.files()}


def test_the_public_api_finds_runs(wandb_server):
    import wandb

    for seed in (0, 1):
        config = {"seed": seed, "model": {"top_k": 2}}
        wandb.init(project="moe", id=f"run{seed}", group="paper", config=config).finish()

    def found(**options):
        return [run.id for run in wandb.Api().runs("me/moe", **options)]

    assert found(filters={"config.seed": 1}) == ["run1"]
    assert found(filters={"group": "paper"}, order="-created_at") == ["run1", "run0"]
    assert found(filters={"config.model.top_k": {"$gt": 1}, "state": "finished"}, per_page=1) == ["run0", "run1"]
    assert found(filters={"$or": [{"name": "run0"}, {"tags": "none"}]}) == ["run0"]


def test_the_public_api_changes_a_finished_run_and_leaves_it_finished(wandb_server):
    import wandb

    with wandb.init(project="moe", id="aa", config={"seed": 0}) as run:
        run.log({"loss": 1})
    run = wandb.Api().run("me/moe/aa")
    run.summary["probe/accuracy"] = 0.5
    run.summary.update()
    run.tags.append("probed")
    run.update()
    there = wandb_server.run("aa")
    assert (there.summary["loss"], there.summary["probe/accuracy"]) == (1, 0.5)
    assert (there.tags, there.config, there.state) == (["probed"], {"seed": 0}, "finished")
    run.delete()
    assert wandb_server.state.deleted == ["me/moe/aa"]
    with pytest.raises(wandb.errors.CommError, match="Could not find run"):
        wandb.Api().run("me/moe/aa")


def test_a_wrong_key_is_refused_and_no_key_is_stored(wandb_server, monkeypatch):
    import wandb

    with wandb.init(project="moe", id="aa") as run:
        run.log({"loss": 1})
    assert wandb_server.seen_text("loss")
    assert not wandb_server.seen_text(wandb_server.key)
    wandb.teardown()
    monkeypatch.setenv("WANDB_API_KEY", "f" * 40)
    with pytest.raises(wandb.errors.CommError, match="invalid API key"):
        wandb.init(project="moe", id="bb")
    assert [run.name for run in wandb_server.runs()] == ["aa"]


def test_media_in_the_summary_leave_the_history_alone(wandb_server):
    """How results join a finished run: a second time replaces them."""
    import wandb

    with wandb.init(project="moe", id="aa", job_type="train") as run:
        run.log({"loss": 1})
    for share in (0.25, 0.75):
        with wandb.init(project="moe", id="aa", resume="must") as run:
            run.summary["probe/table"] = wandb.Table(columns=["share"], data=[[share]])
            run.summary["probe/share"] = share
    there = wandb_server.run("aa")
    assert (there.series("loss"), len(there.history), there.job_type) == ([1], 1, "train")
    assert (there.summary["loss"], there.summary["probe/share"]) == (1, 0.75)
    table = json.loads(wandb_server.content(there, there.summary["probe/table"]["path"]))
    assert table["data"] == [[0.75]]
