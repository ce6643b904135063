"""gpu_check: every recipe of the shipped sweep files trains."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from gpu_setting import Findings, Setting, fit

SHIPPED = Path(__file__).parents[1] / "sweeps" / "shipped"


def recipes() -> Iterator[tuple[str, dict[str, Any]]]:
    """File and settings of each cell of each sweep, seeds aside."""
    for file in sorted(SHIPPED.glob("*.yaml")):
        parameters = yaml.safe_load(file.read_text())["parameters"]
        parameters.pop("seed", None)
        choices = [entry["values"] if "values" in entry else [entry["value"]] for entry in parameters.values()]
        for values in itertools.product(*choices):
            yield file.name, dict(zip(parameters, values, strict=True))


def run(setting: Setting, findings: Findings) -> None:
    """Loss of the last step of each; a recipe that fails is named and the rest go on.

    In turn from each file, so that all have been seen when the time is over.
    """
    files = [list(group) for _, group in itertools.groupby(recipes(), key=lambda recipe: recipe[0])]
    ordered = [recipe for turn in itertools.zip_longest(*files) for recipe in turn if recipe]
    ordered = ordered[: len(files)] if setting.tiny else ordered
    losses, failed = {}, {}
    for number, (file, values) in enumerate(ordered):
        if setting.late():
            findings.note("failed", f"the time was over after {number} of {len(ordered)} recipes")
            break
        name = " ".join(
            [file, *(f"{path}={value}" for path, value in values.items() if path[:5] in ("model", "gate.", "loss."))]
        )
        try:
            losses[name] = _train(setting, values)
        except Exception as error:  # noqa: BLE001 - it is reported, and the others go on
            failed[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        findings.note(name, failed.get(name, losses.get(name)))
    findings.note("trained", f"{len(losses)} of {len(ordered)}")
    if failed:
        findings.note("failed", f"{len(failed)} recipes: {next(iter(failed.items()))}")


def _train(setting: Setting, values: dict[str, Any]) -> float:
    config = setting.config(values)
    steps = 2 if setting.tiny else 20
    _, module = fit("ours", config, setting.pixels(config, batches=4), warm_up=1, steps=steps - 1)
    loss = module.last_loss
    if not torch.isfinite(loss):
        raise ArithmeticError(f"the loss is {float(loss)} after {steps} steps")
    return round(float(loss), 4)
