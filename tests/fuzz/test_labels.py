"""Label files and class files: any text, any bytes."""

import io
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from moe.data.labels import classify, read_labels
from tests.fuzz.bounds import taken_or_refused
from tests.fuzz.mutations import damaged

IDS = ["red/0", "red/1", "blue/0", "blue/2", "a.b", "²"]
NAMES = st.sampled_from(
    ["red/0.png", "0.png", "RED\\1.PNG", "/x/blue/2", "a.b", "²", "nowhere.png", "", "#", "image", "file", "1"]
)
LABELS = st.sampled_from(
    [
        "warm",
        "cold",
        "0",
        "1",
        "1.0",
        "01",
        "-1",
        "-2",
        "nan",
        "NA",
        "",
        "²",
        "1e5",
        "9" * 5000,
        "--1",
        "label",
        "x\ny",
        "true",
    ]
)
CELLS = NAMES | LABELS | st.text(max_size=8)


def _table(rows: list[list[str]], delimiter: str, quote: str, end: str) -> str:
    return end.join(delimiter.join(f"{quote}{cell}{quote}" for cell in row) for row in rows)


ROWS = st.lists(st.tuples(NAMES, LABELS).map(list), max_size=9) | st.lists(st.lists(CELLS, max_size=4), max_size=9)
TABLES = st.builds(
    _table,
    ROWS,
    st.sampled_from([",", ";", "\t", "|", " "]),
    st.sampled_from(["", '"', " ", "'"]),
    st.sampled_from(["\n", "\r\n", "\r", "\n\n"]),
)
ENCODED = st.builds(
    lambda text, encoding: text.encode(encoding, "replace"),
    TABLES | st.text(max_size=200),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1", "utf-7"]),
)
PLAIN = b"file,label\nred/0.png,warm\nred/1.png,warm\nblue/0.png,cold\nblue/2.png,1.0\n"


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _read(path: Path, data: bytes, ids: list[str]) -> None:
    path.write_bytes(data)
    with taken_or_refused():
        read = read_labels(path, ids)
        assert len(read.values) == len(ids)
        labels_N, classes = classify(read.values, None, file="y.csv")
        assert labels_N.max() == len(classes) - 1  # every class has an image
        assert [label >= 0 for label in labels_N] == [bool(value) for value in read.values]
        assert len(set(classes)) == len(classes)


@given(data=ENCODED | damaged(PLAIN), suffix=st.sampled_from([".csv", ".tsv", ".CSV", ".txt"]))
def test_tables(tmp_path: Path, data: bytes, suffix: str) -> None:
    _read(tmp_path / f"labels{suffix}", data, IDS)


@given(
    data=damaged(_npy(np.arange(6)), _npy(np.eye(6)), _npy(np.array(["a", "b"] * 3)), _npy(np.array([0.5, np.nan] * 3)))
)
def test_arrays(tmp_path: Path, data: bytes) -> None:
    _read(tmp_path / "labels.npy", data, IDS)


@given(data=st.binary(min_size=4, max_size=8))
def test_bytes(tmp_path: Path, data: bytes) -> None:
    _read(tmp_path / "labels.bin", data, IDS)


@given(data=ENCODED | damaged(b"cold\nwarm\n"))
def test_class_names(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "names.txt").write_bytes(data)
    with taken_or_refused():
        _, names = classify(["0", "1"], tmp_path / "names.txt", file="y.csv")
        assert len(set(names)) == 2
        assert all(name == name.strip() != "" for name in names)
