"""Results of probes on their way into the run that they are about.

Probing takes hours, sending its results seconds. So the tracker's run is opened when all results are there: a probe
that is broken off, however that happens, leaves the tracker's run as it was.
"""

import contextlib
from collections.abc import Iterator

from sweeps.runs.folders import AnalysisFolder
from sweeps.runs.run import Run
from sweeps.tracking.artifacts import activations_name, parcels, probe_name, prune, upload
from sweeps.tracking.connection import TrackerError, asking, connection
from sweeps.tracking.holdings import ask_what_arrived
from sweeps.tracking.mirror import publish, results_of, summary
from sweeps.tracking.record import Record, set_unconfirmed
from sweeps.tracking.session import analysis, give_up, reopened


class Outbox:
    """Results of probes of one run that wait to be sent.

    From the first one on the run counts as not confirmed: if this process is killed, `moe runs sync` sends them.

    Args:
        run: whose results.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self._before = Record.of(run).unconfirmed
        self._results: dict[tuple[str, str], None] = {}
        self._activations: dict[str, None] = {}

    def add(self, images: str, probe: str) -> None:
        """A probe's results, which lie in the run's folder; put again, they are sent once, as they are then."""
        self._results[images, probe] = None
        self._note()

    def add_activations(self, images: str) -> None:
        """The activations that probes read, which travel as the artifact `activations-<id>-<images>`."""
        self._activations[images] = None
        self._note()

    def _note(self) -> None:
        if connection().mode != "disabled":
            set_unconfirmed(self.run, unconfirmed=True)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to be sent."""
        return not self._results and not self._activations

    def send(self) -> None:
        """Bring all of it into the tracker's run."""
        if self.empty or connection().mode == "disabled":
            return
        set_unconfirmed(self.run, unconfirmed=self._before)
        with reopened(self.run) as session:
            if not session.known:  # an offline piece begins with an empty summary, which replaces the server's
                if session.mode == "online":
                    publish(self.run, session, wait=True)
                else:
                    session.summarise(summary(self.run))
            for images, probe in self._results:
                session.summarise(results_of(self.run, images, probe))
            upload(session, [parcel for parcel in parcels(self.run) if parcel.name in self._names()])
        if session.mode_begun == "online":
            try:
                with asking():
                    prune(Record.of(self.run))
            except TrackerError as error:
                give_up(self.run, f"old versions of artifacts were not removed ({error})")
        ask_what_arrived(self.run, session)

    def _names(self) -> set[str]:
        """Of the artifacts that wait."""
        found = {probe_name(self.run, images, probe) for images, probe in self._results}
        return found | {activations_name(self.run, images) for images in self._activations}


@contextlib.contextmanager
def outbox(run: Run) -> Iterator[Outbox]:
    """Gathers results while a run is probed, and sends them at the end.

    After an error what was found until then is sent too; after Ctrl-C it is left to `moe runs sync`.
    """
    box = Outbox(run)
    try:
        yield box
    except Exception:
        box.send()
        raise
    except BaseException:
        if not box.empty and connection().mode != "disabled":
            give_up(run, "results so far were not sent")
        raise
    box.send()


def publish_analysis(place: AnalysisFolder) -> None:
    """Put what compares all runs of a sweep into a run of its own, linked to the models that it compares."""
    if not place.results() or connection().mode == "disabled":
        return
    with analysis(place) as session:
        publish(place, session)
    ask_what_arrived(place, session)
