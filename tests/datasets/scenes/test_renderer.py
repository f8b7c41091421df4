from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sdlib.datasets import scenes
from sdlib.datasets.scenes import Scene, Thing
from sdlib.datasets.scenes.palette import backdrop
from sdlib.datasets.scenes.renderer import sprite

SETTINGS = [(place, False) for place in scenes.PLACES] + [(place, True) for place in scenes.SUNSETS]


def lab(rgb):
    """CIE L*a*b* of sRGB colors [..., 3] from 0 to 255; a distance of 2 is just seen."""
    c = np.asarray(rgb, dtype=np.float64) / 255
    c = np.where(c > 0.04045, ((c + 0.055) / 1.055) ** 2.4, c / 12.92)
    rows = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = c @ np.array(rows).T / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def test_a_picture_depends_on_its_scene_alone():
    made = [scenes.scene(i) for i in range(30)]
    together = scenes.render(made)
    assert together.shape == (30, 3, 64, 64) and together.dtype == torch.uint8
    assert torch.equal(torch.cat([scenes.render([one]) for one in made]), together)
    assert len({p.numpy().tobytes() for p in together}) == 30
    assert scenes.render([]).shape == (0, 3, 64, 64)


def test_batch_is_pixels_captions_and_scenes():
    pixels, captions, made = scenes.batch([3, 1], "validation", seed=2, variant=4)
    assert made == [scenes.scene(i, "validation", 2) for i in (3, 1)]
    assert captions == [scenes.caption(one, 4) for one in made]
    assert pixels.dtype == torch.float32
    torch.testing.assert_close((pixels + 1) * 127.5, scenes.render(made).float())


def test_a_picture_of_another_size_is_the_same_picture():
    made = [scenes.scene(i) for i in range(12)]
    small, large = scenes.render(made).float(), scenes.render(made, 256).float()
    off = (F.avg_pool2d(large, 4) - small).abs()
    assert off.mean() < 1 and off.amax((1, 2, 3)).median() < 40


@pytest.mark.parametrize("kind", scenes.THINGS)
def test_silhouettes_fill_their_square(kind):
    """Things of one size look alike large, lie inside it, and are told apart by their shapes."""
    inks, behind = sprite(kind, "solid", 40.0, 0.0, 0.0)
    assert inks.min() >= 0 and abs(inks.sum(0).reshape(40, 40) + behind - 1).max() < 1e-5
    body = 1 - behind
    assert 0.2 < body.mean() < 0.9
    rows, columns = (np.flatnonzero(body.max(axis) > 0.5) for axis in (1, 0))
    assert max(len(rows), len(columns)) >= 34 and min(len(rows), len(columns)) >= 26
    wide = sprite(kind, "solid", 40.0, 4.0, 4.0)[1]
    assert abs(1 - wide[4:, 4:] - body).max() < 1e-5 and (wide[:4] == 1).all()
    for other in set(scenes.THINGS) - {kind}:
        assert abs(1 - sprite(other, "solid", 40.0, 0.0, 0.0)[1] - body).mean() > 0.06


def test_colors_are_told_apart():
    fills = lab([color.fill for color in scenes.COLORS.values()])
    apart = np.linalg.norm(fills[:, None] - fills, axis=-1)
    assert apart[~np.eye(10, dtype=bool)].min() > 30


@pytest.mark.parametrize("texture", scenes.TEXTURES)
def test_a_thing_shows_its_color(texture):
    """Its color itself, or that and its tint, cover more of it than the dark edge does."""
    for kind, size in product(scenes.THINGS, scenes.SIZES.values()):
        fill, dark, light = sprite(kind, texture, float(size), 0.5, 0.5)[0].sum(1)
        assert fill > 0.22 * (fill + dark + light), (kind, size)
        assert fill + light > 0.5 * (fill + dark + light), (kind, size)


def test_textures_look_different():
    for kind, size in product(scenes.THINGS, scenes.SIZES.values()):
        made = [sprite(kind, t, float(size), 0.0, 0.5)[0] for t in scenes.TEXTURES]
        for i, a in enumerate(made):
            assert all(abs(a - b).sum(0).mean() > 0.05 for b in made[:i]), (kind, size)


@pytest.mark.parametrize("place, sunset", SETTINGS)
def test_every_color_is_seen_on_every_place(place, sunset):
    """A small circle, wherever it is, stands out in Lab from what is behind it."""
    at = [(x, y) for x in (12.5, 50) for y in (10, 33.5, 41, 53)]
    empty = lab(scenes.render([Scene(place, sunset, ())])[0].permute(1, 2, 0))
    for color in scenes.COLORS:
        things = [Thing("circle", color, "small", "solid", x, y) for x, y in at]
        made = scenes.render([Scene(place, sunset, (thing,)) for thing in things])
        off = np.linalg.norm(lab(made.permute(0, 2, 3, 1)) - empty, axis=-1)
        assert (off > 16).sum((1, 2)).min() > 28, color


def test_places_are_told_apart():
    looks = lab([backdrop(*s, 44, 64).reshape(3, 64, -1).mean(2).T for s in SETTINGS])
    for i, a in enumerate(looks):
        assert all(np.linalg.norm(a - b, axis=-1).mean() > 5 for b in looks[:i])


def test_a_thing_is_where_its_scene_says():
    thing = Thing("square", "black", "medium", "solid", 40.5, 20.0)
    with_it, without = scenes.render(
        [Scene("paper", False, (thing,)), Scene("paper", False, ())]
    ).float()
    rows, columns = (with_it - without).abs().sum(0).nonzero().T
    assert abs(rows.float().mean() + 0.5 - 20.0) < 0.1
    assert abs(columns.float().mean() + 0.5 - 40.5) < 0.1
    assert with_it[:, 20, 40].tolist() == list(scenes.COLORS["black"].fill)


def test_pixels_are_rounded_to_the_nearest():
    thing = Thing("cat", "pink", "large", "striped", 32.0, 30.5)
    made = scenes.render([Scene("sea", True, (thing,)), Scene("sea", True, ())]).numpy()
    inks, behind = sprite("cat", "striped", 27.0, 0.5, 0.0)
    patch = np.s_[:, 17:44, 18:46]
    painted = (np.array(scenes.COLORS["pink"]).T @ inks).reshape(3, 27, 28)
    off = made[0][patch] - (made[1][patch] * behind + painted)
    assert abs(off).max() < 0.51


def test_bad_requests_are_refused():
    with pytest.raises(ValueError, match="size must be a whole number, at least 1"):
        scenes.render([scenes.scene(0)], 0)
