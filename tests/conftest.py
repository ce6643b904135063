"""Every test has its own home, its own image folder, no tracker and no network."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import numpy as np
import pytest

import cli
from moe.config import RunConfig, from_flat
from moe.data.store import Images, write_store
from moe.importing import importing
from sweeps.runs.store import RunStore
from tests import forking

pytest_plugins = ["tests.wandb_server.fixtures"]


def pytest_configure(config: pytest.Config) -> None:
    """Before anything is started, what holds for all of it.

    One thread a process: models of tests are tiny, and threads would wait for each other, above all beside another
    process; where a test asks for two, they wait asleep. Figures go into files, as `moe` itself says in its
    environment. Ctrl-C is heeded, which a shell leaves ignored in the background, for us and all that tests start: they
    mean to be interrupted. The processes of a parallel run are forked.
    """
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    os.environ |= {"OMP_WAIT_POLICY": "passive", "MPLBACKEND": "agg"}
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("numprocesses", None):
        forking.install(dict(os.environ))


def pytest_unconfigure() -> None:
    """What forks for the tests ends with them."""
    forking.uninstall()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Modules and tests are no garbage."""
    with importing():
        return (yield)


@pytest.fixture(scope="session", autouse=True)
def forked_commands(request: pytest.FixtureRequest) -> None:
    """What tests start of `moe` is forked, in the environment that `isolated` makes; for the few quick ones that start
    something, it is executed sooner than imported."""
    if any(item.get_closest_marker("slow") for item in request.session.items):
        forking.install(dict(os.environ))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deal the tests to the processes of a parallel run so that these end together.

    Each process is given as many, in this order, and one that is done takes over from others. So each share begins with
    long tests, then come whole files with slow tests, then the rest, which is easily shared.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    files: dict[Path, list[pytest.Item]] = {}
    long, rest = list[pytest.Item](), list[pytest.Item]()
    for item in items:
        if item.get_closest_marker("long"):
            long.append(item)
        else:
            (files.setdefault(item.path, []) if item.path in slow else rest).append(item)
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    shares: list[list[pytest.Item]] = [long[number::count] for number in range(count)]
    for file in files.values():
        min(shares, key=len).extend(file)
    for number, share in enumerate(shares):
        end = len(items) * (number + 1) // count - sum(map(len, shares[: number + 1]))
        share.extend(rest[: max(0, end)])
        del rest[: max(0, end)]
    items[:] = [item for share in shares for item in share] + rest


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """The models are tiny: threads would spend their time waiting for each other, above all beside another process."""
    import scipy.linalg  # brings a BLAS of its own, which is to be limited too
    import torch
    from threadpoolctl import threadpool_limits

    assert scipy.linalg
    torch.set_num_threads(1)
    threadpool_limits(1)


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Temporary MOE_HOME and MOE_DATA; W&B off unless a test turns it on."""
    monkeypatch.setenv("MOE_HOME", str(tmp_path / "runs"))
    monkeypatch.setenv("MOE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    for name in ("WANDB_API_KEY", "WANDB_PROJECT", "MOE_SWEEP", "MOE_FOLLOW_STDIN", "MOE_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def shared_data() -> Path:
    """Real images and ratings to test on, where they exist."""
    path = Path(os.environ.get("MOE_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"the real images are not at {path} (MOE_SHARED_DATA names another place)")
    return path


Moe = Callable[..., tuple[int, str, str]]


@pytest.fixture
def moe(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Moe:
    """Runs a command in this process; returns (exit code, stdout, stderr). Lines are 300 columns wide."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["moe", *map(str, words)])
        for console in (cli.out, cli.err):
            monkeypatch.setattr(console, "_width", 300)
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def tiny_store(name: str = "tiny", count: int = 48, size: int = 16, classes: int = 3, seed: int = 0):
    """Random images whose class shows in their brightness, with two known factors."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    light = 40 + 60 * labels[:, None, None, None]
    images = np.clip(rng.normal(light, 30, (count, size, size, 3)), 0, 255).astype(np.uint8)
    factors = np.stack([labels / classes, rng.random(count)], axis=1).astype(np.float32)
    names = tuple(f"class {number}" for number in range(classes))
    ids = [f"{name}-{number:03d}" for number in range(count)]
    return write_store(name, Images(images, ids, "random", labels, names, factors, ("light", "chance")))


@contextlib.contextmanager
def at_home(root: Path) -> Generator[None, None, None]:
    """Meanwhile runs and images are those below `root`, and there is no tracker; as `isolated`, for shared fixtures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOE_HOME", str(root / "runs"))
        patch.setenv("MOE_DATA", str(root / "data"))
        patch.setenv("WANDB_MODE", "disabled")
        yield


@contextlib.contextmanager
def tiny_place(root: Path) -> Generator[RunStore, None, None]:
    """For runs that tests share: meanwhile `root` has the images of `tiny_store` and the runs; no tracker."""
    with at_home(root):
        tiny_store()
        yield RunStore(root / "runs")


TINY = {
    "data.name": "tiny",
    "data.image_size": 16,
    "model.width": 0.0625,
    "train.epochs": 2,
    "train.batch_size": 16,
    "train.precision": "32-true",
    "train.lr": 1e-3,
}


def tiny_config(**changes: object) -> RunConfig:
    """A run of seconds; changes by dotted path with `__` for the dot."""
    return from_flat(TINY | {path.replace("__", "."): value for path, value in changes.items()})
