import matplotlib

matplotlib.use("Agg")
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.collections import LineCollection
from matplotlib.quiver import Quiver

from sdlib import viz
from sdlib.datasets.plane import MIXTURE
from sdlib.diffusion import IdealDenoiser, ddim, make_grid, schedule
from sdlib.viz.plane import lattice, spread


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def steps():
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(30, 2, generator=generator)
    grid = make_grid(schedule("cosine"), 6)
    return list(ddim(IdealDenoiser(data), grid, torch.randn(12, 2, generator=generator)))


def test_scatter_draws_the_points_it_was_given():
    points = torch.tensor([[0.0, 1.0], [2.0, -1.0]])
    ax = viz.scatter(points, color="model", size=7, opacity=0.3, label="two")
    dots = ax.collections[0]
    assert np.allclose(dots.get_offsets(), points)
    assert dots.get_sizes() == [7] and dots.get_alpha() == 0.3 and dots.get_label() == "two"
    assert viz.scatter(points, ax) is ax


def test_density_of_a_function_peaks_where_it_should():
    ax = viz.density(lambda x: MIXTURE.log_prob(x), extent=2.0, count=80)
    image = ax.images[0]
    heights = image.get_array()
    row, column = np.unravel_index(heights.argmax(), heights.shape)
    peak = lattice(2.0, 80)[row * 80 + column]
    assert (MIXTURE.means - peak).norm(dim=1).min() < 0.05
    assert image.get_extent() == [-2.0, 2.0, -2.0, 2.0] and image.origin == "lower"
    assert image.cmap(0.0)[3] == 0 and image.cmap(1.0)[3] == 1


def test_density_of_points_knows_right_from_left_and_up_from_down():
    heights = viz.density(torch.tensor([[1.0, 2.0]]).repeat(50, 1)).images[0].get_array()
    row, column = np.unravel_index(heights.argmax(), heights.shape)
    assert abs(row - 160 * 5 / 6) < 2 and abs(column - 160 * 4 / 6) < 2


def test_field_draws_arrows_of_the_right_direction_and_length():
    ax = viz.field(lambda x: torch.stack([x[:, 0], 0 * x[:, 1]], dim=1), extent=2.0, count=5)
    arrows = next(c for c in ax.collections if isinstance(c, Quiver))
    at = lattice(2.0, 5)
    assert np.allclose(arrows.V, 0)
    assert np.allclose(np.sign(arrows.U), at[:, 0].sign())
    half, full = arrows.U[np.isclose(at[:, 0], 0.8)][0], arrows.U[np.isclose(at[:, 0], 1.6)][0]
    assert np.isclose(full, 2**0.5 * half) and full < 0.8  # no longer than a cell


def test_field_of_zeros_and_of_one_giant():
    viz.field(torch.zeros_like, count=4)
    ax = viz.field(lambda x: x / x.square().sum(1, keepdim=True).clamp(min=1e-9), count=20)
    arrows = next(c for c in ax.collections if isinstance(c, Quiver))
    assert np.hypot(arrows.U, arrows.V).max() <= 0.3 and np.isfinite(arrows.U).all()


@pytest.mark.parametrize("what", ["x", "x0"])
def test_trajectories_follow_the_steps(steps, what):
    ax = viz.trajectories(steps, count=5, what=what)
    paths = next(c for c in ax.collections if isinstance(c, LineCollection))
    segments = np.array(paths.get_segments()).reshape(6, 5, 2, 2)
    truth = torch.stack([getattr(s, what)[:5] for s in steps])
    assert np.allclose(segments[:, :, 0], truth[:-1]) and np.allclose(segments[:, :, 1], truth[1:])
    opacity = paths.get_colors()[:, 3]
    assert opacity[0] < opacity[-1]  # faint where they start
    ends = ax.collections[-1].get_offsets()
    assert np.allclose(ends, truth[-1])


def test_curves_carry_their_names_in_their_colors_without_touching():
    x = torch.linspace(0, 1, 20)
    ax = viz.curves(x, {"one": x, "two": x + 1e-3, "three": 2 * x}, xlabel="t", ylabel="y")
    assert [len(line.get_xdata()) for line in ax.lines] == [20] * 3
    assert ax.get_xlabel() == "t" and ax.get_ylabel() == "y"
    names = {text.get_text(): text for text in ax.texts}
    assert list(sorted(names)) == ["one", "three", "two"]
    for line, name in zip(ax.lines, ["one", "two", "three"], strict=True):
        assert names[name].get_color() == line.get_color()
    ax.figure.canvas.draw()
    boxes = sorted([t.get_window_extent() for t in ax.texts], key=lambda box: box.y0)
    assert all(low.y1 <= high.y0 + 1 for low, high in zip(boxes, boxes[1:], strict=False))


def test_curves_on_a_log_axis_skip_what_it_cannot_show():
    ax = viz.curves([0, 1, 2], {"a": [1.0, 10.0, 0.0], "b": [float("inf"), 2.0, 3.0]}, log="y")
    assert ax.get_yscale() == "log" and len(ax.texts) == 2


def test_spread_keeps_order_and_distance():
    moved = spread([0.1, 0.11, 0.12, 0.9], 0.1)
    assert np.allclose(moved, [0.01, 0.11, 0.21, 0.9])
    assert spread([0.2, 0.6], 0.1) == [0.2, 0.6]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: viz.scatter(torch.zeros(3)), r"points must be \[n, 2\]"),
        (lambda s: viz.density(lambda x: x), "log_prob must map points"),
        (lambda s: viz.field(lambda x: x[:, 0]), "function must map points .* to vectors"),
        (lambda s: viz.field(lambda x: x / 0), "vectors must be finite"),
        (lambda s: viz.field(lambda x: x, count=1), "count must be at least 2"),
        (lambda s: viz.trajectories([]), "steps must hold at least one Step"),
        (lambda s: viz.trajectories(s, what="y"), "what must be one of: x, x0; got 'y'"),
        (lambda s: viz.trajectories(s, count=0), "count must be at least 1"),
        (lambda s: viz.trajectories([1, 2]), "steps must be what a sampler yields"),
        (lambda s: viz.curves([0, 1], {}), "lines must hold at least one"),
        (lambda s: viz.curves([0, 1], {"a": [1.0]}), "the line 'a' must be 1-d and of one length"),
        (lambda s: viz.curves([0, 1], {"a": [1, 2]}, log="x"), 'log must be "y" or None'),
    ],
)
def test_errors_name_the_argument(steps, call, message):
    with pytest.raises(ValueError, match=message):
        call(steps)
