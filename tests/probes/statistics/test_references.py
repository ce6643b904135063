"""Experts beside a reference: values, influences, nulls and noise ceilings, each beside a plain computation."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from scipy.stats import rankdata, spearmanr

from probes.statistics.pair_vectors import pair_vector, pair_vectors, square
from probes.statistics.references import compare, cosines, noise_ceiling, permutations_of, reaches, unit
from probes.statistics.similarity import centred_ranks, correlations


def related(n=40, experts=3, seed=0, noise=0.8):
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(n, 4)) * np.exp(0.3 * rng.normal(size=(n, 1)))
    return [common @ rng.normal(size=(4, 5)) + noise * rng.normal(size=(n, 5)) for _ in range(experts)], common


def beside(experts, references, measure, **more):
    options = {"draws": 0, "seed": 0} | more
    vectors = pair_vectors(experts, "euclidean", measure)
    others = [unit(pair_vector(reference, "euclidean", measure)) for reference in references]
    return compare(vectors, others, len(experts[0]), ranked=measure == "spearman", **options)


def test_values_are_spearmans_correlations_of_rdms():
    experts, common = related()
    found = beside(experts, [common, common[:, :1]], "spearman")
    for reference, one in zip([common, common[:, :1]], found, strict=True):
        slow = [spearmanr(pdist(expert), pdist(reference)).statistic for expert in experts]
        np.testing.assert_allclose(one.value_N, slow, atol=1e-6)


def test_a_mean_over_subjects_gives_the_mean_of_the_correlations():
    experts, _ = related()
    subjects, _ = related(experts=5, seed=0, noise=2.0)
    ranks = unit(np.stack([centred_ranks(pdist(subject)) for subject in subjects]))
    vectors = pair_vectors(experts, "euclidean", "spearman")
    (found,) = compare(vectors, [ranks.mean(axis=0)], 40, ranked=True, draws=0, seed=0)
    slow = [[spearmanr(pdist(expert), pdist(subject)).statistic for subject in subjects] for expert in experts]
    np.testing.assert_allclose(found.value_N, np.mean(slow, axis=1), atol=1e-6)
    np.testing.assert_allclose(cosines(vectors, ranks), slow, atol=1e-6)


@pytest.mark.parametrize("measure", ["spearman", "cka"])
@pytest.mark.parametrize("tied", [False, True])
def test_influences_are_what_leaving_out_an_image_shows(measure, tied):
    n = 80
    experts, common = related(n=n)
    # classes of unequal size: ties by the thousand, and an image's class matters to its weight
    reference = np.eye(3)[np.repeat([0, 1, 2], [50, 20, 10])] if tied else common
    if tied:
        experts = [expert + 2 * reference @ np.random.default_rng(1).normal(size=(3, 5)) for expert in experts]
    (found,) = beside(experts, [reference], measure)
    left_out = []
    for image in range(n):
        kept = np.arange(n) != image
        left_out.append(beside([expert[kept] for expert in experts], [reference[kept]], measure)[0].value_N)
    pseudo = (n - 1) * (found.value_N - np.array(left_out)).T
    for influence, slow in zip(found.influence_Nn, pseudo, strict=True):
        assert influence.sum() == pytest.approx(0, abs=1e-4)
        assert np.corrcoef(influence, slow)[0, 1] > 0.995
        # CKA's estimate is of degree four: leaving out an image shows 1 + 7/n of the derivative
        assert influence.std() == pytest.approx(slow.std(), rel=0.06 if measure == "spearman" else 0.11)


@pytest.mark.parametrize("measure", ["spearman", "cka"])
def test_the_null_permutes_the_images_of_the_reference_for_all_experts(measure):
    experts, common = related(n=12)
    (found,) = beside(experts, [common], measure, draws=4, seed=3)
    vectors = pair_vectors(experts, "euclidean", measure)
    matrix = square(unit(pair_vector(common, "euclidean", measure)), 12)
    slow = [
        unit(vectors) @ matrix[np.ix_(order, order)][np.triu_indices(12, k=1)] for order in permutations_of(12, 4, 3)
    ]
    np.testing.assert_allclose(found.null_DN, slow, atol=1e-6)


@pytest.mark.parametrize("measure", ["spearman", "cka"])
def test_references_of_some_experts_alone(measure):
    """As each run has shared features of its own: the same numbers as from those experts by themselves."""
    experts, common = related(n=15, experts=4)
    vectors = pair_vectors(experts, "euclidean", measure)
    references = [unit(pair_vector(common[:, :k], "euclidean", measure)) for k in (4, 2, 1)]
    options = {"ranked": measure == "spearman", "draws": 5, "seed": 1}
    places = [slice(0, 3), slice(3, 4), slice(0, 4)]
    for place, reference, found in zip(
        places, references, compare(vectors, references, 15, places=places, **options), strict=True
    ):
        (alone,) = compare(vectors[place], [reference], 15, **options)
        for one, other in zip(found, alone, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)


def test_without_a_geometry_there_is_no_value():
    experts, common = related()
    found, dead = beside([experts[0], np.ones((40, 2))], [common, np.ones((40, 1))], "spearman", draws=2)
    assert np.isfinite(found.value_N[0])
    assert np.isnan(found.value_N[1])
    assert np.isnan(dead.value_N).all()
    assert np.isnan(found.null_DN[:, 1]).all()
    assert np.isnan(found.influence_Nn[1]).all()
    assert np.isnan(dead.influence_Nn).all()


def test_p_counts_draws_that_reach_the_value_but_for_rounding():
    assert reaches(0.5, np.array([0.1, 0.5 - 1e-7, 0.6, np.nan])) == 3 / 4
    assert np.isnan(reaches(float("nan"), np.array([0.1])))
    assert np.isnan(reaches(0.5, np.array([])))


def test_the_noise_ceiling_is_that_of_mean_ranks():
    """Nili et al. 2014 in loops: ranks standardised, averaged with and without each subject."""
    subjects, _ = related(experts=6)
    rdms = [pdist(subject) for subject in subjects]
    ranks = np.array([(rankdata(rdm) - np.mean(rankdata(rdm))) / np.std(rankdata(rdm)) for rdm in rdms])
    found = noise_ceiling(correlations(np.stack([centred_ranks(rdm) for rdm in rdms])))
    for s in range(6):
        others = [t for t in range(6) if t != s]
        assert found.high_S[s] == pytest.approx(np.corrcoef(ranks[s], ranks.mean(axis=0))[0, 1], abs=1e-9)
        assert found.low_S[s] == pytest.approx(np.corrcoef(ranks[s], ranks[others].mean(axis=0))[0, 1], abs=1e-9)
    # no matrix is more alike to all of them than their mean, the true one included
    best = found.high_S.mean()
    for guess in (*ranks, ranks.mean(axis=0) + 0.1 * ranks[0], np.random.default_rng(0).normal(size=ranks.shape[1])):
        assert np.mean([np.corrcoef(guess, rank)[0, 1] for rank in ranks]) <= best + 1e-12


def test_experts_of_one_run_are_left_out_together():
    similarity = correlations(pair_vectors(related(experts=4)[0], "euclidean", "spearman"))
    runs = np.array(["a", "a", "b", "b"])
    found = noise_ceiling(similarity, runs)
    assert found.low_S[0] == pytest.approx(similarity[0, 2:].sum() / np.sqrt(similarity[2:, 2:].sum()))
    assert np.isnan(noise_ceiling(similarity, np.array(["a"] * 4)).low_S).all()
