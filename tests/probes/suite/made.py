"""Subjects made of known numbers, for the tests of the probes in this folder."""

from dataclasses import replace

import numpy as np

from moe.data.readers import no_progress
from moe.data.store import Images, write_store
from moe.routing import NONE
from probes.activations import Activations


def ask(probe, subject, folder):
    folder.mkdir(exist_ok=True)
    assert probe.skip(subject.store) is None
    return probe.run(subject, folder, no_progress)


def store_of(folder, labels, classes, groups=None, **more):
    n = len(labels)
    images = np.zeros((n, 16, 16, 3), np.uint8)
    content = Images(
        images, [f"i{k:04d}" for k in range(n)], "made", np.array(labels), tuple(classes), groups=groups, **more
    )
    return write_store("made", content, folder / "stores", replace=True)


def with_activations(subject, logits_nE, readouts_EnD):
    slots = min(2, logits_nE.shape[1])
    indices = np.argsort(-logits_nE, axis=1, kind="stable")[:, :slots]
    weights = np.full(indices.shape, 1 / slots, np.float32)
    found = Activations(logits_nE.astype(np.float32), indices, weights, readouts_EnD.astype(np.float32))
    return replace(subject, activations=found)


def without_some_experts(subject):
    """As expert choice routes: a third of the images have the first of their experts alone, a third have none."""
    found, images = subject.activations, np.arange(len(subject.activations.logits_nE))
    empty_nK = (images % 3)[:, None] > np.array([1, 0])
    indices = np.where(empty_nK, NONE, found.indices_nK)
    weights = np.where(empty_nK, 0, found.weights_nK).astype(np.float32)
    return replace(subject, activations=replace(found, indices_nK=indices, weights_nK=weights))
