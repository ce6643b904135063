"""A queue of another package: one JSON file that a lock guards. Agents sign in as those of the local queue do."""

import contextlib

from sweeps.queue.base import CellState, Claim, LeaseLostError, Offer, Queue
from sweeps.queue.launched import QueuedCell
from sweeps.queue.leases import Owner
from sweeps.runs.endings import Ending
from sweeps.runs.files import read_json, write_json
from sweeps.runs.lock import locked

FRESH = {"attempts": 0, "failures": 0, "weight": 1, "owner": None, "ending": None, "error": None, "note": None}


class ShelfQueue(Queue):
    precedence = 20

    def __init__(self, sweep):
        super().__init__(sweep)
        self.file = sweep.folder.path / "shelf.json"
        self.owner = Owner(sweep.folder.agents)

    @classmethod
    def offer(cls, sweep):
        accepted = sweep.method == "grid" and sweep.early_terminate is None
        return Offer(accepted, "the shelf takes it" if accepted else "the shelf takes whole grids alone")

    @property
    def place(self):
        return f"shelf {self.file}"

    @contextlib.contextmanager
    def _shelf(self):
        with locked(self.file.with_suffix(".lock"), 60):
            shelf = read_json(self.file) or {"cells": {}, "order": [], "stop": False, "definition": None}
            yield shelf
            write_json(self.file, shelf)

    def _present(self, shelf):
        return [shelf["cells"][key] for key in shelf["order"]]

    def define(self, definition):
        with self._shelf() as shelf:
            shelf["definition"] = dict(definition)

    def definition(self):
        with self._shelf() as shelf:
            return shelf["definition"]

    def request_stop(self, *, stop):
        with self._shelf() as shelf:
            shelf["stop"] = stop

    def stop_requested(self):
        with self._shelf() as shelf:
            return shelf["stop"]

    def publish(self, cells):
        with self._shelf() as shelf:
            shelf["order"] = [cell.run_id for cell in cells]
            for cell in cells:
                new = {"key": cell.run_id, "values": cell.values, "state": "waiting"} | FRESH
                shelf["cells"].setdefault(cell.run_id, new)

    def _turn(self, cells, before, **changes):
        with self._shelf() as shelf:
            for cell in cells:
                if shelf["cells"][cell.run_id]["state"] == before:
                    shelf["cells"][cell.run_id] |= changes

    def publish_again(self, cells):
        self._turn(cells, "finished", **FRESH, state="waiting")

    def mark_finished(self, cells):
        self._turn(cells, "waiting", state="finished", ending=Ending.FINISHED.value)

    def recover(self, *, failed=False):
        count = 0
        with self._shelf() as shelf:
            for row in self._present(shelf):
                if row["state"] == "running" and self.owner.known_dead(row["owner"]):
                    row.update(state="waiting", owner=None, ending=Ending.LOST.value)
                    count += 1
                elif failed and row["state"] == "failed":
                    row.update(FRESH, state="waiting")
                    count += 1
        return count

    def waiting(self):
        with self._shelf() as shelf:
            return sum(row["state"] == "waiting" for row in self._present(shelf))

    def states(self):
        with self._shelf() as shelf:
            return {row["key"]: self._state(row) for row in self._present(shelf)}

    def _state(self, row):
        state, ending = row["state"], row["ending"]
        if state == "running" and self.owner.known_dead(row["owner"]):
            state, ending = "waiting", Ending.LOST.value
        cell = QueuedCell(row["key"], row["values"])
        return CellState(cell, state, row["attempts"], row["error"], ending=ending and Ending(ending), note=row["note"])

    def claim(self):
        self.owner.sign_in()
        with self._shelf() as shelf:
            row = next((row for row in self._present(shelf) if row["state"] == "waiting"), None)
            if row is None:
                return None
            row |= {"state": "running", "owner": self.owner.name, "attempts": row["attempts"] + 1, "ending": None}
            cell = QueuedCell(row["key"], row["values"])
            return Claim(cell, row["attempts"], row["failures"], row["weight"], row["key"])

    @contextlib.contextmanager
    def _held(self, claim):
        with self._shelf() as shelf:
            row = shelf["cells"][claim.key]
            if (row["state"], row["owner"]) != ("running", self.owner.name):
                raise LeaseLostError(f"cell {claim.key} was given to another agent")
            yield row

    def beat(self, claim):
        with self._held(claim):
            pass

    def finish(self, claim, ending=Ending.FINISHED, note=None):
        with self._held(claim) as row:
            row |= {"state": "finished", "owner": None, "ending": ending.value, "error": None, "note": note}

    def fail(self, claim, ending, reason, *, retry, tail=None):
        with self._held(claim) as row:
            row |= {"state": "waiting" if retry else "failed", "owner": None, "ending": ending.value}
            row |= {"error": reason, "note": tail, "failures": row["failures"] + 1}

    def release(self, claim, ending=Ending.INTERRUPTED, *, weight=None):
        with self._held(claim) as row:
            row |= {"state": "waiting", "owner": None, "ending": ending.value, "attempts": row["attempts"] - 1}
            row["weight"] = weight or row["weight"]

    def close(self):
        self.owner.sign_out()
