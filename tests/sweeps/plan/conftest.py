"""Sweeps from their text."""

from pathlib import Path

import pytest

from sweeps.plan.spec import load_sweep


@pytest.fixture
def sweep_of(tmp_path, monkeypatch):
    """Loads a sweep from its text, as `s.yaml` in the current folder."""
    monkeypatch.chdir(tmp_path)

    def load(text):
        Path("s.yaml").write_text(text, encoding="utf-8")
        return load_sweep("s.yaml")

    return load
