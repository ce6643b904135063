"""What is logged of embeddings, on a Lightning module of another kind."""

import csv
import logging
import math

import numpy as np
import pytest
import torch

from callbacks import embeddings
from callbacks.embedding_monitor import EmbeddingMonitor
from callbacks.files import RoutingFolder
from moe.embedded import WATCHED, watched
from tests.callbacks.foreign import COUNT, Embedding, logged, run

SHOWN = torch.arange(COUNT) % 3 != 0


def module(**tables):
    return Embedding(**tables)


def observed(of, tmp_path, **options):
    return run(of, [EmbeddingMonitor(RoutingFolder(tmp_path))], tmp_path, **options)


def announced(caplog):
    return [record.message for record in caplog.records if record.name == "callbacks.embedding_monitor"]


def test_logged_numbers_are_those_of_the_functions(tmp_path):
    of = module(shown=SHOWN)
    values = logged(observed(of, tmp_path))
    labels, some = of.labels, of.labels[SHOWN]
    expected = {
        "embedding/knn": embeddings.knn_accuracy(of.z, labels),
        "embedding/linear": float(embeddings.linear_accuracy(of.z, labels)),
        "embedding/rank": embeddings.effective_rank(of.z),
        "embedding/alignment": embeddings.alignment(of.view_a, of.view_b),
        "embedding/uniformity": embeddings.uniformity(of.z),
        "shared/knn": embeddings.knn_accuracy(of.features, labels),
        "shared/linear": float(embeddings.linear_accuracy(of.features, labels)),
    }
    readouts = of.readouts[SHOWN].unbind(dim=1)
    knn = [embeddings.knn_accuracy(readout, some) for readout in readouts]
    linear = [float(embeddings.linear_accuracy(readout, some)) for readout in readouts]
    expected |= {"experts/knn": np.mean(knn), "experts/linear": np.mean(linear)}
    for expert, pair in enumerate(zip(knn, linear, strict=True)):
        expected |= {f"experts/knn_{expert}": pair[0], f"experts/linear_{expert}": pair[1]}
    cka = embeddings.linear_cka(readouts)
    expected["experts/cka"] = embeddings.mean_between(cka)
    assert values == pytest.approx(expected, rel=1e-5)
    header, *rows = csv.reader((tmp_path / "expert_similarity_0000.csv").read_text().splitlines())
    assert header == ["expert", "0", "1", "2"]
    assert np.array(rows, dtype=float)[:, 1:] == pytest.approx(cka.numpy(), rel=1e-6)
    assert (tmp_path / "expert_similarity_0000.png").exists()


def test_the_order_of_images_does_not_matter(tmp_path):
    one = module(shown=SHOWN)
    other = module(shown=SHOWN, order=torch.randperm(COUNT, generator=torch.Generator().manual_seed(0)))
    assert logged(observed(one, tmp_path)) == pytest.approx(logged(observed(other, tmp_path)), rel=1e-6)


@pytest.mark.parametrize("labels", [torch.full((COUNT,), -1), torch.zeros(COUNT, dtype=torch.int64)])
def test_without_two_classes_there_are_no_accuracies(tmp_path, labels):
    values = logged(observed(module(labels=labels), tmp_path))
    assert set(values) == {"embedding/rank", "embedding/alignment", "embedding/uniformity", "experts/cka"}


def test_of_many_images_some_are_judged(tmp_path, monkeypatch):
    monkeypatch.setattr("callbacks.embedding_monitor._MOST", 25)
    of = module()
    some = watched(COUNT, 25)
    values = logged(observed(of, tmp_path))
    assert values["embedding/knn"] == pytest.approx(embeddings.knn_accuracy(of.z[some], of.labels[some]))
    assert values["embedding/uniformity"] == pytest.approx(embeddings.uniformity(of.z[some]))


def test_without_watched_images_there_is_nothing_of_experts(tmp_path):
    values = logged(observed(module(shown=torch.zeros(COUNT, dtype=torch.bool)), tmp_path))
    assert {key.partition("/")[0] for key in values} == {"embedding", "shared"}


def test_a_single_expert_is_like_no_other(tmp_path):
    of = module()
    of.readouts = of.readouts[:, :1]
    values = logged(observed(of, tmp_path))
    assert "experts/cka" not in values
    assert values["experts/knn"] == values["experts/knn_0"]
    assert not list(tmp_path.glob("expert_similarity*"))


def test_fewer_images_than_neighbours(tmp_path):
    of = module(count=6)
    expected = embeddings.knn_accuracy(of.z, of.labels[:6], neighbours=5)
    assert logged(observed(of, tmp_path))["embedding/knn"] == pytest.approx(expected)


def test_embeddings_that_are_not_finite_are_left_out(tmp_path):
    of = module()
    of.z[3, 1] = math.inf
    values = logged(observed(of, tmp_path, train=True))
    assert "embedding/alignment" in values
    assert not {"embedding/knn", "embedding/linear", "embedding/rank", "embedding/uniformity"} & set(values)
    assert {"shared/knn", "shared/linear", "experts/knn", "experts/cka"} <= set(values)


def test_a_module_that_shows_no_embedding_logs_nothing(tmp_path):
    of = module()
    of.validation_step = lambda batch, batch_idx: None
    assert logged(observed(of, tmp_path)) == {}


def collapsed(shape):
    of = module()
    if shape == "one point of the unit sphere":
        of.z = 5 + 0.01 * of.z
    else:
        of.z = torch.outer(torch.linspace(-1, 1, COUNT), torch.ones(of.z.shape[1]))
    return of


@pytest.mark.parametrize("shape", ["one point of the unit sphere", "a line"])
def test_a_collapsed_embedding_is_announced_once(tmp_path, caplog, shape):
    observed(collapsed(shape), tmp_path, train=True)
    assert announced(caplog) == [f"the embedding has collapsed to nearly {shape} after epoch 1"]


def test_what_was_announced_is_not_announced_after_a_resume(tmp_path, caplog):
    monitor = EmbeddingMonitor(RoutingFolder(tmp_path))
    monitor.load_state_dict({"announced": True})
    run(collapsed("a line"), [monitor], tmp_path, train=True)
    assert announced(caplog) == []
    assert monitor.state_dict() == {"announced": True}


def test_neither_a_healthy_embedding_nor_an_untrained_model_is_announced(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    observed(module(), tmp_path, train=True)
    observed(collapsed("a line"), tmp_path)
    assert announced(caplog) == []


def test_watched_images_are_the_same_in_all_runs_and_of_all_classes():
    shown = watched(5000)
    assert int(shown.sum()) == WATCHED
    assert torch.equal(shown, watched(5000))
    per_class = torch.bincount(torch.arange(5000)[shown] // 500)  # images sorted by class
    assert per_class.min() > 150
    assert watched(50).all()
