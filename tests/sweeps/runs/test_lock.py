import os
import threading
from pathlib import Path

import pytest

from sweeps.runs.lock import Lock, LockedError, is_locked, locked


def test_one_holds_it_until_it_lets_go(tmp_path: Path):
    one, other = Lock(tmp_path / "folder" / "lock"), Lock(tmp_path / "folder" / "lock")
    assert one.acquire()
    assert one.acquire()  # held already
    assert (one.held, other.acquire(), other.held) == (True, False, False)
    one.release()
    one.release()
    assert other.acquire()
    assert is_locked(other.path)
    other.release()


def test_patience_waits_for_the_holder(tmp_path: Path):
    path = tmp_path / "lock"
    holder = Lock(path)
    assert holder.acquire()
    with pytest.raises(LockedError), locked(path, 0.15):
        pass
    timer = threading.Timer(0.3, holder.release)
    timer.start()
    with locked(path, 30):
        assert not holder.held
    timer.join()
    assert not is_locked(path)


def test_an_error_frees_it(tmp_path: Path):
    with pytest.raises(ValueError, match="inside"), locked(tmp_path / "lock"):
        raise ValueError("inside")
    assert not is_locked(tmp_path / "lock")


def test_a_pipe_in_the_place_of_a_lock_is_an_error_and_no_wait(tmp_path):
    os.mkfifo(tmp_path / "lock")
    with pytest.raises(OSError, match="No such device or address"):
        Lock(tmp_path / "lock").acquire()
