"""Files that are written onto a disk without room: every library's error is the system's."""

import errno

import numpy as np
import pytest
import torch
from safetensors.torch import save

from moe.data.store import Images, write_store
from moe.errors import UserError
from moe.files import replacing


def by_torch(file):
    torch.save({"weight": torch.zeros(200_000)}, file)


def by_numpy(file):
    with file.open("wb") as stream:
        np.save(stream, np.zeros(200_000))


def by_numpy_in_part(file):
    """As where the system does not say beforehand that there is no room."""
    np.zeros(200_000).tofile(file)


def by_us(file):
    file.write_bytes(save({"weight": torch.zeros(200_000)}))


@pytest.mark.parametrize("write", [by_torch, by_numpy, by_numpy_in_part, by_us])
def test_whoever_writes_the_error_is_that_of_a_full_disk(small_disk, write):
    file = small_disk / "weights"
    file.write_text("old")
    with pytest.raises(OSError, match="No space left on device") as caught, replacing(file) as partial:
        write(partial)
    assert caught.value.errno == errno.ENOSPC
    assert [path.name for path in small_disk.iterdir()] == ["weights"]
    assert file.read_text() == "old"


def test_an_error_of_another_kind_stays_what_it_is(small_disk):
    with pytest.raises(ValueError, match="another"), replacing(small_disk / "weights"):
        raise ValueError("another")


def test_images_that_find_no_room_are_one_sentence(small_disk, monkeypatch):
    monkeypatch.setenv("MOE_DATA", str(small_disk))
    with pytest.raises(UserError, match=r"^images cannot be written to .* \(No space left on device\); make room, or"):
        write_store("mine", Images(np.zeros((40, 64, 64, 3), np.uint8), [f"{n}" for n in range(40)], "drawn"))
    assert [path.name for path in small_disk.iterdir() if path.name != ".lock"] == []
