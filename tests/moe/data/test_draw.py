"""An epoch's parameters in one table, and views whose operations compute all images, as on a GPU."""

from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from moe.config import AugmentConfig
from moe.data import augment
from moe.data.draw import Draws, ViewParameters, draw, draw_noise, draw_views
from moe.data.operations import blur, blur_at_once
from tests.moe.data.test_augment import pictures, plain

PAPER = AugmentConfig()
CPU = torch.device("cpu")


def same(ours: ViewParameters, theirs: ViewParameters) -> None:
    for field in fields(ViewParameters):
        a, b = getattr(ours, field.name), getattr(theirs, field.name)
        assert a.dtype == b.dtype
        assert torch.equal(a, b), field.name


def test_packing_keeps_every_bit() -> None:
    p = draw(PAPER, 96, 5, torch.arange(500))
    assert p.packed().shape == (500, 16)
    same(ViewParameters.unpacked(p.packed()), p)


@pytest.mark.parametrize("chunk", [7, 10, 1000])
def test_the_table_holds_what_each_step_would_draw(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moe.data.draw._CHUNK", chunk)
    draws = Draws(PAPER, experts=5, seed=3)
    for epoch, count in ((0, 20), (1, 20), (1, 30), (2, 10)):  # grows, and never shrinks
        draws.prepare(count, size=33, epoch=epoch, device=CPU)
        index = torch.tensor([count - 1, 0, 4, 2])
        views, noise = draws.rows(index)
        same(views, draw_views(PAPER, 33, index, seed=3, epoch=epoch))
        assert torch.equal(noise, draw_noise(5, index, seed=3, epoch=epoch))


def test_the_table_stays_where_it_is_from_epoch_to_epoch() -> None:
    draws = Draws(PAPER, experts=4, seed=0)
    places = set()
    for epoch in range(3):
        draws.prepare(16, size=32, epoch=epoch, device=CPU)
        places.add(draws._table_NVQ.data_ptr())
    assert len(places) == 1


def test_a_step_on_the_cpu_draws_for_itself_alone() -> None:
    draws = Draws(PAPER, experts=4, seed=1)
    index = torch.tensor([10**6, 3])
    views, noise = draws(index, size=32, epoch=2, device=CPU)
    same(views, draw_views(PAPER, 32, index, seed=1, epoch=2))
    assert torch.equal(noise, draw_noise(4, index, seed=1, epoch=2))
    assert not len(draws._table_NVQ)


def both_ways(x: Tensor, p: ViewParameters) -> tuple[Tensor, Tensor]:
    return augment.apply_by_rows(x.clone(), p), augment.apply_to_all(x.clone(), p)


@pytest.mark.parametrize("size", [16, 33, 96])
def test_all_operations_on_all_images_make_the_same_views(size: int) -> None:
    """The blur, as a matrix product, up to rounding, everything else bit by bit."""
    p = draw(PAPER, size, 11, torch.arange(64))
    by_rows, to_all = both_ways(pictures(64, size), replace(p, sigma_B=torch.zeros(64)))
    assert torch.equal(by_rows, to_all)
    by_rows, to_all = both_ways(pictures(64, size), p)
    torch.testing.assert_close(to_all, by_rows, atol=2e-6, rtol=0)
    sharp = p.sigma_B == 0
    assert 0 < sharp.sum() < 64
    assert torch.equal(to_all[sharp], by_rows[sharp])


def test_nothing_drawn_leaves_every_bit() -> None:
    x = pictures(8)
    by_rows, to_all = both_ways(x, plain(8))
    assert torch.equal(by_rows, to_all)


def test_extreme_factors_make_the_same_views() -> None:
    strongest = AugmentConfig(jitter=1, brightness=1, contrast=1, saturation=1, hue=0.5, grayscale=0, blur=0)
    by_rows, to_all = both_ways(pictures(128, 16), draw(strongest, 16, 2, torch.arange(128)))
    assert torch.equal(by_rows, to_all)


@pytest.mark.parametrize("size", [16, 17, 96, 224])
def test_blur_as_a_matrix_product(size: int) -> None:
    sigma = torch.tensor([0.1, 0.5, 1.3, 2.0])
    x = pictures(4, size)
    torch.testing.assert_close(blur_at_once(x, sigma), blur(x, sigma), atol=2e-6, rtol=0)


def test_views_given_and_views_drawn_are_the_same() -> None:
    images, index = (pictures(6) * 255).byte(), torch.tensor([5, 0, 3, 9, 100, 1])
    drawn = draw_views(PAPER, 32, index, seed=2, epoch=3)
    ours = augment.two_views(PAPER, images, index, seed=2, epoch=3, drawn=drawn)
    theirs = augment.two_views(PAPER, images, index, seed=2, epoch=3)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
