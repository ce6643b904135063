"""The cells of a bayes sweep before their values are known."""

from sweeps.plan.spec import Sweep, budget, replicates
from sweeps.queue.protocol import Job

_PREFIX = "place-"


def steered(sweep: Sweep) -> bool:
    """Whether results decide how a sweep goes on; not so for a plain grid or random one."""
    return sweep.method == "bayes" or sweep.early_terminate is not None


def places(sweep: Sweep) -> list[Job]:
    """One cell for every suggestion with every seed."""
    seeds = replicates(sweep)
    return [
        Job(f"{_PREFIX}{number * len(seeds) + place:05d}", {sweep.replicate: seed})
        for number in range(budget(sweep))
        for place, seed in enumerate(seeds)
    ]


def place_of(job: Job) -> int | None:
    """The place of a cell without values, None for one that has them."""
    return int(job.run_id.removeprefix(_PREFIX)) if job.run_id.startswith(_PREFIX) else None
