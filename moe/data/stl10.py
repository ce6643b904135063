"""STL-10 (Coates, Lee and Ng 2011): 100,000 unlabelled, 5,000 + 8,000 labelled images of 96 x 96.

Its official binaries, as a folder, in torchvision's folder `stl10_binary`, or in the archive as it is downloaded.
"""

import gzip
import itertools
import lzma
import operator
import struct
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from moe.data.files import is_named_folder, read_lines, regular
from moe.data.readers import Progress
from moe.data.staging import hidden_folder
from moe.data.store import Images, ImageStore, write_store
from moe.errors import UserError
from moe.wording import printable, reason

SPLITS = ("train", "test", "unlabeled")
ARCHIVE = "stl10_binary.tar.gz"
_FOLDER = "stl10_binary"
_SIDE = 96
_BYTES = 3 * _SIDE * _SIDE
# what tarfile and its decompressors raise on damage
_DAMAGE = (tarfile.TarError, EOFError, ValueError, LookupError, OverflowError, RuntimeError, struct.error, zlib.error,
           lzma.LZMAError, gzip.BadGzipFile)  # fmt: skip
# official sizes in bytes; an archive with more is another one
_MOST = {
    "train_X.bin": 5000 * _BYTES,
    "test_X.bin": 8000 * _BYTES,
    "unlabeled_X.bin": 100_000 * _BYTES,
    "train_y.bin": 5000,
    "test_y.bin": 8000,
    "class_names.txt": 1000,
}


class STL10:
    """The dataset; see `moe.data.datasets.Dataset`."""

    about = "STL-10: 100,000 unlabelled images, 5,000 and 8,000 labelled ones (2.5 GB download)"
    train, validation = "stl10-unlabeled", "stl10-train"
    probes = ("stl10-test",)
    builtin = False

    def prepare(self, root: Path, source: Path | None, progress: Progress) -> list[ImageStore]:
        """Stores of the splits whose official binaries lie at `source`; downloads them if that is None."""
        place = self._download(root) if source is None else source
        is_named_folder(place)  # or says that nothing is there
        folder = binaries(place)
        if folder is not None:
            return self._from_folder(folder, root, progress)
        archive = place if place.is_file() else place / ARCHIVE
        if not archive.is_file():
            raise UserError(f"{place} holds no train_X.bin, test_X.bin or unlabeled_X.bin of STL-10, and no {ARCHIVE}")
        with hidden_folder("stl10", root) as unpacked:
            _unpack(archive, unpacked)
            try:
                return self._from_folder(unpacked, root, progress)
            except UserError as error:
                raise UserError(str(error).replace(str(unpacked), str(archive))) from None

    @staticmethod
    def _from_folder(folder: Path, root: Path, progress: Progress) -> list[ImageStore]:
        splits = [split for split in SPLITS if (folder / f"{split}_X.bin").exists()]
        contents = {split: read_stl10(folder, split) for split in splits}  # all are checked before the first is written
        stores = []
        for split, content in contents.items():
            stores.append(write_store(f"stl10-{split}", content, root, replace=True))
            progress(len(stores), len(splits))
        return stores

    @staticmethod
    def _download(root: Path) -> Path:
        from torchvision.datasets import STL10 as Official  # noqa: N811

        root.mkdir(parents=True, exist_ok=True)
        try:
            Official(str(root / ".download"), split="train", download=True)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"STL-10 could not be downloaded ({reason(error)}); fetch {ARCHIVE} by other means "
                "and run `moe data prepare stl10 --source FOLDER`"
            ) from None
        return root / ".download"


def binaries(place: Path) -> Path | None:
    """The folder with STL-10's official binaries at a place, or None."""
    for folder in (place, place / _FOLDER):
        if any((folder / f"{split}_X.bin").is_file() for split in SPLITS):
            return folder
    return None


def is_stl10(place: Path) -> bool:
    """Whether a place holds STL-10 as it is downloaded."""
    return binaries(place) is not None or place.name == ARCHIVE or (place / ARCHIVE).is_file()


def read_stl10(folder: Path, split: str) -> Images:
    """One split of the official binaries: images as bytes (N, 3, 96, 96), each channel column by column.

    Raises:
        UserError: a file is missing, was cut short, or does not fit the others.
    """
    file = folder / f"{split}_X.bin"
    size = regular(file)
    if size == 0 or size % _BYTES:
        raise UserError(f"{printable(str(file))} is not a whole number of 96x96 images; fetch it again")
    raw = np.memmap(file, np.uint8, mode="r")
    images_NHWC = raw.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 3, 2, 1)
    ids = [f"{split}-{number:06d}" for number in range(len(images_NHWC))]
    label_file = folder / f"{split}_y.bin"
    if split == "unlabeled":
        return Images(images_NHWC, ids, f"STL-10 {split}")
    if not label_file.exists():
        raise UserError(f"{printable(str(label_file))} is missing; fetch it from the same archive")
    if not (folder / "class_names.txt").exists():
        raise UserError(f"{folder} holds {label_file.name} but no class_names.txt; fetch it from the same archive")
    names = [name for line in read_lines(folder / "class_names.txt") for name in line.split()]
    if regular(label_file) != len(ids):
        raise UserError(f"{label_file}: {len(ids)} ids but {regular(label_file)} labels; fetch both from one archive")
    labels_N = np.fromfile(label_file, np.uint8).astype(np.int64) - 1
    if labels_N.min() < 0 or labels_N.max() >= len(names):
        raise UserError(f"{label_file} has labels outside of 1 to {len(names)}; fetch it again")
    return Images(images_NHWC, ids, f"STL-10 {split}", labels_N, tuple(names))


def _unpack(archive: Path, target: Path) -> None:
    """The files of STL-10 in its archive, and nothing else of it."""
    for name, pieces in itertools.groupby(_pieces(archive), key=operator.itemgetter(0)):
        with (target / name).open("wb") as file:
            file.writelines(piece for _, piece in pieces)
    if binaries(target) is None:
        raise UserError(f"{archive} holds no train_X.bin, test_X.bin or unlabeled_X.bin of STL-10")


def _pieces(archive: Path) -> Iterator[tuple[str, bytes]]:
    """The content of STL-10's files in its archive, piece by piece, with the file's name."""
    seen = set[str]()
    try:
        with tarfile.open(archive) as packed:
            for member in packed:
                name = Path(member.name).name
                if name not in _MOST or not member.isfile():
                    continue
                if name in seen or member.size > _MOST[name]:
                    what = "is there twice" if name in seen else f"has {member.size:,} bytes, more than STL-10's"
                    raise UserError(f"{name} in {archive} {what}; fetch it again")
                seen.add(name)
                stream = packed.extractfile(member)
                while stream is not None and (piece := stream.read(2**20)):
                    yield name, piece
    except _DAMAGE as error:
        raise UserError(
            f"{archive} is damaged ({reason(error)}), as after a download that broke off; fetch it again"
        ) from None
    except OSError as error:
        raise UserError(f"{archive} cannot be read ({reason(error)}); check the disk, or fetch it again") from None
