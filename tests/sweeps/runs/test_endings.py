"""How a trial ended travels as an exit code, by the type of the error and not by its words."""

import errno
import sys

import pytest
import torch

import cli
from moe.errors import UserError
from sweeps.runs.endings import (
    FAILURE,
    INTERRUPTED,
    NO_ROOM,
    OUT_OF_MEMORY,
    STOPPED,
    STOPPED_EARLY,
    USER_MISTAKE,
    Ending,
    InterruptedRunError,
    LackOfMemoryError,
    StoppedRunError,
    ending_of_exit,
    exit_code_of,
)


def accelerator(code):
    """As CUDA reports it outside of torch's own allocator."""
    error = torch.AcceleratorError("CUDA error: some words")
    error.error_code = code
    return error


def allocator():
    """As torch reports that a processor's memory has no room."""
    try:
        torch.empty(2**50, dtype=torch.uint8)
    except RuntimeError as error:
        return error
    raise AssertionError("a petabyte was there")


def chained(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code", "ending"),
    [
        (UserError("no such images"), USER_MISTAKE, Ending.REFUSED),
        (InterruptedRunError("told to stop"), INTERRUPTED, Ending.INTERRUPTED),
        (StoppedRunError("ab12", Ending.STOPPED), STOPPED, Ending.STOPPED),
        (StoppedRunError("ab12", Ending.STOPPED_EARLY), STOPPED_EARLY, Ending.STOPPED_EARLY),
        (torch.OutOfMemoryError("Tried to allocate 20.00 MiB"), OUT_OF_MEMORY, Ending.OUT_OF_MEMORY),
        (MemoryError(), OUT_OF_MEMORY, Ending.OUT_OF_MEMORY),
        (accelerator(2), OUT_OF_MEMORY, Ending.OUT_OF_MEMORY),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), OUT_OF_MEMORY, Ending.OUT_OF_MEMORY),
        (allocator(), OUT_OF_MEMORY, Ending.OUT_OF_MEMORY),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            OUT_OF_MEMORY,
            Ending.OUT_OF_MEMORY,
        ),
        (LackOfMemoryError("no more memory"), FAILURE, Ending.FAILED),
        (chained(LackOfMemoryError("no more memory"), allocator()), OUT_OF_MEMORY, Ending.OUT_OF_MEMORY),
        (accelerator(700), FAILURE, Ending.FAILED),
        (chained(RuntimeError("training failed"), torch.OutOfMemoryError("x")), OUT_OF_MEMORY, Ending.OUT_OF_MEMORY),
        (OSError(errno.ENOSPC, "No space left on device"), NO_ROOM, Ending.NO_ROOM),
        (chained(RuntimeError("saving failed"), OSError(errno.EDQUOT, "Quota exceeded")), NO_ROOM, Ending.NO_ROOM),
        (chained(UserError("no images"), OSError(errno.ENOSPC, "No space left")), NO_ROOM, Ending.NO_ROOM),
        (OSError(errno.EIO, "Input/output error"), FAILURE, Ending.FAILED),
        (RuntimeError("the shop is out of memory sticks"), FAILURE, Ending.FAILED),
        (ValueError("OutOfMemoryError is the name of a class"), FAILURE, Ending.FAILED),
    ],
)
def test_an_error_keeps_its_type_over_the_end_of_its_process(error, code, ending):
    assert exit_code_of(error) == code
    assert ending_of_exit(code) is ending


def test_signals_and_success():
    assert ending_of_exit(-9) is Ending.KILLED
    assert ending_of_exit(0) is Ending.FINISHED
    assert [ending for ending in Ending if ending.has_results] == [Ending.FINISHED]


FULL = OSError(errno.ENOSPC, "No space left on device", "a.ckpt")


@pytest.mark.parametrize(
    ("error", "sweep", "code"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "little", OUT_OF_MEMORY),
        (torch.OutOfMemoryError("CUDA out of memory"), None, FAILURE),
        (FULL, "little", NO_ROOM),
        (FULL, None, FAILURE),
        (chained(UserError("no images could be made"), FULL), "little", NO_ROOM),
        (chained(UserError("no images could be made"), FULL), None, USER_MISTAKE),
    ],
)
def test_an_agent_is_told_of_a_lack_of_memory_or_room_and_a_person_of_a_failure(
    monkeypatch, capsys, error, sweep, code
):
    def train(*_arguments, **_options):
        raise error

    monkeypatch.setattr("sweeps.training.trial.train", train)
    monkeypatch.setattr(sys, "argv", ["moe", "train", "--data.name=synthetic"])
    if sweep:
        monkeypatch.setenv("MOE_SWEEP", sweep)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == code
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert ("moe --debug" in said) == isinstance(error, torch.OutOfMemoryError)


def test_the_code_is_told_where_words_cannot_be(monkeypatch):
    """The log lies on the full disk too."""

    def train(*_arguments, **_options):
        raise FULL

    def full(*_arguments, **_options):
        raise FULL

    monkeypatch.setattr("sweeps.training.trial.train", train)
    monkeypatch.setattr(sys, "argv", ["moe", "train", "--data.name=synthetic"])
    monkeypatch.setattr(cli.err, "print", full)
    monkeypatch.setenv("MOE_SWEEP", "little")
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == NO_ROOM
