"""Training beside other processes: as many threads as they leave cores, and a record of it."""

from collections.abc import Callable
from typing import Any

import lightning as L

from moe.config import MachineConfig
from moe.hardware import device_type
from moe.threads import SpareCores


def may_change_threads(machine: MachineConfig) -> bool:
    """Whether a run's number of threads may follow the machine's load: where nobody asked for its last bits."""
    exact = machine.threads is not None or machine.deterministic
    return not exact and machine.devices == 1 and device_type(machine) == "cpu"


class LeaveCores(L.Callback):
    """Gives up threads while other processes keep cores busy, and takes them back.

    Args:
        report: takes one line of text when the number changes.

    Attributes:
        steps: training steps by the number of threads that they were computed with; checkpoints carry them.
    """

    def __init__(self, report: Callable[[str], None]) -> None:
        self.steps: dict[int, int] = {}
        self._report = report
        self._spare = SpareCores(self._say)

    def _say(self, threads: int) -> None:
        most = self._spare.most
        if threads == most:
            self._report(f"{most} threads again")
            return
        self._report(
            f"other processes keep this machine's cores busy: {threads} of {most} threads until they are done; last "
            f"bits of the results depend on it (machine.threads={most} or machine.deterministic=true keeps them)"
        )

    def on_train_batch_start(self, *_args: Any, **_kwargs: Any) -> None:
        """Look around."""
        self._spare.look()

    def on_validation_batch_start(self, *_args: Any, **_kwargs: Any) -> None:
        """Look around."""
        self._spare.look()

    def on_train_batch_end(self, *_args: Any, **_kwargs: Any) -> None:
        """Count the step."""
        self.steps[self._spare.present] = self.steps.get(self._spare.present, 0) + 1

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Leave the process as it was."""
        self._spare.close()

    def state_dict(self) -> dict[str, Any]:
        """The steps so far."""
        return {"steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them up."""
        self.steps = dict(state_dict["steps"])
