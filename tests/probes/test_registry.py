"""Names, options and plugins."""

import re
import sys

import pytest

from moe.errors import UserError
from probes.registry import PROBES, chosen, listing
from probes.suite.tuning_probe import TuningProbe
from tests.plugins import write_plugin

GOOD = """
from probes.probe import Probe, Result

class Mine(Probe):
    about = "mine: counts images"
    step: int = 1

    def run(self, subject, folder, progress):
        (folder / "mine.csv").write_text("images\\n")
        return Result({"images": len(subject.store)})

class Abstract(Probe):
    about = "no run"

class Needy(Mine):
    step: int

nothing = 3
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Installs a package with entry points; undone after the test."""

    def install(entries):
        modules = {"their_probes": GOOD, "their_broken": "import a_library_that_is_not_there"}
        write_plugin(tmp_path, modules, {"moe.probes": entries})
        monkeypatch.syspath_prepend(str(tmp_path))
        PROBES.forget()

    yield install
    PROBES.forget()
    for name in ("their_probes", "their_broken"):
        sys.modules.pop(name, None)


def test_all_probes_by_default_and_those_named_in_their_order():
    assert list(chosen(None)) == list(PROBES)
    assert list(chosen(["tuning", "routing", "tuning"])) == ["tuning", "routing"]


def test_an_unknown_name_is_answered_with_names_that_exist():
    with pytest.raises(UserError, match='unknown probe "tunning": did you mean "tuning"'):
        chosen(["tunning"])
    with pytest.raises(UserError, match=r"known are: .*coupling.*tuning"):
        chosen(["xyz"])


def test_options_reach_their_probe():
    probe = chosen(["tuning", "exciting"], ["tuning.standardize=false", "tuning.permutations=7"])["tuning"]
    assert probe == TuningProbe(standardize=False, permutations=7)


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("tuning.standardise=false", 'unknown option "tuning.standardise": did you mean "tuning.standardize"'),
        ("standardize=false", 'did you mean "tuning.standardize"'),
        ("tuning.standardize", "is not PROBE.OPTION=VALUE"),
        ("tuning.permutations=-1", "tuning.permutations=-1: input should be greater than or equal to 0"),
        ("tuning.permutations=many", "tuning.permutations='many': input should be a valid integer"),
        ("tuning.top=[1", "not a value in YAML"),
        ("routing.seed=1", "add `--probe routing`"),
    ],
)
def test_mistakes_in_options_are_named(assignment, words):
    with pytest.raises(UserError) as error:
        chosen(["tuning"], [assignment])
    assert words in str(error.value)


def test_one_value_where_a_list_is_meant():
    with pytest.raises(UserError, match=r"animacy.animate='cloud': input should be a list, as \[a, b\]"):
        chosen(["animacy"], ["animacy.animate=cloud"])


def test_two_values_for_one_option_are_refused():
    with pytest.raises(UserError, match=r"^tuning\.top is given twice, as 5 and as 6"):
        chosen(["tuning"], ["tuning.top=5", "tuning.top=6"])


def test_results_under_other_options_have_another_folder():
    assert TuningProbe().label("tuning") == "tuning"
    assert TuningProbe(permutations=99).label("tuning") == "tuning"
    assert TuningProbe(standardize=False, top=3).label("tuning") == "tuning--standardize-false--top-3"
    labels = {
        PROBES["animacy"](animate=a).label("animacy") for a in [("a b",), ("a/b",), ("a", "b"), ("x" * 200,), None]
    }
    assert len(labels) == 5
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,90}", label) for label in labels)


def test_a_plugin_is_a_probe_like_any_other(installed):
    installed({"mine": "their_probes:Mine"})
    assert list(chosen(None))[-1] == "mine"
    assert chosen(["mine"], ["mine.step=4"])["mine"].step == 4
    assert listing()["probes"][-1]["options"][0]["name"] == "mine.step"


def test_a_broken_plugin_is_named_and_hinders_no_other(installed):
    shipped = list(PROBES)
    installed(
        {
            "absent": "their_probes:Absent",
            "abstract": "their_probes:Abstract",
            "broken": "their_broken:Probe",
            "mine": "their_probes:Mine",
            "needy": "their_probes:Needy",
            "number": "their_probes:nothing",
            "tuning": "their_probes:Mine",
        }
    )
    usable, broken = PROBES.usable(), PROBES.broken()
    assert set(usable) == {*shipped, "mine"}
    assert usable["tuning"] is TuningProbe
    reasons = {
        "absent": "AttributeError",
        "abstract": "no subclass",
        "broken": "their_broken:Probe of their-package: ModuleNotFoundError: .*a_library_that_is_not_there",
        "needy": "option step has no default",
        "number": "no subclass",
        "tuning": "name tuning is taken",
    }
    assert set(broken) == set(reasons)
    for name, reason in reasons.items():
        assert re.search(reason, broken[name]), (name, broken[name])
    with pytest.raises(UserError, match=r'"broken" cannot be loaded .*a_library_that_is_not_there'):
        chosen(["broken"])
    assert list(chosen(["mine"])) == ["mine"]
