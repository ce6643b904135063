"""What a registry guarantees, whatever it holds."""

import subprocess
import sys

import pytest

from moe.errors import UserError
from moe.registry import Registry
from tests.plugins import write_plugin

OURS = "their_ours = dict(size=1)\nother = dict(size=2)\n"
THEIRS = "big = dict(size=9)\nword = 'no dictionary'\n"


def dictionary(loaded, name):
    if not isinstance(loaded, dict):
        raise UserError("it is no dictionary")
    return loaded | {"name": name}


def make():
    shipped = {"one": "registry_ours:their_ours", "two": "registry_ours:other"}
    return Registry("thing", "moe.things", shipped, dictionary)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A registry beside whatever entry points a test asks for."""
    found = make()

    def install(entries):
        modules = {"registry_ours": OURS, "registry_theirs": THEIRS, "registry_broken": "import not_there"}
        monkeypatch.syspath_prepend(str(write_plugin(tmp_path / "site", modules, {"moe.things": entries})))
        found.forget()
        return found

    yield install
    found.forget()
    for name in ("registry_ours", "registry_theirs", "registry_broken"):
        sys.modules.pop(name, None)


def test_names_are_known_without_an_import(installed):
    things = installed({"big": "registry_theirs:big", "absent": "registry_broken:x"})
    assert list(things) == ["one", "two", "absent", "big"]
    assert len(things) == 4
    assert "big" in things
    assert "three" not in things
    assert not {"registry_ours", "registry_theirs", "registry_broken"} & set(sys.modules)


def test_asking_for_one_loads_that_one_alone(installed):
    things = installed({"big": "registry_theirs:big"})
    assert things["two"] == {"size": 2, "name": "two"}
    assert "registry_theirs" not in sys.modules
    assert things["big"] == {"size": 9, "name": "big"}
    assert things["big"] is things["big"]


def test_an_unknown_name_is_answered_with_the_likeliest_one(installed):
    things = installed({"big": "registry_theirs:big"})
    with pytest.raises(UserError, match='unknown thing "bigg": did you mean "big"'):
        things["bigg"]
    with pytest.raises(UserError, match="known are: big, one, two"):
        things["xyz"]


def test_what_cannot_be_loaded_hinders_no_other_and_says_why(installed):
    things = installed(
        {
            "absent": "registry_theirs:nothing",
            "big": "registry_theirs:big",
            "broken": "registry_broken:x",
            "one": "registry_theirs:big",
            "word": "registry_theirs:word",
        }
    )
    assert set(things.usable()) == {"one", "two", "big"}
    assert things["one"]["size"] == 1
    assert things.broken() == {
        "absent": "registry_theirs:nothing of their-package: AttributeError: module 'registry_theirs' has no attribute "
        "'nothing'",
        "broken": "registry_broken:x of their-package: ModuleNotFoundError: No module named 'not_there'",
        "one": "registry_theirs:big of their-package: the name one is taken by registry_ours:their_ours",
        "word": "registry_theirs:word of their-package: it is no dictionary",
    }
    with pytest.raises(UserError, match=r'the thing "word" cannot be loaded \(.*it is no dictionary\)'):
        things["word"]


def test_a_fault_in_what_comes_along_is_not_hidden():
    with pytest.raises(ModuleNotFoundError):
        Registry("thing", "moe.things", {"one": "nowhere_at_all:x"}, dictionary).usable()


def test_of_two_packages_with_one_name_the_first_is_taken(tmp_path, monkeypatch):
    modules = {"registry_theirs": THEIRS}
    first = write_plugin(tmp_path / "first", modules, {"moe.things": {"big": "registry_theirs:big"}})
    second = write_plugin(tmp_path / "second", {}, {"moe.things": {"big": "registry_theirs:word"}})
    (second / "their_package-1.0.dist-info").rename(second / "second_package-1.0.dist-info")
    (second / "second_package-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: second\n")
    monkeypatch.syspath_prepend(str(first))
    monkeypatch.syspath_prepend(str(second))
    things = make()
    things.forget()
    try:
        assert things["big"]["size"] == 9
        assert "taken by registry_theirs:big of their-package" in things.broken()["big"]
    finally:
        things.forget()
        sys.modules.pop("registry_theirs", None)


def test_the_registry_does_without_torch():
    code = "import sys, moe.registry; assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
