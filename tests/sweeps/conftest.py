"""Databases for the tests of sweeps."""

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
