"""The probes of a single run: routing, tuning, separability, most exciting inputs.

Axes: n images, E experts, C classes, p dimensions, t targets.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from callbacks import figures as common
from callbacks.metrics import load_balance, routing_heatmap
from moe.data.store import ImageStore
from probes import figures
from probes.exciting import most_exciting
from probes.separability import pairwise_separability
from probes.subject import Numbers, Subject, number, rated_rows, write_table
from probes.tuning import fit_tuning

_MIN_RATED = 50  # below, ten or fewer images are held out in each of five folds
_MAX_CLASSES = 60
_TOP_DIMENSIONS, _TOP_IMAGES = 5, 8


class RoutingProbe:
    """Which images go to which expert (Figure 2b)."""

    about = "routing: proportion of each class routed to each expert"

    def skip(self, store: ImageStore) -> str | None:
        """Needs labels."""
        return None if store.manifest.classes else "these images have no labels"

    def run(self, subject: Subject, folder: Path) -> Numbers:
        """Heatmap class x expert; headline: balance over these images."""
        names = [str(expert) for expert in range(subject.experts)]
        classes, indices = subject.store.manifest.classes, subject.activations.indices_nK
        heatmap = routing_heatmap(indices, subject.store.labels_N, len(classes), subject.experts)
        write_table(
            folder / "routing.csv",
            ["class", *names],
            ([name, *row] for name, row in zip(classes, heatmap.tolist(), strict=True)),
        )
        title = f"Routing of {subject.store.name} (run {subject.run.id})"
        figure = common.heatmap(
            heatmap, classes, names, title=title, label="proportion of the class's images", limits=(0.0, 1.0)
        )
        common.save(figure, folder / "routing.png")
        chosen = np.zeros((len(indices), subject.experts))
        np.put_along_axis(chosen, indices, 1.0, axis=1)
        balance = load_balance(chosen)
        return {"load_cv2": balance.cv2, "load_entropy": balance.entropy, "dead": balance.dead}


class TuningProbe:
    """Which dimensions drive gate and readout of each expert (Appendix A.2, Tables 1 and S1)."""

    about = "tuning: non-negative Lasso from rated dimensions to gate logits and readout norms"

    def skip(self, store: ImageStore) -> str | None:
        """Needs rated dimensions."""
        count = len(rated_rows(store))
        return None if count >= _MIN_RATED else f"{count} images have rated dimensions, {_MIN_RATED} are needed"

    def run(self, subject: Subject, folder: Path) -> Numbers:
        """Table of r2, penalty and top dimensions; all coefficients; profile figure."""
        rows = rated_rows(subject.store)
        factors = subject.store.factors_NF
        assert factors is not None  # noqa: S101 - `skip` looked
        names, experts = subject.store.manifest.factors, subject.experts
        some = subject.activations.rows(rows)
        fit = fit_tuning(factors[rows], np.concatenate([some.logits_nE, some.norms_nE], axis=1))
        targets = [(kind, expert) for kind in ("gate", "readout") for expert in range(experts)]
        table = []
        for target, (kind, expert) in enumerate(targets):
            top = fit.top(target, names, _TOP_DIMENSIONS)
            top += [("", float("nan"))] * (_TOP_DIMENSIONS - len(top))
            table.append([
                kind, expert, fit.r2[target].mean(), fit.r2[target].std(), fit.alpha[target],
                int(fit.at_edge[target]), int(fit.dead[target]), *(cell for pair in top for cell in pair),
            ])  # fmt: skip
        header = ["target", "expert", "r2_mean", "r2_sd", "alpha", "alpha_at_edge", "dead"]
        header += [f"{what}_{place}" for place in range(1, _TOP_DIMENSIONS + 1) for what in ("dimension", "weight")]
        write_table(folder / "tuning.csv", header, table)
        write_table(
            folder / "coefficients.csv",
            ["target", "expert", *names],
            ([kind, expert, *fit.coef[t].tolist()] for t, (kind, expert) in enumerate(targets)),
        )
        shown = np.argsort(-np.nan_to_num(fit.coef).max(axis=0), kind="stable")[:24]
        panels = [("gate logits", fit.coef[:experts, shown]), ("readout norms", fit.coef[experts:, shown])]
        title = f"Tuning on {subject.store.name} (run {subject.run.id}, {len(rows)} images)"
        labels = [f"expert {expert}" for expert in range(experts)]
        figure = figures.profiles(panels, labels, [names[column] for column in shown], title)
        common.save(figure, folder / "tuning.png")
        gate, readout = (fit.r2[part].mean(axis=1) for part in (slice(experts), slice(experts, None)))
        return {
            "gate_r2": _mean(gate), "readout_r2": _mean(readout), "images": len(rows),
            "dead_targets": int(fit.dead.sum()), "alphas_at_edge": int(fit.at_edge.sum()),
        }  # fmt: skip


def _mean(values: NDArray[np.float64]) -> float | None:
    finite = values[np.isfinite(values)]
    return number(finite.mean()) if len(finite) else None


class SeparabilityProbe:
    """How well each expert's readout tells two classes apart (Appendix A.3, Figure 5)."""

    about = "separability: pairwise logistic regression between classes on each expert's readout"

    def skip(self, store: ImageStore) -> str | None:
        """Needs two labelled classes, and not so many that their pairs run into thousands."""
        count = len(store.manifest.classes)
        if count > _MAX_CLASSES:
            return f"{count} classes make {count * (count - 1) // 2:,} pairs; import them with coarser labels"
        return None if count > 1 else "these images have fewer than two classes"

    def run(self, subject: Subject, folder: Path) -> Numbers:
        """Balanced accuracy of every pair for every expert, with heatmaps."""
        labels, names = subject.store.labels_N, subject.store.manifest.classes
        results = [pairwise_separability(readout_nD, labels) for readout_nD in subject.activations.readouts_EnD]
        classes = [names[number] for number in results[0].classes]
        pairs = list(zip(*np.triu_indices(len(classes), k=1), strict=True))
        write_table(
            folder / "separability.csv",
            ["expert", "class_a", "class_b", "balanced_accuracy", "images_a", "images_b"],
            (
                [
                    expert,
                    classes[a],
                    classes[b],
                    float(result.accuracy[a, b]),
                    int(result.counts[a]),
                    int(result.counts[b]),
                ]
                for expert, result in enumerate(results)
                for a, b in pairs
            ),
        )
        figure = figures.matrix_row(
            [result.accuracy for result in results],
            [f"expert {expert}: mean {result.mean():.3f}" for expert, result in enumerate(results)],
            classes,
            title=f"Category separability on {subject.store.name} (run {subject.run.id})",
            label="balanced accuracy, chance 0.5",
            limits=(0.5, 1.0),
        )
        common.save(figure, folder / "separability.png")
        means = np.array([result.mean() for result in results])
        undefined = int(np.isnan([results[0].accuracy[a, b] for a, b in pairs]).sum())
        return {
            "mean": number(means.mean()), "lowest_expert": number(means.min()), "highest_expert": number(means.max()),
            "pairs": len(pairs), "undefined_pairs": undefined,
        }  # fmt: skip


class ExcitingProbe:
    """The images each expert responds to most (Section 4, Figures 2c, 3 and S2)."""

    about = "exciting: images with the largest readout norm and the largest gate logit for each expert"

    def skip(self, store: ImageStore) -> str | None:  # noqa: ARG002
        """Works with any images."""
        return None

    def run(self, subject: Subject, folder: Path) -> Numbers:
        """Two picture grids and a table of ids and scores."""
        table = []
        kinds = {"readout": subject.activations.norms_nE, "gate": subject.activations.logits_nE}
        best = {}
        for kind, scores_nE in kinds.items():
            chosen = [most_exciting(scores_n, _TOP_IMAGES) for scores_n in scores_nE.T]
            best[kind] = chosen
            scores = [scores_nE[rows, expert].tolist() for expert, rows in enumerate(chosen)]
            for expert, rows in enumerate(chosen):
                table += [
                    [kind, expert, rank, subject.store.ids[row], score]
                    for rank, (row, score) in enumerate(zip(rows.tolist(), scores[expert], strict=True), 1)
                ]
            what = {"readout": "readout norm", "gate": "gate logit"}[kind]
            figure = figures.picture_grid(
                [[subject.store.images_NHWC[row] for row in rows] for rows in chosen],
                [f"expert {expert}" for expert in range(subject.experts)],
                scores,
                f"Most exciting inputs in {subject.store.name} by {what} (run {subject.run.id})",
            )
            common.save(figure, folder / f"exciting_{kind}.png")
        write_table(folder / "exciting.csv", ["score", "expert", "rank", "image", "value"], table)
        shared = [len(np.intersect1d(a, b)) for a, b in zip(best["readout"], best["gate"], strict=True)]
        return {"images": len(subject.store), "overlap_gate_readout": float(np.mean(shared)) / _TOP_IMAGES}
