"""Processes that need not import torch and its like again: forked from one that has.

Tests start `moe` hundreds of times, and each sweep its agents and workers, which would import for some seconds each; so
would each process of a parallel run of the tests. After `install` such commands of this process are forked by a server
that has imported everything and done nothing else. What comes out is a process as it would have been started: a child
of who started it, with the environment, folder, standard streams and session that it was given, and an end of its own.
A command that starts others keeps a copy of itself from before its first step, which forks for it in turn.

Whatever is not plainly such a command is executed as ever: other programs, another environment of Python or of the
libraries, signals that are ignored. MOE_TEST_EXEC=1 executes everything.
"""

import contextlib
import ctypes
import importlib.util
import io
import itertools
import json
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib.machinery import all_suffixes
from pathlib import Path
from typing import Any

from moe.importing import importing, leaving
from sweeps.agents.copies import adopting, fork_orphan

ROOT = Path(__file__).parents[1]
FAULTS = Path(__file__).parent / "sweeps" / "faults" / "site"
_JOBS = ("submitit.local._local", "submitit.core._submit")  # what looks after a job, and the job
_MODULES = ("moe_command", "cli", "sweeps.launching", "sweeps.agents.agent", "sweeps.training.trial", "probes.probing",
            "sweeps.views.compare", "sweeps.queue.database", "requests", "moe.gates.noisy_top_k",
            "moe.balancing.importance", "moe.objectives.contrastive", *filter(importlib.util.find_spec, ["submitit"]),
            "wandb.cli.cli", "wandb.wandb_agent", "wandb.apis.public")  # fmt: skip
_SOURCE = "import cli; cli.main()"
_COMMANDS = (["-m", "cli"], ["-m", "moe_command"], ["-m", "wandb"], ["-c", _SOURCE],
             ["-m", "tests.moe.two_processes"], ["-m", "tests.callbacks.two_processes"],
             ["-m", "tests.sweeps.training.kills"],
             ["-m", "tests.sweeps.agents.fake_slurm"], *(["-m", module] for module in _JOBS))  # fmt: skip
_TESTS = ["-c", "import sys;exec(eval(sys.stdin.readline()))"]  # as pytest-xdist starts what runs a share of the tests
_OPTIONS = ("-P", "-u", "-B")  # of Python, that are heeded here
_SCRIPT = Path(sys.executable).with_name("moe")  # as W&B's agent finds it
_BENCHMARKS = ROOT / "benchmarks"  # those that tests start import no `probes`, which one of them is called
_TRIAL = ROOT / "tests" / "wandb_server" / "program" / "trial.py"
_STARTS_OTHERS = ("launch", "resume", "retry", "agent")
# what a process reads when it needs it, or is given below; the rest of the environment has to be the server's
_GIVEN = ("MOE_", "WANDB_", "SLURM_", "SUBMITIT_", "PYTEST_", "NETRC", "NO_PROXY", "PATH", "PYTHONPATH",
          "PYTHONUNBUFFERED", "CUDA_VISIBLE_DEVICES", "GLOO_", "MASTER_", "WORLD_SIZE", "NODE_RANK",
          "LOCAL_RANK")  # fmt: skip
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

_COMM = Path("/proc/self/comm")
WANDB_POLL = "MOE_TEST_WANDB_POLL"  # seconds between two questions of W&B's agent, which has no setting for its five
_ROOM = 4096 * " "  # in the command line of a server, for those of what it forks
NAME = "moe-forker"  # what /proc/PID/comm calls a server

_execute: Any = getattr(subprocess, "_fork_exec", None)
_spawns: Any = getattr(subprocess, "_USE_POSIX_SPAWN", False)
_lock = threading.Lock()
_server: subprocess.Popen[bytes] | None = None
_channel: socket.socket | None = None  # to what forks for this process
_usual: Mapping[str, str] | None = None
_forked = False  # whether this process is
_imports_set: set[str] = set()  # variables that imports have set in the environment


# --- in the process that starts another -----------------------------------------------------------------------------


def install(environment: Mapping[str, str] | None = None) -> None:
    """From now on what this process starts is forked where it can be.

    Args:
        environment: that most of it will have; None: of the first.
    """
    global _usual  # noqa: PLW0603
    _usual = environment
    if sys.platform == "linux" and not os.environ.get("MOE_TEST_EXEC"):
        subprocess._fork_exec = _start
        subprocess._USE_POSIX_SPAWN = False  # which goes before it, since Python 3.13


def uninstall() -> None:
    """End the server; from now on everything is executed."""
    global _server, _channel  # noqa: PLW0603
    subprocess._fork_exec, subprocess._USE_POSIX_SPAWN = _execute, _spawns
    if _server is not None:
        _channel.close()
        _server.wait()
        _server = _channel = None


def _start(args: Any, executables: Any, close_fds: Any, keep: Any, cwd: Any, env: Any, *rest: Any) -> int:
    """In place of `_posixsubprocess.fork_exec`: the pid of a new process."""
    stdin, _, _, stdout, _, stderr, _, _, _, session, group, gid, gids, uid, umask, before, *_ = rest
    environment = dict(os.environ) if env is None else dict(os.fsdecode(pair).split("=", 1) for pair in env)
    command = _command(*map(os.fsdecode, args), path=environment.get("PATH", ""))
    others = [number for number in _SIGNALS if signal.getsignal(number) is signal.SIG_IGN]
    blocked = sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))
    usual = close_fds and len(keep) == 1 and (gid, gids, uid, umask, before) == (None, None, None, -1, None)
    if command and usual and group in (-1, 0) and not others:
        folder = str(Path(os.fsdecode(cwd or "")).absolute())
        order = command | {"environment": environment, "session": bool(session), "folder": folder, "leads": group == 0}
        order |= {"blocked": blocked}
        streams = [number if given == -1 else given for number, given in enumerate((stdin, stdout, stderr))]
        with _lock:
            if pid := _ask(order, streams):
                if group == 0:  # so does the process itself: neither is to find that it has not happened
                    os.setpgid(pid, pid)
                return pid
    return int(_execute(args, executables, close_fds, keep, cwd, env, *rest))


def _command(program: str, *words: str, path: str) -> dict[str, Any] | None:
    """What is to be run, if it is a command that can be forked: a script is told by its place, without an option."""
    if (program, *words[:1]) == ("/usr/bin/env", _SCRIPT.name):
        found = shutil.which(_SCRIPT.name, path=path) == str(_SCRIPT)
        order = {"kind": ["", str(_SCRIPT)], "words": words[1:], "options": [], "name": _SCRIPT.name}
        return order | {"program": sys.executable} if found else None
    if program == "/usr/bin/env" and words[:1] == (sys.executable,):
        program, words = words[0], words[1:]
    options = list(itertools.takewhile(_OPTIONS.__contains__, words))
    kind, words = list(words[len(options) : len(options) + 2]), words[len(options) + 2 :]
    if kind and (Path(kind[0]).parent == _BENCHMARKS or kind[0] == str(_TRIAL)):
        kind, words = ["", kind[0]], (*kind[1:], *words)
    elif kind not in (*_COMMANDS, _TESTS):
        return None
    order = {"kind": kind, "words": words, "options": options, "name": Path(program).name, "program": program}
    return order if program == sys.executable else None


def _ask(order: dict[str, Any], streams: list[int]) -> int:
    """The pid of what was forked; 0: the server can not, so execute it."""
    if _channel is None and not _forked:
        _start_server(order["environment"])
    if _channel is None:
        return 0
    with adopting(), contextlib.suppress(OSError):  # it was killed
        socket.send_fds(_channel, [json.dumps(order).encode()], streams)
        return int(_channel.recv(64) or b"0")
    return 0


def _start_server(environment: dict[str, str]) -> None:
    global _server, _channel  # noqa: PLW0603
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = _usual or environment
    neutral = {name: value for name, value in environment.items() if not name.startswith(_GIVEN) or name == "PATH"}
    subprocess._fork_exec = _execute
    try:
        command = [sys.executable, "-P", __file__, str(theirs.fileno()), _ROOM]
        _server = subprocess.Popen(command, env=neutral, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
    finally:
        subprocess._fork_exec = _start
    theirs.close()
    _channel = ours


# --- in the server --------------------------------------------------------------------------------------------------


def _serve(channel: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Fork for the process at the other end until that ends; returns in each new process, with what that is to do."""
    _COMM.write_text(NAME)
    _be_called([NAME])
    while True:
        message, streams, _, _ = socket.recv_fds(channel, 1 << 20, 3)
        if not message:
            os._exit(0)
        order = json.loads(message)
        # whoever asks for the new process is not to see it called otherwise
        _be_called([order["program"], *order["options"], *filter(None, order["kind"]), *order["words"]])
        pid = fork_orphan(session=order["session"]) if _fits(order) else 0
        if pid is None:
            channel.close()
            if order["leads"]:
                os.setpgid(0, 0)
            _COMM.write_text(order["name"])
            return order, list(streams)
        _be_called([NAME])
        for stream in streams:
            os.close(stream)
        with contextlib.suppress(BrokenPipeError):
            channel.send(str(pid).encode())


def _fits(order: dict[str, Any]) -> bool:
    """Whether a process would begin as this one did, and find the same modules."""
    wanted, begun = ({pair for pair in each.items() if not pair[0].startswith((*_GIVEN, *_imports_set))}
                     for each in (order["environment"], os.environ))  # fmt: skip
    return wanted == begun and all(_hides_nothing(Path(order["folder"], folder)) for folder in _first(order))


def _first(order: dict[str, Any]) -> list[str]:
    """What comes before the usual folders of modules."""
    places = {"-m": order["folder"], "-c": "", "": str(Path(order["kind"][1]).parent)}
    here = [] if "-P" in order["options"] else [places[order["kind"][0]]]
    return here + [folder for folder in order["environment"].get("PYTHONPATH", "").split(os.pathsep) if folder]


def _hides_nothing(folder: Path) -> bool:
    """Whether no module or package that a folder has comes before one of ours, or of Python's start."""
    known = (ROOT, FAULTS, _BENCHMARKS, _TRIAL.parent, *map(Path, sys.path))
    files = folder.iterdir() if folder.is_dir() and folder not in known else ()
    found = [file for file in files if file.suffix in all_suffixes() or (file / "__init__.py").exists()]
    return not {file.name.partition(".")[0] for file in found} & {"sitecustomize", "usercustomize", *sys.modules}


def _brings_faults(order: dict[str, Any]) -> bool:
    """Whether Python reads at its start what kills it later; that changes modules too that are there already."""
    return str(FAULTS) in _first(order)


def _become(order: dict[str, Any], streams: list[int]) -> None:
    """Be the process that was asked for, as far as it differs from this one."""
    import numpy as np

    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(order["folder"])
    by_imports = {name: os.environ[name] for name in _imports_set}
    os.environ.clear()
    os.environ.update(by_imports | order["environment"])
    unbuffered = "-u" in order["options"] or bool(order["environment"].get("PYTHONUNBUFFERED"))
    sys.dont_write_bytecode |= "-B" in order["options"]
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    for number, name in ((1, "stdout"), (2, "stderr")):
        binary = open(number, "wb", 0 if unbuffered else -1, closefd=False)  # noqa: SIM115
        errors = "strict" if number == 1 else "backslashreplace"
        text = io.TextIOWrapper(binary, "utf-8", errors, line_buffering=number == 2, write_through=unbuffered)
        setattr(sys, name, text)
    sys.path[:0] = _first(order)
    importlib.invalidate_caches()
    kind, what = order["kind"]
    sys.argv = [kind or what, *order["words"]]
    sys.orig_argv = [sys.executable, *order["options"], *filter(None, order["kind"]), *order["words"]]
    np.random.seed()  # noqa: NPY002 - each process has draws of its own
    signal.pthread_sigmask(signal.SIG_SETMASK, order["blocked"])


def _be_called(words: Sequence[str]) -> None:
    """Show others this command line, as far as there is room for it."""
    start, end = map(int, Path("/proc/self/stat").read_text().rpartition(")")[2].split()[45:47])
    ctypes.memmove(start, b"\0".join(map(os.fsencode, words))[: end - start - 1].ljust(end - start, b"\0"), end - start)


def main() -> None:
    """The server, and what each process that it forks does."""
    global _channel, _forked  # noqa: PLW0603
    # what is sent to all processes of a command is not meant for a server; a new process hears it once it is complete
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    before = set(os.environ)
    with importing():
        for name in _MODULES:
            importlib.import_module(name)
    _imports_set.update(set(os.environ) - before)
    sys.modules["tests.forking"] = sys.modules[__name__]  # for tests: what forks for them is known here
    order, streams = _serve(socket.socket(fileno=int(sys.argv[1])))
    # a command that starts others has a copy of itself for that, which may be one of the others in turn
    while _starts_others(order["kind"], order["words"]):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork():
            theirs.close()
            _channel = ours
            break
        ours.close()
        for stream in streams:
            os.close(stream)
        order, streams = _serve(theirs)
    _forked = True
    _become(order, streams)
    install()
    kind, what = order["kind"]
    if seconds := os.environ.get(WANDB_POLL):
        sys.modules["wandb.wandb_agent"].Agent.POLL_INTERVAL = float(seconds)
    with leaving():  # not every command would take apart what the server imported for all
        if _brings_faults(order):
            known = sys.modules.get("sitecustomize")
            if known is not None and FAULTS not in Path(str(known.__file__)).parents:  # Debian's Python has one
                del sys.modules["sitecustomize"]
            importlib.import_module("sitecustomize")
        if kind == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        elif kind == "-c":
            exec(what, {"__name__": "__main__"})  # noqa: S102
        else:
            runpy.run_path(what, run_name="__main__")


def _starts_others(kind: Sequence[str], words: Sequence[str]) -> bool:
    """Whether a command starts `moe` in turn."""
    match words:
        case ["agent", *_]:
            return kind == ["-m", "wandb"]
        case ["sweep", command, *_]:
            return command in _STARTS_OTHERS
        case _ if kind[1] in (*_JOBS, "tests.sweeps.agents.fake_slurm"):
            return True
        case ["train", *options]:  # Lightning starts it once more for each device
            return any(option.startswith("--machine.devices=") for option in options)
    return kind == _TESTS or Path(kind[1]).parent == _BENCHMARKS


if __name__ == "__main__":
    main()
