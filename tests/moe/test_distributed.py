"""Two gloo processes with half of the batch each against one with all of it."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from moe.balancing.options import BALANCING
from moe.batchnorm import BatchNorm
from moe.data.loading import Share
from moe.distributed import all_sum, gather, world
from tests.moe import two_processes

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What each of two processes computed."""
    folder = tmp_path_factory.mktemp("two")
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.moe.two_processes"]
    processes = [
        subprocess.Popen([*command, str(rank), "2", str(folder)], cwd=ROOT, env=environment) for rank in (0, 1)
    ]
    try:
        assert [process.wait(timeout=120) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.fixture(scope="module")
def one():
    """What one process computes on the whole batch."""
    return two_processes.everything(Share())


def close(ours, expected, tolerance=1e-5):
    """Equal up to `tolerance` of each tensor's norm: float32 sums in another order."""
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        error = (ours[name] - value).norm() / value.norm().clamp_min(1e-3)
        assert error < tolerance, (name, error, value.norm())


@pytest.mark.parametrize(
    ("scenario", "tolerance"), [("step in float64", 1e-11), ("step", 1e-4), ("step of random in float64", 1e-11)]
)
def test_loss_gradients_and_statistics_of_a_step_match_those_of_the_whole_batch(one, two, scenario, tolerance):
    """In float64 nothing but rounding differs; in float32 the first layers' gradients gather more of it."""
    expected = one[scenario]
    for name, value in expected["values"].items():
        mean = (two[0][scenario]["values"][name] + two[1][scenario]["values"][name]) / 2
        torch.testing.assert_close(mean, value, rtol=min(tolerance, 1e-5), atol=0)
    for process in two:
        close(process[scenario]["gradients"], expected["gradients"], tolerance)
        close(process[scenario]["buffers"], expected["buffers"], tolerance)
    assert max(value.abs().max() for value in expected["gradients"].values()) > 0.01


def test_without_exchange_batch_norm_differs_but_gradients_are_shared(one, two):
    first, second = (process["alone"] for process in two)
    assert all(torch.equal(first["gradients"][name], second["gradients"][name]) for name in first["gradients"])
    assert not torch.allclose(first["values"]["objective"], two[0]["step"]["values"]["objective"], atol=1e-4)
    whole = one["step"]["values"]["objective"]
    assert abs((first["values"]["objective"] + second["values"]["objective"]) / 2 - whole) > 1e-4


@pytest.mark.parametrize("scenario", ["experts", "experts apart"])
def test_experts_idle_in_a_process_or_with_one_image_match_the_whole_batch(one, two, scenario):
    z = torch.cat([process[scenario]["z"] for process in two])
    torch.testing.assert_close(z, one[scenario]["z"], rtol=1e-5, atol=1e-5)
    for process in two:
        close(process[scenario]["gradients"], one[scenario]["gradients"])
        close(process[scenario]["buffers"], one[scenario]["buffers"])


def test_an_expert_idle_in_a_process_is_no_obstacle_without_exchange(two):
    for process in two:
        result = process["idle without exchange"]
        assert torch.isfinite(result["z"]).all()
        assert all(torch.isfinite(gradient).all() for gradient in result["gradients"].values())
        assert all(torch.isfinite(value).all() for value in result["buffers"].values())


def test_an_expert_idle_in_all_processes_keeps_all_its_bits_and_the_others_learn(one, two):
    """Steps 2 and 3 leave experts 2 and 3 idle everywhere; in step 4 the first process has no image for them."""
    for before, after in pairwise(range(5)):
        for expert in range(4):
            idle = expert > 1 and after in (1, 2)
            for steps in (one["idle steps"], *(process["idle steps"] for process in two)):
                old, new = steps[before][expert], steps[after][expert]
                assert all(torch.equal(old[name], new[name]) for name in old) == idle
    for process in two:
        for ours, whole in zip(process["idle steps"], one["idle steps"], strict=True):
            for mine, expected in zip(ours, whole, strict=True):
                assert mine.keys() == expected.keys()
                moments = [name for name in expected if name.endswith("exp_avg")]
                close({n: mine[n] for n in moments}, {n: expected[n] for n in moments}, 1e-7)


def test_losses_cover_the_rows_of_all_processes(one, two):
    expected = one["losses"]
    total = two[0]["losses"]["nt_xent"] + two[1]["losses"]["nt_xent"]
    torch.testing.assert_close(total, expected["nt_xent"])
    for process in two:
        torch.testing.assert_close(process["losses"]["importance"], expected["importance"])
        for ours, whole in zip(process["losses"]["gradients"], expected["gradients"], strict=True):
            torch.testing.assert_close(ours, whole)


@pytest.mark.parametrize("name", BALANCING)
def test_balancing_losses_and_their_gradients_are_those_of_the_whole_batch(one, two, name):
    expected = one["balancing"][name]
    mean = (two[0]["balancing"][name]["value"] + two[1]["balancing"][name]["value"]) / 2
    torch.testing.assert_close(mean, expected["value"], rtol=1e-12, atol=1e-12)
    assert expected["gradients"][0].abs().max() > 1e-4
    for process in two:
        torch.testing.assert_close(process["balancing"][name]["gradients"], expected["gradients"])


def test_the_bias_follows_the_loads_of_all_processes(one, two):
    """Each half of the batch overloads another expert, so that a process by itself would move otherwise."""
    expected = one["nudged"]
    assert (two[0]["nudged"]["loads"] + two[1]["nudged"]["loads"]).tolist() == expected["loads"].tolist()
    for process in two:
        assert torch.equal(process["nudged"]["biases"], expected["biases"])
        own = process["nudged"]["loads"][0].double()
        assert (own.mean() - own).sign().tolist() != expected["biases"][0].sign().tolist()


def test_thresholds_of_expert_choice_are_the_same_in_all_processes(two):
    """Each process chooses among its own images; the thresholds follow the mean of what all took."""
    expected = torch.full((5,), 1 / 5, dtype=torch.float64)
    means = (two[0]["thresholds"]["smallest"] + two[1]["thresholds"]["smallest"]) / 2
    for step, mean in enumerate(means):
        rate = max(0.5, 1 / (step + 1))
        expected = (1 - rate) * expected + rate * mean
        for process in two:
            torch.testing.assert_close(process["thresholds"]["thresholds"][step], expected)
    assert torch.equal(two[0]["thresholds"]["thresholds"], two[1]["thresholds"]["thresholds"])
    assert not torch.equal(two[0]["thresholds"]["smallest"], two[1]["thresholds"]["smallest"])


def test_one_process_is_a_world_of_its_own():
    assert world() == (0, 1)
    x = torch.randn(3, 2)
    assert gather(x) is x
    assert all_sum(x) is x
    norm = BatchNorm(2).train()
    assert not norm.joint
    torch.manual_seed(0)
    torch.testing.assert_close(norm(x), torch.nn.BatchNorm1d(2).train()(x))
    with pytest.raises(ValueError, match=r"\(B, C\)"):
        norm(torch.zeros(2, 2, 2))
