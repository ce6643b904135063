"""Cells that are the same run: a grid over settings that the gate or objective does not read, few values to draw.

W&B's format has no conditional parameters, and a grid tries all combinations. Those that differ only in what is not
read are one run, whose id they share (`RunConfig.hashed`).
"""

import math
from collections.abc import Sequence

from sweeps.plan.draws import patience, size
from sweeps.plan.spec import Cell, Sweep


def collapsed(sweep: Sweep, cells: Sequence[Cell]) -> str | None:
    """One sentence about combinations or draws that are the same run as another, and about settings that do not count.

    Args:
        sweep: a checked sweep.
        cells: its runs, as `expand` gives them.

    Returns:
        For example ``6 of 24 cells are the same run as another: gate.noisy does not count with gate.kind=soft``; None
        if every combination is a run of its own, everything set is read, and there are as many runs as are asked for.
    """
    reasons = dict.fromkeys(
        f"{path} does not count with {why}"
        for cell in cells
        for path, why in cell.config.unread(cell.values).items()
    )  # fmt: skip
    reasons |= dict.fromkeys(f"{path} makes no other run" for path in sweep.swept if path.startswith("machine."))
    if too_many := _more_than_there_are(sweep, cells):
        return f"{too_many}: {'; '.join(reasons)}" if reasons else too_many
    asked = math.prod(len(parameter.values) for parameter in sweep.parameters.values())
    if sweep.method != "grid" or sweep.run_cap is not None or asked == len(cells):
        return "; ".join(reasons) or None
    same = asked - len(cells)
    counted = f"{same} of {asked} cells {'is' if same == 1 else 'are'} the same run as another"
    return f"{counted}: {'; '.join(reasons) or 'their settings mean the same'}"


def _more_than_there_are(sweep: Sweep, cells: Sequence[Cell]) -> str | None:
    """Says so if `run_cap` asks for more runs than a random sweep has found, or a bayes sweep can have."""
    if sweep.run_cap is None or sweep.method == "grid":
        return None
    most = size(sweep.parameters)
    found = len(cells) if sweep.method == "random" else most
    if found >= sweep.run_cap:
        return None
    proof = "" if found == most else f", as {patience(len(cells)):,} more draws show"
    runs = "run" if found == 1 else "runs"
    return f"run_cap asks for {sweep.run_cap} runs, but the space has only {found} different {runs}{proof}"
