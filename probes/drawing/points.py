"""Clouds of points: images on the gate's map, gate against readout, experts by similarity.

Axes: n images, E experts, N experts of several runs. Lengths are inches.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from probes.drawing.base import Colouring, expert_panels

_LABELLED = 40


def gate_maps(
    points_n2: NDArray[np.float64], member_nE: NDArray[np.bool_], labels_n: NDArray[np.int64],
    classes: Sequence[str], title: str,
) -> Figure:  # fmt: skip
    """One panel an expert: the images routed to it coloured by class, all others pale (Figure 2a)."""
    figure, grid = expert_panels(member_nE.shape[1], 2.0, 1.3 if classes else 0.1)
    colouring = Colouring.of(labels_n, classes)
    colours = colouring.colours
    for expert, axes in enumerate(grid):
        mine = member_nE[:, expert]
        axes.scatter(points_n2[~mine][:, 0], points_n2[~mine][:, 1], s=2, color="0.9", lw=0)
        axes.scatter(points_n2[mine][:, 0], points_n2[mine][:, 1], s=3, color=colours[mine], lw=0)
        axes.set_title(f"expert {expert} ({mine.sum():,} images)", fontsize=8)
        axes.set(xticks=[], yticks=[])
    figure.supxlabel("t-SNE 1 (no unit)", fontsize=8)
    figure.supylabel("t-SNE 2 (no unit)", fontsize=8)
    figure.suptitle(title, fontsize=9)
    colouring.explain(figure)
    return figure


def gate_against_readout(
    logits_nE: NDArray[np.float64], norms_nE: NDArray[np.float64], captions: Sequence[str],
    labels_n: NDArray[np.int64], classes: Sequence[str], title: str,
) -> Figure:  # fmt: skip
    """One panel an expert: normalised logit against normalised norm of every image, with the diagonal (Figure 4)."""
    figure, grid = expert_panels(logits_nE.shape[1], 2.0, 1.3 if classes else 0.1)
    colouring = Colouring.of(labels_n, classes)
    colours = colouring.colours
    for expert, (axes, caption) in enumerate(zip(grid, captions, strict=True)):
        axes.scatter(logits_nE[:, expert], norms_nE[:, expert], s=3, color=colours, lw=0, alpha=0.6)
        axes.plot([0, 1], [0, 1], ls="--", lw=1, color="0.2")
        axes.set_title(f"expert {expert}\n{caption}", fontsize=7)
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
        axes.set_xticks([0, 0.5, 1], ["0", ".5", "1"], fontsize=7)
        axes.set_yticks([0, 0.5, 1], ["0", ".5", "1"], fontsize=7)
    figure.supxlabel("gate logit, min-max normalised", fontsize=8)
    figure.supylabel("readout norm, min-max normalised", fontsize=8)
    figure.suptitle(title, fontsize=9)
    colouring.explain(figure)
    return figure


def cluster_map(
    points_N2: NDArray[np.float64], labels_N: NDArray[np.int64], names: Sequence[str], shown: Sequence[int], title: str
) -> Figure:
    """Experts in two MDS dimensions, coloured by cluster; boxes mark those whose pictures are shown (Figure 6a)."""
    figure = Figure(figsize=(5.6, 4.8), layout="constrained")
    axes = figure.subplots()
    for number in np.unique(labels_N):
        members = labels_N == number
        label = f"cluster {number} (n = {members.sum()})"
        axes.scatter(points_N2[members][:, 0], points_N2[members][:, 1], s=26, color=f"C{number % 10}", label=label)
    boxed = points_N2[list(shown)]
    axes.scatter(boxed[:, 0], boxed[:, 1], s=90, marker="s", facecolors="none", edgecolors="0.2", lw=0.9)
    if len(names) <= _LABELLED:
        for name, (x, y) in zip(names, points_N2, strict=True):
            axes.annotate(name, (x, y), xytext=(5, 4), textcoords="offset points", fontsize=5)
    axes.margins(0.12)
    axes.set_aspect("equal", "datalim")
    axes.set(xlabel="MDS 1 (1 - Spearman correlation)", ylabel="MDS 2 (1 - Spearman correlation)")
    axes.set_title(title, fontsize=9)
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(0, -0.12), ncols=4, frameon=False)
    return figure
