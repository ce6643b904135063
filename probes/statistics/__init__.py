"""What the probes compute: pure functions on arrays, which know no run, no path and no figure."""

from probes.statistics.animacy import animacy_index, animate_classes, bootstrap_animacy
from probes.statistics.constancy import constant_columns, is_constant
from probes.statistics.coupling import Coupling, bootstrap_coupling, couplings
from probes.statistics.exciting import most_exciting
from probes.statistics.resampling import Interval, interval, p_value
from probes.statistics.separability import Separability, pair_folds, pairwise_separability
from probes.statistics.similarity import Clusters, cluster, euclidean_rdm, mds, second_order
from probes.statistics.stability import Stability, cluster_stability
from probes.statistics.tuning import ALPHAS, Tuning, cross_validated_r2, fit_tuning
from probes.statistics.tuning_null import tuning_null

__all__ = [
    "ALPHAS",
    "Clusters",
    "Coupling",
    "Interval",
    "Separability",
    "Stability",
    "Tuning",
    "animacy_index",
    "animate_classes",
    "bootstrap_animacy",
    "bootstrap_coupling",
    "cluster",
    "cluster_stability",
    "constant_columns",
    "couplings",
    "cross_validated_r2",
    "euclidean_rdm",
    "fit_tuning",
    "interval",
    "is_constant",
    "mds",
    "most_exciting",
    "p_value",
    "pair_folds",
    "pairwise_separability",
    "second_order",
    "tuning_null",
]
