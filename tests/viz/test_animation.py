import re

import numpy as np
import pytest
import torch
from PIL import Image

from sdlib import viz
from sdlib.diffusion import Step
from sdlib.viz.raster import blend, compose, coverage, rgb, to_pixels


def make_steps(nodes=5, n=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(n, 2, generator=generator)
    return [Step(i, 999.0 - i, start * (1 - i / nodes), start * 0.5) for i in range(nodes)]


@pytest.fixture(scope="module")
def film():
    return viz.animate(make_steps(), alt="Points fall inward.", seconds=0.5, size=64, fps=10)


def test_it_says_how_many_frames(film):
    assert repr(film) == "Animation(5 frames)"
    assert film._repr_mimebundle_()["text/plain"] == "Animation(5 frames)"


def test_moments_lie_on_the_line_between_frames(film):
    assert np.allclose(film.at(0.0), film.frames[0]) and np.allclose(film.at(1.0), film.frames[-1])
    assert np.allclose(film.at(0.125), (film.frames[0] + film.frames[1]) / 2)


def test_what_picks_states_or_estimates():
    steps = make_steps()
    estimates = viz.animate(steps, "x0", alt="Estimates.")
    assert np.allclose(estimates.frames[2], steps[2].x0)
    assert estimates.colors == ["#009e73"]


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_files_loop_and_rest_at_the_end(film, tmp_path, suffix):
    path = film.save(tmp_path / f"a.{suffix}")
    picture = Image.open(path)
    assert picture.size == (64, 64) and picture.n_frames == 5 and picture.info["loop"] == 0
    times = []
    for i in range(picture.n_frames):
        picture.seek(i)
        picture.load()
        times.append(picture.info["duration"])
    assert times == [100, 100, 100, 100, 1300]


def test_a_film_of_three_thousand_points_is_small(tmp_path):
    film = viz.animate(make_steps(20, 3000), alt="Many points.", seconds=2, fps=12)
    assert film.save(tmp_path / "many.gif").stat().st_size < 1.5e6
    assert len(film.html()) < 700_000


def test_long_walks_of_many_points_stay_within_the_page_s_budget():
    film = viz.animate(
        make_steps(400, 3000), alt="Long.", reference=torch.randn(100_000, 2), size=32
    )
    assert len(film.html()) < 700_000
    small = viz.animate(make_steps(400, 3000), alt="Long.", size=32)
    assert len(small.html()) < 700_000


def test_the_player_asks_for_nothing_and_names_its_controls(film):
    page = film.html()
    assert "http" not in page and "FontAwesome" not in page and "fa-" not in page
    assert re.search(r'<button[^>]*aria-label="Play"', page.replace("\n", " "))
    assert re.search(r'<input type="range"[^>]*aria-label=', page.replace("\n", " "))
    assert 'alt="Points fall inward."' in page
    assert "prefers-reduced-motion" in page and not re.search(r'\bid="', page)


def test_the_player_is_the_same_in_every_build_and_differs_for_other_films(film):
    again = viz.animate(make_steps(), alt="Points fall inward.", seconds=0.5, size=64, fps=10)
    assert again.html() == film.html()
    other = viz.animate(make_steps(seed=1), alt="Points fall inward.", seconds=0.5, size=64)
    names = [re.search(r'data-animation="(\w+)"', f.html())[1] for f in (film, other)]
    assert names[0] != names[1]


def test_alt_text_is_escaped():
    page = viz.animate(make_steps(2, 3), alt='a "b" <c>', size=16).html()
    assert 'alt="a &quot;b&quot; &lt;c&gt;"' in page


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: viz.animate([], alt="a"), "steps must hold at least one Step"),
        (lambda: viz.animate(make_steps(), "y", alt="a"), "what must be one of: x, x0; got 'y'"),
        (lambda: viz.animate(make_steps(), alt=" "), "alt must say"),
        (lambda: viz.animate(make_steps(), alt="a", seconds=0), "seconds, fps and extent"),
        (lambda: viz.animate(make_steps(), alt="a", color="bleu"), "unknown color 'bleu'"),
        (lambda: viz.animate(make_steps(), alt="a", reference=torch.zeros(3)), "reference must be"),
        (
            lambda: viz.animate([Step(0, 1.0, torch.zeros(4, 3), torch.zeros(4, 3))], alt="a"),
            r"x of each step must be \[n, 2\]",
        ),
        (
            lambda: viz.animate(make_steps(), alt="a").save("film.mp4"),
            "path must end in .gif or .webp; got 'film.mp4'",
        ),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_single_step_is_a_picture(tmp_path):
    film = viz.animate(make_steps(1), alt="One.", size=32)
    assert film.html() and film.save(tmp_path / "one.gif").exists()


def test_dots_land_where_the_points_are():
    cover = coverage(np.array([[1.0, 2.0]]), size=60, extent=3.0, radius=2.0, opacity=0.5)
    column, row = to_pixels(np.array([[1.0, 2.0]]), 60, 3.0)[0]
    weights = cover / cover.sum()
    assert np.isclose((weights.sum(0) * np.arange(60)).sum(), column, atol=0.05)
    assert np.isclose((weights.sum(1) * np.arange(60)).sum(), row, atol=0.05)
    assert row < 30 < column  # up and to the right
    assert np.isclose(cover.sum(), 0.5 * np.pi * 4, rtol=0.1) and np.isclose(cover.max(), 0.5)


def test_dots_over_one_another_hide_more_and_outside_none():
    twice = coverage(np.zeros((2, 2)), 21, 1.0, 2.0, 0.5)
    assert np.isclose(twice[10, 10], 0.75)
    assert coverage(np.array([[50.0, 50.0]]), 21, 1.0).max() == 0


def test_layers_compose():
    cover = np.array([[0.0, 0.5, 1.0]])
    over = compose("#000000", [(cover, rgb("#c80000"))])
    assert over[0].tolist() == [[0, 0, 0], [100, 0, 0], [200, 0, 0]]
    clear = compose(None, [(cover, rgb("#c80000"))])
    assert clear[0, 1].tolist() == [200, 0, 0, 128] and clear[0, 0, 3] == 0
    assert blend(["#000000", "#ff0000", "#0000ff"], 0.75).tolist() == [127.5, 0, 127.5]
