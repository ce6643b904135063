"""What inputs changed is as it was for the next one."""

import shutil
from pathlib import Path

from tests.fuzz.restoring import SAME, restore, statuses


def test_a_restored_folder_is_as_it_was(tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    (source / "a" / "b").mkdir(parents=True)
    for name in ("one", "a/two", "a/b/three"):
        (source / name).write_text(name)
    originals = statuses(source)
    for _ in range(2):
        restore(copy, source, originals)
        assert {file: [getattr(status, key) for key in SAME[:2]] for file, status in statuses(copy).items()} == {
            file: [getattr(status, key) for key in SAME[:2]] for file, status in originals.items()
        }
        assert [(copy / name).read_text() for name in ("one", "a/two", "a/b/three")] == ["one", "a/two", "a/b/three"]
        (copy / "one").write_text("eno")
        (copy / "a" / "two").unlink()
        (copy / "a" / "two").mkdir()
        shutil.rmtree(copy / "a" / "b")
        (copy / "a" / "b").symlink_to("nowhere")
        (copy / "more").mkdir()
        (copy / "more" / "yet").write_text("")
