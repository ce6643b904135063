"""The command line as a user meets it: exit codes, one sentence for a mistake, JSON and nothing else."""

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
import torch
import yaml
from PIL import Image
from rich.console import Console
from rich.table import Table

import cli
from probes.failures import ProbesFailedError
from sweeps import console
from sweeps.plan.source import shipped
from sweeps.runs.folders import home
from sweeps.runs.store import RunStore
from tests.conftest import tiny_config, tiny_store


def write(path, text):
    path.write_text(text)
    return path


SPEC = """name: small
method: grid
parameters:
  model.experts: {values: [4, 8]}
  seed: {values: [0, 1]}
  data.name: {value: tiny}
"""


@pytest.mark.parametrize(
    "words",
    [[], ["sweep"], ["runs"], ["data"], ["train"], ["probe"], ["compare"], ["doctor"], ["sweep", "launch"],
     ["sweep", "agent"], ["sweep", "status"], ["sweep", "resume"], ["sweep", "stop"], ["runs", "list"],
     ["runs", "show"], ["data", "list"], ["data", "prepare"], ["data", "import"], ["data", "verify"]],
    ids=" ".join,
)  # fmt: skip
def test_everything_has_help(moe, words):
    code, out, _ = moe(*words, "--help")
    assert code == 0
    assert "Usage: moe" in out


def test_paper_lists_30_trials_with_30_ids(moe):
    code, out, err = moe("sweep", "launch", "paper.yaml", "--dry-run", "--json")
    plan = json.loads(out)
    assert (code, err, plan["sweep"]) == (0, "", "paper")
    assert len(plan["trials"]) == len({trial["run_id"] for trial in plan["trials"]}) == 30
    assert {trial["state"] for trial in plan["trials"]} == {"waiting"}
    cells = {(trial["config"]["model"]["experts"], trial["config"]["seed"]) for trial in plan["trials"]}
    assert cells == {(experts, seed) for experts in (4, 8, 16) for seed in range(10)}
    assert not home().exists()  # a dry run writes nothing


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (SPEC.replace("model.experts:", "model.expert:"), 4, ["model.expert", 'did you mean "model.experts"']),
        (SPEC.replace("seed: {values: [0, 1]}", "seed: 3"), 5, ["seed", "{value: 3}"]),
        (SPEC.replace("{values: [0, 1]}", "{min: 0.5, max: 3.5}"), 5, ["grid", "values"]),
        (SPEC + "  train.lr: {value: 1e-4}\n", 7, ["1e-4", "1.0e-4"]),
    ],
    ids=["unknown parameter", "value missing", "grid over a range", "number read as text"],
)
def test_a_mistake_in_a_sweep_file_is_one_message_with_file_and_line(moe, tmp_path, text, line, words):
    path = write(tmp_path / "sweep.yaml", text)
    code, out, err = moe("sweep", "launch", path, "--dry-run")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {path}:{line}: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sweep", "launch", "papper"], "paper"),
        (["sweep", "launch", "paper", "--backend", "wandbb", "--dry-run"], "unknown backend"),
        (["sweep", "launch", "paper", "--set", "seeds=3", "--dry-run"], 'did you mean "seed"?'),
        (["sweep", "status", "nothing"], 'no sweep "nothing"'),
        (["runs", "show", "nothing"], 'no run "nothing"'),
        (["probe"], "--run ID, --sweep NAME or --model"),
        (["probe", "--run", "nothing"], 'no run "nothing"'),
        (["compare", "nothing"], 'no sweep "nothing"'),
        (["data", "prepare", "stl"], 'did you mean "stl10"?'),
        (["data", "import", "mine", "/nowhere"], "/nowhere does not exist"),
        (["data", "verify", "mine"], "moe data import mine PATH"),
        (["train", "--model.experts", "8"], "--model.experts=8"),
        (["train", "--set", "data.name=absent"], "moe data import absent PATH"),
        (["train", "--config", "absent.yaml"], "absent.yaml does not exist"),
        (["train", "--set", "seed=010"], "010 is 8 in YAML; write the number that is meant"),
        (
            ["train", "--set", "machine.keep_epochs=all"],
            "='all': input should be 'log' or a list, as [a, b]",
        ),
        (["sweep", "launch", "paper", "--dry-run", "--agents", "99999999999"], "Invalid value for '--agents'"),
        (["sweep", "launch", "paper", "--dry-run", "--timeout", "nan"], "Invalid value for '--timeout'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_gets_one_sentence_and_code_2(moe, words, message):
    code, out, err = moe(*words)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize("name", ["x" * 300, "y/" * 3000, "a file/inside"], ids=["long", "deep", "through a file"])
@pytest.mark.parametrize(
    "words",
    [
        ["train", "--config", "NAME"], ["train", "--data.name=NAME"], ["sweep", "launch", "NAME", "--dry-run"],
        ["sweep", "launch", "quickstart", "--dry-run", "--storage", "sqlite:///NAME"], ["sweep", "status", "NAME"],
        ["sweep", "launch", "quickstart", "--dry-run", "--name", "NAME"], ["probe", "--run", "NAME"],
        ["probe", "--sweep", "NAME"], ["data", "prepare", "stl10", "--source", "NAME"],
        ["data", "prepare", "things", "--source", "NAME"], ["data", "import", "NAME", "."], ["data", "verify", "NAME"],
        ["data", "import", "mine", "NAME"], ["data", "import", "mine", ".", "--labels", "NAME"],
        ["data", "import", "mine", ".", "--classes", "NAME"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_name_that_no_file_can_have_is_refused_in_one_sentence(moe, tmp_path, monkeypatch, words, name):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a file", "")
    code, _, err = moe(*(word.replace("NAME", name) for word in words))
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("place", ["x" * 300, "~nobody-of-this-name/runs"])
@pytest.mark.parametrize("name", ["MOE_HOME", "MOE_DATA"])
def test_a_place_that_cannot_be_is_refused_in_one_sentence(moe, monkeypatch, name, place):
    monkeypatch.setenv(name, place)
    code, _, err = moe("runs", "list")
    assert code == 2
    assert err.startswith(f"error: {name}={place} cannot be used: ")


def test_a_folder_that_is_gone_is_said_before_libraries_fail_in_it(moe, monkeypatch, tmp_path):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    said = "error: the folder that this was started in is gone; start it in another one\n"
    assert moe("runs", "list")[::2] == (2, said)


def test_a_closed_standard_output_gets_no_json(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    console.print_json({"runs": []})


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK"])
def test_a_rank_that_is_no_number_is_refused_in_one_sentence(moe, monkeypatch, name):
    monkeypatch.setenv(name, "x")
    assert moe("runs", "list")[::2] == (2, f"error: {name}=x is no number of a process; unset {name}\n")


def test_a_terminal_without_width_is_given_one(monkeypatch):
    monkeypatch.setenv("COLUMNS", "0")
    assert console.Terminal().width == 80


def test_a_plan_looks_whether_its_storage_is_one(moe):
    code, _, err = moe("sweep", "launch", "quickstart", "--dry-run", "--storage", "a name")
    assert (code, err) == (2, 'error: --storage "a name" is no database URL; write postgresql://USER@HOST/DATABASE\n')


def test_a_sweep_on_absent_images_starts_nothing(moe, tmp_path):
    code, _, err = moe("sweep", "launch", write(tmp_path / "sweep.yaml", SPEC))
    assert code == 2
    assert 'unknown images "tiny"' in err
    assert not home().exists()


def test_a_device_that_is_not_here_leaves_no_run(moe):
    tiny_store()
    absent = "mps" if torch.cuda.is_available() else "cuda"
    code, _, err = moe("train", "--data.name=tiny", "--data.image_size=16", f"--machine.device={absent}")
    assert code == 2
    assert f"machine.device={absent}: torch {torch.__version__} finds no such device on this machine" in err
    assert not home().exists()


def test_a_failure_is_a_message_and_code_1(moe, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("the disk is full")

    monkeypatch.setattr("sweeps.views.listing.listing", broken)
    code, _, err = moe("runs", "list")
    assert code == 1
    assert "error: RuntimeError: the disk is full" in err
    assert "Traceback" not in err
    assert "Traceback" in moe("--debug", "runs", "list")[2]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "runs/a.json"), "runs/a.json: No space left on device; free"),
        (OSError(errno.EROFS, "Read-only file system", "runs/a.json"), "it may only be read; MOE_HOME"),
        (
            FileExistsError(errno.EEXIST, "File exists", "runs/sweeps"),
            "a file lies there in the place of a folder; move",
        ),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "runs/lock"), "a folder lies there in the place of a file;"),
        (OSError(errno.EFBIG, "File too large", "runs/a.ckpt"), "`ulimit -f unlimited` lifts a limit of the shell"),
        (OSError(errno.ENOTDIR, "Not a directory", "a/runs"), "a/runs: Not a directory; a part of this path is a file"),
        (OSError(errno.ESTALE, "Stale file handle", "runs/a"), "the way to it fails; once it is mended"),
        (
            sa.exc.OperationalError("UPDATE", {}, Exception("database or disk is full")),
            "database or disk is full; free",
        ),
        (
            sa.exc.OperationalError("UPDATE", {}, Exception("attempt to write a readonly database")),
            "attempt to write a readonly database; it may only be read; MOE_HOME",
        ),
        (KeyError("epoch"), "error: KeyError: 'epoch'"),
    ],
)
def test_the_systems_errors_are_told_with_the_file_and_what_helps(moe, monkeypatch, error, said):
    def broken(*_, **__):
        raise error

    monkeypatch.setattr("sweeps.views.listing.listing", broken)
    code, _, err = moe("runs", "list")
    assert code == 1
    assert said in err
    assert "sqlalche.me" not in err


def test_a_notebooks_way_to_draw_is_not_that_of_a_command_it_starts(moe, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://a_module_that_this_environment_lacks")
    assert moe("runs", "list")[0] == 0
    assert os.environ["MPLBACKEND"] == "agg"


def test_what_the_terminal_has_no_character_for_is_escaped(monkeypatch):
    monkeypatch.setattr("sweeps.views.listing.details", lambda _run: {"run": {"loss": "1 ± 2", "file": "a\udcff"}})
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setattr(sys, "argv", ["moe", "runs", "show", "any"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    stdout.flush()
    assert end.value.code == 0
    assert stdout.buffer.getvalue().decode() == "run\n  loss: 1 \\xb1 2\n  file: a\\udcff\n"


def test_a_fault_of_ours_names_its_place(moe, monkeypatch):
    monkeypatch.setattr("sweeps.views.listing._row", lambda run: run["epoch"])
    RunStore().create(tiny_config())
    code, _, err = moe("runs", "list")
    assert code == 1
    assert "(in sweeps/views/listing.py, line " in err


def test_an_error_of_our_own_is_its_sentence():
    assert console.failure(ProbesFailedError("1 probe failed")) == "1 probe failed"
    unmapped = ImportError("see\nOriginal error was: libtorch_cpu.so: failed to map segment from shared object\n")
    assert console.failure(unmapped).startswith("libtorch_cpu.so finds no memory to be loaded into; `ulimit -v")


def test_a_module_of_the_users_that_is_called_like_ours_is_none_of_ours(tmp_path):
    for name in ("cli", "sweeps", "typer_is_not_ours"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('this is the user's')")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])])}
    command = [sys.executable, "-P", "-m", "moe_command", "runs", "list", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"runs": []}


def test_no_number_of_a_table_is_cut(moe, tmp_path, monkeypatch):
    tiny_store(count=256)
    spec = SPEC.replace("model.experts:", "train.lr: {values: [5.3015e-05, 0.00012345678]}\n  model.experts:")
    file = write(tmp_path / "sweep.yaml", spec)
    monkeypatch.setenv("COLUMNS", "40")
    _, out, _ = moe("sweep", "launch", file, "--dry-run")
    assert "5.3015e-05" in out
    assert "0.00012345678" in out


@pytest.mark.parametrize("terminal", [False, True])
def test_no_column_of_a_narrow_table_is_cut(monkeypatch, capsys, terminal):
    """In a file a table is as wide as it needs; in a terminal its words are folded."""
    monkeypatch.setattr(Console, "is_terminal", terminal)
    monkeypatch.setattr(console.out, "_width", 30)
    table = Table("a longer heading", "swept")
    table.add_row("words of a cell that is long", "model.experts model.top_k 5.3015e-05")
    console.print_table(table)
    printed = capsys.readouterr().out
    assert "…" not in printed
    assert terminal or "model.experts model.top_k 5.3015e-05" in printed


@pytest.mark.parametrize("name", ["MOE_HOME", "MOE_DATA"])
def test_a_place_that_is_no_folder_is_named(moe, monkeypatch, tmp_path, name):
    monkeypatch.setenv(name, str(write(tmp_path / "file", "")))
    code, _, err = moe("runs", "list")
    assert code == 2
    assert f"{name}={tmp_path / 'file'} is a file, not a folder; name a folder" in err
    (tmp_path / "link").symlink_to(tmp_path / "disk")  # that is not mounted
    for place in (tmp_path / "link", tmp_path / "link" / "mine"):
        monkeypatch.setenv(name, str(place))
        code, _, err = moe("runs", "list")
        assert code == 2
        assert f"{tmp_path / 'link'} is a link to {tmp_path / 'disk'}, which is not there; mount that disk, or" in err
    assert not (tmp_path / "disk").exists()
    monkeypatch.setenv(name, str(tmp_path / "file" / "below"))
    code, _, err = moe("runs", "list")
    assert (code, err.count("\n")) == (2, 1)
    assert f"{name}={tmp_path / 'file' / 'below'}: {tmp_path / 'file'} is a file, not a folder; name a folder" in err
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    monkeypatch.setenv(name, str(tmp_path / "circle"))
    assert "cannot be used: Too many levels of symbolic links; name a folder" in moe("runs", "list")[2]


def test_images_are_imported_listed_and_verified(moe, tmp_path):
    np.save(tmp_path / "images.npy", np.random.default_rng(0).integers(0, 255, (9, 16, 16, 3), dtype=np.uint8))
    (tmp_path / "labels.txt").write_text("\n".join("abc" * 3))
    code, out, _ = moe("data", "import", "mine", tmp_path / "images.npy", "--labels", tmp_path / "labels.txt")
    assert (code, out) == (0, "mine: 9 images of 16x16, 3 classes (a, b, c)\n")
    assert moe("data", "verify", "mine")[0] == 0
    listed = json.loads(moe("data", "list", "--json")[1])
    assert [store["name"] for store in listed["stores"]] == ["mine"]
    assert set(listed["datasets"]) == {"synthetic", "stl10", "things"}
    assert moe("data", "import", "mine", tmp_path / "images.npy")[0] == 2


def test_names_are_shown_as_they_are_and_move_no_cursor(moe, tmp_path, monkeypatch):
    monkeypatch.setenv("MOE_DATA", str(tmp_path / "[/] :cat:"))
    pictures = tmp_path / "[b] \x1b[2J"
    for name in ("[red]", "a\nb"):
        (pictures / name).mkdir(parents=True)
        Image.new("RGB", (16, 16), (len(name), 0, 0)).save(pictures / name / "0.png")
    code, out, _ = moe("data", "import", "mine", pictures)
    assert (code, out) == (0, "mine: 2 images of 16x16, 2 classes ([red], a\\nb)\n")
    code, out, _ = moe("data", "list")
    assert code == 0
    assert "imported from [b] \\x1b[2J" in out
    assert "[/] :cat:" in " ".join(out.split())  # a title as long as this breaks into lines


def test_shipped_sweep_files_are_listed_and_printed(moe):
    code, out, _ = moe("sweep", "files")
    assert (code, [line.partition(":")[0] for line in out.splitlines()]) == (0, shipped())
    assert "paper.yaml: The paper's sweep: its recipe on STL-10" in out
    listed = json.loads(moe("sweep", "files", "--json")[1])["files"]
    assert all(file["about"] for file in listed)
    for name in ("paper", "paper.yaml"):
        code, out, _ = moe("sweep", "files", "--show", name)
        assert code == 0
        assert yaml.safe_load(out)["name"] == "paper"
    code, _, err = moe("sweep", "files", "--show", "papre")
    assert code == 2
    assert 'unknown shipped sweep file "papre": did you mean "paper"?' in err


def test_runs_are_listed_and_shown(moe):
    run = RunStore().create(tiny_config(seed=3))
    rows = json.loads(moe("runs", "list", "--json")[1])["runs"]
    assert [(row["id"], row["seed"], row["state"]) for row in rows] == [(run.id, 3, "waiting")]
    assert run.id[:8] in moe("runs", "list")[1]
    shown = json.loads(moe("runs", "show", run.id[:6], "--json")[1])
    assert shown["config"]["seed"] == 3


def test_doctor_says_what_works_and_how_to_mend_the_rest(moe):
    tiny_store()
    code, out, _ = moe("doctor", "--json")
    checks = {check["name"].split()[0]: check for check in json.loads(out)["checks"]}
    assert code == 0
    assert {"device", "W&B", "images", "runs"} <= set(checks)
    assert "tiny (48)" in checks["images"]["found"]
    assert checks["W&B"]["found"] == "disabled: WANDB_MODE=disabled"
    assert "ok" in moe("doctor")[1]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that even root cannot write to")
def test_doctor_ends_with_code_1_where_nothing_can_be_written(moe, monkeypatch):
    monkeypatch.setenv("MOE_HOME", "/proc/runs")
    code, out, err = moe("doctor")
    assert (code, err) == (1, "")
    words = " ".join(out.split())
    assert "nothing can be written (No such file or directory): what is there can be looked at, nothing" in words
    assert "stop runs in" in words
    assert "-> set MOE_HOME to a folder of yours" in words


def test_the_former_name_of_an_option_is_still_understood(moe):
    for option in ("--slots", "--places"):
        code, _, err = moe("sweep", "agent", "nothing", option, "2")
        assert (code, 'no sweep "nothing"' in err) == (2, True)
    assert "--places" not in moe("sweep", "agent", "--help")[1]
