"""gpu_check: views/s of whole training steps through Lightning, all recipes in turn."""

import importlib.util
import os
import statistics

from gpu_setting import Findings, Setting, fit
from recipes import RECIPES
from train_step import check_agreement

ROWS = {
    "ours": ("ours", "16-mixed", "batched"),
    "ours, bf16": ("ours", "bf16-mixed", "batched"),
    "ours, one expert after another": ("ours", "16-mixed", "plain"),
    "dense": ("dense", "16-mixed", "plain"),
    "literal": ("literal", "16-mixed", "plain"),
    "lightly": ("lightly", "16-mixed", "plain"),
}


def run(setting: Setting, findings: Findings) -> None:
    """Two rounds in turn, medians; the second round is left out when the time is over."""
    rows = {name: row for name, row in ROWS.items() if row[0] != "lightly" or importlib.util.find_spec("lightly")}
    speeds: dict[str, list[float]] = {}
    config = setting.config({"train.precision": "32-true"})
    names = [name for name in RECIPES if name in {row[0] for row in rows.values()}]
    findings.note("losses of the same views", check_agreement(config, setting.pixels(config), names, setting.device))
    for _ in range(1 if setting.tiny else 2):
        for experts in setting.experts:
            for name, (recipe, precision, path) in rows.items():
                if setting.late():
                    missing = [key for e in setting.experts for n in rows if (key := f"E = {e}, {n}") not in speeds]
                    if missing:
                        findings.note("failed", f"the time was over before {', '.join(missing)}")
                    return
                slow = recipe in ("literal", "lightly")
                values = {"model.experts": experts, "train.precision": precision}
                config = setting.config(values, experts=path)
                warm_up, steps = (1, 2) if setting.tiny else (2, 6) if slow else (10, 40)
                workers = 0 if setting.tiny else (os.cpu_count() or 1) if slow else 0
                speed, _ = fit(recipe, config, setting.pixels(config), warm_up=warm_up, steps=steps, workers=workers)
                speeds.setdefault(f"E = {experts}, {name}", []).append(speed)
                row = f"E = {experts}, {name}"
                memory = setting.most_memory()
                findings.note(
                    row, {"views_s": round(statistics.median(speeds[row])), "rounds": len(speeds[row]), "MiB": memory}
                )
