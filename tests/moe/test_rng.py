"""Random numbers from counters: the published mixer, uniform, independent, and a function of their counter alone."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from moe import rng
from moe.rng import Stream, key, mix, normal, uniform

MASK = (1 << 64) - 1
GAMMA = 0x9E3779B97F4A7C15


def splitmix(x: int) -> int:
    """SplitMix64's finaliser in Python integers."""
    x &= MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def unsigned(x: int) -> int:
    return x & MASK


def slow_uniform(stream: int, counter: int, draws: int) -> list[float]:
    row = splitmix(splitmix(counter * GAMMA + stream))
    return [(splitmix(row + column * GAMMA) >> 11) / 2**53 for column in range(1, draws + 1)]


def slow_key(*parts: int) -> int:
    state = 0
    for part in parts:
        state = splitmix(state * 31 + GAMMA + part)
    return state


def numbers(stream: int, count: int, draws: int) -> np.ndarray:
    return uniform(stream, torch.arange(count), draws).numpy()


class TestMix:
    def test_equals_splitmix64_in_python_integers(self) -> None:
        edges = [0, 1, -1, 2**63 - 1, -(2**63)]
        drawn = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 200).tolist()
        mixed = mix(torch.tensor(edges + drawn)).tolist()
        assert [unsigned(value) for value in mixed] == [splitmix(value) for value in edges + drawn]

    def test_first_outputs_of_splitmix64_seeded_with_1234567(self) -> None:
        published = [6457827717110365317, 3203168211198807973, 9817491932198370423]  # the test vector of Rosetta Code
        states = torch.arange(1, 4) * torch.tensor(GAMMA - 2**64) + 1234567
        assert [unsigned(value) for value in mix(states).tolist()] == published

    def test_no_two_values_collide(self) -> None:
        assert len(mix(torch.arange(-10_000, 10_000)).unique()) == 20_000

    def test_one_flipped_bit_flips_half_the_output_bits(self) -> None:
        x = np.random.default_rng(1).integers(-(2**63), 2**63 - 1, 64)
        flips = [
            (unsigned(a) ^ unsigned(b)).bit_count()
            for bit in range(64)
            for a, b in zip(
                mix(torch.from_numpy(x)).tolist(),
                mix(torch.from_numpy(x ^ (np.int64(1) << np.int64(bit)))).tolist(),
                strict=True,
            )
        ]
        assert abs(np.mean(flips) - 32) < 0.5
        assert min(flips) > 8


class TestUniform:
    @pytest.mark.parametrize("stream", [0, 1, -7, 2**62, -(2**63)])
    def test_equals_the_slow_reference(self, stream: int) -> None:
        counters = [0, 1, 2, 99_999, 2**40, -3]
        expected = [slow_uniform(stream, counter, 5) for counter in counters]
        assert uniform(stream, torch.tensor(counters), 5).tolist() == expected

    def test_a_row_depends_on_its_counter_alone(self) -> None:
        counters = torch.tensor([5, 0, 17, 3, 1000])
        whole = uniform(3, counters, 8)
        order = torch.tensor([4, 2, 0, 3, 1])
        assert torch.equal(uniform(3, counters[order], 8), whole[order])
        assert torch.equal(uniform(3, counters[1:3], 8), whole[1:3])
        assert torch.equal(uniform(3, counters[[2, 2]], 8), whole[[2, 2]])

    def test_fewer_draws_are_a_prefix(self) -> None:
        assert torch.equal(uniform(3, torch.arange(9), 4), uniform(3, torch.arange(9), 12)[:, :4])

    @pytest.mark.parametrize("kind", [torch.int32, torch.uint8, torch.int64])
    def test_the_counters_integer_type_does_not_matter(self, kind: torch.dtype) -> None:
        assert torch.equal(uniform(1, torch.arange(20, dtype=kind), 3), uniform(1, torch.arange(20), 3))

    def test_form(self) -> None:
        u = uniform(0, torch.arange(6), 4)
        assert u.shape == (6, 4)
        assert u.dtype == torch.float64
        assert uniform(0, torch.arange(0), 4).shape == (0, 4)

    def test_global_seed_has_no_influence_and_is_not_touched(self) -> None:
        torch.manual_seed(0)
        before = torch.get_rng_state()
        first = uniform(0, torch.arange(4), 2)
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(1)
        assert torch.equal(uniform(0, torch.arange(4), 2), first)

    @pytest.mark.parametrize("shape", [(20_000, 1), (1, 20_000), (1_000, 32)])
    @pytest.mark.parametrize("stream", [0, 12345])
    def test_is_uniform(self, stream: int, shape: tuple[int, int]) -> None:
        u = numbers(stream, *shape).ravel()
        assert u.min() >= 0
        assert u.max() < 1
        assert stats.kstest(u, "uniform").pvalue > 1e-3
        assert stats.chisquare(np.bincount((u * 64).astype(int), minlength=64)).pvalue > 1e-3

    def test_low_bits_are_uniform_too(self) -> None:
        low = (numbers(0, 20_000, 1) * 2**53).astype(np.int64).ravel() % 64
        assert stats.chisquare(np.bincount(low, minlength=64)).pvalue > 1e-3

    def test_columns_are_independent(self) -> None:
        correlation = np.corrcoef(numbers(0, 20_000, 32), rowvar=False)
        assert np.abs(correlation - np.eye(32)).max() < 5 / np.sqrt(20_000)

    def test_neighbouring_counters_are_independent(self) -> None:
        u = numbers(0, 20_001, 4)
        for lag in (1, 2):
            between = np.corrcoef(u[:-lag], u[lag:], rowvar=False)[:4, 4:]
            assert np.abs(between).max() < 5 / np.sqrt(20_000)

    @pytest.mark.parametrize(("first", "second"), [(0, 1), (0, 2**32), (key(0, 0, 0), key(0, 0, 1))])
    def test_streams_are_independent(self, first: int, second: int) -> None:
        between = np.corrcoef(numbers(first, 20_000, 4), numbers(second, 20_000, 4), rowvar=False)[:4, 4:]
        assert np.abs(between).max() < 5 / np.sqrt(20_000)

    def test_pairs_fill_the_square(self) -> None:
        """Neighbouring columns and neighbouring rows, jointly, in 16 x 16 cells."""
        u = numbers(7, 20_001, 2)
        for a, b in ((u[:, 0], u[:, 1]), (u[:-1, 0], u[1:, 0])):
            cells = (a * 16).astype(int) * 16 + (b * 16).astype(int)
            assert stats.chisquare(np.bincount(cells, minlength=256)).pvalue > 1e-3


def test_streams_keep_their_values():
    """Every result ever computed depends on them; new ones may follow."""
    kept = {"VIEW_A": 0, "VIEW_B": 1, "ORDER": 2, "WEIGHTS": 3, "NOISE": 4, "STEP": 5, "ROUTE": 6}
    assert {name: stream.value for name, stream in Stream.__members__.items() if name in kept} == kept


def test_keys_name_their_stream():
    """No number written where a key is made says what it is for."""
    bare = []
    for file in Path(rng.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "key":
                bare += [(file.name, node.lineno) for part in node.args if isinstance(part, ast.Constant)]
    assert bare == []


class TestKey:
    @pytest.mark.parametrize("parts", [(), (0,), (0, 0), (1, 2, 3), (2**31 - 1, 99, 1), (-1, 5)])
    def test_equals_the_slow_reference(self, parts: tuple[int, ...]) -> None:
        assert unsigned(key(*parts)) == slow_key(*parts)

    def test_order_matters(self) -> None:
        assert len({key(1, 2, 3), key(1, 3, 2), key(2, 1, 3), key(2, 3, 1), key(3, 1, 2), key(3, 2, 1)}) == 6

    def test_every_part_matters_and_so_does_their_number(self) -> None:
        grid = [key(seed, epoch, view) for seed in range(10) for epoch in range(50) for view in range(3)]
        assert len(set(grid)) == 10 * 50 * 3
        assert len({key(*[0] * length) for length in range(6)}) == 6

    def test_is_the_same_every_time(self) -> None:
        assert key(3, 4, 1) == key(3, 4, 1)


class TestNormal:
    def test_equals_the_quantiles_of_the_uniform_numbers(self) -> None:
        counter = torch.arange(50)
        expected = stats.norm.ppf(uniform(7, counter, 6).numpy() + 2.0**-54)
        np.testing.assert_allclose(normal(7, counter, 6).numpy(), expected, rtol=1e-5, atol=1e-6)

    def test_is_standard_normal_and_independent(self) -> None:
        x = normal(3, torch.arange(40_000), 4).numpy()
        assert x.dtype == np.float32
        assert stats.kstest(x.ravel(), "norm").pvalue > 1e-3
        assert np.abs(np.corrcoef(x.T) - np.eye(4)).max() < 0.02

    def test_a_row_depends_on_its_counter_alone(self) -> None:
        whole = normal(3, torch.arange(100), 4)
        assert torch.equal(normal(3, torch.tensor([42, 7]), 4), whole[[42, 7]])

    @pytest.mark.parametrize(("extreme", "quantile"), [(0.0, 2.0**-54), (1 - 2.0**-53, 1 - 2.0**-53)])
    def test_extremes_are_finite(self, monkeypatch: pytest.MonkeyPatch, extreme: float, quantile: float) -> None:
        monkeypatch.setattr(rng, "uniform", lambda *_args: torch.tensor([[extreme]], dtype=torch.float64))
        x = normal(0, torch.zeros(1, dtype=torch.int64), 1).item()
        assert x == pytest.approx(stats.norm.ppf(quantile), rel=1e-5)
