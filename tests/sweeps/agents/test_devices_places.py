"""Places on a device: as many as a cell weighs, a heavy one's turn comes, and death frees them."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time

import pytest

from sweeps.agents import devices
from sweeps.agents.devices import CPU, Device, groups, visible

DEADLINE = 60


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(devices, "_POLL", 0.005)


def at_once():
    """Patience that runs out at the first place that is missing."""
    return False


def wait_until(holds):
    end = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


class Asker(threading.Thread):
    """Waits for places until it has them or is told to give up; then keeps them until told to leave."""

    def __init__(self, device, root, weight):
        super().__init__(daemon=True)
        self.device, self.root, self.weight = device, root, weight
        self.asked, self.held = 0, None
        self.give_up, self.leave = threading.Event(), threading.Event()
        self.start()

    def run(self):
        with self.device.hold(self.root, self.weight, self._patience) as held:
            self.held = held
            self.leave.wait(DEADLINE)

    def _patience(self):
        self.asked += 1
        return not self.give_up.is_set()

    def waits(self):
        """Whether it has just looked again, and in vain."""
        before = self.asked
        wait_until(lambda: self.asked > before + 1 or self.held is not None)
        return self.held is None

    def end(self):
        self.give_up.set()
        self.leave.set()
        self.join(DEADLINE)
        assert not self.is_alive()


@pytest.fixture
def asker(tmp_path):
    """Starts askers on a device; ends them all afterwards."""
    started = []

    def start(device, weight):
        started.append(Asker(device, tmp_path, weight))
        return started[-1]

    yield start
    for one in started:
        one.end()


def test_cells_share_a_device_up_to_their_weight(tmp_path):
    device = Device("0", 4)
    with device.hold(tmp_path, 1, at_once) as first, device.hold(tmp_path, 2, at_once) as second:
        assert first
        assert second
        with device.hold(tmp_path, 2, at_once) as third:
            assert not third
        with device.hold(tmp_path, 1, at_once) as fourth:  # what the third had gathered is free again
            assert fourth
    with device.hold(tmp_path, 4, at_once) as alone:
        assert alone


def test_nothing_weighs_more_than_the_device(tmp_path):
    device = Device("0", 2)
    with device.hold(tmp_path, 8, at_once) as heavy:
        assert heavy
        with device.hold(tmp_path, 1, at_once) as other:
            assert not other


def test_devices_have_places_of_their_own(tmp_path):
    with (
        Device("0", 2).hold(tmp_path, 2, at_once) as one,
        Device("1", 2).hold(tmp_path, 2, at_once) as two,
    ):
        assert one
        assert two


def test_a_device_for_one_agent_needs_no_locks(tmp_path):
    with Device().hold(tmp_path, 4, at_once) as held, Device().hold(tmp_path, 1, at_once) as beside:
        assert held
        assert beside  # its agents are as many as it can take
    assert not list(tmp_path.iterdir())


def test_a_heavy_cell_is_not_starved_by_light_ones(tmp_path, asker):
    """Both places taken; a heavy cell waits at the door. A place that becomes free is not for the light one behind."""
    device = Device("0", 2)
    first, second = asker(device, 1), asker(device, 1)
    wait_until(lambda: first.held and second.held)
    heavy = asker(device, 2)
    assert heavy.waits()
    light = asker(device, 1)
    assert light.waits()
    first.end()
    assert heavy.waits()
    assert light.waits()
    second.end()
    wait_until(lambda: heavy.held)
    assert light.waits()
    heavy.end()
    wait_until(lambda: light.held)


def test_who_gives_up_at_the_door_frees_it_and_what_was_gathered(tmp_path, asker):
    device = Device("0", 2)
    with device.hold(tmp_path, 1, at_once):
        heavy = asker(device, 2)
        assert heavy.waits()
        with device.hold(tmp_path, 1, at_once) as behind:
            assert not behind
        heavy.end()
        assert heavy.held is False
        with device.hold(tmp_path, 1, at_once) as free:
            assert free


def test_a_cell_lost_while_waiting_frees_the_door(tmp_path):
    """The lease may be lost meanwhile; that ends the waiting by an exception."""
    device = Device("0", 2)

    def lost():
        raise RuntimeError("given to another agent")

    with device.hold(tmp_path, 1, at_once):
        with pytest.raises(RuntimeError), device.hold(tmp_path, 2, lost):
            pass
        with device.hold(tmp_path, 1, at_once) as free:
            assert free


def hold_for_ever(root, weight, told):
    """Holds places, or waits at the door for them, until killed."""
    told.set()
    with Device("0", 2).hold(root, weight, lambda: True):
        time.sleep(DEADLINE)


@contextlib.contextmanager
def other_process(root, weight):
    context = multiprocessing.get_context("spawn")
    told = context.Event()
    process = context.Process(target=hold_for_ever, args=(root, weight, told))
    process.start()
    try:
        assert told.wait(DEADLINE)
        yield process
    finally:
        process.kill()
        process.join(DEADLINE)


def free(root, weight):
    with Device("0", 2).hold(root, weight, at_once) as held:
        return held


def test_death_frees_the_places_and_the_door(tmp_path):
    with other_process(tmp_path, 1) as holder:
        wait_until(lambda: not free(tmp_path, 2))
        with other_process(tmp_path, 2) as waiting:
            wait_until(lambda: not free(tmp_path, 1))  # it has the door
            os.kill(waiting.pid, signal.SIGKILL)
            wait_until(lambda: free(tmp_path, 1))
        assert not free(tmp_path, 2)
        os.kill(holder.pid, signal.SIGKILL)
        wait_until(lambda: free(tmp_path, 2))


def test_the_devices_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 5")
    assert visible() == ["2", "5"]
    for none in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", none)
        assert visible() == []


def test_devices_are_put_together_for_runs_that_need_several():
    assert groups(["0", "1", "2", "3", "4"], 2) == ["0,1", "2,3"]
    assert groups(["0", "1"], 1) == ["0", "1"]
    assert groups(["0"], 2) == [CPU]
    assert Device("0,1").environment() == {"CUDA_VISIBLE_DEVICES": "0,1"}
    assert Device().environment() == {}
