"""Results of probes on their way into the run that they are about.

Probing takes hours, sending its results seconds. So the tracker's run is opened when all results are there: a probe
that is broken off, however that happens, leaves the tracker's run as it was.
"""

import contextlib
from collections.abc import Iterator

from sweeps.runs.folders import FindingsFolder
from sweeps.runs.foreign import ForeignRun
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

    def __init__(self, run: Run | ForeignRun) -> None:
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
        if isinstance(self.run, Run):
            self._send(self.run)
        else:
            publish_findings(self.run)

    def _send(self, run: Run) -> None:
        with reopened(run) as session:
            if not session.known:  # an offline piece begins with an empty summary, which replaces the server's
                if session.mode == "online":
                    publish(run, session, wait=True)
                else:
                    session.summarise(summary(run))
            for images, probe in self._results:
                session.summarise(results_of(run, images, probe))
            upload(session, [parcel for parcel in parcels(run) if parcel.name in self._names(run)])
        if session.mode_begun == "online":
            try:
                with asking():
                    prune(Record.of(run))
            except TrackerError as error:
                give_up(run, f"old versions of artifacts were not removed ({error})")
        ask_what_arrived(run, session)

    def _names(self, run: Run) -> set[str]:
        """Of the artifacts that wait."""
        found = {probe_name(run, images, probe) for images, probe in self._results}
        return found | {activations_name(run, images) for images in self._activations}


@contextlib.contextmanager
def outbox(run: Run | ForeignRun) -> Iterator[Outbox]:
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


def publish_findings(place: FindingsFolder) -> None:
    """Put what compares all runs of a sweep, or is about a model trained elsewhere, into a run of its own.

    It is linked to the models of ours that it compares.
    """
    if not place.found() or connection().mode == "disabled":
        return
    with analysis(place) as session:
        publish(place, session)
    ask_what_arrived(place, session)
