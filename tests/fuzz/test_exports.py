"""Exported models: damaged, changed, put together wrongly."""

import json
import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moe.config import DataConfig, ModelConfig
from moe.data.store import sha256
from moe.export import export_model, load_model
from moe.model import build_model
from tests.fuzz.bounds import taken_or_refused
from tests.fuzz.test_plans import VALUES, WORDS


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    torch.manual_seed(0)
    export_model(
        build_model(ModelConfig(width=0.0625, experts=2)), folder, run_id="abc", seed=0, epoch=2,
        data=DataConfig(name="tiny"), mean=(0.5, 0.4, 0.3), sd=(0.2, 0.2, 0.2), data_digest="d",
    )  # fmt: skip
    return folder


def copy(exported, tmp_path):
    folder = tmp_path / "model"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(exported, folder)
    return folder


LARGE = st.sampled_from([10**3, 10**5, 10**9, 2**62])


@given(
    section=st.sampled_from(["model", "gate", "data", None]),
    field=st.sampled_from(["experts", "top_k", "embedding", "gate_channels", "gate_after", "width", "kind", "noisy"])
    | WORDS,
    value=LARGE | VALUES,
    remove=st.booleans(),
)
def test_changed_cards(exported, tmp_path, section, field, value, remove):
    folder = copy(exported, tmp_path)
    card = json.loads((folder / "model.json").read_text())
    place = card if section is None else card[section]
    if remove:
        place.pop(field, None)
    else:
        place[field] = value
    (folder / "model.json").write_text(json.dumps(card, default=str))
    with taken_or_refused():
        load_model(folder)


@given(
    file=st.sampled_from(["model.json", "model.safetensors"]),
    at=st.floats(0, 1),
    data=st.binary(max_size=20),
    cut=st.booleans(),
)
def test_changed_bytes(exported, tmp_path, file, at, data, cut):
    """The checksum follows, as whoever means ill would have it."""
    folder = copy(exported, tmp_path)
    content = (folder / file).read_bytes()
    place = int(at * len(content)) if file == "model.json" else int(at * 4000)  # where its header is
    (folder / file).write_bytes(content[:place] + data + (b"" if cut else content[place + len(data) :]))
    if file != "model.json":
        card = json.loads((folder / "model.json").read_text()) | {"sha256": sha256(folder / file)}
        (folder / "model.json").write_text(json.dumps(card))
    with taken_or_refused():
        load_model(folder)
