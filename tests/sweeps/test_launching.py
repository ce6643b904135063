"""Sweeps launched from Python, as the guide says."""

import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest
import typer

from moe.config import RunConfig
from moe.data.store import Images, write_store
from moe.errors import UserError
from sweeps import commands
from sweeps.agents.agent import work
from sweeps.agents.crew import Crew
from sweeps.agents.devices import Device
from sweeps.launching import InterruptedLaunchError, check_suitable, launch, plan, register, resume, run, stop
from sweeps.queue.opening import open_sweep
from sweeps.queue.status import status
from sweeps.runs.endings import Ending
from sweeps.runs.store import RunStore
from sweeps.views.preview import preview
from tests.conftest import tiny_store
from tests.holding import Held, needed
from tests.sweeps.test_sweep_cli import write_spec

GUIDE = Path(__file__).parents[2] / "docs" / "guide.md"
SMALL = 'overrides={"train.epochs": 1, "data.name": "tiny", "data.image_size": 16, "train.batch_size": 16}'


class Listener:
    """Notes what it is told, and does something when agents are first at work."""

    def __init__(self, act=lambda: None):
        self.lines, self.agents, self.act = [], set(), act

    def note(self, line):
        self.lines.append(line)

    def look(self, read, agents):
        self.agents.add((agents, len(read().cells)))
        self.act()


@pytest.mark.slow
def test_the_lines_in_the_guide_launch_resume_and_stop_a_sweep():
    """Word for word, but for smaller runs."""
    tiny_store()
    (block,) = (text for text in re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL) if "launch" in text)
    said = {}
    small, changed = re.subn(r"overrides=\{.*?\}", SMALL, block)
    assert changed == 1
    exec(small, said)  # noqa: S102
    sweep = said["sweep"]
    assert [(cell.state, cell.ending, cell.attempts) for cell in sweep.cells] == [("finished", Ending.FINISHED, 1)] * 4
    assert sweep.unfinished == []
    assert all(cell.run.finished and cell.run.config.train.epochs == 1 for cell in sweep.cells)
    assert sorted(cell.cell.values["model.experts"] for cell in sweep.cells) == [4, 4, 8, 8]
    assert status(open_sweep("quickstart")).as_json() == sweep.as_json()
    with pytest.raises(UserError, match="was told to stop"):
        work(open_sweep("quickstart"), Device(), print)


@needed
@pytest.mark.slow
def test_a_reporter_hears_how_it_goes_and_stop_ends_a_launch(tmp_path):
    tiny_store()
    held = []

    def stop_in_the_middle():
        if not held and any(len(one.history()) > 1 for one in RunStore().all()):
            held.append(Held.first_of(RunStore().all()))
            stop("little")
            held[0].go_on()

    begun = Listener(stop_in_the_middle)
    there = launch(str(write_spec(tmp_path, epochs=6)), reporter=begun)
    assert {cell.state for cell in there.unfinished} == {"waiting"}
    assert begun.agents == {(1, 2)}
    assert begun.lines[0] == "backend local: WANDB_MODE=disabled"
    assert begun.lines[1] == "sweep little: 0 of 2 already finished"
    assert begun.lines[2].startswith("queue SQLite, 1 agent on cpu; W&B disabled")
    assert resume("little", agents=2).unfinished == []
    assert [one.history()[-1]["epoch"] for one in RunStore().all()] == [6, 6]


@pytest.mark.slow
def test_ctrl_c_hands_back_and_is_an_interrupt_with_the_status(tmp_path):
    tiny_store()
    sweep = register(str(write_spec(tmp_path, epochs=40)))

    def interrupt():
        if any(len(one.history()) > 2 for one in RunStore().all()):
            os.kill(os.getpid(), signal.SIGINT)

    heard = Listener(interrupt)
    with pytest.raises(InterruptedLaunchError) as caught:
        run(sweep, Crew(), heard)
    assert isinstance(caught.value, KeyboardInterrupt)
    assert heard.lines[-1] == "stopping: running trials write a checkpoint and end"
    first = caught.value.status.cells[0]
    assert (first.state, first.attempts, first.ending) == ("waiting", 0, Ending.INTERRUPTED)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_launch_that_a_signal_ends_is_interrupted_as_by_ctrl_c(tmp_path, capsys, number):
    tiny_store()
    sweep = register(str(write_spec(tmp_path, epochs=1)))
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("these tests were started so that they ignore it, by nohup")

    def work(_reporter):
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        raise InterruptedLaunchError(status(sweep))

    with pytest.raises(typer.Exit) as end:
        commands._watched(work, quiet=True, as_json=False)
    assert end.value.exit_code == 1
    assert "2 of 2 not finished; `moe sweep resume little` goes on" in capsys.readouterr().err


def test_mistakes_are_found_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match=r'did you mean "train\.epochs"'):
        launch(str(write_spec(tmp_path, epochs=2)), {"train.epoch": 3})
    with pytest.raises(UserError, match="tiny"):  # these images are not there
        launch(str(write_spec(tmp_path, epochs=2)))
    with pytest.raises(UserError, match='no sweep "little"'):
        resume("little")
    assert not (RunStore().root / "sweeps").exists()


def test_the_devices_of_a_bayes_sweep_are_those_that_its_file_fixes(tmp_path):
    tiny_store()
    file = tmp_path / "search.yaml"
    file.write_text(
        "name: search\nmethod: bayes\nmetric: {name: val/loss, goal: minimize}\nrun_cap: 2\nparameters:\n"
        "  train.lr: {min: 0.0001, max: 0.01}\n  machine.devices: {value: 2}\n  data.name: {value: tiny}\n"
        "  data.image_size: {value: 16}\n  train.batch_size: {value: 16}\n"
    )
    assert register(str(file)).devices == 2


def written(path, *parameters, method="grid", top=""):
    lines = [
        f"method: {method}",
        top,
        "parameters:",
        *(f"  {line}" for line in parameters),
    ]
    path.write_text("\n".join(lines))
    return str(path)


BAYES = {"method": "bayes", "top": "run_cap: 4\nmetric: {name: val/loss}"}


LARGE = "train.batch_size=64 exceeds the 48 images of tiny; choose"
LACKING = "needs a class for every image, which 2 of 48 images of bare lack (bare-000, bare-047); `moe data import bare"
SUPERVISED, FIXED = "loss.objective: {value: supervised}", "gate.kind: {values: [soft, fixed]}"
BOTH, BARE = "data.name: {values: [tiny, bare]}", "data.name: {value: bare}"


@pytest.mark.parametrize(
    ("lines", "how", "problem"),
    [
        (["train.batch_size: {values: [16, 64]}"], {}, LARGE),
        (["train.batch_size: {value: 64}"], BAYES, LARGE),
        (["train.batch_size: {values: [16, 64]}"], BAYES, LARGE),
        (["train.batch_size: {min: 16, max: 64}"], BAYES, LARGE),
        (["train.batch_size: {values: [16, 32]}"], {}, ""),
        (["train.batch_size: {min: 16, max: 48}"], BAYES, ""),
        ([SUPERVISED, BARE], {}, LACKING),
        ([SUPERVISED, BOTH], {}, LACKING),
        ([SUPERVISED, BOTH], BAYES, LACKING),
        ([FIXED, BARE], {}, LACKING),
        ([FIXED, BARE], BAYES, LACKING),
        ([SUPERVISED, FIXED], {}, ""),
        ([BOTH], BAYES, ""),
    ],
)  # fmt: skip
def test_runs_that_their_images_do_not_suit_are_refused_before_anything_starts(moe, tmp_path, lines, how, problem):
    rest = "train.lr: {min: 0.1, max: 0.2}" if how else "seed: {value: 0}"
    named = [] if any("data.name" in one for one in lines) else ["data.name: {value: tiny}"]
    size = [] if any("batch_size" in one for one in lines) else ["train.batch_size: {value: 16}"]
    file = written(tmp_path / "s.yaml", lines[0], rest, *lines[1:], *named, *size, **how)
    check_suitable(*plan(file))  # nothing is known of images that are not there
    store = tiny_store(count=48)
    labels = np.where(np.arange(48) % 47 == 0, -1, store.labels_N)
    write_store("bare", Images(np.asarray(store.images_NHWC), [f"bare-{n:03d}" for n in range(48)], "random", labels,
                               tuple(store.manifest.classes)))  # fmt: skip
    code, _, err = moe("sweep", "launch", file, "--dry-run")
    if not problem:
        assert code == 0
        register(file)
        return
    with pytest.raises(UserError) as refused:
        register(file)
    at = int(re.search(r"s\.yaml:(\d+): ", str(refused.value))[1])
    assert lines[0] in Path(file).read_text().splitlines()[at - 1]
    assert problem in str(refused.value)
    assert (code, err.strip()) == (2, f"error: {refused.value}")
    assert not (tmp_path / "runs" / "sweeps").exists()


def test_cells_that_are_trained_already_are_not_asked_for_their_images(tmp_path):
    file = written(tmp_path / "s.yaml", "data.name: {value: tiny}", "train.batch_size: {value: 64}")
    tiny_store(count=48)
    sweep, cells = plan(file)
    run = RunStore().create(cells[0].config)
    run.set_state(state="finished")
    check_suitable(sweep, cells)


@pytest.mark.parametrize(
    "lines",
    [
        ("model.experts: {values: [8, 16]}", "model.top_k: {value: 8}"),
        ("train.batch_size: {values: [12, 24]}", "machine.devices: {value: 12}"),
        ("train.lr: {min: 0.1, max: 0.2}", "train.weight_decay: {min: 0.1, max: 0.1}"),
    ],
    ids=["experts", "devices", "a range of one"],
)
def test_a_search_is_previewed_with_values_that_go_together(tmp_path, lines):
    rows = preview(*plan(written(tmp_path / "s.yaml", *lines, **BAYES)))
    assert [row["state"] for row in rows] == ["waiting"] * 4
    assert RunConfig.model_validate(rows[0]["config"])
