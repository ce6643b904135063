"""The packages that people install: what is in them, and that they work outside of the checkout."""

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
import torch

from tests.conftest import TINY, tiny_store

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
PACKAGES = ("moe", "callbacks", "sweeps", "probes")
MODULES = ("cli.py", "moe_command.py")


def done(words: list[object], **options: object) -> str:
    """What a command prints; it fails the test unless it ends with 0."""
    run = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False, timeout=300, **options)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> dict[str, Path]:
    """The sdist, and the wheel as pip makes it of the unpacked sdist."""
    folder = tmp_path_factory.mktemp("dist")
    done([sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder], cwd=ROOT)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    unpacked = folder / sdist.name.removesuffix(".tar.gz")
    done([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=unpacked)
    (wheel,) = folder.glob("*.whl")
    return {"sdist": sdist, "wheel": wheel}


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory) -> Path:
    """The `moe` command of an environment of its own, which has the wheel and sees what the wheel depends on."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    done([sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", built["wheel"]])
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(str(Path(torch.__file__).parents[1]))
    return folder / "bin" / "moe"


def ours() -> set[str]:
    """Every file of the packages, as it stands in the checkout."""
    found = (file for package in PACKAGES for file in (ROOT / package).rglob("*"))
    return {*MODULES, *(str(file.relative_to(ROOT)) for file in found if file.is_file() and file.suffix != ".pyc")}


def test_the_wheel_holds_the_packages_and_nothing_else(built):
    names = {name for name in zipfile.ZipFile(built["wheel"]).namelist() if ".dist-info/" not in name}
    assert names == ours()
    for name in ("sweeps/shipped/quickstart.yaml", "sweeps/views/report/assets/page.css"):
        assert name in names


def test_the_sdist_holds_what_a_packager_needs_and_no_data(built):
    with tarfile.open(built["sdist"]) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers()}
    assert names > ours() | {"README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "requirements.lock", "Makefile"}
    assert {"tests/test_packaging.py", "benchmarks/calibrate.py", "docs/guide.md"} < names
    assert not [name for name in names if name.endswith((".ckpt", ".safetensors", ".npy", ".jsonl", ".pyc", ".db"))]
    assert not [name for name in names if name.split("/")[0] in (".venv", "runs", "data", "shared", "dist")]
    assert built["sdist"].stat().st_size < 3e6


def test_the_installed_command_works_anywhere(installed, tmp_path):
    tiny_store()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    where = {"cwd": tmp_path, "env": environment}
    found = done([installed.parent / "python", "-c", "import moe, cli; print(moe.__file__, cli.__file__)"], **where)
    assert str(ROOT) not in found
    assert "Usage: moe" in done([installed, "--help"], **where)
    assert "quickstart.yaml" in done([installed, "sweep", "files"], **where)
    small = ["--set", "data.name=tiny", "--set", "data.image_size=16", "--set", "train.batch_size=16"]
    assert "new" in done([installed, "sweep", "launch", "quickstart.yaml", "--dry-run", *small], **where)
    words = [f"--{path}={value}" for path, value in (TINY | {"train.epochs": 1}).items()]
    assert "finished" in done([installed, "train", *words], **where) + done([installed, "runs", "list"], **where)
