"""Hidden folders, and what killed processes leave of them."""

import subprocess
import sys
from pathlib import Path

import pytest

from moe.scratch import scratch

HELD = """
import os, sys
from pathlib import Path
from moe.scratch import scratch
with scratch(Path(sys.argv[1]), "theirs") as folder:
    (folder / "half").touch()
    print(folder.name, flush=True)
    sys.stdin.read()
    os._exit(0)  # as if killed
"""


def test_it_is_gone_after_the_block_unless_it_got_a_name(tmp_path):
    with scratch(tmp_path, "one") as folder:
        (folder / "file").touch()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ZeroDivisionError), scratch(tmp_path, "one"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    with scratch(tmp_path / "new", "two") as folder:
        folder.rename(tmp_path / "two")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "two"]


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_holds_is_not(tmp_path):
    (tmp_path / ".kept").mkdir()
    (tmp_path / ".a-file-0123abcd").touch()
    command = [sys.executable, "-c", HELD, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], **pipes) as other:
        theirs = tmp_path / other.stdout.readline().strip()
        with scratch(tmp_path, "ours"):
            assert (theirs / "half").exists()
    assert theirs.exists()
    with scratch(tmp_path, "ours"):
        assert not theirs.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a-file-0123abcd", ".kept"]
