"""Databases and disks for the tests of sweeps."""

import subprocess
import uuid
from pathlib import Path

import pytest
import sqlalchemy as sa

from sweeps.queue.storage import url_of
from tests.sweeps import postgres


@pytest.fixture(scope="session")
def postgres_url():
    if postgres.binaries() is None:
        pytest.skip("no PostgreSQL server here (Debian: apt install postgresql)")
    pytest.importorskip("psycopg", reason="no driver (pip install psycopg[binary])")
    with postgres.server() as url:
        yield url


@pytest.fixture
def postgres_database(postgres_url):
    """A fresh PostgreSQL database."""
    url = postgres_url
    database = f"test_{uuid.uuid4().hex[:12]}"
    engine = sa.create_engine(url_of(Path(), url), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {database}")
    engine.dispose()
    return url.rsplit("/", 1)[0] + f"/{database}"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def storage(request):
    """A database: the default one in a temporary MOE_HOME, or a fresh PostgreSQL database."""
    return None if request.param == "sqlite" else request.getfixturevalue("postgres_database")


@pytest.fixture
def small_disk(tmp_path):
    """A disk of its own of 300 kB, where this process may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mount.returncode:
        pytest.skip(f"no disk can be mounted here: {mount.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)  # a service may still have its log open
