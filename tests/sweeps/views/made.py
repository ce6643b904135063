"""A sweep as files, its numbers made up: for tests of what shows a sweep."""

import csv
import io
import json
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image

from callbacks.files import View
from sweeps.launching import plan, register_planned
from sweeps.queue.launched import LaunchedSweep
from sweeps.runs.files import write_json
from tests.conftest import tiny_store

EPOCHS = 3
HOSTILE = "<img src=x onerror=alert(1)></script><b>"
NAMES = ("cat", HOSTILE, "dog")


def write_table(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def finish(run, experts: int, seed: int) -> None:
    """History, routing and summary of a run, as training leaves them."""
    rng = np.random.default_rng([experts, seed])
    rows = []
    for epoch in range(EPOCHS + 1):
        row = {"epoch": float(epoch), "val/loss": 5 - epoch + 0.1 * seed, "agreement/top_k": 0.2 * epoch}
        rows.append(row | {"agreement/chance_observed": 0.1, "balance/dead": 0.0, "balance/load_0": 0.5})
        shares = rng.dirichlet(np.ones(experts), len(NAMES)).round(3)
        table = [{"class": name, **dict(enumerate(share))} for name, share in zip(NAMES, shares, strict=True)]
        write_table(run.routing_files.table(View.HEATMAP, epoch), table)
        pairs = [{"expert": e, **dict.fromkeys(range(experts), 0.1)} for e in range(experts)]
        write_table(run.routing_files.table(View.COACTIVATION, epoch), pairs)
    run.history_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_json(run.summary_file, {"untrained": rows[0], "last": rows[-1], "best": rows[-1]})
    run.set_state(state="finished")


@cache
def picture() -> bytes:
    """A figure of the usual size."""
    buffer = io.BytesIO()
    Image.new("RGB", (1500, 900), "white").save(buffer, format="PNG")
    return buffer.getvalue()


def probe(run, experts: int) -> None:
    """Tables and numbers of some probes, as they leave them."""
    tuning = [
        {
            "target": target, "expert": e, "r2_mean": 0.4, "p": 0.01,
            "dimension_1": f"furry {HOSTILE}", "weight_1": 0.5, "dimension_2": "", "weight_2": "",
        }
        for target in ("gate", "readout") for e in range(experts)
    ]  # fmt: skip
    write_table(run.probe("tiny", "tuning") / "tuning.csv", tuning)
    numbers = {"gate_r2": 0.4, "readout_r2": 0.25, "gate_r2_p": 0.01, "readout_r2_p": 0.01}
    numbers |= {"gate_r2_null": -0.02, "untrained/gate_r2": 0.1, "pixels/readout_r2": 0.2, "images": 48}
    over = [{"epoch": e, "gate_r2": 0.1 * e, "gate_r2_null": -0.01 * e} for e in (0, EPOCHS)]
    write_table(run.probe("tiny", "tuning") / "epochs.csv", over)
    write_json(run.probe_result("tiny", "tuning"), numbers)
    shown = [
        {"images": "tiny", "score": score, "expert": e, "rank": rank, "image": f"tiny-{rank:03d}", "value": 1.0}
        for score in ("readout", "gate") for e in range(experts) for rank in range(1, 4)
    ]  # fmt: skip
    write_table(run.probe("tiny", "exciting") / "exciting.csv", shown)
    write_json(run.probe_result("tiny", "exciting"), {})
    alive = [
        {"expert": e, "gate": 0.5, "gate_p": 0.01, "gate_p_adjusted": 0.02, "readout": -0.3, "readout_p_adjusted": ""}
        for e in range(experts)
    ]
    write_table(run.probe("tiny", "animacy") / "animacy.csv", alive)
    write_json(run.probe_result("tiny", "animacy"), {})
    coupled = [{"expert": e, "pearson": 0.2, "pearson_low": 0.1, "pearson_high": 0.3} for e in range(experts)]
    write_table(run.probe("tiny", "coupling") / "coupling.csv", coupled)
    write_json(run.probe_result("tiny", "coupling"), {})
    sent = [{"class": name, "images": 16, **dict.fromkeys(range(experts), 0.3)} for name in NAMES]
    write_table(run.probe("tiny", "routing") / "routing.csv", sent)
    write_json(run.probe_result("tiny", "routing"), {})
    (run.probe("tiny", "routing") / "map.png").write_bytes(picture())


def similarity(sweep, runs: list) -> None:
    """The comparison of the experts of all runs."""
    folder = sweep.folder.probe("tiny", "similarity")
    members = [
        {"run": run.id, "experts": run.config.model.experts, "seed": run.config.seed, "expert": e, "cluster": e % 2}
        for run in runs for e in range(run.config.model.experts)
    ]  # fmt: skip
    count = len(members)
    values = np.eye(count)
    for a, b in combinations(range(count), 2):
        values[a, b] = values[b, a] = 0.8 if members[a]["cluster"] == members[b]["cluster"] else 0.3
    names = [f"{m['run'][:4]}/{m['expert']}" for m in members]
    rows = [{"expert": name, **dict(zip(names, row, strict=True))} for name, row in zip(names, values, strict=True)]
    write_table(folder / "members.csv", members)
    write_table(folder / "similarity.csv", rows)
    clusters = {"clusters": 2, "silhouette": 0.71, "silhouette_null": 0.32, "silhouette_p": 0.001,
                "silhouette_within_runs": 0.3, "silhouette_within_runs_null": 0.25, "silhouette_within_runs_p": 0.4,
                "runs_in_every_cluster_E2_p_fewer": None, "runs_in_every_cluster_E4_p_fewer": 0.01}  # fmt: skip
    write_json(sweep.folder.probe_result("tiny", "similarity"), clusters)
    columns = ("claim", "verdict", "says", "effect", "low", "high", "over", "region_low", "region_high", "p", "missing",
               "figure")  # fmt: skip
    claims = [
        dict.fromkeys((*columns, "measured_by"), "") | {"claim": "another", "verdict": "not asked", "says": "x"},
        dict(zip(columns, ("gate_readout_loose", "holds", f"a line is loose {HOSTILE}", 0.2, 0.1, 0.3, "seeds", "", 0.5,
                           "", "", "figure_4"), strict=True)) | {"measured_by": "r2 of a line"},
    ]  # fmt: skip
    claims[0]["missing"] = f"no ratings; `moe probe {HOSTILE}` asks"
    write_table(sweep.folder.probe("tiny", "claims") / "claims.csv", claims)
    write_json(sweep.folder.probe_result("tiny", "claims"), {})


def made_sweep(
    folder: Path,
    experts: tuple[int, ...] = (2, 4),
    seeds: int = 2,
    *,
    finished: int | None = None,
    probed: bool = True,
    further: str = "",
) -> LaunchedSweep:
    """A launched sweep with its runs.

    Args:
        folder: where its file goes.
        experts, seeds: its cells.
        finished: how many runs are, the first; None: all.
        probed: whether the finished ones are.
        further: more parameters, as lines of the file.
    """
    spec = folder / "made.yaml"
    text = f"name: made\nmethod: grid\nparameters:\n  model.experts: {{values: {list(experts)}}}\n"
    text += f"  seed: {{values: {list(range(seeds))}}}\n  data.name: {{value: tiny}}\n  model.top_k: {{value: 1}}\n"
    spec.write_text(text + further)
    tiny_store(classes=len(NAMES))
    sweep = register_planned(*plan(str(spec), {}))
    runs = [sweep.prepare(cell) for cell in sweep.cells]
    done = runs if finished is None else runs[:finished]
    for run in done:
        count, seed = run.config.model.experts, run.config.seed
        finish(run, count, seed)
        if probed:
            probe(run, count)
    if probed and done:
        similarity(sweep, done)
    return sweep
