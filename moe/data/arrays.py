"""Images and labels in .npy and .npz files, without pickle.

Axes: N images, H height, W width.
"""

import tokenize
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moe.data.files import regular
from moe.data.sources import ZIP_DAMAGE, open_zip
from moe.data.staging import SOURCE
from moe.errors import UserError
from moe.files import telling_full
from moe.wording import counted, first_few, printable, reason

_IMAGES = ("images", "image", "x")
_LABELS = ("labels", "label", "y")

# what NumPy raises on a damaged header or a file cut short
DAMAGE = (ValueError, EOFError, OSError, SyntaxError, TypeError, KeyError, OverflowError, MemoryError, RuntimeError,
          tokenize.TokenError)  # fmt: skip


def plain_array(path: Path) -> NDArray[Any]:
    """The array of a .npy file, mapped into memory.

    Raises:
        UserError: it is damaged or holds objects.
    """
    regular(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy's about headers of Python 2
            return np.lib.format.open_memmap(path, mode="r")
    except DAMAGE as error:
        raise not_plain(printable(str(path)), error) from None


def not_plain(found: str, error: Exception) -> UserError:
    """The error for a file that is no plain array."""
    return UserError(f"{found} is not a plain array ({reason(error)})")


def npz_arrays(path: Path, scratch: Path) -> tuple[NDArray[Any], NDArray[Any] | None, list[str]]:
    """The array named "images" (or the only one) of a .npz file, the one named "labels" if there is one, and notes.

    The images are unpacked into the scratch folder and mapped.

    Raises:
        UserError: it is damaged, holds objects, would unpack beyond measure, or does not say which array it is.
    """
    found = printable(str(path))
    with open_zip(path, None) as archive:
        members = {name.removesuffix(".npy"): name for name in archive.namelist()}
        labels = [name for name in members if name.casefold() in _LABELS]
        images = [name for name in members if name.casefold() in _IMAGES] or [n for n in members if n not in labels]
        if len(images) != 1 or len(labels) > 1:
            held = first_few(list(members)) if members else "nothing"
            raise UserError(f'{found} holds {held}; name the one with the images "images", and labels "labels"')
        rest = [name for name in members if name not in (*images, *labels)]
        notes = [f"{counted(len(rest), 'other array')} left out: {first_few(rest)}"] if rest else []
        chosen = _unpacked(archive, members[images[0]], scratch / SOURCE, found)
        if not labels:
            return chosen, None, notes
        return chosen, np.array(_unpacked(archive, members[labels[0]], scratch / SOURCE, found)), notes


def _unpacked(archive: zipfile.ZipFile, member: str, target: Path, found: str) -> NDArray[Any]:
    """One array of a .npz, mapped from a file that has no name any more."""
    try:
        with target.open("wb") as file:
            for piece in _pieces(archive, member, found):
                file.write(piece)
        return plain_array(target)
    except UserError as error:
        raise UserError(str(error).replace(str(target), f"{member} in {found}")) from None
    finally:
        target.unlink(missing_ok=True)


def _pieces(archive: zipfile.ZipFile, member: str, found: str) -> Iterator[bytes]:
    try:
        with archive.open(member) as packed:
            while piece := packed.read(2**20):
                yield piece
    except ZIP_DAMAGE as error:
        raise not_plain(found, error) from None


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write a .npy file.

    Raises:
        OSError: it cannot be written; on a full disk too, with the system's number.
    """
    with telling_full(path):
        np.save(path, array)
