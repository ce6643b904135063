import ast
import csv
import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from callbacks.heatmaps import save
from callbacks.tables import csv_text, escape_latex, latex_text, write_csv

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("character", "set_as"),
    [("\\", r"\textbackslash{}"), ("~", r"\textasciitilde{}"), ("^", r"\textasciicircum{}"), ("#", r"\#"), ("$", r"\$"),
     ("%", r"\%"), ("&", r"\&"), ("_", r"\_"), ("{", r"\{"), ("}", r"\}"), ("±", r"$\pm$")],
)  # fmt: skip
def test_every_special_character_of_latex_is_escaped_once(character: str, set_as: str):
    assert escape_latex(f"a{character}b{character}") == f"a{set_as}b{set_as}"
    assert set_as in latex_text([["name"], [character]])


def test_a_latex_table_has_its_rules_where_they_were_asked_for():
    text = latex_text([["Expert", "r2"], ["0", 0.123456789], ["mean", None]], align="lr", rules=[1, 2], digits=3)
    assert text.splitlines() == [
        r"\begin{tabular}{lr}", r"\toprule", r"Expert & r2 \\", r"\midrule", r"0 & 0.123 \\", r"\midrule",
        r"mean &  \\", r"\bottomrule", r"\end{tabular}",
    ]  # fmt: skip


def test_csv_comes_back_as_it_was(tmp_path: Path):
    rows = [["a,b", 'say "x"', 1], ["ä\nö", "", 2]]
    write_csv(tmp_path / "folder" / "table.csv", ["one", "two", "three"], rows)
    with (tmp_path / "folder" / "table.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["one", "two", "three"], ["a,b", 'say "x"', "1"], ["ä\nö", "", "2"]]


def test_digits_are_for_floats_of_all_widths_and_nothing_else():
    row = [1 / 3, np.float32(1 / 3), np.float64("nan"), np.inf, None, 123456789, np.int64(123456789), "0.123456789"]
    (rounded,) = list(csv.reader(io.StringIO(csv_text(["x"] * 8, [row], digits=3), newline="")))[1:]
    assert rounded == ["0.333", "0.333", "", "", "", "123456789", "123456789", "0.123456789"]
    (whole,) = list(csv.reader(io.StringIO(csv_text(["x"] * 8, [row]), newline="")))[1:]
    assert float(whole[0]) == 1 / 3
    assert whole[2:5] == ["nan", "inf", ""]


def test_no_other_module_writes_tables():
    folders = [ROOT / name for name in ("moe", "callbacks", "sweeps", "probes")]
    found = []
    for file in [ROOT / "cli.py", *(file for folder in folders for file in folder.rglob("*.py"))]:
        nodes = list(ast.walk(ast.parse(file.read_text())))
        names = {
            f"{n.value.id}.{n.attr}" for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)
        }
        texts = {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}
        if names & {"csv.writer", "csv.DictWriter"} or any("\\toprule" in text for text in texts):
            found.append(file.relative_to(ROOT).as_posix())
    assert found == ["callbacks/tables.py"]


def test_what_stands_in_the_place_of_a_table_or_a_picture_is_not_waited_for(tmp_path):
    for name in ("a.csv", "a.png"):
        os.mkfifo(tmp_path / name)
    write_csv(tmp_path / "a.csv", ["x"], [[1]])
    save(Image.new("RGB", (2, 2)), tmp_path / "a.png")
    assert (tmp_path / "a.csv").read_bytes() == b"x\r\n1\r\n"
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (2, 2)
    assert len(list(tmp_path.iterdir())) == 2
