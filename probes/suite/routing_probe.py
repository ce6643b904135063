"""Which images go to which expert, and where the gate draws its lines (Figures 2a and 2b).

Axes: n images, B draws, E experts, C classes.
"""

from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from callbacks.metrics import class_information, load_balance, routing_heatmap
from moe.data.readers import Progress
from moe.routing import NONE
from moe.wording import numbered
from probes.drawing.base import save
from probes.drawing.matrices import heatmap
from probes.drawing.points import gate_maps
from probes.probe import GATE_BASELINES, Baseline, Probe, Result
from probes.statistics.constancy import is_constant
from probes.statistics.resampling import bootstrap_counts, dealt, interval, p_value
from probes.subject import Subject, evenly
from probes.tables import number, write_table

_LEAST_IMAGES = 10  # for a map


class RoutingProbe(Probe):
    """Which images go to which expert."""

    about: ClassVar[str] = "routing: proportion of each class routed to each expert; t-SNE map of the gate"
    baselines: ClassVar[tuple[Baseline, ...]] = GATE_BASELINES

    map_images: int = Field(2000, ge=0, description="images in the t-SNE map, at even spacing; 0: no map")
    perplexity: float = Field(30.0, gt=1, description="of t-SNE; at most a third of the images")
    permutations: int = Field(199, ge=0, description="of the labels, for the p-value of class information")
    bootstrap: int = Field(500, ge=0, description="samples of the images, for intervals")
    seed: int = Field(0, ge=0, description="of t-SNE, permutations and samples")

    def run(self, subject: Subject, folder: Path, progress: Progress) -> Result:
        """Heatmap class x expert, map of the gate; headline: balance, and what routing tells about the class."""
        store, found = subject.store, subject.activations
        chosen_nE, notes = found.chosen_nE, list[str]()
        balance = load_balance(chosen_nE)
        result = Result({"load_cv2": balance.cv2, "load_entropy": balance.entropy, "dead": balance.dead}, notes)
        if balance.dead:
            unused = numbered("expert", np.flatnonzero(balance.load == 0).tolist())
            notes.append(f"no image of {store.name} is routed to {unused}")
        if self.bootstrap:
            low, high = interval(cv2_bootstrap(chosen_nE, self.bootstrap, self.seed, subject.units))
            result.numbers.update(load_cv2_low=number(low), load_cv2_high=number(high))
        if store.manifest.classes:
            self._by_class(subject, folder, result)
        progress(1, 2)
        if self.map_images:
            notes += self._map(subject, folder)
        progress(2, 2)
        return result

    def _by_class(self, subject: Subject, folder: Path, result: Result) -> None:
        store, indices_nK, experts = subject.store, subject.activations.indices_nK, subject.experts
        names, classes = [str(expert) for expert in range(experts)], store.manifest.classes
        heatmap_CE = routing_heatmap(indices_nK, store.labels_N, len(classes), experts)
        counts_C = np.bincount(store.labels_N[store.labels_N >= 0], minlength=len(classes))
        write_table(
            folder / "routing.csv",
            ["class", "images", *names],
            ([name, int(count), *row] for name, count, row in zip(classes, counts_C, heatmap_CE.tolist(), strict=True)),
        )
        slots = (indices_nK != NONE).sum(axis=1).mean()
        figure = heatmap(
            heatmap_CE,
            [f"{name} ({count})" for name, count in zip(classes, counts_C, strict=True)],
            names,
            title=f"Routing of {store.name} ({subject.title}); a row sums to k = {slots:.3g}",
            label="proportion of the class's images",
            limits=(0.0, 1.0),
        )
        figure.axes[0].set(xlabel="expert", ylabel="class (images)")
        save(figure, folder / "routing.png")
        known = store.labels_N >= 0
        observed = class_information(indices_nK[known], store.labels_N[known], len(classes), experts)
        result.numbers["class_information"] = number(observed)
        if self.permutations and np.isfinite(observed):
            null = information_null(
                indices_nK[known], store.labels_N[known], len(classes), experts, draws=self.permutations,
                seed=self.seed, units=subject.units_of(known),
            )  # fmt: skip
            result.numbers["class_information_null"] = float(null.mean())
            result.numbers["class_information_p"] = p_value(observed, null)

    def _map(self, subject: Subject, folder: Path) -> list[str]:
        rows = evenly(len(subject.store), self.map_images)
        logits_nE = subject.activations.logits_nE[rows]
        if logits_nE.shape[1] == 1 or len(rows) < _LEAST_IMAGES:
            return [f"no map of the gate: {len(rows)} images, E = {logits_nE.shape[1]}"]
        if not _varies(logits_nE):
            return ["no map of the gate: it is constant, its logits are the same for all images"]
        perplexity = min(self.perplexity, (len(rows) - 1) / 3)
        points_n2 = tsne(logits_nE, perplexity, self.seed)
        labels_n = subject.store.labels_N[rows]
        some = "all" if len(rows) == len(subject.store) else f"{len(rows):,} evenly spaced of {len(subject.store):,}"
        figure = gate_maps(
            points_n2,
            subject.activations.chosen_nE[rows],
            labels_n,
            subject.store.manifest.classes,
            f"t-SNE of the gate logits, {some} images of {subject.store.name} ({subject.title})",
        )
        save(figure, folder / "map.png")
        write_table(
            folder / "map.csv",
            ["image", "class", "tsne_1", "tsne_2", "experts"],
            (
                [subject.store.ids[row], int(label), *point, " ".join(str(one) for one in indices if one != NONE)]
                for row, label, point, indices in zip(
                    rows, labels_n, points_n2.tolist(), subject.activations.indices_nK[rows].tolist(), strict=True
                )
            ),
        )
        return []


def tsne(logits_nE: NDArray[np.float32], perplexity: float, seed: int) -> NDArray[np.float64]:
    """(n, 2) t-SNE of the gate logits, from their first two principal components; the same on any number of cores."""
    centred = logits_nE - logits_nE.mean(axis=0)
    if not _varies(logits_nE):
        return np.zeros((len(logits_nE), 2))
    model = TSNE(perplexity=perplexity, init="pca", random_state=seed)
    # of one thread: several add up in an order of their own, and wait for each other for minutes on a busy machine
    with threadpool_limits(1, user_api="openmp"):
        return np.asarray(model.fit_transform(centred.astype(np.float64)), dtype=np.float64)


def _varies(logits_nE: NDArray[np.float32]) -> bool:
    """Whether there is a map to draw.

    scikit-learn divides by the standard deviation of the first principal component in single precision, and its search
    for neighbours among NaN ends the process (its issue 28368).
    """
    spread = np.float32(logits_nE.astype(np.float64).std(axis=0).max(initial=0.0))
    return not is_constant(logits_nE) and bool(np.square(spread) > 0)


def cv2_bootstrap(
    chosen_nE: NDArray[np.bool_], draws: int, seed: int, units: NDArray[np.int64] | None = None
) -> NDArray[np.float64]:
    """Squared coefficient of variation of the experts' loads in bootstrap samples of the images, (draws,)."""
    loads = [counts_Bn @ chosen_nE for counts_Bn in bootstrap_counts(len(chosen_nE), draws, seed, units)]
    loads_bE = np.concatenate(loads)
    return np.asarray(loads_bE.var(axis=1) / loads_bE.mean(axis=1) ** 2)


def information_null(
    indices_nK: NDArray[np.int64],
    labels_n: NDArray[np.int64],
    classes: int,
    experts: int,
    *,
    draws: int,
    seed: int,
    units: NDArray[np.int64] | None = None,
) -> NDArray[np.float64]:
    """`class_information` (draws,) when the labels are dealt at random.

    Args:
        indices_nK: chosen experts.
        labels_n: classes, none negative.
        classes: number of classes C.
        experts: number of experts E.
        draws: number of permutations.
        seed: of the permutations.
        units: (n,) groups of images, see `dealt`.
    """
    return np.array([
        class_information(indices_nK, labels, classes, experts) for labels in dealt(labels_n, draws, seed, units)
    ])  # fmt: skip
