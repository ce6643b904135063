"""A metric's key is spelled once."""

import ast
import re
from pathlib import Path

import pytest

from callbacks import keys

ROOT = Path(__file__).parents[2]
SPELLED = ("moe/keys.py", "callbacks/keys.py")
FOLDERS = [ROOT / name for name in ("moe", "callbacks", "sweeps", "probes")]
FILES = [ROOT / "cli.py", *(file for folder in FOLDERS for file in folder.rglob("*.py"))]
MODULES = sorted(name for file in FILES if (name := str(file.relative_to(ROOT))) not in SPELLED)
EVERY = [re.compile(re.escape(key).replace("<e>", r"(\d+|<e>)?")) for key in keys.metrics()]


def spelled(source: str) -> list[str]:
    """Strings that are a metric's key, or the beginning of an f-string that makes one; docstrings aside."""
    tree = ast.parse(source)
    about = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and n not in about]
    return [text for text in texts if isinstance(text, str) and any(key.fullmatch(text) for key in EVERY)]


def test_every_key_is_known_once():
    known = keys.metrics()
    assert len(set(known)) == len(known) == 39
    assert {"val/loss", "train/accuracy", "balance/cv2", "agreement/top_k", "balance/load_<e>"} <= set(known)
    assert (keys.load(3), keys.importance(0)) == ("balance/load_3", "balance/importance_0")


@pytest.mark.parametrize("line", ['x["val/loss"]', 'f"balance/load_{expert}"', 'x = "agreement/top_k"'])
def test_a_key_that_is_spelled_elsewhere_is_found(line: str):
    assert spelled(line)


@pytest.mark.parametrize("module", MODULES)
def test_no_other_module_spells_a_key(module: str):
    assert spelled((ROOT / module).read_text()) == []
