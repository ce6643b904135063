"""Pictures by their pixels: colours say the values, ink is where it should be."""

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from callbacks import heatmaps


def draw(values, rows=None, columns=None, **options):
    values = np.array(values, dtype=float)
    rows = [f"row {number}" for number in range(len(values))] if rows is None else rows
    columns = [str(number) for number in range(values.shape[1])] if columns is None else columns
    return heatmaps.heatmap(values, rows, columns, **{"title": "T", "label": "L", "limits": (0.0, 1.0)} | options)


def cells(picture, rows, columns, names=True):
    """(R, C, h, w) the pixels' bytes of each cell, found as the module places them."""
    shown = [f"row {number}" for number in range(rows)] if names else []
    place = heatmaps._placed(shown, rows, columns)
    matrix = np.asarray(picture)[place.top : place.bottom, place.left : place.right]
    return matrix.reshape(rows, place.cell_h, columns, place.cell_w).swapaxes(1, 2)


def colours(picture, rows, columns, names=True):
    """(R, C, 3) of each cell's corner, where nothing is written."""
    palette = np.array(picture.getpalette()).reshape(-1, 3)
    return palette[cells(picture, rows, columns, names)[:, :, 1, 1]]


def inked(pixels):
    return (pixels & 3).any(axis=(-1, -2))


def test_colours_are_those_of_the_values():
    values = np.linspace(0, 1, 60).reshape(4, 15)
    expected = mpl.colormaps["viridis"](values, bytes=True)[..., :3]
    np.testing.assert_array_equal(colours(draw(values), 4, 15), expected)


def test_values_are_clipped_to_the_limits_and_the_unknown_is_grey():
    seen = colours(draw([[-5.0, 2.0, 4.0, 9.0, np.nan]], limits=(2.0, 4.0)), 1, 5)[0]
    low, high = mpl.colormaps["viridis"]([0.0, 1.0], bytes=True)[:, :3]
    np.testing.assert_array_equal(seen, [low, low, high, high, [217] * 3])


def test_ink_is_white_on_dark_cells_and_black_on_light_ones():
    picture = draw([[0.0, 1.0, np.nan]], written=np.ones((1, 3)))
    palette = np.array(picture.getpalette()).reshape(-1, 3)
    for pixels, ink in zip(cells(picture, 1, 3)[0], (255, 0, 0), strict=True):
        covered = pixels[(pixels & 3) == 3]
        assert len(covered) > 20
        assert (palette[covered] == ink).all()


def test_known_values_are_written_and_others_may_be():
    values = [[0.5, np.nan]]
    assert inked(cells(draw(values), 1, 2)).tolist() == [[True, False]]
    assert inked(cells(draw(values, written=np.array([[np.nan, 3.0]])), 1, 2)).tolist() == [[False, True]]


def test_the_same_value_is_written_alike_and_another_one_otherwise():
    one, same, other = cells(draw([[0.25, 0.25, 0.26]]), 1, 3)[0] & 3
    assert (one == same).all()
    assert (one != other).any()


@pytest.mark.parametrize(("columns", "written"), [(16, True), (30, True), (64, False), (200, False)])
def test_values_are_written_where_they_fit(columns, written):
    pixels = cells(draw(np.full((2, columns), 0.5)), 2, columns)
    assert (inked(pixels) == written).all()
    assert not (pixels[..., 0] & 3).any()  # none touches its neighbour
    assert not (pixels[..., -1] & 3).any()


@pytest.mark.parametrize(("rows", "named"), [(60, True), (61, False), (2000, False)])
def test_many_rows_have_neither_names_nor_values(rows, named):
    picture = draw(np.full((rows, 3), 0.5))
    assert (inked(cells(picture, rows, 3, names=named)) == named).all()
    left = heatmaps._placed(["row 0"] if named else [], rows, 3).left
    assert inked(np.asarray(picture)[60:-60, :left]) == named
    assert picture.size[1] < 2200


def test_long_names_are_cut():
    long = draw([[0.5]], rows=["a very long name of a class " * 5])
    assert heatmaps._shortened("cat") == "cat"
    cut = heatmaps._shortened("a very long name of a class " * 5)
    assert cut.endswith("…")
    assert heatmaps._width(cut, 16) <= 280
    assert long.size[0] < 280 + 400


def test_long_titles_and_labels_have_room():
    plain, long = draw([[0.5]]), draw([[0.5]], title="a long title " * 5, label="a long label " * 5)
    assert long.size[0] > plain.size[0]
    assert long.size[1] > plain.size[1]
    assert not (np.asarray(long)[:, -10:] & 3).any()
    assert not (np.asarray(long)[-10:] & 3).any()


def test_the_bar_runs_from_high_to_low():
    picture = draw(np.zeros((10, 4)), limits=(0.0, 8.0), digits=1)
    place = heatmaps._placed([f"row {number}" for number in range(10)], 10, 4)
    bar = np.asarray(picture)[place.top : place.bottom, place.right + 24 + 10]
    assert (bar[0], bar[-1]) == (4 * 59, 0)
    assert (np.diff(bar.astype(int)) <= 0).all()


def test_what_is_saved_is_what_was_drawn(tmp_path):
    picture = draw(np.linspace(0, 1, 12).reshape(3, 4))
    path = heatmaps.save(picture, tmp_path / "new" / "picture.png")
    with Image.open(path) as read:
        np.testing.assert_array_equal(np.asarray(read.convert("RGB")), np.asarray(picture.convert("RGB")))
    assert np.asarray(picture.convert("RGB"))[0, 0].tolist() == [255, 255, 255]
