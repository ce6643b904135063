"""A store appears whole or not at all, whatever happens to the import; what killed imports leave is cleared away."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from moe.data import staging
from moe.data.datasets import import_images
from moe.data.staging import staged
from moe.data.store import Images, ImageStore, open_all, store_names, write_store
from moe.errors import UserError

KILLS = """
import json, os, signal, sys
from itertools import count
from pathlib import Path
from moe.data import staging, store
from moe.data.datasets import import_images

old, new, root = Path(sys.argv[1]), Path(sys.argv[2]), store.data_root()

def killed_at(step):
    left = [step]

    def counted(real):
        def call(*args, **options):
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return real(*args, **options)
        return call

    os.fsync = counted(os.fsync)
    for name in ("mkdir", "rename", "write_text", "open"):
        setattr(Path, name, counted(getattr(Path, name)))
    store.np.save = counted(store.np.save)
    staging.remove = counted(staging.remove)
    staging._exchanged = counted(staging._exchanged) if sys.argv[3] == "exchange" else lambda *_: False
    import_images("mine", new, replace=True)

for step in count():
    import_images("mine", old, replace=True)
    child = os.fork()
    if not child:
        killed_at(step)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    stores, damaged = store.open_all()
    mine = store.ImageStore.open("mine")
    mine.verify()
    left = sorted(path.name for path in root.iterdir())
    print(json.dumps({"status": status, "digest": mine.digest(), "left": left, "damaged": len(damaged)}))
    if status != signal.SIGKILL:
        break
"""


def images(folder: Path, count: int, red: int) -> Path:
    folder.mkdir()
    for number in range(count):
        Image.new("RGB", (16, 16), (red, 0, number)).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize("how", ["exchange", "two renames"])
@pytest.mark.slow
def test_a_kill_at_any_step_leaves_the_old_store_or_the_new_one(tmp_path: Path, how: str) -> None:
    """SIGKILL before the n-th mkdir, open, write, fsync, rename or removal, for every n."""
    old, new = images(tmp_path / "old", 3, 10), images(tmp_path / "new", 4, 20)
    digests = {import_images("old", old).digest(), import_images("new", new).digest()}
    command = [sys.executable, "-c", KILLS, str(old), str(new), how]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    steps = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [step["status"] for step in steps] == [signal.SIGKILL] * (len(steps) - 1) + [0]
    assert len(steps) > 15
    assert {step["digest"] for step in steps} == digests  # either is met, and nothing else
    assert all(step["left"] == ["mine", "new", "old"] and not step["damaged"] for step in steps)


class TestBadImports:
    @pytest.fixture
    def before(self, tmp_path: Path) -> str:
        return import_images("mine", images(tmp_path / "good", 3, 10)).digest()

    @pytest.mark.parametrize("shape", [(5, 0, 0, 3), (5, 8, 9, 3), (0, 8, 8, 3), (5, 8, 8)])
    def test_with_force_keep_what_was_there(self, tmp_path: Path, before: str, shape: tuple[int, ...]) -> None:
        np.save(tmp_path / "bad.npy", np.zeros(shape, np.uint8))
        with pytest.raises(UserError, match=r"bad\.npy"):
            import_images("mine", tmp_path / "bad.npy", replace=True)
        assert ImageStore.open("mine").digest() == before
        assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["mine"]

    def test_a_folder_that_is_no_store_is_never_replaced(self, tmp_path: Path) -> None:
        """Someone's pictures in ./data/faces, imported as faces."""
        (tmp_path / "data").mkdir()
        faces = images(tmp_path / "data" / "faces", 3, 10)
        with pytest.raises(UserError, match="faces exists and is no image store; choose another name"):
            import_images("faces", faces, replace=True)
        assert len(list(faces.iterdir())) == 3

    def test_no_room_is_said_before_anything_is_decoded(
        self, tmp_path: Path, before: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("moe.data.pixels.shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
        with pytest.raises(
            UserError, match=r"3 images of 16x16 pixels take .* GB and .* left; choose a smaller --size"
        ):
            import_images("mine", tmp_path / "good", replace=True)
        assert ImageStore.open("mine").digest() == before

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_a_place_without_permission(self, tmp_path: Path) -> None:
        (tmp_path / "data").mkdir(mode=0o500)
        with pytest.raises(UserError, match=r"images cannot be written to .*MOE_DATA"):
            import_images("mine", images(tmp_path / "good", 3, 10))


class TestLeftovers:
    def leave(self, root: Path, name: str, *files: str) -> Path:
        (root / name).mkdir(parents=True)
        for file in files:
            (root / name / file).write_text("half")
        return root / name

    @pytest.mark.parametrize("name", [".mine-0123abcd", ".a-b.c-ffffffff", ".gone-0123abcd-old"])
    @pytest.mark.parametrize("clears", ["list", "import"])
    def test_are_removed(self, tmp_path: Path, name: str, clears: str) -> None:
        left = self.leave(tmp_path / "data", name, "images.npy", "labels.npy")
        if clears == "list":
            open_all()
        else:
            import_images("other", images(tmp_path / "good", 3, 10))
        assert not left.exists()

    @pytest.mark.parametrize(
        ("name", "files"),
        [
            (".git-0123abcd", ["HEAD"]),
            (".mine-0123", ["images.npy"]),
            ("mine-0123abcd", ["images.npy"]),
            (".download", []),
        ],
    )
    def test_what_is_not_ours_stays(self, tmp_path: Path, name: str, files: list[str]) -> None:
        left = self.leave(tmp_path / "data", name, *files)
        open_all()
        assert left.exists()

    def test_a_store_set_aside_is_put_back(self, tmp_path: Path) -> None:
        import_images("mine", images(tmp_path / "good", 3, 10))
        (tmp_path / "data" / "mine").rename(tmp_path / "data" / ".mine-0123abcd-old")
        assert len(ImageStore.open("mine")) == 3

    def test_an_import_that_runs_is_left_alone(self, tmp_path: Path) -> None:
        with staged("mine", tmp_path / "data", replace=False) as partial:
            open_all()
            write_store("other", Images(np.zeros((1, 4, 4, 3), np.uint8), ["a"], "drawn"))
            assert partial.exists()
            write_store("inside", Images(np.zeros((1, 4, 4, 3), np.uint8), ["a"], "drawn"), partial.parent / "x")
        assert (tmp_path / "data" / "mine").exists()

    def test_two_imports_at_once_end_with_one_store(self, tmp_path: Path) -> None:
        content = Images(np.zeros((1, 4, 4, 3), np.uint8), ["a"], "drawn")

        def second() -> None:
            with staged("mine", tmp_path / "data", replace=False):
                write_store("mine", content)

        with pytest.raises(UserError, match=r"exist in .* already; pass --force"):
            second()
        assert len(ImageStore.open("mine")) == 1
        assert store_names() == ["mine"]


def test_the_system_exchanges_folders_at_once(tmp_path: Path) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux can")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert staging._exchanged(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a" / "b").exists()
    with pytest.raises(FileNotFoundError):
        staging._exchanged(tmp_path / "a", tmp_path / "nowhere")
