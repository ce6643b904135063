"""The HTTP side: checks the key, meets the faults, finds the handler."""

import base64
import contextlib
import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from tests.forking import WANDB_POLL
from tests.wandb_server import artifact_lists, artifacts, filestream, runs, sweeps, views
from tests.wandb_server.artifacts import Artifact
from tests.wandb_server.faults import Faults
from tests.wandb_server.graphql import OPERATIONS, NotFoundError, name_of
from tests.wandb_server.state import Run, State, Sweep

HANDLERS = (artifact_lists, artifacts, runs, sweeps, views)  # their import registers the operations
KEY = "0123456789abcdef" * 2 + "dead" + "beef"  # 40 characters, as the client wants it

# the client's patience, cut to what a test can wait for (6 s for an answer, not 20); it drops fractions of these
# seconds, and 0 is its long default
QUICK = {
    "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "1",
    "WANDB_X_FILE_STREAM_RETRY_WAIT_MIN_SECONDS": "1",
    "WANDB_X_FILE_STREAM_RETRY_WAIT_MAX_SECONDS": "1",
    "WANDB_X_FILE_TRANSFER_RETRY_WAIT_MIN_SECONDS": "1",
    "WANDB_X_FILE_TRANSFER_RETRY_WAIT_MAX_SECONDS": "1",
    "WANDB_X_GRAPHQL_RETRY_MAX": "6",
    "WANDB_X_GRAPHQL_RETRY_WAIT_MIN_SECONDS": "1",
    "WANDB_X_GRAPHQL_RETRY_WAIT_MAX_SECONDS": "1",
    "WANDB_X_STATS_SAMPLING_INTERVAL": "0.5",
    "WANDB_HEARTBEAT_SECONDS": "1",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_DISABLE_GIT": "true",
    "WANDB_CONSOLE": "off",
    "WANDB_SILENT": "true",
    WANDB_POLL: "0.2",
}


class WandbServer:
    """A W&B server on a free port of 127.0.0.1, for the length of a `with` block.

    Attributes:
        state: what has arrived.
        faults: errors, delays and cut connections to come.
        unknown: operations and paths that no handler knows; a test must end with none.
        errors: what went wrong in a handler, with its traceback; a test must end with none.
        calls: the label of every request that was carried out, in order.
    """

    def __init__(self, folder: Path, *, entity: str = "me", key: str = KEY) -> None:
        self.folder = folder
        self.entity = entity
        self.key = key
        self.state = State(entity)
        self.faults = Faults()
        self.unknown: list[str] = []
        self.errors: list[str] = []
        self.calls: list[str] = []
        self._seen: list[bytes] = []
        self._processes: list[subprocess.Popen[str]] = []
        self._open: set[socket.socket] = set()
        self._http = _Http(("127.0.0.1", 0), _Handler)
        self._http.double = self
        self.url = self.state.base_url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), name="wandb double")

    def __enter__(self) -> Self:
        for name in ("cache", "data", "config", "artifacts", "wandb"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "netrc").touch(mode=0o600)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.faults.clear()
        try:
            self._end_clients()
        finally:
            self._http.shutdown()
            for connection in list(self._open):  # connections that a client keeps open
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._http.server_close()
            self._thread.join()

    def _end_clients(self) -> None:
        """Kill what is left of the processes that were started for this server, with their services and children.

        They are known by the folder in their environment, which no other test has; a port may be another's later.
        """
        ours = f"WANDB_DIR={self.folder / 'wandb'}\0".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # gone, or another user's
                if int(folder.name) != os.getpid() and ours in (folder / "environ").read_bytes():
                    os.kill(int(folder.name), signal.SIGKILL)
        for process in self._processes:
            process.kill()  # a forked one has another environment there
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to talk to this server and to keep its files in the test's folder."""
        return QUICK | {
            "WANDB_BASE_URL": self.url,
            "WANDB_API_KEY": self.key,
            "WANDB_MODE": "online",
            "WANDB_ENTITY": self.entity,
            "WANDB_DIR": str(self.folder / "wandb"),
            "WANDB_CACHE_DIR": str(self.folder / "cache"),
            "WANDB_DATA_DIR": str(self.folder / "data"),
            "WANDB_CONFIG_DIR": str(self.folder / "config"),
            "WANDB_ARTIFACT_DIR": str(self.folder / "artifacts"),
            "NETRC": str(self.folder / "netrc"),
            "NO_PROXY": "127.0.0.1",
        }

    @property
    def process_environment(self) -> dict[str, str]:
        """The whole environment for a child process, which starts a service of its own."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
        return inherited | self.environment

    def client(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Start the client's own command, such as `wandb agent`."""
        return self.python("-m", "wandb", *arguments, **options)

    def python(self, *arguments: str, env: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
        """Start a Python process that talks to this server, in the server's folder; `env` adds to its environment."""
        options = {"cwd": self.folder, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} | options
        process = subprocess.Popen([sys.executable, *arguments], env=self.process_environment | (env or {}), **options)
        self._processes.append(process)
        return process

    def run(self, name: str, project: str = "moe", entity: str | None = None) -> Run:
        """The run with this id; KeyError with those that exist."""
        found = self.state.run(entity, project, name)
        if found is None:
            raise KeyError(f"no run {name} in {project}; there are {sorted(self.state.runs)}")
        return found

    def runs(self, project: str = "moe") -> list[Run]:
        return [run for run in self.state.runs.values() if run.project == project]

    def sweep(self, name: str) -> Sweep:
        return self.state.sweeps[name]

    def artifact(self, name: str, project: str = "moe", entity: str | None = None) -> Artifact:
        """The version that `name:alias` or `name:v3` stands for."""
        collection, _, alias = name.partition(":")
        found = self.state.collections[entity or self.entity, project, collection].find(alias or "latest")
        if found is None:
            raise KeyError(name)
        return found

    def content(self, item: Run | Artifact, name: str) -> bytes:
        """A file of a run or of an artifact, as it was uploaded."""
        return self.state.blobs[(item.files if isinstance(item, Run) else item.blobs)[name]]

    def tamper(self, artifact: Artifact, name: str, content: bytes) -> None:
        """Change a stored file behind the manifest's back."""
        self.state.blobs[artifact.blobs[name]] = content

    def seen_text(self, text: str) -> bool:
        """Whether a text came in any URL, body or header but the one for authorization."""
        return any(text.encode() in message for message in self._seen)

    def called(self, label: str) -> int:
        """How many requests with this in their label were carried out."""
        return sum(label in call for call in self.calls)

    # carried out in the handlers' threads

    def label(self, method: str, path: str, body: bytes) -> str:
        if path == "/graphql":
            return name_of(json.loads(body)["query"])
        return f"{method} {path}"

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer."""
        label = self.label(method, path, body)
        with self.state.lock:
            self.calls.append(label)
            try:
                return self._dispatch(method, path, body, label)
            except NotFoundError as error:
                return 404, _errors(str(error))
            except ValueError as refused:  # what the server would refuse as well
                if isinstance(refused, filestream.GapError):
                    self.errors.append(str(refused))
                return 400, _errors(str(refused))
            except Exception:  # noqa: BLE001  whatever it is, the test hears of it
                self.errors.append(f"{label}\n{traceback.format_exc()}")
                return 400, _errors(f"the double failed in {label}")

    def _dispatch(self, method: str, path: str, body: bytes, label: str) -> tuple[int, bytes]:
        if path == "/graphql":
            if label not in OPERATIONS:
                self.unknown.append(label)
                return 400, _errors(f"unknown operation {label}")
            variables = json.loads(body).get("variables") or {}
            return 200, json.dumps({"data": OPERATIONS[label](self.state, variables)}).encode()
        if path.endswith("/file_stream"):
            return self._stream(path, body)
        if path.startswith("/storage/"):
            return self._store(method, path.removeprefix("/storage/"), body)
        self.unknown.append(label)
        return 404, b""

    def _stream(self, path: str, body: bytes) -> tuple[int, bytes]:
        _, _, entity, project, name, _ = path.split("/")
        run = self.state.run(entity, project, name)
        if run is None:
            raise NotFoundError(f"no run {entity}/{project}/{name}")
        return 200, json.dumps(filestream.apply(run, json.loads(body))).encode()

    def _store(self, method: str, key: str, body: bytes) -> tuple[int, bytes]:
        if method == "PUT":
            self.state.blobs[key] = body
            artifacts.manifest_arrived(self.state, key, body)
            return 200, b""
        if key not in self.state.blobs:
            return 404, b""
        return 200, self.state.blobs[key]


def _errors(message: str) -> bytes:
    return json.dumps({"errors": [{"message": message}]}).encode()


class _Http(ThreadingHTTPServer):
    daemon_threads = False  # joined when the server closes
    double: WandbServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away in mid-sentence are what some tests are about."""

    def process_request(self, request: Any, client_address: Any) -> None:
        self.double._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.double._open.discard(request)
        super().shutdown_request(request)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Http

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing on the console."""

    def do_GET(self) -> None:
        self._handle()

    do_POST = do_PUT = do_HEAD = do_GET

    def _handle(self) -> None:
        double = self.server.double
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        headers = "\n".join(f"{name}: {value}" for name, value in self.headers.items() if name != "Authorization")
        double._seen += [self.path.encode(), headers.encode(), body]
        fault = double.faults.strike(double.label(self.command, path, body))
        if fault and fault.kind == "cut":
            self.close_connection = True
            return
        if fault and fault.kind == "status":
            self._reply(fault.status, b"the test wants it so")
            return
        if not path.startswith("/storage/") and not self._authorized(double.key):
            self._reply(401, _errors("invalid API key"))
            return
        status, answer = double.answer(self.command, path, body)
        if fault and fault.kind == "lose":
            self.close_connection = True
            return
        self._reply(status, answer)

    def _authorized(self, key: str) -> bool:
        expected = base64.b64encode(f"api:{key}".encode()).decode()
        return self.headers.get("Authorization") == f"Basic {expected}"

    def _reply(self, status: int, answer: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer)
