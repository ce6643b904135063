"""Figures as a paper prints them: montages, sizes, and colours that everyone tells apart."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from probes.drawing.base import Colouring
from probes.drawing.cluster_sheets import ClusterMap, Shown, clusters, look, silhouettes
from probes.drawing.composites import Cloud, GateMap, Routed, Separable, clouds, exciting, gating, separability
from probes.drawing.printed import WIDTH, montage, print_style, save_print

# Machado, Oliveira, Fernandes 2009, severity 1, on linear RGB
SEES = {
    "anyone": np.eye(3),
    "protanopia": np.array([
        [0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998],
    ]),
    "deuteranopia": np.array([
        [0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881],
    ]),
    "tritanopia": np.array([
        [1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900],
    ]),
}  # fmt: skip


def lab(rgb, sees):
    """CIELAB (D65) of a colour as someone sees it."""
    rgb = np.array(rgb)
    linear = sees @ np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(linear, 0, 1) / (0.9505, 1, 1.089)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("who", SEES)
@pytest.mark.parametrize("what", ["classes", "sides", "clusters"])
def test_colours_are_told_apart(who, what):
    many = {"classes": [f"class {n}" for n in range(10)], "sides": ["cat", "truck"] * 11}
    if what == "clusters":
        colours = [to_rgb(look(cluster)[0]) for cluster in range(8)]
    else:
        colours = [colour[:3] for colour in Colouring.of(np.zeros(1, np.int64), many[what]).palette]
    distance = [np.linalg.norm(lab(a, SEES[who]) - lab(b, SEES[who])) for a, b in combinations(colours, 2)]
    assert min(distance) > 8  # 2.3 is just noticeable


def test_every_cluster_looks_like_no_other():
    assert len({look(cluster) for cluster in range(15)}) == 15


def test_a_montage_has_each_picture_in_its_place_and_white_around():
    red, blue = (np.full((side, side, 3), colour, np.uint8) for side, colour in ((8, (255, 0, 0)), (200, (0, 0, 255))))
    sheet = montage([[red, blue], [blue]], 3)
    side = sheet.shape[0] // 2
    assert sheet.shape == (2 * side, 3 * side, 3)
    middle = [[tuple(sheet[row * side + side // 2, column * side + side // 2].tolist()) for column in range(3)]
              for row in range(2)]  # fmt: skip
    white = (255, 255, 255)
    assert middle == [[(255, 0, 0), (0, 0, 255), white], [(0, 0, 255), white, white]]
    assert (sheet[:, :2] == 255).all()


def pictures(experts, count):
    return [[np.zeros((8, 8, 3), np.uint8)] * count for _ in range(experts)]


def drawn(experts, classes):
    """Every composite, for so many experts and classes."""
    rng, names = np.random.default_rng(0), [f"a class with number {number}" for number in range(classes)]
    labels, share = rng.integers(-1, classes, 60), rng.random((classes, experts))
    member = rng.random((60, experts)) < 0.5
    yield gating(GateMap(rng.random((60, 2)), member, labels), [Routed("E", share, pictures(experts, 3))], names)
    yield gating(None, [Routed("E", share, None)], names)
    yield exciting({"E": {"one": pictures(experts, 8), "two": pictures(experts, 5)}}, 8)
    cloud = Cloud("expert 0", rng.random(60), rng.random(60), (0.2, 0.5), 0.5)
    constant = Cloud("expert 1", np.full(60, np.nan), rng.random(60), None, np.nan)
    yield clouds({"E": ([cloud, constant] * experts)[:experts]}, labels, names)
    accuracy = np.full((experts, classes, classes), 0.7)
    yield separability([Separable("one", accuracy, names, 1, np.arange(1.0, classes + 1)),
                        Separable("two", accuracy * np.nan, names, None, np.ones(classes))])  # fmt: skip
    places = rng.integers(0, 2, 5 * experts)
    shown = [Shown(0, pictures(1, 4)[0])]
    one = ClusterMap("E", rng.random((5 * experts, 2)), places, ["0: furry", "1: " + "long " * 20], shown)
    yield clusters([one], letters=False)
    yield clusters([one, one], letters=True)
    yield silhouettes({f"E = {number}": {2: 0.5, 3: -0.1} for number in range(experts)})


@pytest.mark.parametrize(
    ("experts", "classes"), [(1, 2), *(pytest.param(*many, marks=pytest.mark.slow) for many in ((3, 27), (16, 10)))]
)
def test_any_number_of_experts_and_classes_fits_the_width(tmp_path, experts, classes):
    with print_style():
        for number, figure in enumerate(drawn(experts, classes)):
            assert figure.get_figwidth() == WIDTH
            assert figure.get_figheight() < 16
            sizes = [text.get_fontsize() for text in figure.findobj(lambda one: hasattr(one, "get_fontsize"))]
            assert min(sizes) >= 4.5
            if number == 0:
                assert {file.suffix for file in save_print(figure, tmp_path / "new" / "one")} == {
                    ".pdf",
                    ".svg",
                    ".png",
                }
