"""One damaged file hides nothing else: every file of a small home in turn, in every way in which files are lost."""

import json
import os
import pickle
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from probes.drawing import base
from probes.paper import clusters, experts, making
from probes.registry import PROBES
from probes.suite import routing_probe
from sweeps.launching import plan, register_planned
from sweeps.queue.opening import open_queue
from sweeps.runs.files import DamagedFileWarning
from sweeps.training.trial import train
from tests.conftest import TINY, tiny_config, tiny_store
from tests.fuzz.asking import ask
from tests.sweeps.views.made import made_sweep

DAMAGES: dict[str, Callable[[bytes], bytes] | None] = {
    "emptied": lambda _content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "a bit flipped": lambda content: flipped(content, 3),
    "another bit flipped": lambda content: flipped(content, 7),
    "null": lambda _content: b"null\n",
    "a list": lambda _content: b"[]\n",
    "an object": lambda _content: b"{}\n",
    "no text": lambda _content: b"\xff\xfe\x00\x01",
    "a folder": None,
}
COMMANDS = {
    "runs list": ["runs", "list", "--json"],
    "sweep ls": ["sweep", "ls", "--json"],
    "status": ["sweep", "status", "made", "--json"],
    "compare": ["compare", "made", "--json"],
    "plan": ["sweep", "launch", "made.yaml", "--dry-run", "--json"],
    "sync": ["runs", "sync", "--dry-run", "--json"],
    "report": ["report", "made", "--html", "page.html"],
    "probe": ["probe", "--sweep", "made", "--json"],
}
QUICK = 6  # of the commands


def flipped(content: bytes, seed: int) -> bytes:
    """The content with one bit changed."""
    place, changed = random.Random(seed).randrange(8 * max(1, len(content))), bytearray(content)
    if content:
        changed[place // 8] ^= 1 << place % 8
    return bytes(changed)


@pytest.fixture(scope="module", autouse=True)
def drawn_once() -> Iterator[None]:
    """Figures of equal numbers are equal: each is drawn once for all tests here, which read and check all numbers."""
    with pytest.MonkeyPatch.context() as patch:
        drawing = {
            experts: ("gating", "exciting", "clouds", "separability"),
            clusters: ("clusters", "silhouettes"),
            routing_probe: ("heatmap",),
        }
        for module, names in drawing.items():
            for name in names:
                patch.setattr(module, name, kept(getattr(module, name), pickle.dumps))
        patch.setattr(making, "_picture", kept(making._picture, lambda asked: asked[0][0].figure))
        encoded = kept(lambda figure, path: base.save(figure, path).read_bytes(), lambda asked: asked[0][0])
        patch.setattr(routing_probe, "save", lambda figure, path: path.write_bytes(encoded(figure, path)))
        yield


def kept(make: Callable[..., Any], key: Callable[[Any], Any]) -> Callable[..., Any]:
    """The function, which is called once for all arguments that are equal by `key`."""
    found: dict[Any, Any] = {}

    def make_once(*args: Any, **kwargs: Any) -> Any:
        place = key((args, kwargs))
        if place not in found:
            found[place] = make(*args, **kwargs)
        return found[place]

    return make_once


@pytest.fixture
def small(tmp_path, monkeypatch) -> Iterator[tuple[Path, Path]]:
    """A home with two probed runs of a sweep, and a whole copy of it."""
    monkeypatch.chdir(tmp_path)
    sweep = made_sweep(tmp_path, experts=(2,))
    for table in sweep.root.glob("*/routing/*_000[12].csv"):  # as those of the other epochs
        table.unlink()
    for picture in sweep.root.rglob("map.png"):
        Image.new("RGB", (30, 18), "white").save(picture)  # which is encoded anew for each page, as figures are drawn
    monkeypatch.setattr(making, "_DOTS", 20)
    with closing(open_queue(sweep)) as queue:
        queue.update(sweep.store.finished_ids(), failed=False)
    whole = tmp_path / "whole"
    shutil.copytree(sweep.root, whole)
    return sweep.root, whole


def files(whole: Path) -> list[Path]:
    """The files of a home, by name; what only marks that something is at work apart."""
    found = (file.relative_to(whole) for file in whole.rglob("*") if file.is_file())
    return sorted(file for file in found if file.suffix != ".lock" and file.name != ".studies.db.create")


def damage(root: Path, whole: Path, file: Path, change: Callable[[bytes], bytes] | None) -> None:
    restore(root, whole)
    if change is None:
        (root / file).unlink()
        (root / file).mkdir()
    else:
        (root / file).write_bytes(change((whole / file).read_bytes()))


def restore(root: Path, whole: Path) -> None:
    """Make a folder equal its copy again; what has the size and time of its last change is equal."""
    there = {path.relative_to(whole): path for path in whole.rglob("*")}
    for path in sorted(root.rglob("*"), reverse=True):  # what is in a folder before the folder
        wanted = there.get(path.relative_to(root), root.parent / "nothing")
        if path.is_dir() and not path.is_symlink():
            if not wanted.is_dir():
                path.rmdir()
        elif path.is_symlink() or not (path.is_file() and wanted.is_file()):
            path.unlink()
    for name, path in sorted(there.items()):
        if path.is_dir():
            (root / name).mkdir(exist_ok=True)
        elif not (root / name).exists() or changed(root / name) != changed(path):
            shutil.copy2(path, root / name)


def changed(file: Path) -> tuple[int, int]:
    return file.stat().st_size, file.stat().st_mtime_ns


def shown(name: str, printed: str) -> set[str]:
    """The runs or sweeps that a listing shows."""
    found = json.loads(printed)
    return {row["id"] for row in found["runs"]} if name == "runs list" else {row["sweep"] for row in found["sweeps"]}


@pytest.mark.slow
@pytest.mark.parametrize("kind", DAMAGES)
def test_the_rest_is_shown(small, kind):
    root, whole = small
    runs = {file.parts[0] for file in files(whole) if file.name == "config.json"}
    commands = cycle(islice(COMMANDS.items(), QUICK))
    for file in files(whole):
        damage(root, whole, file, DAMAGES[kind])
        for name, command in islice(commands, 5):  # another one is left out each time
            code, printed, _ = ask(command)
            if name in ("runs list", "sweep ls"):
                assert code == 0
                assert shown(name, printed) == (runs if name == "runs list" else {"made"})


@pytest.mark.slow
@pytest.mark.parametrize("kind", DAMAGES)
def test_the_rest_is_reported_and_probed(small, kind):
    root, whole = small
    for file in files(whole):
        damage(root, whole, file, DAMAGES[kind])
        for command in islice(COMMANDS.values(), QUICK, None):  # the first of which changes nothing in the home
            ask(command)


@pytest.mark.slow
@pytest.mark.parametrize("thing", ["a pipe", "zeros without end"])
def test_what_is_no_file_is_neither_waited_for_nor_read_to_its_end(small, thing):
    root, whole = small
    kinds = {(file.suffix if file.suffix in (".png", ".csv") else file.name): file for file in files(whole)}
    assert {*NAMED, ".png", ".csv", "studies.db"} <= set(kinds)
    for file in kinds.values():
        damage(root, whole, file, None)
        (root / file).rmdir()
        if thing == "a pipe":
            os.mkfifo(root / file)
        else:
            (root / file).symlink_to("/dev/zero")
        for name in ("runs list", "report"):
            assert ask(COMMANDS[name])[0] == 0, file
        ask(COMMANDS["status"])


NAMED = ["state.json", "config.json", "summary.json", "history.jsonl", "result.json", "sweep.json"]


def test_a_table_of_training_is_mended_by_training(small):
    root, whole = small
    file = next(file for file in files(whole) if file.suffix == ".csv" and file.parts[1] == "routing")
    damage(root, whole, file, lambda _content: b"a\n1,2\n")
    code, _, said = ask(COMMANDS["report"])
    assert code == 0
    assert f"{file} is damaged: its rows differ in length; `moe sweep resume SWEEP` writes it again" in said


@pytest.mark.parametrize("name", NAMED)
def test_the_file_is_named_once_with_what_mends_it(small, name):
    root, whole = small
    file = next(file for file in files(whole) if file.name == name)
    damage(root, whole, file, lambda _content: b"{")
    words = [ask(command)[2] for command in (COMMANDS["runs list"], COMMANDS["status"], COMMANDS["report"])]
    assert sum(text.count(f"{root / file} is damaged: ") for text in words) == 1
    assert any(word in text for text in words for word in ("again", "anew", "resume"))


def test_a_run_whose_state_is_damaged_counts_as_waiting(small):
    root, whole = small
    file = next(file for file in files(whole) if file.name == "state.json")
    damage(root, whole, file, lambda _content: b"")
    states = {row["id"]: row["state"] for row in json.loads(ask(COMMANDS["runs list"])[1])["runs"]}
    assert states.pop(file.parts[0]) == "waiting"
    assert set(states.values()) == {"finished"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sweeps.runs.files.DamagedFileWarning")
def test_what_is_said_to_mend_a_run_does(isolated):
    """A run goes on from its last checkpoint in no time, and has all its files again."""
    tiny_store()
    config = tiny_config()
    run = train(config, report=lambda _line: None)
    files = (run.history_file, run.summary_file, run.config_file, run.provenance_file)
    whole = {file: file.read_bytes() for file in files}
    for file in files:
        file.write_bytes(b"{")
        run.state_file.unlink()
        train(config, report=lambda _line: None)
        assert run.finished
        if file != run.provenance_file:
            assert file.read_bytes() == whole[file]
    assert run.provenance["device"] == "cpu"
    run.state_file.write_bytes(b"")
    with pytest.warns(DamagedFileWarning, match="counts as waiting"):
        train(config, report=lambda _line: None)
    assert run.finished


@pytest.mark.slow
def test_a_run_whose_model_or_activations_are_damaged_is_named_and_hinders_no_other(isolated, monkeypatch):
    """Every file that a probe reads, of the first of two trained runs."""
    monkeypatch.setattr(base, "DPI", 20)
    tiny_store()
    fixed = {path: {"value": value} for path, value in TINY.items()}
    spec = isolated / "pair.yaml"
    spec.write_text(json.dumps({"name": "pair", "method": "grid", "parameters": fixed | {"seed": {"values": [0, 1]}}}))
    sweep = register_planned(*plan(str(spec)))
    for cell in sweep.cells:
        train(sweep.prepare(cell).config, report=lambda _line: None)
    options = {"map_images": 0, "permutations": 5, "bootstrap": 5}
    command = ["probe", "--sweep", "pair", "--probe", "routing", "--images", "tiny", "--json"]
    command += [word for name, value in options.items() for word in ("--set", f"routing.{name}={value}")]
    label = PROBES["routing"](**options).label("routing")
    assert ask(command)[0] == 0
    first, other = (sweep.store.run(cell.run_id) for cell in sweep.cells)
    whole = isolated / "whole"
    shutil.copytree(sweep.root, whole)
    read = [file for folder in ("model", "activations") for file in (whole / first.id / folder).rglob("*")]
    tried = 0
    for file in (file.relative_to(whole) for file in read if file.is_file() and file.suffix != ".lock"):
        for kind in ("emptied", "cut", "a bit flipped", "null", "a folder"):
            damage(sweep.root, whole, file, DAMAGES[kind])
            shutil.rmtree(other.path / "probes")
            code, _, words = ask(command)
            assert other.probe_result("tiny", label).exists(), (file, kind)
            assert code == 0 or first.id in words, (file, kind)
            tried += 1
    assert tried == 35  # docs/reliability.md has the number
