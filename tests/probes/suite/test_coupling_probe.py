"""Coupling: what the probe makes of data whose answer is known, and of the bad cases of real data."""

import pytest

from probes.suite.coupling_probe import CouplingProbe
from probes.testing import example_subject
from tests.probes.suite.made import ask, with_activations


class TestCoupling:
    def test_a_readout_that_follows_the_gate_is_coupled(self, tmp_path):
        s = example_subject(tmp_path)
        norms = 3 + s.activations.logits_nE.T / 10
        s = with_activations(s, s.activations.logits_nE, norms[:, :, None])
        numbers = ask(CouplingProbe(bootstrap=20), s, tmp_path / "c").numbers
        assert numbers["mean_pearson"] == pytest.approx(1, abs=1e-4)
        assert numbers["mean_r2_low"] == pytest.approx(1, abs=1e-3)
