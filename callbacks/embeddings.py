"""What an embedding is good for, as pure functions on torch tensors, on whatever device these are.

NumPy arrays are taken too. Labels are class numbers, negative where unknown; images without one are left out.

Axes: n images, D and P dimensions, C classes, S sets of embeddings of the same images (experts, say).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

NEIGHBOURS, TEMPERATURE = 20, 0.07
FOLDS, RIDGE = 5, 1.0

_ROWS = 1024  # images whose similarities to all others are in memory at once
_RANK_ME_EPSILON = 1e-7
_VANISHING = 1e-6  # of the mean's length: what varies less is rounding


def _single(x: Any) -> Tensor:
    """A tensor of float32, or of float64 if it is."""
    tensor: Tensor = torch.as_tensor(x)
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _double(x: Any) -> Tensor:
    """A tensor of float64; on the CPU where its device has none."""
    tensor: Tensor = torch.as_tensor(x)
    return (tensor if tensor.device.type in ("cpu", "cuda") else tensor.cpu()).double()


def _labelled(x_nD: Tensor, labels_n: Any) -> tuple[Tensor, Tensor]:
    """The images that have a class (their axis is the last but one), and their classes numbered from 0."""
    labels = torch.as_tensor(labels_n).to(x_nD.device)
    if labels.shape != x_nD.shape[-2:-1]:
        raise ValueError(f"{x_nD.shape[-2]} images need as many labels, not {tuple(labels.shape)}")
    known = labels >= 0
    return x_nD[..., known, :], torch.unique(labels[known], return_inverse=True)[1]


def knn_accuracy(x_nD: Any, labels_n: Any, *, neighbours: int = NEIGHBOURS, temperature: float = TEMPERATURE) -> float:
    """Fraction of images whose class their nearest neighbours tell, each image left out in turn.

    Neighbours are those of the highest cosine s, with votes exp(s / temperature): Wu et al. 2018, "Unsupervised
    feature learning via non-parametric instance discrimination", Section 3.4, with its temperature; 20 neighbours as
    Caron et al. 2021 (DINO) have them. All others vote where there are fewer.

    Args:
        x_nD: embeddings.
        labels_n: classes.
        neighbours: that vote.
        temperature: of the votes.

    Returns:
        0 to 1; NaN if the labelled images are of fewer than two classes, or a number is not finite.

    Raises:
        ValueError: numbers of images differ.
    """
    x, labels = _labelled(_single(x_nD), labels_n)
    classes = int(labels.max()) + 1 if len(labels) else 0
    if classes < 2 or not x.isfinite().all():
        return float("nan")
    unit, votes = F.normalize(x, dim=1), min(neighbours, len(x) - 1)
    right = torch.zeros((), dtype=torch.int64, device=x.device)
    for start in range(0, len(x), _ROWS):
        cosine = unit[start : start + _ROWS] @ unit.T
        own = torch.arange(len(cosine), device=x.device)
        cosine[own, start + own] = -torch.inf
        nearest, who = cosine.topk(votes, dim=1)
        weight = ((nearest - 1) / temperature).exp()
        ballot = weight.new_zeros(len(cosine), classes).scatter_add_(1, labels[who], weight)
        right += (ballot.argmax(dim=1) == labels[start : start + _ROWS]).sum()
    return int(right) / len(x)


def stratified_folds(labels_n: Tensor, folds: int = FOLDS) -> Tensor:
    """(n,) the fold of each image: a class's images are dealt out in turn, so that every fold has some of each."""
    order = labels_n.argsort(stable=True)
    counts = torch.bincount(labels_n)
    rank = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[labels_n[order]]
    return torch.empty_like(order).scatter_(0, order, rank % folds)


def linear_accuracy(x_SnD: Any, labels_n: Any, *, folds: int = FOLDS, ridge: float = RIDGE) -> Tensor:
    """Fraction of images whose class a linear map of their embedding tells, each in a fold that it was not fitted on.

    Ridge regression on class indicators of -1 and 1, the largest wins (scikit-learn's `RidgeClassifier`), on features
    standardised over the images of the fit. In closed form: every fit is one linear system, whose matrix is that of all
    images less that of the fold. `stratified_folds` says which image is in which fold.

    Args:
        x_SnD: embeddings, (S, n, D) or (n, D).
        labels_n: classes.
        folds: number of folds.
        ridge: penalty on the squared weights, in units of one image.

    Returns:
        (S,) or () float64 on the CPU, 0 to 1; NaN if the labelled images are of fewer than two classes, or a number is
        not finite.

    Raises:
        ValueError: numbers of images differ.
    """
    given = _double(x_SnD)
    x, labels = _labelled(given if given.dim() == 3 else given[None], labels_n)
    if not len(labels) or int(labels.max()) < 1:
        accuracy = torch.full((len(x),), torch.nan, dtype=torch.float64)
    else:
        fold = stratified_folds(labels, folds)
        order = fold.argsort(stable=True)
        sizes = torch.bincount(fold, minlength=folds).tolist()
        finite = x.isfinite().all(dim=2).all(dim=1)
        whole = _standardised(torch.where(finite[:, None, None], x, 0.0))
        right = _right(whole[:, order], labels[order], sizes, ridge)
        accuracy = torch.where(finite, right / len(labels), torch.nan).cpu()
    return accuracy if given.dim() == 3 else accuracy[0]


def _standardised(x_SnD: Tensor) -> Tensor:
    """Over all images, for the sake of precision: a fit standardises its own. 0 for what does not vary."""
    centred = x_SnD - x_SnD.mean(dim=1, keepdim=True)
    sd, size = (part.square().mean(dim=1, keepdim=True).sqrt() for part in (centred, x_SnD))
    return torch.where(sd > _VANISHING * size, centred / sd, 0.0)


def _right(x_SnD: Tensor, labels_n: Tensor, sizes: Sequence[int], ridge: float) -> Tensor:
    """(S,) number of images told right; images are sorted by fold."""
    target_nC = 2.0 * F.one_hot(labels_n).to(x_SnD.dtype) - 1
    parts = list(zip(torch.split(x_SnD, list(sizes), dim=1), torch.split(target_nC, list(sizes)), strict=True))
    gram = [part.transpose(1, 2) @ part for part, _ in parts]
    cross = [part.transpose(1, 2) @ target for part, target in parts]
    sums = [(part.sum(dim=1, keepdim=True), target.sum(dim=0)) for part, target in parts]
    all_gram, all_cross = sum(gram), sum(cross)
    all_x, all_y = sum(of_x for of_x, _ in sums), sum(of_y for _, of_y in sums)
    right = x_SnD.new_zeros(len(x_SnD))
    for number, (part, target) in enumerate(parts):
        count = len(labels_n) - len(target)
        if not len(target) or not count:
            continue
        mean_x, mean_y = (all_x - sums[number][0]) / count, (all_y - sums[number][1]) / count
        within = all_gram - gram[number] - count * mean_x.transpose(1, 2) @ mean_x
        sd = (within.diagonal(dim1=1, dim2=2) / count).clamp_min(0).sqrt().unsqueeze(1)
        scale = torch.where(sd > _VANISHING, sd, 1.0)  # of what varies in the fold alone, nothing is known
        within = within / (scale.transpose(1, 2) * scale)
        between = (all_cross - cross[number] - count * mean_x.transpose(1, 2) * mean_y) / scale.transpose(1, 2)
        penalty = ridge * torch.eye(within.shape[1], dtype=within.dtype, device=within.device)
        told = ((part - mean_x) / scale) @ torch.linalg.solve(within + penalty, between) + mean_y
        right += (told.argmax(dim=2) == target.argmax(dim=1)).sum(dim=1)
    return right


def effective_rank(z_nD: Any) -> float:
    """RankMe: the exponential of the entropy of the singular values' shares (Garrido et al. 2023).

    Not centred, as there: a direction that all images share counts.

    Returns:
        1 (all images on a line through the origin) to min(n, D); NaN if all numbers are zero or one is not finite.
    """
    z = _double(z_nD).cpu()
    size = z.norm()
    if not size.isfinite() or not size:
        return float("nan")
    z = z / size
    gram = z.T @ z if z.shape[0] > z.shape[1] else z @ z.T
    values = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    share = values / values.sum() + _RANK_ME_EPSILON
    return float((-(share * share.log()).sum()).exp())


def alignment(a_nD: Any, b_nD: Any) -> float:
    """Mean squared distance of two views of an image on the unit sphere, 0 (equal) to 4 (Wang and Isola 2020, alpha 2).

    Raises:
        ValueError: shapes differ or there is no image.
    """
    a, b = _single(a_nD), _single(b_nD)
    if a.shape != b.shape or not len(a):
        raise ValueError(f"views must have equal shapes (n, D) with n > 0, not {tuple(a.shape)} and {tuple(b.shape)}")
    return float((F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(dim=1).mean())


def uniformity(z_nD: Any) -> float:
    """Log of the mean of exp(-2 d^2) over pairs of images, d their distance on the unit sphere (Wang and Isola 2020).

    Returns:
        0 (all in one point) down to about -4 (spread evenly over a sphere of many dimensions); NaN for one image, or
        if a number is not finite.
    """
    unit = F.normalize(_single(z_nD), dim=1)
    if len(unit) < 2:
        return float("nan")
    total = torch.zeros((), dtype=torch.float64)
    for start in range(0, len(unit), _ROWS):
        later = (4 * (unit[start : start + _ROWS] @ unit[start:].T) - 4).exp().triu(diagonal=1)
        total += later.sum(dim=1).cpu().double().sum()
    return float((total / (len(unit) * (len(unit) - 1) / 2)).log())


def linear_cka(sets: Sequence[Any] | Any) -> Tensor:
    """Linear centred kernel alignment between sets of embeddings of the same images (Kornblith et al. 2019, Section 3).

    |X_i' X_j|^2 / (|X_i' X_i| |X_j' X_j|), X centred over images, Frobenius norms. Invariant to rotation and to one
    scale of all dimensions; it is biased upwards where there are not many more images than dimensions.

    Args:
        sets: S embeddings, (n, d_i) each; a tensor (S, n, D) will do.

    Returns:
        (S, S) float64 on the CPU, 0 to 1, symmetric; NaN for a set that is the same for all images or not finite.

    Raises:
        ValueError: numbers of images differ.
    """
    given = [_double(one) for one in sets]
    if len({len(one) for one in given}) > 1:
        raise ValueError(f"sets must have as many images each, not {[len(one) for one in given]}")
    centred = [_centred(one) for one in given]
    every = torch.cat(centred, dim=1)
    widths = torch.tensor([one.shape[1] for one in centred])
    owner = torch.arange(len(centred)).repeat_interleave(widths).to(every.device)
    rows = [(one.T @ every).square().sum(dim=0) for one in centred]
    squares = torch.stack([row.new_zeros(len(centred)).index_add_(0, owner, row) for row in rows]).cpu()
    own = squares.diagonal().sqrt()
    return squares / (own[:, None] * own)


def _centred(x_nD: Tensor) -> Tensor:
    """Less the mean over images, of length 1 in all; NaN where nothing is left."""
    centred = x_nD - x_nD.mean(dim=0)
    length = centred.norm()
    return centred / torch.where(length > _VANISHING * x_nD.norm(), length, torch.nan)


def mean_between(matrix_SS: Tensor) -> float:
    """Mean of the defined values beside the diagonal; NaN if there is none."""
    beside = ~torch.eye(len(matrix_SS), dtype=torch.bool)
    return float(matrix_SS[beside].nanmean())
