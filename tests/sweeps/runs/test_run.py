import subprocess
import sys
import time

import pytest

from moe.errors import UserError
from sweeps.runs.files import DamagedFileError, DamagedFileWarning, read_json, write_json
from sweeps.runs.lock import LockedError, is_locked, locked
from sweeps.runs.store import RunStore
from sweeps.training.history import HistoryLogger
from tests.conftest import tiny_config


def test_a_run_is_a_directory_named_by_its_identity(tmp_path):
    config = tiny_config(seed=3)
    run = RunStore(tmp_path).create(config)
    assert run.path == tmp_path / config.identity()
    assert run.config == config
    assert run.state.state == "waiting"
    assert not run.finished
    assert RunStore(tmp_path).create(config).path == run.path


def test_state_changes_are_kept(tmp_path):
    run = RunStore(tmp_path).create(tiny_config())
    run.set_state(state="running", attempts=1)
    run.set_state(state="failed", error="out of memory")
    assert (run.state.state, run.state.attempts, run.state.error) == ("failed", 1, "out of memory")


def test_machine_settings_of_an_unfinished_run_can_change(tmp_path):
    store = RunStore(tmp_path)
    store.create(tiny_config())
    run = store.create(tiny_config(machine__threads=3))
    assert run.config.machine.threads == 3
    run.set_state(state="finished")
    assert store.create(tiny_config(machine__threads=4)).config.machine.threads == 3


def test_a_run_whose_process_was_killed_is_not_running(tmp_path):
    run = RunStore(tmp_path).create(tiny_config())
    run.set_state(state="running")
    assert run.state.state == "waiting"
    with locked(run.lock_file):
        assert run.state.state == "running"


def test_find_takes_an_unambiguous_beginning(tmp_path):
    store = RunStore(tmp_path)
    runs = [store.create(tiny_config(seed=seed)) for seed in range(3)]
    assert store.find(runs[1].id[:8]).id == runs[1].id
    with pytest.raises(UserError, match=r'no run "nothing"'):
        store.find("nothing")
    with pytest.raises(UserError, match="no run"):
        store.find("")
    (tmp_path / (runs[0].id[:6] + "zzzzzz")).mkdir()
    write_json(tmp_path / (runs[0].id[:6] + "zzzzzz") / "config.json", {})
    with pytest.raises(UserError, match="several"):
        store.find(runs[0].id[:6])


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert read_json(path) == {"a": 1}
    assert read_json(tmp_path / "absent.json") is None


def test_a_number_that_no_float_holds_is_damage(tmp_path):
    path = tmp_path / "result.json"
    path.write_text('{"mean": ' + "1" + "0" * 308 + "}")
    assert float(read_json(path)["mean"]) == 1e308
    path.write_text('{"mean": -' + "1" + "0" * 309 + "}")
    with pytest.raises(DamagedFileError, match=r"result\.json.*a number of 310 digits"):
        read_json(path)
    run = RunStore(tmp_path).create(tiny_config())
    run.history_file.write_text('{"epoch": 1, "loss": 1' + "0" * 400 + '}\n{"epoch": 2, "loss": 2}\n')
    with pytest.warns(DamagedFileWarning, match="line 1 is no row"):
        assert [row["epoch"] for row in run.history_rows()] == [2]


def test_a_lock_ends_with_its_process(tmp_path):
    path = tmp_path / "lock"
    code = f"import sys, time; from pathlib import Path; from sweeps.runs.lock import locked\nwith locked(Path({str(path)!r})):\n    print('held', flush=True); time.sleep(60)"  # noqa: E501
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline().strip() == "held"
        assert is_locked(path)
        with pytest.raises(LockedError), locked(path):
            pass
        holder.kill()
        holder.wait()
    assert not is_locked(path)


def test_history_joins_lines_by_epoch_and_survives_a_cut_line(tmp_path):
    run = RunStore(tmp_path).create(tiny_config())
    logger = HistoryLogger(run.history_file)
    logger.log_metrics({"epoch": 0.0, "val/loss": 3.0}, 0)
    logger.log_metrics({"epoch": 1.0, "val/loss": 2.0}, 4)
    logger.log_metrics({"epoch": 1.0, "train/loss": float("nan")}, 4)
    with run.history_file.open("a") as file:
        file.write('{"epoch": 2.0, "val/l')
    assert [row["epoch"] for row in run.history()] == [0, 1]
    assert run.history()[1] == {"epoch": 1.0, "step": 4.0, "val/loss": 2.0, "train/loss": None}


def test_a_history_begins_with_the_rows_it_is_given(tmp_path):
    run = RunStore(tmp_path).create(tiny_config())
    run.history_file.write_text('{"epoch": 7.0}\n{"epoch"')
    rows = [{"epoch": 0.0, "val/loss": 3.0}, {"epoch": 1.0, "val/loss": None}]
    logger = HistoryLogger(run.history_file)
    logger.restore(rows)
    assert run.history_rows() == rows
    logger.log_metrics({"epoch": 1.0, "train/loss": 2.0}, 4)
    run.history_file.unlink()
    logger.save_whole()
    assert run.history_rows() == [*rows, {"epoch": 1.0, "step": 4.0, "train/loss": 2.0}] == logger.rows


def test_runs_are_listed_oldest_first(tmp_path):
    store = RunStore(tmp_path)
    made = []
    for seed in (5, 1, 3):
        run = store.create(tiny_config(seed=seed))
        made.append(run.id)
        stamp = time.time_ns() + len(made) * 10**9
        import os

        os.utime(run.config_file, ns=(stamp, stamp))
    assert [run.id for run in store.all()] == made
