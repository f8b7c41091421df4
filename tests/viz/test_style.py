import matplotlib

matplotlib.use("Agg")
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb

from sdlib import viz
from sdlib.viz.style import STYLE, color_of, plane_points


def luminance(color):
    c = np.array(to_rgb(color))
    c = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    return float(c @ [0.2126, 0.7152, 0.0722])


def contrast(a, b):
    high, low = sorted([luminance(a), luminance(b)], reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")
    matplotlib.rcdefaults()


def test_ink_reads_on_light_and_dark():
    assert min(contrast(viz.COLORS["ink"], page) for page in ("#ffffff", "#14181e")) > 4


def test_use_style_sets_what_figures_start_from():
    viz.use_style()
    figure, ax = plt.subplots()
    assert figure.get_facecolor()[3] == 0 and ax.get_facecolor()[3] == 0
    assert ax.xaxis.label.get_color() == viz.COLORS["ink"]
    assert plt.rcParams["axes.prop_cycle"].by_key()["color"][0] == viz.COLORS["data"]


@pytest.mark.parametrize(("n", "columns"), [(1, None), (3, None), (5, 3)])
def test_panels_are_equal_squares_without_ticks(n, columns):
    figure, axes = viz.panels(n, titles=[str(i) for i in range(n)], columns=columns, extent=2.5)
    assert isinstance(axes, np.ndarray) and axes.shape == (n,)
    assert len(figure.axes) == n
    figure.canvas.draw()
    boxes = np.array([ax.get_window_extent().size for ax in axes])
    assert np.ptp(boxes) < 1  # pixel
    for i, ax in enumerate(axes):
        assert ax.get_xlim() == ax.get_ylim() == (-2.5, 2.5)
        assert len(ax.get_xticks()) == len(ax.get_yticks()) == 0
        assert ax.get_title() == str(i)
    assert figure.get_facecolor()[3] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n and columns must be at least 1"),
        ({"n": 2, "titles": ["one"]}, "titles must be None or 2 strings"),
        ({"n": 1, "extent": 0}, "extent and size must be positive"),
    ],
)
def test_panels_say_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        viz.panels(**arguments)


def test_colors_by_name_or_code():
    assert color_of("model") == viz.COLORS["model"] and color_of("#123456") == "#123456"
    with pytest.raises(ValueError, match="unknown color 'bleu'; choose one of: data, noise"):
        color_of("bleu")


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros(3), "points must be .n, 2."),
        (np.zeros((4, 3)), r"got shape \(4, 3\)"),
        (np.zeros((0, 2)), "n of at least 1"),
        ([[0.0, float("nan")]], "points must be finite"),
    ],
)
def test_points_are_points_of_the_plane(points, message):
    with pytest.raises(ValueError, match=message):
        plane_points("points", points)


def test_the_style_names_only_what_matplotlib_knows():
    assert set(STYLE) <= set(matplotlib.rcParams)
