"""What the probes compute: pure functions on arrays, which know no run, no path and no figure."""

from probes.statistics.agreement import Agreement, clusters_by_measure
from probes.statistics.animacy import SplitTest, animacy_index, animacy_test, animate_classes, bootstrap_animacy
from probes.statistics.class_pairs import Difference, PairMean, expert_differences, mean_over_experts, pair_mean
from probes.statistics.cluster_null import (
    Structureless,
    WithinRuns,
    continuum,
    independent,
    margin,
    run_halves,
    spread_of_halves,
    within_runs,
)
from probes.statistics.cluster_traits import TraitDifference, trait_difference
from probes.statistics.constancy import constant_columns, is_constant
from probes.statistics.coupling import Coupling, bootstrap_coupling, couplings
from probes.statistics.equivalence import Equivalence, Likeness, equivalence, likeness
from probes.statistics.exciting import most_exciting, overlap, overlap_null
from probes.statistics.held_out import HeldOutR2, held_out_r2
from probes.statistics.image_statistics import image_statistics
from probes.statistics.mean_similarity import image_spread, run_spread, similarity_interval
from probes.statistics.nonlinearity import curve_r2
from probes.statistics.pair_vectors import pair_vector, pair_vectors, placed
from probes.statistics.procrustes import procrustes, procrustes_matrix, shape_of
from probes.statistics.recurrence import Recurrence, recurrence, share_interval
from probes.statistics.references import Ceiling, Compared, compare, noise_ceiling
from probes.statistics.resampling import Interval, holm, interval, p_value
from probes.statistics.separability import Separability, pair_folds, pairwise_separability
from probes.statistics.similarity import Clusters, cluster, correlations, euclidean_rdm, mds, ranked_rdms, second_order
from probes.statistics.split_contrast import ContrastTest, class_distances, contrast_test
from probes.statistics.spreads import Spread, influence_spread, mean_over_cells, seed_spread, student_interval
from probes.statistics.stability import Stability, cluster_stability
from probes.statistics.tuning import ALPHAS, Tuning, cross_validated, fit_tuning
from probes.statistics.tuning_null import TuningNull, tuning_null
from probes.statistics.variance_partitioning import Partition, partition, unique_null
from probes.statistics.verdicts import Verdict, verdict

__all__ = [
    "ALPHAS",
    "Agreement",
    "Ceiling",
    "Clusters",
    "Compared",
    "ContrastTest",
    "Coupling",
    "Difference",
    "Equivalence",
    "HeldOutR2",
    "Interval",
    "Likeness",
    "PairMean",
    "Partition",
    "Recurrence",
    "Separability",
    "SplitTest",
    "Spread",
    "Stability",
    "Structureless",
    "TraitDifference",
    "Tuning",
    "TuningNull",
    "Verdict",
    "WithinRuns",
    "animacy_index",
    "animacy_test",
    "animate_classes",
    "bootstrap_animacy",
    "bootstrap_coupling",
    "class_distances",
    "cluster",
    "cluster_stability",
    "clusters_by_measure",
    "compare",
    "constant_columns",
    "continuum",
    "contrast_test",
    "correlations",
    "couplings",
    "cross_validated",
    "curve_r2",
    "equivalence",
    "euclidean_rdm",
    "expert_differences",
    "fit_tuning",
    "held_out_r2",
    "holm",
    "image_spread",
    "image_statistics",
    "independent",
    "influence_spread",
    "interval",
    "is_constant",
    "likeness",
    "margin",
    "mds",
    "mean_over_cells",
    "mean_over_experts",
    "most_exciting",
    "noise_ceiling",
    "overlap",
    "overlap_null",
    "p_value",
    "pair_folds",
    "pair_mean",
    "pair_vector",
    "pair_vectors",
    "pairwise_separability",
    "partition",
    "placed",
    "procrustes",
    "procrustes_matrix",
    "ranked_rdms",
    "recurrence",
    "run_halves",
    "run_spread",
    "second_order",
    "seed_spread",
    "shape_of",
    "share_interval",
    "similarity_interval",
    "spread_of_halves",
    "student_interval",
    "trait_difference",
    "tuning_null",
    "unique_null",
    "verdict",
    "within_runs",
]
