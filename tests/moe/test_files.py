import contextlib
import errno
import os
import resource
import shutil
import signal

import pytest
import torch

from moe.errors import UserError
from moe.files import clear_partials, remove, replacing, sync


def test_the_old_file_stays_if_the_writing_fails(tmp_path):
    path = tmp_path / "new" / "file"
    with replacing(path) as partial:
        partial.write_text("old")

    def fail():
        with replacing(path) as partial:
            partial.write_text("half")
            assert path.read_text() == "old"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [file.name for file in path.parent.iterdir()] == ["file"]
    assert path.read_text() == "old"


@pytest.mark.parametrize("durable", [True, False])
def test_the_disk_has_the_content_before_the_name_and_then_the_name(tmp_path, monkeypatch, durable):
    done = []
    monkeypatch.setattr("moe.files.sync", lambda path: (done.append(path.name), sync(path)))
    path = tmp_path / "file"
    with replacing(path, durable=durable) as partial:
        partial.write_text("content")
        name = partial.name
    assert done == ([name, tmp_path.name] if durable else [])
    assert path.read_text() == "content"


def test_what_a_kill_left_is_cleared_and_nothing_else(tmp_path):
    (tmp_path / ".hidden").touch()
    with contextlib.suppress(KeyboardInterrupt), replacing(tmp_path / "file.csv") as partial:
        partial.touch()
        shutil.copy(partial, tmp_path / "copy")
        (tmp_path / "copy").rename(tmp_path / f".{'x' * 3}.csv.0123abcd")
        raise KeyboardInterrupt
    clear_partials(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [".hidden"]


def test_a_folder_of_the_files_name_is_said_and_stays(tmp_path):
    (tmp_path / "file").mkdir()
    with (
        pytest.raises(UserError, match="file is a folder, and a file is to be written there; move it away"),
        replacing(tmp_path / "file"),
    ):
        pytest.fail("nothing is to be written")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_pipe_of_the_files_name_is_replaced_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "file")
    with replacing(tmp_path / "file") as partial:
        partial.write_text("content")
    assert (tmp_path / "file").read_text() == "content"


@pytest.mark.parametrize("kind", ["a folder", "a file", "a link", "a link to nowhere", "a pipe", "nothing"])
def test_what_is_there_is_removed_whatever_it_is(tmp_path, kind):
    path, other = tmp_path / "it", tmp_path / "other"
    other.mkdir()
    (other / "kept").touch()
    if kind == "a folder":
        (path / "in").mkdir(parents=True)
        (path / "in" / "file").touch()
    elif kind == "a file":
        path.touch()
    elif kind == "a link":
        path.symlink_to(other)
    elif kind == "a link to nowhere":
        path.symlink_to("nowhere")
    elif kind == "a pipe":
        os.mkfifo(path)
    remove(path)
    assert not os.path.lexists(path)
    assert (other / "kept").exists()


def test_a_limit_on_the_size_of_files_is_told_from_a_fault_of_the_library_that_met_it(tmp_path):
    """torch says "unexpected pos" then."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    heeded = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught, replacing(tmp_path / "file") as partial:
            torch.save(torch.zeros(2**16), partial)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, heeded)
    assert caught.value.errno == errno.EFBIG
    assert list(tmp_path.iterdir()) == []
