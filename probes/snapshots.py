"""A model that probes ask: of a run, at its end or after an epoch, or one that was trained elsewhere."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from moe.data.preparation import Preparation
from moe.data.store import ImageStore
from moe.errors import UserError
from moe.export import ModelCard, load_model
from moe.foreign.checked import Foreign
from moe.model import MoE
from sweeps.runs.foreign import ForeignRun
from sweeps.runs.run import Run

_FORMAT = 2  # raised when the same model and images would give other arrays


@dataclass(frozen=True)
class Snapshot:
    """A run's model at some time, or one that was trained elsewhere.

    Attributes:
        run: whose model it is.
        model: in eval mode, on the CPU.
        preparation: of images for it.
        card: what else a run's model is; None of one that was trained elsewhere.
        digest: checksum of everything that its activations depend on but the images.
        epoch: epochs trained, if it is a checkpoint; None for the final model.
    """

    run: Run | ForeignRun
    model: MoE | Foreign
    preparation: Preparation
    card: ModelCard | None
    digest: str
    epoch: int | None = None

    def folder(self, store: ImageStore) -> Path:
        """Where its activations to a store lie."""
        return self.run.activations(store.name, self.epoch)


def final_snapshot(run: Run) -> Snapshot:
    """The exported model of a finished run.

    Raises:
        UserError: the run has no usable model.
    """
    model, card = exported(run)
    return of_run(run, model, card, card.sha256)


def exported(run: Run, folder: Path | None = None) -> tuple[MoE, ModelCard]:
    """The network that a run exported, in eval mode, and its card.

    Args:
        run: whose.
        folder: one of an epoch that is kept; None: the final one.

    Raises:
        UserError: it is not usable, or another run's, whose folder was copied, say.
    """
    folder = folder or run.model
    model, card = load_model(folder)
    if card.run_id != run.id:
        raise UserError(f"{folder} holds the model of run {card.run_id}; move it away, and train run {run.id} again")
    return model, card


def of_run(run: Run, model: MoE, card: ModelCard, weights: str, epoch: int | None = None) -> Snapshot:
    """A model of a run's.

    Args:
        run: whose it is.
        model: in eval mode, on the CPU.
        card: of the run's exported model.
        weights: checksum of the file with the weights, or what tells them from others.
        epoch: see `Snapshot`.
    """
    return Snapshot(run, model, card.preparation, card, digest(weights, card), epoch)


def of_foreign(run: ForeignRun, model: Foreign) -> Snapshot:
    """A model that was trained elsewhere; its code is not in the checksum, but in the run's id."""
    return Snapshot(run, model, model.preparation, None, f"{run.id}:{_FORMAT}:{model.digest}")


def digest(weights: str, card: ModelCard) -> str:
    """Checksum of a model: of its weights, its network and how images are prepared for it.

    Args:
        weights: checksum of the file with the weights.
        card: the rest.
    """
    parts = (_FORMAT, weights, card.model, card.gate, card.data.image_size, card.mean, card.sd)
    return hashlib.sha256(repr(parts).encode()).hexdigest()
