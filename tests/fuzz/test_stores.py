"""Prepared stores with one damaged file, and THINGS with one damaged table."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from moe.data.readers import ReadOptions
from moe.data.store import Images, ImageStore, open_all, write_store
from moe.data.things import EMBEDDING, is_things, read_things
from tests.fuzz.bounds import is_one_sentence, taken_or_refused
from tests.fuzz.mutations import JSON, damaged

FILES = ["images.npy", "labels.npy", "ids.json", "groups.json", "labelings.json", "factors.npy", "manifest.json"]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with every file, and a copy of THINGS with every table."""
    root = tmp_path_factory.mktemp("originals")
    ratings = np.array([[0.5, np.nan], [1, 2], [3, 4]], np.float32)
    content = Images(
        np.zeros((3, 8, 8, 3), np.uint8), ["a", "b", "c"], "drawn", np.array([0, 1, -1]), ("x", "y"), ratings,
        ("f", "g"), ["1", "1", "2"], {"more": (np.array([0, 0, -1]), ("z",))},
    )  # fmt: skip
    write_store("mine", content, root / "data")
    things = root / "things"
    for concept in ("apple", "drum"):
        (things / "images" / concept).mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(things / "images" / concept / f"{concept}_01.png")
    (things / "unique_id.txt").write_text("apple\ndrum\n")
    (things / "labels.txt").write_text("red\nround\n")
    np.savetxt(things / EMBEDDING, np.eye(2))
    (things / "things_concepts.tsv").write_text("uniqueID\tBottom-up Category (Human Raters)\napple\tfood\ndrum\ttoy\n")
    (things / "category_mat_manual.tsv").write_text("food\ttoy\n1\t0\n0\t1\n")
    return root


def _use(store: ImageStore) -> None:
    with taken_or_refused():
        store.check()
        assert store.images_NHWC.shape[0] == len(store.ids) == len(store.labels_N) == 3
    with taken_or_refused():
        store.verify()


@given(data=st.data(), file=st.sampled_from(FILES))
def test_one_damaged_file(tmp_path: Path, originals: Path, data: st.DataObject, file: str) -> None:
    root = tmp_path / "stores"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(originals / "data", root)
    shutil.copytree(originals / "data" / "mine", root / "other")
    change = damaged((root / "mine" / file).read_bytes())
    if file.endswith("json"):
        change |= JSON.map(lambda value: json.dumps(value).encode())
    (root / "mine" / file).write_bytes(data.draw(change))
    with taken_or_refused():
        _use(ImageStore.open("mine", root))
    stores, broken = open_all(root)
    assert len(stores) + len(broken) == 2
    assert "mine" not in [one.name for one in broken] or is_one_sentence(broken[0].problem)


@given(
    key=st.sampled_from(["format", "count", "height", "width", "classes", "mean", "sd", "notes", "sha256", "new"]),
    value=JSON,
)
def test_one_value_of_a_manifest(tmp_path: Path, originals: Path, key: str, value: object) -> None:
    root = tmp_path / "stores"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(originals / "data", root)
    manifest = json.loads((root / "mine" / "manifest.json").read_text())
    (root / "mine" / "manifest.json").write_text(json.dumps(manifest | {key: value}))
    with taken_or_refused():
        _use(ImageStore.open("mine", root))


TABLES = ["unique_id.txt", "labels.txt", EMBEDDING, "things_concepts.tsv", "category_mat_manual.tsv"]


@given(data=st.data(), file=st.sampled_from(TABLES))
def test_things_with_one_damaged_table(tmp_path: Path, originals: Path, data: st.DataObject, file: str) -> None:
    folder = tmp_path / "things"
    if not folder.exists():
        shutil.copytree(originals / "things", folder)
    for name in TABLES:
        shutil.copy(originals / "things" / name, folder / name)
    original = (folder / file).read_bytes()
    (folder / file).write_bytes(data.draw(damaged(original) | st.text(max_size=60).map(str.encode)))
    with taken_or_refused():
        assert is_things(folder)
        read = read_things(folder, ReadOptions(size=8), allow_unknown=True)
        assert read.factors_NF is not None
        assert len(read.ids) == 2
        assert not np.isinf(read.factors_NF).any()
