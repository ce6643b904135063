"""Real training of tiny models with the real W&B client, against the protocol double of its server."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import wandb

from moe.config import flat
from moe.errors import UserError
from probes.probing import probe_run
from probes.suite.routing_probe import RoutingProbe
from sweeps.runs.store import RunStore
from sweeps.tracking import session
from sweeps.tracking.pulling import pull
from sweeps.tracking.record import Record
from sweeps.tracking.sync import sync, waiting
from sweeps.training import trial
from sweeps.training.trial import train
from tests.conftest import tiny_config, tiny_store
from tests.wandb_server.faults import Fault

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("wandb_server")]

SITE = Path(__file__).parents[1] / "faults" / "site"


def silent(_line):
    return None


def epochs_at(server, run_id):
    return server.run(run_id).series("epoch")


def test_a_run_arrives_whole(wandb_server, images):
    run = train(tiny_config(), group="a-sweep", report=silent)
    there = wandb_server.run(run.id)
    assert (there.state, there.exit_code) == ("finished", 0)
    assert (there.group, there.job_type) == ("a-sweep", "train")
    assert there.tags == ["E4", "tiny", "a-sweep"]
    assert there.config == run.config.scientific() | {"identity": run.id}
    assert [row["_step"] for row in there.history] == epochs_at(wandb_server, run.id) == [0, 1, 2]
    for mine, theirs in zip(run.history(), there.history, strict=True):
        assert {key: theirs[key] for key in mine} == mine
        assert theirs["routing/heatmap"]["_type"] == theirs["routing/coactivation"]["_type"] == "image-file"
        assert wandb_server.content(there, theirs["routing/heatmap"]["path"]).startswith(b"\x89PNG")
    assert there.summary["routing/tables/classes"]["_type"] == "table-file"
    best = min(run.history()[1:], key=lambda row: row["val/loss"])
    assert there.summary["val/loss"] == run.history()[-1]["val/loss"]
    assert (there.summary["best/epoch"], there.summary["best/val/loss"]) == (best["epoch"], best["val/loss"])
    assert any("system.cpu" in key or "system.proc" in key for row in there.events for key in row)
    model = wandb_server.artifact(f"model-{run.id}:last")
    assert model.run is there
    assert {"model.safetensors", "model.json", "data.json", "config.json", "history.jsonl"} <= set(model.blobs)
    assert json.loads(wandb_server.content(model, "data.json"))["stores"]["tiny"]["count"] == 48
    assert json.loads(wandb_server.content(wandb_server.artifact(f"model-{run.id}:best"), "model.json"))["epoch"] == 2
    assert Record.of(run).path == f"me/moe/{run.id}"


def test_the_best_epoch_has_a_model_of_its_own(wandb_server, images, monkeypatch):
    real = trial.MoEModule.validation_step

    def worse_at_the_end(self, batch, batch_idx):
        output = real(self, batch, batch_idx)
        if self.current_epoch == 2:
            self.log("val/loss", 100.0, batch_size=1)
        return output

    monkeypatch.setattr(trial.MoEModule, "validation_step", worse_at_the_end)
    run = train(tiny_config(train__epochs=3, train__lr=1e-4), report=silent)
    cards = {
        alias: json.loads(wandb_server.content(wandb_server.artifact(f"model-{run.id}:{alias}"), "model.json"))
        for alias in ("best", "last")
    }
    assert cards["last"]["epoch"] == 3
    assert cards["best"]["epoch"] == run.summary["best"]["epoch"] < 3
    assert cards["best"]["sha256"] != cards["last"]["sha256"]


def test_told_to_stop_and_resumed_no_epoch_is_lost_or_repeated(wandb_server, images, monkeypatch):
    real = trial.MoEModule.training_step

    def step(self, batch, batch_idx):
        if self.global_step == 7 and not told:
            told.append(True)
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, batch, batch_idx)

    told = []
    monkeypatch.setattr(trial.MoEModule, "training_step", step)
    config = tiny_config(train__epochs=4)
    with pytest.raises(trial.InterruptedRunError):
        train(config, report=silent)
    there = wandb_server.run(config.identity())
    assert (there.preempting, there.exit_code) == (True, 75)
    assert there.series("epoch") == [0, 1, 2]
    run = train(config, report=silent)
    assert there.series("epoch") == [0, 1, 2, 3, 4]
    assert [row["val/loss"] for row in run.history()] == there.series("val/loss")
    assert there.state == "finished"


def test_killed_in_mid_epoch_and_resumed_no_epoch_is_lost_or_repeated(wandb_server, images, tmp_path):
    (tmp_path / "faults").mkdir()
    (tmp_path / "faults" / "plan.json").write_text('{"0": ["worker:step"]}')
    path = os.pathsep.join(filter(None, [str(SITE), os.environ.get("PYTHONPATH", "")]))
    environment = os.environ | {"PYTHONPATH": path, "MOE_TEST_FAULTS": str(tmp_path / "faults")}
    command = [
        sys.executable,
        "-P",
        "-m",
        "cli",
        "train",
        *(f"--{key}={value}" for key, value in flat(tiny_config()).items()),
    ]
    killed = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    run = train(tiny_config(), report=silent)
    assert epochs_at(wandb_server, run.id) == [0, 1, 2]
    assert wandb_server.run(run.id).state == "finished"


@pytest.mark.parametrize("trouble", ["errors", "silence", "cut off"])
def test_a_server_in_trouble_holds_no_training_up_and_gets_everything_later(wandb_server, images, trouble):
    config = tiny_config(train__epochs=3)
    faults = wandb_server.faults
    if trouble == "errors":
        faults.fail(3, match="file_stream")
        faults.fail(1, match="PUT")
    elif trouble == "silence":
        faults.add(Fault("hang", "file_stream", seconds=5, count=1))
    else:
        faults.lasting(4, "cut", "file_stream")
    run = train(config, report=silent)
    there = wandb_server.run(run.id)
    assert there.series("val/loss") == [row["val/loss"] for row in run.history()]
    assert wandb_server.artifact(f"model-{run.id}:last").state == "COMMITTED"


def test_a_server_that_is_away_at_the_start_makes_an_offline_run(wandb_server, images, monkeypatch, capsys):
    monkeypatch.setattr(session, "PATIENCE", 3.0)
    with wandb_server.faults.during("cut"):
        run = train(tiny_config(), report=silent)
    assert "gave no answer; this attempt is kept offline" in capsys.readouterr().err
    assert run.finished
    assert [segment.synced for segment in Record.of(run).segments] == [False]
    assert wandb_server.runs() == []


@pytest.mark.long
def test_a_server_that_stays_away_costs_no_run_and_gets_everything_from_sync(wandb_server, images, monkeypatch, capsys):
    monkeypatch.setattr(session, "UPLOAD", 3.0)
    real = trial.MoEModule.on_train_start

    def cut(self):
        real(self)
        wandb_server.faults.add(Fault("cut"))

    with monkeypatch.context() as patch:
        patch.setattr(trial.MoEModule, "on_train_start", cut)
        run = train(tiny_config(), report=silent)
    assert "`moe runs sync` completes run" in capsys.readouterr().err
    assert run.finished
    assert waiting(RunStore())[0].id == run.id
    wandb_server.faults.clear()
    assert sync([run], silent) == []
    there = wandb_server.run(run.id)
    assert there.series("epoch") == [0, 1, 2]
    assert there.series("val/loss") == [row["val/loss"] for row in run.history()]
    assert there.summary["best/epoch"] == run.summary["best"]["epoch"]
    assert wandb_server.artifact(f"model-{run.id}:last").state == "COMMITTED"
    assert waiting(RunStore()) == []


def elsewhere(monkeypatch, tmp_path):
    """Another machine: it has the images but has never seen a run."""
    monkeypatch.setenv("MOE_HOME", str(tmp_path / "elsewhere"))
    return RunStore()


def test_probed_elsewhere_the_results_are_in_the_run_and_its_history_is_as_it_was(
    wandb_server, trained, monkeypatch, tmp_path
):
    elsewhere(monkeypatch, tmp_path)
    there = wandb_server.run(trained.id)
    before = list(there.history_lines), len(there.events)
    lines = []
    names = ["routing", "exciting"]
    probe_run(f"me/moe/{trained.id}", names, ["tiny"], lines.append)
    assert any(line.startswith(f"pulling me/moe/model-{trained.id}") for line in lines)
    assert (list(there.history_lines), len(there.events)) == before
    assert there.state == "finished"
    assert there.job_type == "train"
    picture = there.summary["probe/tiny/routing/figures/routing"]
    assert picture["_type"] == "image-file"
    assert wandb_server.content(there, picture["path"]).startswith(b"\x89PNG")
    assert there.summary["probe/tiny/routing/tables/routing"]["_type"] == "table-file"
    assert there.summary["probe/tiny/routing/load_cv2"] >= 0
    assert there.summary["val/loss"] == trained.history()[-1]["val/loss"]
    results = wandb_server.artifact(f"probe-{trained.id}-tiny-routing:latest")
    assert "routing.csv" in results.blobs
    assert there in wandb_server.artifact(f"model-{trained.id}:last").used_by
    keys = set(there.summary)
    probe_run(trained.id, names, ["tiny"], silent)
    assert set(there.summary) == keys
    assert (list(there.history_lines), len(there.events)) == before
    assert len(results.collection.committed) == 1  # the same results are the same version


def test_of_results_that_change_the_newest_three_are_kept(wandb_server, trained):
    real = RoutingProbe.run
    for number in range(4):

        def changed(self, *arguments, number=number):
            result = real(self, *arguments)
            result.numbers["number"] = number
            return result

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(RoutingProbe, "run", changed)
            probe_run(trained.id, ["routing"], ["tiny"], silent)
    versions = wandb_server.artifact(f"probe-{trained.id}-tiny-routing:latest").collection.committed
    assert [version.index for version in versions] == [1, 2, 3]
    assert wandb_server.artifact(f"model-{trained.id}:best")


def test_a_damaged_or_hostile_artifact_is_refused(wandb_server, trained, monkeypatch, tmp_path):
    store = elsewhere(monkeypatch, tmp_path)
    model = wandb_server.artifact(f"model-{trained.id}:last")
    whole = wandb_server.content(model, "model.safetensors")
    for content, message in ((whole[:-1], "model.safetensors"), (whole[:-1] + b"x", "model.safetensors")):
        wandb_server.tamper(model, "model.safetensors", content)
        with pytest.raises(UserError, match=message):
            pull(f"me/moe/{trained.id}", store, silent)
        assert not store.run(trained.id).path.exists()
    wandb_server.tamper(model, "model.safetensors", whole)
    model.manifest["contents"]["../../evil.py"] = dict(model.manifest["contents"]["model.json"])
    wandb_server.state.blobs[model.manifest_key] = json.dumps(model.manifest).encode()
    with pytest.raises(UserError, match=r"evil\.py.*nothing was downloaded"):
        pull(f"me/moe/{trained.id}", store, silent)
    assert not any(store.root.glob("*"))


def test_a_model_of_another_run_is_refused(wandb_server, trained, monkeypatch, tmp_path):
    """Genuine files, but not those of the run that was asked for."""
    other = train(tiny_config(seed=1), report=silent)
    store = elsewhere(monkeypatch, tmp_path)
    mine, theirs = (wandb_server.artifact(f"model-{run.id}:last") for run in (trained, other))
    mine.blobs, mine.manifest, mine.manifest_key = theirs.blobs, theirs.manifest, theirs.manifest_key
    with pytest.raises(UserError, match="calls itself run"):
        pull(f"me/moe/{trained.id}", store, silent)


def test_what_is_not_there_is_said(wandb_server, images, monkeypatch, tmp_path):
    with pytest.raises(UserError, match="no run me/moe/none"):
        pull("me/moe/none", RunStore(), silent)
    monkeypatch.setenv("WANDB_MODE", "offline")
    with pytest.raises(UserError, match="which is offline here"):
        pull("me/moe/none", RunStore(), silent)


def test_the_key_is_in_no_file_of_a_run_and_in_no_upload(wandb_server, images):
    probe_run(train(tiny_config(), report=silent).id, ["routing"], ["tiny"], silent)
    key = wandb_server.key.encode()
    files = [file for file in RunStore().root.rglob("*") if file.is_file()]
    assert len(files) > 10
    assert not [file for file in files if key in file.read_bytes()]
    assert not wandb_server.seen_text(wandb_server.key)


# --- offline, then uploaded -----------------------------------------------------------------------------------------


def offline_in_pieces(patch, stops):
    """A run that was told to stop in these steps, each time leaving an offline piece; probed at the end."""
    config, real, left = tiny_config(train__epochs=3), trial.MoEModule.training_step, list(stops)

    def step(self, batch, batch_idx):
        if left and self.global_step == left[0]:
            left.pop(0)
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, batch, batch_idx)

    patch.setenv("WANDB_MODE", "offline")
    patch.setattr(trial.MoEModule, "training_step", step)
    for _ in stops:
        with pytest.raises(trial.InterruptedRunError):
            train(config, report=silent)
    run = train(config, report=silent)
    probe_run(run.id, ["routing"], ["tiny"], silent)
    wandb.teardown()


def live_in(patch, root):
    """Runs, images, and what W&B keeps to upload it later, whose paths are absolute."""
    for name, folder in (("MOE_HOME", "runs"), ("MOE_DATA", "data"), ("WANDB_DATA_DIR", "wandb")):
        patch.setenv(name, str(root / folder))


@pytest.fixture(scope="module")
def made_offline(tmp_path_factory):
    """Where such a run was made, once for all tests; its copy beside it, `whole`, stays as it is."""
    made = {}

    def make(stops):
        if stops not in made:
            made[stops] = tmp_path_factory.mktemp("offline") / "home"
            with pytest.MonkeyPatch.context() as patch:
                live_in(patch, made[stops])
                tiny_store()
                offline_in_pieces(patch, stops)
            shutil.copytree(made[stops], made[stops].with_name("whole"), symlinks=True)
        return made[stops]

    return make


@pytest.fixture
def in_pieces(wandb_server, made_offline, monkeypatch):
    """Puts such a run back as it was left."""

    def put(*stops):
        root = made_offline(stops)
        shutil.rmtree(root)
        shutil.copytree(root.with_name("whole"), root, symlinks=True)
        live_in(monkeypatch, root)
        (run,) = RunStore().all()
        return run

    return put


def seen(there):
    """What a server knows of a run, without times."""
    return {
        "config": there.config,
        "history": [{key: value for key, value in row.items() if isinstance(value, int | float)
                     and not key.startswith("_") and "time" not in key} for row in there.history],
        "media": [sorted(key for key, value in row.items() if isinstance(value, dict)) for row in there.history],
        "summary": {key: value for key, value in there.summary.items()
                    if isinstance(value, int | float) and not key.startswith("_")},
        "pictures": sorted(key for key, value in there.summary.items() if isinstance(value, dict)),
        "group": there.group,
        "tags": there.tags,
        "state": there.state,
    }  # fmt: skip


def test_a_run_in_offline_pieces_is_uploaded_as_the_run_it_would_have_been_online(
    wandb_server, in_pieces, monkeypatch, tmp_path
):
    run = in_pieces(2, 7)
    assert wandb_server.runs() == []
    assert len(Record.of(run).waiting) == 4
    assert sync([run], silent) == []
    there = wandb_server.run(run.id)
    assert there.series("epoch") == [0, 1, 2, 3]
    uploaded = seen(there)
    model = wandb_server.artifact(f"model-{run.id}:last")
    assert wandb_server.content(model, "model.json") == (run.model / "model.json").read_bytes()
    assert Record.of(run).waiting == []
    called = len(wandb_server.calls)
    assert sync([run], silent) == []
    assert len(wandb_server.calls) == called
    elsewhere(monkeypatch, tmp_path)
    monkeypatch.setenv("WANDB_PROJECT", "online")
    again = train(run.config, report=silent)
    probe_run(again.id, ["routing"], ["tiny"], silent)
    assert seen(wandb_server.run(run.id, "online")) == uploaded


def test_a_piece_of_which_a_part_arrived_is_not_doubled(wandb_server, in_pieces):
    """As `wandb sync` does when it is handed the same piece again."""
    run = in_pieces()
    assert sync([run], silent) == []
    there = wandb_server.run(run.id)
    del there.history_lines[2:]
    record = Record.of(run)
    for segment in record.segments:
        segment.synced = False
    record.save(run)
    assert sync([run], silent) == []
    assert there.series("epoch") == [0, 1, 2, 3]


def test_what_a_piece_lost_is_sent_from_the_runs_own_files_and_pieces_are_kept_until_then(wandb_server, in_pieces):
    run = in_pieces()
    (first, probed) = Record.of(run).segments
    file = next((run.path / first.folder).glob("*.wandb"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 3])  # as a power cut leaves it
    with wandb_server.faults.during("status", "UpsertBucket", status=400):
        (left,) = sync([run], silent, clean=True)
    assert (left.run, left.segments) == (run.id, 2)
    assert all((run.path / segment.folder).is_dir() for segment in (first, probed))
    assert sync([run], silent, clean=True) == []
    there = wandb_server.run(run.id)
    assert there.series("epoch") == [0, 1, 2, 3]
    assert wandb_server.artifact(f"model-{run.id}:last").state == "COMMITTED"
    assert not any((run.path / segment.folder).exists() for segment in (first, probed))


@pytest.mark.parametrize("what", ["its header alone", "nothing", "no file", "no folder"])
def test_a_piece_that_brings_nothing_is_passed_over(wandb_server, in_pieces, what):
    """As SIGKILL leaves it while it is begun."""
    run = in_pieces(2)
    first = run.path / Record.of(run).segments[0].folder
    file = next(first.glob("*.wandb"))
    if what == "no folder":
        shutil.rmtree(first)
    elif what == "no file":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[: 7 if what == "its header alone" else 0])
    lines = []
    assert sync([run], lines.append) == []
    assert any("brings nothing" in line for line in lines)
    there = wandb_server.run(run.id)
    assert there.series("epoch") == [0, 1, 2, 3]
    assert wandb_server.artifact(f"model-{run.id}:last").state == "COMMITTED"
    assert waiting(RunStore()) == []


def test_when_every_piece_brings_nothing_the_run_is_sent_from_its_own_files(wandb_server, in_pieces):
    run = in_pieces()
    for segment in Record.of(run).segments:
        shutil.rmtree(run.path / segment.folder)
    assert sync([run], silent) == []
    assert wandb_server.run(run.id).series("epoch") == [0, 1, 2, 3]
    assert "probe/tiny/routing/figures/routing" in wandb_server.run(run.id).summary


def test_a_run_made_offline_and_probed_online_arrives_whole(wandb_server, images, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        run = train(tiny_config(), report=silent)
    probe_run(run.id, ["routing"], ["tiny"], silent)
    there = wandb_server.run(run.id)
    assert there.series("epoch") == [0, 1, 2]
    assert "probe/tiny/routing/figures/routing" in there.summary
    assert there.summary["best/epoch"] == run.summary["best"]["epoch"]
    assert waiting(RunStore()) == []


def test_without_a_server_the_message_says_how_to_reach_one(images, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    with pytest.raises(UserError, match="WANDB_MODE=online"):
        sync([], silent)
