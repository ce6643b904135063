"""A sweep's results as tidy tables, for notebooks.

from sweeps.results import load

results = load("my-sweep")
for run in results.runs:
print(run["model.experts"], run["seed"], run["val/loss"])
"""

from dataclasses import dataclass
from typing import Any

from sweeps.queue.opening import open_sweep
from sweeps.queue.status import status
from sweeps.runs.numbers import claim_rows, expert_rows, numbers, saturation_of_the_end, training_rows


class Rows(list[dict[str, Any]]):
    """Rows of a table, a dict each. Keys may differ from row to row: what a run does not have is left out."""

    @property
    def columns(self) -> list[str]:
        """Names of all columns, in the order of their first appearance."""
        return list(dict.fromkeys(key for row in self for key in row))

    def frame(self) -> Any:
        """The rows as a pandas DataFrame; pandas has to be installed."""
        import pandas as pd

        return pd.DataFrame(list(self), columns=self.columns)


@dataclass(frozen=True)
class Results:
    """What a sweep found. Rows but those of `claims` begin with ``run`` (its id) and the cell's values by dotted path.

    Attributes:
        runs: a row a cell: ``state``, then its run's numbers as `sweeps.runs.numbers.numbers` names them. A cell whose
            run is not finished has what there is of it.
        history: a row an epoch of a run: ``epoch`` (0 is the untrained model) and every metric of `docs/metrics.md`;
            once the run has ended also ``routing/saturation_end``.
        experts: a row an expert and set of images of a run, see `sweeps.runs.numbers.expert_rows`.
        claims: a row a claim of the paper and set of images, of all runs, see `sweeps.runs.numbers.claim_rows`.
        training: a row an epoch and set of images that a run was probed on over training (`moe probe --epochs`), see
            `sweeps.runs.numbers.training_rows`.
    """

    runs: Rows
    history: Rows
    experts: Rows
    claims: Rows
    training: Rows


def load(sweep: str, storage: str | None = None) -> Results:
    """The results of a sweep, from what lies in `MOE_HOME`.

    Args:
        sweep: its name, or ENTITY/PROJECT/SWEEP of a W&B sweep.
        storage: URL of its queue's database; None: where it was launched.

    Raises:
        UserError: there is no such sweep.
    """
    runs, history, experts, training = Rows(), Rows(), Rows(), Rows()
    launched = open_sweep(sweep, storage)
    for one in status(launched).cells:
        named = {"run": one.run.id, **one.cell.values}
        runs.append(named | {"state": one.state} | numbers(one.run))
        settled = saturation_of_the_end(one.run)
        history.extend(named | row | settled.get(int(row["epoch"] or 0), {}) for row in one.run.history())
        experts.extend(named | row for row in expert_rows(one.run))
        training.extend(named | row for row in training_rows(one.run))
    return Results(runs, history, experts, Rows(claim_rows(launched.folder)), training)
