"""Offline runs of the real client and `wandb sync`, through the double."""

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def offline(wandb_server, monkeypatch):
    """Logs a segment of a run offline and gives its folder."""
    import wandb

    def segment(name, epochs, **options):
        monkeypatch.setenv("WANDB_MODE", "offline")
        run = wandb.init(project="moe", id=name, config={"seed": 0}, **options)
        for epoch in epochs:
            run.log({"epoch": epoch})
        folder = run.settings.sync_dir
        run.finish()
        wandb.teardown()
        monkeypatch.setenv("WANDB_MODE", "online")
        return folder

    return segment


def sync(server, *arguments):
    process = server.client("sync", *arguments)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output


def test_segments_become_one_run(wandb_server, offline):
    """With resume="allow" the later segment's steps are moved behind the earlier's, together and one by one."""
    together = [offline("aa", (0, 1), resume="allow"), offline("aa", (2, 3), resume="allow")]
    apart = [offline("bb", (0, 1), resume="allow"), offline("bb", (2, 3), resume="allow")]
    assert not wandb_server.calls
    sync(wandb_server, *reversed(together))
    for folder in apart:
        sync(wandb_server, folder)
    for name in ("aa", "bb"):
        there = wandb_server.run(name)
        assert (there.series("epoch"), there.series("_step")) == ([0, 1, 2, 3], [0, 1, 2, 3])
        assert (there.state, there.config, there.summary["epoch"]) == ("finished", {"seed": 0}, 3)


def test_without_resume_the_steps_begin_again(wandb_server, offline):
    """Nothing is lost, but the history is no longer in the order of its steps."""
    for epochs in ((0, 1), (2, 3)):
        sync(wandb_server, offline("aa", epochs))
    there = wandb_server.run("aa")
    assert (there.series("epoch"), there.series("_step")) == ([0, 1, 2, 3], [0, 1, 0, 1])


def test_a_synced_folder_is_marked_and_skipped(wandb_server, offline):
    folder = offline("aa", (0, 1))
    sync(wandb_server, folder)
    assert wandb_server.run("aa").series("epoch") == [0, 1]
    calls = len(wandb_server.calls)
    sync(wandb_server, folder)
    assert len(wandb_server.calls) == calls


def test_syncing_what_has_arrived_doubles_it(wandb_server, offline):
    """Which is why whoever syncs must know what is there already."""
    folder = offline("aa", (0, 1), resume="allow")
    sync(wandb_server, folder)
    sync(wandb_server, "--include-synced", folder)
    assert wandb_server.run("aa").series("epoch") == [0, 1, 0, 1]


def test_artifacts_and_media_are_synced(wandb_server, offline, tmp_path, monkeypatch):
    import numpy as np
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    weights = tmp_path / "model.bin"
    weights.write_text("weights")
    with wandb.init(project="moe", id="aa", group="paper", job_type="train", tags=["quick"]) as run:
        run.log({"map": wandb.Image(np.zeros((4, 4, 3), dtype=np.uint8)), "table": wandb.Table(["a"], [[1]])})
        artifact = wandb.Artifact("model-aa", "model")
        artifact.add_file(str(weights))
        run.log_artifact(artifact, aliases=["best"])
        folder = run.settings.sync_dir
    weights.unlink()  # a copy waits in the staging folder of WANDB_DATA_DIR
    wandb.teardown()
    monkeypatch.setenv("WANDB_MODE", "online")
    sync(wandb_server, folder)
    there = wandb_server.run("aa")
    assert (there.group, there.job_type, there.tags) == ("paper", "train", ["quick"])
    assert wandb_server.content(there, there.summary["map"]["path"]).startswith(b"\x89PNG")
    assert wandb_server.content(wandb_server.artifact("model-aa:best"), "model.bin") == b"weights"


def test_sync_calls_itself_done_when_an_artifact_was_refused(wandb_server, tmp_path, monkeypatch):
    """Code 0 and a mark, although nothing can be downloaded: ask the server before anything is deleted here."""
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    with wandb.init(project="moe", id="aa") as run:
        artifact = wandb.Artifact("model-aa", "model")
        with artifact.new_file("model.json") as file:
            file.write("{}")
        run.log_artifact(artifact)
        folder = run.settings.sync_dir
    wandb.teardown()
    monkeypatch.setenv("WANDB_MODE", "online")
    with wandb_server.faults.during("status", "CommitArtifact", status=404):
        sync(wandb_server, folder)
    assert list((tmp_path / folder).glob("*.synced"))
    assert not wandb.Api().artifact_exists("me/moe/model-aa:latest")
