import json
import os

import numpy as np
import pytest

from probes.chunked import ChunkedArrays, Layout

N = 23
LAYOUTS = {"rows": Layout((N, 3), "<f4"), "planes": Layout((2, N, 5), "<f4", axis=1), "numbers": Layout((N,), "<i8")}
CONTENT = {
    "rows": np.arange(N * 3, dtype=np.float32).reshape(N, 3),
    "planes": np.random.default_rng(0).normal(size=(2, N, 5)).astype(np.float32),
    "numbers": np.arange(N) ** 2,
}


def resume(folder, key="k", chunk=5):
    return ChunkedArrays.resume(folder, key, LAYOUTS, chunk)


def fill(arrays, stop_after=None):
    for number, (start, stop) in enumerate(arrays.missing()):
        if number == stop_after:
            return
        part = slice(start, stop)
        arrays.write(start, {"rows": CONTENT["rows"][part], "planes": CONTENT["planes"][:, part],
                             "numbers": CONTENT["numbers"][part]})  # fmt: skip


def check(folder):
    for name, expected in CONTENT.items():
        # numpy alone can read it, no code of ours needed
        np.testing.assert_array_equal(np.load(folder / f"{name}.npy", allow_pickle=False), expected)


def test_what_is_written_is_read(tmp_path):
    fill(resume(tmp_path / "a"))
    check(tmp_path / "a")
    again = resume(tmp_path / "a")
    assert list(again.missing()) == []
    for name, array in again.open().items():
        np.testing.assert_array_equal(array, CONTENT[name])
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_it_goes_on_where_it_was(tmp_path):
    fill(resume(tmp_path / "a"), stop_after=3)
    again = resume(tmp_path / "a")
    assert list(again.missing()) == [(15, 20), (20, 23)]
    fill(again)
    check(tmp_path / "a")


def test_a_ledger_cut_off_in_a_line_costs_that_chunk_alone(tmp_path):
    fill(resume(tmp_path / "a"))
    ledger = tmp_path / "a" / "ledger.jsonl"
    os.truncate(ledger, ledger.stat().st_size - 4)
    again = resume(tmp_path / "a")
    assert list(again.missing()) == [(20, 23)]
    fill(again)
    assert list(resume(tmp_path / "a").missing()) == []
    check(tmp_path / "a")


def test_a_damaged_chunk_is_written_anew(tmp_path):
    fill(resume(tmp_path / "a"))
    array = np.load(tmp_path / "a" / "planes.npy", mmap_mode="r+")
    array[1, 12, 0] += 1
    array.flush()
    again = resume(tmp_path / "a")
    assert list(again.missing()) == [(10, 15)]
    fill(again)
    check(tmp_path / "a")


@pytest.mark.parametrize(
    "harm", ["truncate", "remove", "folder", "order of bytes", "zip", "half a header", "header of Python 2", "nonsense"]
)
def test_a_broken_folder_is_begun_anew(tmp_path, harm):
    fill(resume(tmp_path / "a"))
    file = tmp_path / "a" / "planes.npy"
    if harm == "truncate":
        os.truncate(file, 150)
    elif harm == "remove":
        file.unlink()
    elif harm == "folder":
        file.unlink()
        file.mkdir()
    elif harm == "order of bytes":  # one bit of the header: the chunks are as they were, the numbers are not
        file.write_bytes(file.read_bytes().replace(b"'<f4'", b"'>f4'"))
    elif harm == "zip":
        file.write_bytes(b"PK\x03\x04")
    elif harm == "header of Python 2":
        file.write_bytes(file.read_bytes().replace(b"{'descr'", b"{'escr' "))
    elif harm == "half a header":
        file.write_bytes(file.read_bytes().replace(b"}", b"("))
    else:
        (tmp_path / "a" / "ledger.jsonl").write_text("nonsense")
    again = resume(tmp_path / "a")
    assert len(list(again.missing())) == 5
    fill(again)
    check(tmp_path / "a")


@pytest.mark.parametrize("line", ["[]", "{}", '{"start": "a", "crc32": 1}', '{"start": 5', "7"])
def test_a_line_that_says_nothing_is_passed_over(tmp_path, line):
    fill(resume(tmp_path / "a"), stop_after=3)
    with (tmp_path / "a" / "ledger.jsonl").open("a") as ledger:
        ledger.write(f"\n{line}")
    assert list(resume(tmp_path / "a").missing()) == [(15, 20), (20, 23)]


@pytest.mark.parametrize("change", [{"key": "other"}, {"chunk": 6}])
def test_another_key_or_chunk_never_answers(tmp_path, change):
    fill(resume(tmp_path / "a"))
    assert len(list(resume(tmp_path / "a", **change).missing())) in (4, 5)


def test_no_pickle_is_written(tmp_path):
    fill(resume(tmp_path / "a"))
    assert {file.suffix for file in (tmp_path / "a").iterdir()} == {".npy", ".jsonl"}
    lines = (tmp_path / "a" / "ledger.jsonl").read_text().splitlines()
    assert [set(json.loads(line)) for line in lines[1:]] == [{"start", "crc32"}] * 5
