"""The paper's figures and tables of a sweep that was really trained and probed: what is drawn is what was measured."""

import csv
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

import cli
from moe.data.datasets import open_store
from probes import probing
from probes.activations import cached
from probes.paper.making import paper_pieces, plates, write_pieces
from probes.paper.sources import Sources
from probes.suite.published import published_claims
from sweeps.launching import plan, register_planned
from sweeps.training.trial import train
from tests.conftest import TINY, at_home, tiny_store

pytestmark = pytest.mark.slow

SWEEP = """
name: printed
method: grid
parameters:
  model.experts: {values: [3, 4, 5]}
  seed: {value: 0}
"""
CLASSES = 3
IMAGES = 90


@pytest.fixture(scope="module")
def probed(tmp_path_factory):
    """A sweep of three E, probed, with the files that the command writes of it, and the same figures in memory."""
    root = tmp_path_factory.mktemp("printed")
    with at_home(root):
        tiny_store(count=IMAGES, classes=CLASSES)
        file = root / "printed.yaml"
        more = {path: value for path, value in TINY.items() if path != "train.epochs"} | {"train.epochs": 1}
        file.write_text(SWEEP + "".join(f"  {path}: {{value: {value}}}\n" for path, value in more.items()))
        sweep = register_planned(*plan(str(file), {}))
        for cell in sweep.cells:
            train(sweep.prepare(cell).config, report=lambda *_: None)
        names = ["routing", "exciting", "coupling", "tuning", "separability", "similarity"]
        probing.probe_sweep("printed", names, None, lambda _line: None)
        cli.report_command("printed", root / "page.html", root / "figures")
        return root, sweep, {piece.name: piece for piece in paper_pieces(sweep)}


@pytest.fixture
def sweep(probed, monkeypatch):
    root, sweep, _ = probed
    monkeypatch.setenv("MOE_HOME", str(root / "runs"))
    monkeypatch.setenv("MOE_DATA", str(root / "data"))
    return sweep


@pytest.fixture
def pieces(probed):
    return probed[2]


def rows(piece, part=""):
    table = piece.data[part]
    return [dict(zip(table.header, row, strict=True)) for row in table.rows]


def test_everything_is_drawn(pieces):
    assert {name: list(piece.gaps) for name, piece in pieces.items() if piece.gaps} == {}
    drawn = {name for name, piece in pieces.items() if piece.figure is not None}
    assert drawn == {f"figure_{which}" for which in ("2", "3", "4", "5", "6", "s1", "s2", "s3", "s4")}
    assert {name for name, piece in pieces.items() if piece.latex} >= {"table_1", "table_s1"}


def test_what_a_claim_names_as_its_figure_is_drawn(pieces):
    assert {claim.figure for claim in published_claims().values()} <= set(pieces)


def test_files_are_fit_for_a_paper(probed):
    root, _, pieces = probed
    files = {file.name: file for file in (root / "figures").iterdir()}
    for name in (name for name, piece in pieces.items() if piece.figure is not None):
        pdf = files[f"{name}.pdf"].read_bytes()
        assert b"/Type3" not in pdf
        assert b"/FontFile2" in pdf  # TrueType, embedded
        with Image.open(files[f"{name}.png"]) as picture:
            assert picture.width == round(5.5 * 300)
        assert files[f"{name}.svg"].read_text().count("<svg") == 1
        assert any(file.startswith(name) and file.endswith(".csv") for file in files)
    assert files["table_1.tex"].read_text() == pieces["table_1"].latex
    assert "**Figure S4.**" in files["captions.md"].read_text()


def test_equal_figures_are_equal_files(probed, tmp_path):
    root, _, pieces = probed
    for file in write_pieces([pieces["figure_s3"]], tmp_path):
        if file.name != "captions.md":
            assert file.read_bytes() == (root / "figures" / file.name).read_bytes()


def test_every_image_is_a_point_with_the_straight_line_through_them(pieces, sweep):
    run = Sources(sweep).examples[3]
    found = cached(run, open_store("tiny"))
    points = rows(pieces["figure_4"], "E3")
    assert len(points) == IMAGES
    norms_n = np.linalg.norm(found.readouts_EnD[1], axis=1)
    expected = (norms_n - norms_n.min()) / (norms_n.max() - norms_n.min())
    assert [row["norm_1"] for row in points] == pytest.approx(expected.tolist(), abs=1e-5)
    axes = pieces["figure_4"].figure.axes[1]
    drawn = axes.lines[-1].get_ydata()  # from logit 0 to logit 1
    slope, start = np.polyfit([row["logit_1"] for row in points], expected, 1)
    assert drawn == pytest.approx([start, start + slope], abs=1e-4)
    assert sum(len(part.get_offsets()) for part in axes.collections) == IMAGES


def test_the_tables_hold_the_numbers_of_the_probe(pieces, sweep):
    run = Sources(sweep).examples[4]
    with (run.probe("tiny", "tuning") / "tuning.csv").open(newline="") as file:
        saved = {(row["target"], row["expert"]): row for row in csv.DictReader(file)}
    printed = [row for row in rows(pieces["table_s1"]) if row["Section"] == "E = 4, k = 2: Readout"]
    assert [row["Expert"] for row in printed] == ["0", "1", "2", "3"]
    for row in printed:
        own = saved["readout", row["Expert"]]
        mean = float(own["r2_mean"])
        assert float(row["r2 Mean"]) == pytest.approx(mean, abs=5e-4)
        assert not row["r2 Mean"].startswith("0")
        assert row["Feature 1"] == own["dimension_1"]


def test_latex_is_what_latex_takes(pieces, tmp_path):
    latex = pieces["table_s1"].latex
    assert r"\multicolumn{13}{c}{$E = 4$, $k = 2$: Gating} \\" in latex
    body = [line for line in latex.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {line.count(" & ") for line in body} == {12}
    if shutil.which("pdflatex"):
        text = r"\documentclass{article}\usepackage{booktabs}\begin{document}" + latex + r"\end{document}"
        (tmp_path / "t.tex").write_text(text)
        subprocess.run(["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"], cwd=tmp_path, check=True)


def test_clusters_are_those_of_the_probe(pieces, sweep):
    with (sweep.folder.probe("tiny", "similarity") / "members.csv").open(newline="") as file:
        saved = {(row["run"], row["expert"]): row for row in csv.DictReader(file)}
    for name, experts in (("figure_6", 3), ("figure_s4", 5)):
        members = rows(pieces[name], f"map_E{experts}")
        assert len(members) == experts
        assert all(str(row["cluster"]) == saved[row["run"], row["expert"]][f"cluster_E{experts}"] for row in members)
        shown = {(row["run"], row["expert"]) for row in rows(pieces[name], f"images_E{experts}")}
        assert shown == {(row["run"], row["expert"]) for row in members if row["shown"]}
    first = rows(pieces["figure_6"], "images_E3")
    assert [row["rank"] for row in first[:10]] == list(range(1, 11))
    norms = [row["value"] for row in first[:10]]
    assert norms == sorted(norms, reverse=True)


def test_activations_that_are_gone_are_named_with_their_command_and_the_rest_is_drawn(sweep, tmp_path, monkeypatch):
    copied = shutil.copytree(sweep.root, tmp_path / "runs")
    for folder in copied.glob("*/activations"):
        shutil.rmtree(folder)
    monkeypatch.setenv("MOE_HOME", str(copied))
    from sweeps.queue.opening import open_sweep

    pieces = {piece.name: piece for piece in paper_pieces(open_sweep("printed"))}
    (gap,) = pieces["figure_4"].gaps
    run = Sources(open_sweep("printed")).examples[3]
    assert gap.text == f"the saved activations of run {run.id} to tiny are missing"
    assert gap.command == f"moe probe --run {run.id} --images tiny --probe coupling"
    assert pieces["figure_4"].figure is None
    assert pieces["figure_6"].figure is not None  # the map, without pictures
    assert pieces["figure_2"].gaps == []


def test_the_page_shows_them(pieces):
    shown = {plate.name: plate for plate in plates([pieces["figure_s3"], pieces["table_1"]])}
    assert shown["figure_s3"].source.startswith("data:image/webp;base64,")
    assert [heading for heading, _ in shown["table_1"].tables[0].sections] == [
        "E = 3, k = 2: Gating",
        "E = 3, k = 2: Readout",
    ]


def test_the_command_writes_the_page_and_refuses_what_it_cannot_write(probed, sweep, moe, tmp_path):
    assert "Figure S4" in (probed[0] / "page.html").read_text()
    (tmp_path / "file").touch()
    code, _, said = moe("report", "printed", "--figures", tmp_path / "file")
    assert (code, "cannot be written" in said) == (2, True)
    for words in (("report", "printed", "--html"), ("compare", "printed", "--csv"), ("compare", "printed", "--latex")):
        code, _, said = moe(*words, tmp_path)
        assert (code, f"{tmp_path} cannot be written: Is a directory; name another place" in said) == (2, True)
    code, _, said = moe("report", "printed")
    assert (code, "--figures FOLDER" in said) == (2, True)
