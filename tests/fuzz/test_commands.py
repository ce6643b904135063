"""The command line: odd words for every command and option, as a person, a script or a form may hand them over."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import click
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from cli import app
from sweeps.queue.opening import open_queue
from tests.fuzz.asking import ask
from tests.fuzz.bounds import examples
from tests.fuzz.restoring import restore, statuses
from tests.sweeps.views.made import made_sweep


def _commands(group: click.Command, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command with the words that name it."""
    for name, command in getattr(group, "commands", {}).items():
        yield from _commands(command, *path, name)
    if path and not hasattr(group, "commands"):
        yield path, group


Originals = dict[Path, os.stat_result]
COMMANDS = dict(_commands(typer.main.get_command(app)))
# `worker` waits for an order; what the words behind keep from downloading, drawing, training or submitting jobs
LAST = {
    ("train",): ["--data.name=nowhere"],
    ("sweep", "launch"): ["--dry-run"],
    ("data", "prepare"): ["--source", "nowhere"],
    ("data", "import"): [],
}
LEFT_OUT = {("worker",), ("doctor",), ("sweep", "dashboard")}

ODD = st.sampled_from(
    [
        "", " ", "-", "--", "-1", "0", "1e400", "nan", "99999999999999999999", "--set", "=", "a=b", "seed=1", "\0",
        "a\0b", "\udcff", "é\n", "x" * 300, "x" * 5000, "../..", "/", "/dev/null", "~", "%s", "{}", "[bold]", "$(x)",
        "'", '"', "made", "Made", "made.yaml", "away.yaml", "tiny", "routing", "routing.x=1", "tuning.permutations=-1",
        "model.experts=8", "local", "wandb", "slurm", "sqlite:///a.db", "mysql://x/y", "sqlite:////no/where.db",
        "postgresql://", "1:00:00", "gates", "pictures", "pictures/a.png", "two.zip", "page.html", "a/b/c", "\u202e",
    ]
) | st.text(max_size=6)  # fmt: skip


@st.composite
def lines(draw: st.DrawFn) -> list[str]:
    """A command with options, some twice, some unknown, some without a value, and odd words for all of them."""
    path = draw(st.sampled_from([path for path in COMMANDS if path not in LEFT_OUT]))
    words = list(path)
    named = [each for each in COMMANDS[path].params if isinstance(each, click.Option)]
    for parameter in draw(st.lists(st.sampled_from(named), max_size=4)) if named else []:
        words.append(draw(st.sampled_from(parameter.opts)))
        if not parameter.is_flag:
            words += draw(st.lists(ODD, min_size=1, max_size=1) | st.just([]))
    places = [each for each in COMMANDS[path].params if isinstance(each, click.Argument)]
    words += draw(st.lists(ODD, min_size=len(places), max_size=len(places)) | st.lists(ODD, max_size=3))
    return [*words, *LAST.get(path, [])]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a home of two probed runs, sweep files, pictures and a zip."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOE_HOME", str(folder / "runs"))
        patch.setenv("MOE_DATA", str(folder / "data"))
        sweep = made_sweep(folder, seeds=1)
        with closing(open_queue(sweep)) as queue:
            queue.update(sweep.store.finished_ids(), failed=False)
    (folder / "away.yaml").write_text("method: grid\nparameters: {data.name: {value: nowhere}}\n")
    (folder / "pictures").mkdir()
    shutil.copy(next((folder / "runs").rglob("*.png")), folder / "pictures" / "a.png")
    shutil.make_archive(str(folder / "two"), "zip", folder / "pictures")
    return folder


@pytest.fixture(scope="module")
def originals(whole: Path) -> Originals:
    """What is in it."""
    return statuses(whole)


@settings(max_examples=examples(100, 10_000))
@given(words=lines())
def test_command_lines(
    tmp_path: Path, whole: Path, originals: Originals, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    here = tmp_path / "here"
    restore(here, whole, originals)
    monkeypatch.setenv("MOE_HOME", str(here / "runs"))
    monkeypatch.setenv("MOE_DATA", str(here / "data"))
    monkeypatch.chdir(here)
    code, out, _ = ask(words)
    monkeypatch.chdir(tmp_path)  # a folder that stays
    if code == 0 and words[-1:] == ["--json"]:
        json.loads(out)
