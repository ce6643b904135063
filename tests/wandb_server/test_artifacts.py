"""The real client's artifacts, up and down, through the double."""

import hashlib

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def versions(wandb_server, tmp_path):
    """Three versions of `model-aa`: last on v2, best on v1."""
    import wandb

    weights = tmp_path / "model.bin"
    card = tmp_path / "card.json"
    card.write_text("{}")
    with wandb.init(project="moe", id="aa") as run:
        for number, aliases in enumerate((["last"], ["last", "best"], ["last"])):
            weights.write_text(f"weights {number}")
            artifact = wandb.Artifact("model-aa", "model", metadata={"epoch": number})
            artifact.add_file(str(weights))
            artifact.add_file(str(card))
            run.log_artifact(artifact, aliases=aliases).wait()
    return wandb_server


def test_versions_and_aliases(versions):
    assert [versions.artifact(f"model-aa:{alias}").index for alias in ("v0", "best", "last", "latest")] == [0, 1, 2, 2]
    best = versions.artifact("model-aa:best")
    assert (best.metadata, best.run.name, best.state) == ({"epoch": 1}, "aa", "COMMITTED")
    assert versions.content(best, "model.bin") == b"weights 1"
    assert versions.content(best, "card.json") == b"{}"
    assert versions.called("card.json") == 1, "the same content is uploaded once"


def test_the_same_content_is_no_new_version(versions, tmp_path):
    import wandb

    (tmp_path / "model.bin").write_text("weights 0")
    with wandb.init(project="moe", id="bb") as run:
        artifact = wandb.Artifact("model-aa", "model")
        artifact.add_file(str(tmp_path / "model.bin"))
        artifact.add_file(str(tmp_path / "card.json"))
        run.log_artifact(artifact, aliases=["again"]).wait()
    assert versions.artifact("model-aa:again").index == 0
    assert len(versions.state.collections["me", "moe", "model-aa"].committed) == 3


def test_download_into_a_fresh_cache(versions, tmp_path, monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "other"))
    artifact = wandb.Api().artifact("me/moe/model-aa:best")
    folder = artifact.download(root=str(tmp_path / "down"))
    artifact.verify(folder)
    assert (tmp_path / "down" / "model.bin").read_text() == "weights 1"
    assert {entry.path for entry in artifact.manifest.entries.values()} == {"model.bin", "card.json"}
    assert artifact.digest == versions.artifact("model-aa:v1").digest


def test_download_does_not_check_but_verify_does(versions, tmp_path, monkeypatch):
    """Which is why pulled files are checked by whoever pulls them."""
    import wandb

    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "other"))
    versions.tamper(versions.artifact("model-aa:best"), "model.bin", b"weights!1")
    artifact = wandb.Api().artifact("me/moe/model-aa:best")
    folder = artifact.download(root=str(tmp_path / "down"))
    with pytest.raises(ValueError, match="Digest mismatch"):
        artifact.verify(folder)
    listed = artifact.manifest.entries["model.bin"].digest
    assert listed != hashlib.md5((tmp_path / "down" / "model.bin").read_bytes(), usedforsecurity=False).hexdigest()


def test_lineage(versions, tmp_path):
    import wandb

    with wandb.init(project="moe", id="probe", job_type="probe") as run:
        used = run.use_artifact("me/moe/model-aa:best")
        result = wandb.Artifact("probe-aa", "probe")
        with result.new_file("tuning.json") as file:
            file.write("{}")
        run.log_artifact(result)
    assert [run.name for run in versions.artifact("model-aa:best").used_by] == ["probe"]
    api = wandb.Api()
    assert [each.name for each in api.run("me/moe/probe").used_artifacts()] == ["model-aa:v1"]
    assert [each.name for each in api.run("me/moe/probe").logged_artifacts()] == ["probe-aa:v0"]
    assert [each.name for each in api.run("me/moe/aa").logged_artifacts()] == [f"model-aa:v{each}" for each in range(3)]
    assert used.logged_by().id == "aa"
    assert [each.id for each in used.used_by()] == ["probe"]


def test_aliases_move_and_old_versions_go(versions):
    import wandb

    api = wandb.Api()
    newest = api.artifact("me/moe/model-aa:v2")
    newest.aliases.append("best")
    newest.save()
    assert versions.artifact("model-aa:best").index == 2
    assert versions.artifact("model-aa:v1").aliases == []
    newest.aliases.remove("best")
    newest.metadata["note"] = "kept"
    newest.save()
    assert sorted(versions.artifact("model-aa:v2").aliases) == ["last", "latest"]
    assert versions.artifact("model-aa:v2").metadata == {"epoch": 2, "note": "kept"}
    with pytest.raises(wandb.errors.CommError, match="aliases"):
        newest.delete()
    for version in api.artifacts("model", "me/moe/model-aa"):
        if not version.aliases:
            version.delete()
    assert [each.index for each in versions.state.collections["me", "moe", "model-aa"].committed] == [2]
    assert not api.artifact_exists("me/moe/model-aa:v0")
    assert api.artifact_exists("me/moe/model-aa:last")
