"""Matrices as pictures: nothing lies over something else."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from probes.drawing.matrices import heatmap


@pytest.mark.parametrize("classes", [2, 3, 10, 27])
def test_the_label_of_the_colours_keeps_clear_of_the_title(classes):
    """Beside few rows it was longer than they are high, and lay over the end of the title."""
    names = [f"class {number} (32)" for number in range(classes)]
    title, label = "Routing of longer (run ac81dd6da5e5); a row sums to k = 2", "proportion of the class's images"
    figure = heatmap(np.zeros((classes, 4)), names, list("0123"), title=title, label=label, limits=(0.0, 1.0))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    bar = figure.axes[-1].yaxis.label
    headline = next(text for text in [*figure.texts, figure.axes[0].title] if text.get_text() == title)
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in (headline, bar)]
    assert not boxes[0].overlaps(boxes[1])
    assert all(figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1 for box in boxes)
