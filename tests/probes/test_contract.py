"""Every probe that comes along keeps the promises of probes.testing, and so does one from outside."""

import pytest

from probes.probe import Probe, Result
from probes.registry import PROBES
from probes.testing import ProbeContract

QUICK = {
    "routing": {"map_images": 40, "permutations": 9, "bootstrap": 20},
    "exciting": {"count": 3, "permutations": 19},
    "coupling": {"bootstrap": 20},
    "animacy": {"bootstrap": 20, "divisions": 5},
    "tuning": {"permutations": 2},
    "separability": {},
    "similarity": {"draws": 2, "pictures": 2, "permutations": 19},
    "geometry": {"permutations": 3, "images": 40, "distances": ("euclidean",)},
    "claims": {"permutations": 19, "halves": 2},
}


def test_every_probe_is_under_contract():
    assert set(QUICK) == set(PROBES)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROBES)
class TestBuiltIn(ProbeContract):
    @pytest.fixture(autouse=True)
    def named(self, name):
        self.name = name

    def probe(self):
        return PROBES[self.name](**QUICK[self.name])

    def names_dead_experts(self):
        return self.name != "routing"  # which looks at the gate alone

    def test_its_line_begins_with_its_name(self):
        assert PROBES[self.name].about.startswith(f"{self.name}: ")


class Constant(Probe):
    """A probe as a user writes it."""

    about = "constant: always the same"

    def run(self, subject, folder, progress):
        (folder / "constant.csv").write_text("one\n1\n")
        return Result({"one": 1}, [f"dead {subject.dead()}"])


class TestFromOutside(ProbeContract):
    def probe(self):
        return Constant()


class TestTheContractFindsBreaches:
    """The contract is worth something only if probes that break it fail."""

    def breach(self, run, test, tmp_path):
        kind = type("Bad", (Constant,), {"run": run, "__module__": __name__})
        contract = ProbeContract()
        contract.probe = kind
        getattr(contract, test)(tmp_path)

    def test_nan(self, tmp_path):
        with pytest.raises(ValueError, match="JSON compliant"):
            self.breach(lambda self, s, f, p: Result({"x": float("nan")}), "test_it_bears_one_expert", tmp_path)

    def test_the_key_of_a_figure(self, tmp_path):
        test = "test_it_returns_plain_numbers_and_leaves_files"
        with pytest.raises(AssertionError, match="has the key"):
            self.breach(lambda self, s, f, p: Result({"figures/map": 1.0}), test, tmp_path)

    def test_no_files(self, tmp_path):
        with pytest.raises(AssertionError):
            self.breach(lambda self, s, f, p: Result({}), "test_it_returns_plain_numbers_and_leaves_files", tmp_path)

    def test_changed_activations(self, tmp_path):
        def run(self, subject, folder, progress):
            subject.activations.logits_nE[0] += 1
            return Result({})

        with pytest.raises(AssertionError):
            self.breach(run, "test_it_leaves_the_activations_alone", tmp_path)

    def test_another_result_each_time(self, tmp_path):
        seen = []

        def run(self, subject, folder, progress):
            seen.append(1)
            return Result({"calls": len(seen)})

        with pytest.raises(AssertionError):
            self.breach(run, "test_it_is_repeatable", tmp_path)
