"""Folders of runs and sweeps: any file empty, cut short, changed, replaced or lost, under every command that reads."""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe.lightning_module import MoEModule
from probes.chunked import ChunkedArrays, Layout
from sweeps.launching import plan, register_planned
from sweeps.queue.opening import open_queue
from sweeps.runs.run import Run
from sweeps.runs.store import RunStore
from sweeps.tracking.pulling import _place
from sweeps.training.checkpoints import complete, load, newest
from sweeps.training.trial import train
from tests.conftest import TINY, at_home, tiny_config, tiny_store
from tests.fuzz.asking import ask
from tests.fuzz.bounds import examples, taken_or_refused
from tests.fuzz.mutations import JSON, damaged
from tests.fuzz.restoring import restore, statuses

NONE = (0.0, 0.0, 0.0)
SETTINGS = TINY | {"train.epochs": 1, "train.batch_size": 4}
pytestmark = pytest.mark.filterwarnings("ignore::sweeps.runs.files.DamagedFileWarning")


class Home(NamedTuple):
    """A home with one run, trained and probed, of a sweep called one."""

    root: Path
    run: str
    files: list[Path]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("whole")
    with at_home(folder):
        tiny_store(count=12)
        parameters = {path: {"value": value} for path, value in SETTINGS.items()}
        (folder / "one.yaml").write_text(json.dumps({"name": "one", "method": "grid", "parameters": parameters}))
        sweep = register_planned(*plan(str(folder / "one.yaml")))
        run = train(sweep.prepare(sweep.cells[0]).config, report=lambda _line: None)
        with closing(open_queue(sweep)) as queue:
            queue.update({run.id}, failed=False)
        for probe in ("routing", "tuning"):
            ask(["probe", "--sweep", "one", "--probe", probe, "--images", "tiny"])
    files = sorted(file.relative_to(folder) for file in (folder / "runs").rglob("*") if file.is_file())
    return Home(folder, run.id, [file for file in files if file.suffix != ".lock" and not file.name.startswith(".")])


@pytest.fixture
def copied(tmp_path: Path, whole: Home, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Puts a fresh copy of all, or of a folder, in place and says where."""
    here = tmp_path / "here"
    monkeypatch.setenv("MOE_HOME", str(here / "runs"))
    monkeypatch.setenv("MOE_DATA", str(here / "data"))
    originals = statuses(whole.root)

    def copy(part: str = "") -> Path:
        chosen = {file: status for file, status in originals.items() if Path(part) in (file, *file.parents)}
        chosen |= {folder: originals[folder] for folder in Path(part).parents if folder in originals}
        restore(here, whole.root, chosen)
        monkeypatch.chdir(here)
        return here

    return copy


@st.composite
def spoilt(
    draw: st.DrawFn, whole: Home, files: list[Path], most: int = 2, *, there: bool = False
) -> dict[Path, bytes | str]:
    """What becomes of some of the files: other content, or (unless they are `there`) another thing in their place."""
    changes: dict[Path, bytes | str] = {}
    for file in draw(st.lists(st.sampled_from(files), min_size=1, max_size=most)):
        change = damaged((whole.root / file).read_bytes())
        if file.suffix in (".json", ".jsonl"):
            change |= JSON.map(lambda value: json.dumps(value).encode())
        others = (
            st.nothing() if there else st.sampled_from(["lost", "a folder", "a link to nowhere", "a pipe", "zeros"])
        )
        changes[file] = draw(change | change | change | others)
    return changes


def spoil(root: Path, changes: dict[Path, bytes | str]) -> None:
    for file, change in changes.items():
        path = root / file
        path.unlink()
        if isinstance(change, bytes):
            path.write_bytes(change)
        elif change == "a folder":
            path.mkdir()
        elif change == "a link to nowhere":
            path.symlink_to("nowhere")
        elif change == "a pipe":
            os.mkfifo(path)
        elif change == "zeros":
            path.symlink_to("/dev/zero")


READING = st.sampled_from(
    [
        ["runs", "list"], ["runs", "show", "ID"], ["compare", "one"], ["sweep", "status", "one"], ["sweep", "ls"],
        ["report", "one", "--html", "page.html"], ["runs", "sync", "--dry-run"],
        ["sweep", "launch", "one.yaml", "--dry-run"], ["compare", "one", "--csv", "a.csv", "--latex", "a.tex"],
    ]
)  # fmt: skip


@settings(max_examples=examples(60, 10_000))
@given(data=st.data(), command=READING)
def test_reading(copied: Callable[..., Path], whole: Home, data: st.DataObject, command: list[str]) -> None:
    changes = data.draw(spoilt(whole, whole.files))
    spoil(copied(), changes)
    code, out, _ = ask([whole.run if word == "ID" else word for word in command])
    if command[-1] in ("list", "ls"):
        assert code == 0
        assert whole.run[:8] in out or "one" in out or not all(isinstance(new, bytes) for new in changes.values())


def _of(whole: Home, *parts: str) -> list[Path]:
    return [file for file in whole.files if whole.run in file.parts and set(parts) & set(file.parts)]


@settings(max_examples=examples(60, 10_000))
@given(data=st.data())
def test_probing(copied: Callable[..., Path], whole: Home, data: st.DataObject) -> None:
    parts = ("model", "activations", "probes", "config.json", "state.json", "history.jsonl")
    changes = data.draw(spoilt(whole, _of(whole, *parts)))
    spoil(copied(), changes)
    ask(["probe", "--run", whole.run, "--probe", "tuning", "--images", "tiny"])


@given(data=st.data())
def test_activations(copied: Callable[..., Path], whole: Home, data: st.DataObject) -> None:
    """What counts as done is as it was written."""
    changes = data.draw(spoilt(whole, _of(whole, "activations")))
    folder = copied(f"runs/{whole.run}/activations") / "runs" / whole.run / "activations" / "tiny"
    good = {file.stem: np.load(file) for file in folder.glob("*.npy")}
    head = json.loads((folder / "ledger.jsonl").read_text().splitlines()[0])
    spoil(folder.parents[3], changes)
    layouts = {name: Layout(tuple(shape), *rest) for name, (shape, *rest) in head["arrays"].items()}
    arrays = ChunkedArrays.resume(folder, head["key"], layouts, head["chunk"])
    if not list(arrays.missing()):
        assert all(np.array_equal(found, good[name], equal_nan=True) for name, found in arrays.open().items())


@settings(max_examples=examples(60, 10_000))
@given(data=st.data())
def test_artifacts(copied: Callable[..., Path], whole: Home, data: st.DataObject) -> None:
    """A model as it comes from the tracker, by somebody who keeps its checksums right."""
    source = Run(whole.root / "runs" / whole.run)
    there = [file.relative_to(whole.root) for file in (*source.portable, *source.model.iterdir()) if file.exists()]
    changes = data.draw(spoilt(whole, there, most=1, there=True))
    here = copied(f"runs/{whole.run}/model")
    for file in there:
        if not (here / file).exists():
            shutil.copy(whole.root / file, here / file)
    spoil(here, changes)
    pulled = Run(here / "pulled")
    pulled.path.mkdir()
    for file in there:
        if os.path.lexists(here / file):
            (here / file).rename(pulled.path / file.name)
    store = RunStore(here / "elsewhere")
    with taken_or_refused():
        _place(pulled, store.run(whole.run))
        assert store.run(whole.run).config.identity() == whole.run
    code, _, _ = ask(["runs", "list"])
    assert code == 0


class Trained(NamedTuple):
    """What the home's run trains: its module, and the steps of an epoch."""

    module: MoEModule
    steps: int


@pytest.fixture(scope="module")
def trained(whole: Home) -> Trained:
    config = tiny_config(**{path.replace(".", "__"): value for path, value in SETTINGS.items()})
    (file,) = Run(whole.root / "runs" / whole.run).checkpoint_files()  # of the one epoch
    return Trained(MoEModule(config, NONE, NONE, 3), load(file)["global_step"])


@settings(max_examples=examples(60, 10_000))
@given(data=st.data())
def test_checkpoints(copied: Callable[..., Path], whole: Home, trained: Trained, data: st.DataObject) -> None:
    """Whatever is gone on from is whole, and has its history."""
    changes = data.draw(spoilt(whole, _of(whole, "checkpoints", "history.jsonl")))
    here = copied(f"runs/{whole.run}/checkpoints")
    run = Run(here / "runs" / whole.run)
    shutil.copy(whole.root / "runs" / whole.run / "history.jsonl", run.history_file)
    spoil(here, changes)
    said: list[str] = []
    position = newest(run, trained.module.state_dict(), trained.steps, said.append)
    if position is None:
        assert said or not run.checkpoint_files()
        return
    assert complete(position.history, 1)
    trained.module.load_state_dict(load(position.file)["state_dict"])


@settings(max_examples=examples(20, 500))
@given(data=st.data())
def test_training_goes_on(copied: Callable[..., Path], whole: Home, data: st.DataObject) -> None:
    """The same command ends with a finished run, whatever was damaged, or says what stands in its way."""
    files = [file for file in whole.files if whole.run in file.parts and file.name != "state.json"]
    changes = data.draw(spoilt(whole, files))
    here = copied()
    (here / "config.json").write_bytes((here / "runs" / whole.run / "config.json").read_bytes())
    (here / "runs" / whole.run / "state.json").unlink()
    spoil(here, changes)
    code, _, said = ask(["train", "--config", "config.json"])
    assert Run(here / "runs" / whole.run).finished if code == 0 else said
