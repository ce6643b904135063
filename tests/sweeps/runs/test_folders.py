"""File names of runs and sweeps are spelled in one place."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweeps.runs.folders import HomeFolder, RunFolder, SweepFolder

ROOT = Path(__file__).parents[3]
SPELLED = ("sweeps/runs/folders.py", "callbacks/files.py")
FOLDERS = [ROOT / name for name in ("callbacks", "sweeps", "probes")]
FILES = [ROOT / "cli.py", *(file for folder in FOLDERS for file in sorted(folder.rglob("*.py")))]
MODULES = [name for file in FILES if (name := str(file.relative_to(ROOT))) not in SPELLED]


def docstrings(tree: ast.AST) -> set[ast.AST]:
    """Strings that stand alone: docstrings."""
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def texts(tree: ast.AST) -> list[str]:
    """Every string of a module but its docstrings, parts of f-strings included."""
    about = docstrings(tree)
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in about
    ]


def path_parts(tree: ast.AST) -> Iterator[str]:
    """Strings that make a path: joined with `/`, globbed, or given to with_name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            yield from texts(node.right)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("glob", "rglob", "with_name"):
            yield from (text for argument in node.args for text in texts(argument))


def known() -> tuple[set[str], set[str]]:
    """Names of files, which no other module holds at all, and of folders, of which none makes a path."""
    spelled = {text for file in SPELLED for text in texts(ast.parse((ROOT / file).read_text()))}
    files = {text for text in spelled if re.fullmatch(r"[\w-]+\.[a-z]+", text)}
    folders = {text for text in spelled if re.fullmatch(r"[\w-]{3,}", text)}
    return files, folders - {"runs"}  # the default of MOE_HOME itself


def offences(source: str) -> list[str]:
    files, folders = known()
    tree = ast.parse(source)
    whole = [text for text in texts(tree) if any(re.search(rf"(?<![\w.]){re.escape(name)}", text) for name in files)]
    parts = [text for text in path_parts(tree) if folders & set(text.rstrip("_").split("/"))]
    return whole + parts


def test_what_counts_as_a_name():
    files, folders = known()
    assert {"config.json", "history.jsonl", "tracker.json", "sweep.json", "result.json", "studies.db"} <= files
    assert {"sweeps", "probes", "analysis", "heatmap", "routing", "agents", "jobs"} <= folders


@pytest.mark.parametrize(
    "line",
    ['x = run.path / "state.json"', 'x = root.glob("*/result.json")', 'x = root / "sweeps" / name', 'x = "log.txt"',
     'x = root / f"{name}/analysis"', 'x = routing / f"heatmap_{epoch:04d}.png"'],
)  # fmt: skip
def test_a_name_that_is_spelled_elsewhere_is_found(line: str):
    assert offences(line)


@pytest.mark.parametrize("module", MODULES)
def test_no_other_module_spells_a_name(module: str):
    assert offences((ROOT / module).read_text()) == []


def test_names_did_not_change(tmp_path: Path):
    """Folders of older versions are read."""
    run, sweep, home = RunFolder(tmp_path / "ab"), SweepFolder(tmp_path, "little"), HomeFolder(tmp_path)
    names = {
        run.config_file: "ab/config.json", run.state_file: "ab/state.json", run.history_file: "ab/history.jsonl",
        run.summary_file: "ab/summary.json", run.tracker_file: "ab/tracker.json", run.log_file: "ab/log.txt",
        run.epoch_checkpoint(7): "ab/checkpoints/epoch0007.ckpt",
        run.step_checkpoint(12): "ab/checkpoints/step00000012.ckpt", run.kept_model(5): "ab/kept/epoch0005",
        run.probe_result("tiny", "tuning"): "ab/probes/tiny/tuning/result.json",
        run.activations("tiny"): "ab/activations/tiny", run.activations("tiny", 3): "ab/activations/tiny@epoch0003",
        sweep.definition: "sweeps/little/sweep.json", sweep.agents: "sweeps/little/agents",
        sweep.analysis("tiny").tracker_file: "sweeps/little/analysis/tiny/tracker.json",
        sweep.submission(sweep.jobs / "2"): "sweeps/little/jobs/2/jobs.json", home.database: "studies.db",
    }  # fmt: skip
    assert [str(path.relative_to(tmp_path)) for path in names] == list(names.values())
