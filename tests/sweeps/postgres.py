"""A PostgreSQL server of its own on loopback, from Debian's package, as a user other than root."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path


def binaries() -> Path | None:
    """Folder with initdb and postgres, or None."""
    found = [*sorted(Path("/usr/lib/postgresql").glob("*/bin")), *map(Path, os.environ["PATH"].split(":"))]
    needed = ("initdb", "postgres", "pg_isready")
    return next((folder for folder in found if all((folder / name).exists() for name in needed)), None)


def _user() -> dict[str, int]:
    """Who runs the server: it refuses root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return {"user": entry.pw_uid, "group": entry.pw_gid}
    raise RuntimeError("no user to run PostgreSQL as")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def server() -> Iterator[str]:
    """A fresh server; its URL. Ended and removed on the way out."""
    folder = binaries()
    assert folder is not None
    user, port = _user(), _free_port()
    root = Path(tempfile.mkdtemp(prefix="moe-postgres-", dir="/tmp"))
    if user:
        os.chown(root, user["user"], user["group"])
    # it outlives the test that asked first, whose variables others go by when they end what that test left behind
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": root,
             "env": {"PATH": os.environ["PATH"]}, **user}  # fmt: skip
    data = root / "data"
    try:
        options = ["--auth=trust", "--username=moe", "--encoding=UTF8", "--locale=C", "--no-sync"]
        subprocess.run([folder / "initdb", "-D", data, *options], check=True, **quiet)
        settings = [f"port={port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={root}", "fsync=off"]
        command = [folder / "postgres", "-D", data, *(word for setting in settings for word in ("-c", setting))]
        log = (root / "log").open("wb")
        process = subprocess.Popen(command, **quiet | {"stderr": log})
        try:
            ready = [folder / "pg_isready", "-h", "127.0.0.1", "-p", str(port), "-U", "moe", "-t", "30"]
            end = time.monotonic() + 60
            while subprocess.run(ready, check=False, **quiet).returncode != 0:
                assert process.poll() is None, "the server ended"
                assert time.monotonic() < end, "the server does not answer"
            yield f"postgresql://moe@127.0.0.1:{port}/postgres"
            assert process.poll() is None, f"the server ended: {(root / 'log').read_text()[-2000:]}"
        finally:
            process.terminate()
            process.wait(30)
            log.close()
    finally:
        shutil.rmtree(root, ignore_errors=True)
