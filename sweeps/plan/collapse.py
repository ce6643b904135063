"""Cells that are the same run: a grid over settings that the chosen gate or objective does not read, repeated draws.

W&B's format has no conditional parameters, and a grid tries all combinations. Those that differ only in what is not
read are one run, whose id they share (`RunConfig.hashed`).
"""

import math
from collections.abc import Sequence

from sweeps.plan.spec import Cell, Sweep


def collapsed(sweep: Sweep, cells: Sequence[Cell]) -> str | None:
    """One sentence about combinations or draws that are the same run as another, and about settings that do not count.

    Args:
        sweep: a checked sweep.
        cells: its runs, as `expand` gives them.

    Returns:
        For example ``6 of 24 cells are the same run as another: gate.noisy does not count with gate.kind=soft``; None
        if every combination is a run of its own and everything set is read.
    """
    if sweep.method == "random" and sweep.run_cap is not None and len(cells) < sweep.run_cap:
        repeated = sweep.run_cap - len(cells)
        which = "draw repeats an earlier one, which is" if repeated == 1 else "draws repeat earlier ones, which are"
        return (
            f"run_cap asks for {sweep.run_cap} runs, but {repeated} {which} not run again: {len(cells)} runs; "
            "raise run_cap for more"
        )
    reasons = dict.fromkeys(
        f"{path} does not count with {why}"
        for cell in cells
        for path, why in cell.config.unread(cell.values).items()
    )  # fmt: skip
    reasons |= dict.fromkeys(f"{path} makes no other run" for path in sweep.swept if path.startswith("machine."))
    asked = math.prod(len(parameter.values) for parameter in sweep.parameters.values())
    if sweep.method != "grid" or sweep.run_cap is not None or asked == len(cells):
        return "; ".join(reasons) or None
    same = asked - len(cells)
    counted = f"{same} of {asked} cells {'is' if same == 1 else 'are'} the same run as another"
    return f"{counted}: {'; '.join(reasons) or 'their settings mean the same'}"
