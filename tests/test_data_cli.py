"""`moe data` as a user meets it: what was left out is said, damage hides nothing, a mistake is one sentence, code 2."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import Moe


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for number, name in enumerate(("cat/1.png", "cat/2.png", "dog/3.png")):
        (tmp_path / "pets" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (number, 0, 0)).save(tmp_path / "pets" / name)
    return tmp_path / "pets"


def test_an_import_ends_with_what_was_left_out(moe: Moe, pets: Path) -> None:
    (pets / "dog" / "4.png").write_text("<html>404 [not found]</html>")
    (pets / "notes.txt").write_text("mine")
    code, out, err = moe("data", "import", "pets", pets)
    assert (code, out) == (2, "")
    assert "dog/4.png is not a readable image" in err
    assert "--skip-bad" in err
    code, out, _ = moe("data", "import", "pets", pets, "--skip-bad")
    assert code == 0
    assert out.splitlines() == [
        "pets: 3 images of 16x16, 2 classes (cat, dog)",
        "  1 other file left out: 1 .txt",
        "  1 picture left out, not readable: dog/4.png",
        "  left out: dog/4.png is not a readable image (cannot identify it)",
    ]
    listed = json.loads(moe("data", "list", "--json")[1])
    assert list(listed["stores"][0]["left_out"]) == ["dog/4.png"]


def test_the_list_shows_the_rest_when_one_store_is_damaged(moe: Moe, pets: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert moe("data", "import", name, pets)[0] == 0
    (tmp_path / "data" / "one" / "manifest.json").write_text("")
    code, out, err = moe("data", "list")
    assert code == 0
    assert "two" in out
    assert "one/manifest.json is damaged" in err
    assert "import the images again with --force" in err
    listed = json.loads(moe("data", "list", "--json")[1])
    assert [store["name"] for store in listed["stores"]] == ["two"]
    assert list(listed["damaged"]) == ["one"]
    checks = json.loads(moe("doctor", "--json")[1])["checks"]
    assert any("1 damaged" in check["found"] and "one/manifest.json" in check["mend"] for check in checks)
    assert moe("data", "import", "one", pets, "--force")[0] == 0
    assert moe("data", "verify", "one")[0] == 0


def test_copies_among_images_are_named(moe: Moe, pets: Path) -> None:
    for name in ("cat/2.png", "dog/3.png"):
        shutil.copy(pets / name, pets / name.replace(".png", " again.png"))
    code, out, _ = moe("data", "import", "pets", pets)
    assert code == 0
    assert (
        "  2 images copy others to the last pixel: cat/2 of cat/2 again, dog/3 of dog/3 again; probes' "
        "p-values and intervals take images for independent\n"
    ) in out
    (pets / "cat" / "2 again.png").unlink()
    out = moe("data", "import", "pets", pets, "--force")[1]
    assert "  1 image copies another to the last pixel: dog/3 of dog/3 again; probes'" in out


def test_a_damaged_store_fails_its_own_run_alone(moe: Moe, pets: Path, tmp_path: Path) -> None:
    assert moe("data", "import", "one", pets)[0] == 0
    (tmp_path / "data" / "one" / "images.npy").write_bytes(b"half")
    code, _, err = moe("train", "--set", "data.name=one", "--set", "train.batch_size=2")
    assert code == 2
    assert "one/images.npy is damaged" in err


@pytest.mark.parametrize(
    "words", [["--labels", "/dev/zero"], ["--classes", "/dev/zero"], ["--labels", "no.csv"], ["--size", "99999"]]
)
def test_odd_options_are_one_sentence(moe: Moe, pets: Path, words: list[str]) -> None:
    code, out, err = moe("data", "import", "pets", pets, *words)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
