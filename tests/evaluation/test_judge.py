"""The judge: reads what was painted, refuses what was not, sees through a blurred picture."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from sdlib.datasets import scenes
from sdlib.evaluation import judge, sprites

N = 60  # scenes of each split


def reconstructed(x, seed=0):
    """Pictures as an autoencoder gives them back: blurred, noisy, a little brighter or darker."""
    generator = torch.Generator().manual_seed(seed)
    taps = torch.exp(-(torch.arange(-3, 4).float() ** 2) / (2 * 0.6**2))
    kernel = (taps[:, None] * taps / taps.sum() ** 2).expand(3, 1, 7, 7)
    x = F.conv2d(F.pad(x, (3,) * 4, mode="replicate"), kernel, groups=3)
    x = x + 0.05 * torch.randn(x.shape, generator=generator)
    light = 1 + 0.03 * (2 * torch.rand(len(x), 1, 1, 1, generator=generator) - 1)
    return ((x + 1) * light - 1).clamp(-1, 1)


def looks(scene):
    things = sorted((t.kind, t.color, t.size, t.texture) for t in scene.things)
    return scene.place, scene.sunset, things


def swaps(claim):
    """The claim with one thing said wrong: each attribute, the place, the number, the relation."""
    first, *rest = claim.mentions
    after = lambda names, one: (names := list(names))[names.index(one) - 1]  # noqa: E731
    for name, names in {
        "kind": scenes.THINGS,
        "color": scenes.COLORS,
        "size": scenes.SIZES,
        "texture": scenes.TEXTURES,
    }.items():
        other = replace(first, **{name: after(names, getattr(first, name))})
        yield replace(claim, mentions=(other, *rest))
    yield replace(claim, place=after(scenes.PLACES, claim.place))
    yield replace(claim, sunset=not claim.sunset)
    if first.number > 1:
        yield replace(claim, mentions=(replace(first, number=2 + (first.number - 1) % 3),))
    for name in scenes.RELATIONS if claim.relations else ():
        if name != claim.relations[0].name:
            relations = (claim.relations[0]._replace(name=name), *claim.relations[1:])
            yield replace(claim, relations=relations)


@pytest.mark.parametrize("split", ["validation", "held_out"])
def test_fresh_scenes_are_read_right(split):
    pixels, _, made = scenes.batch(range(N), split, seed=3)
    right = 0
    for scene, found in zip(made, judge.read(pixels), strict=True):
        said = scenes.claim(scene)
        if looks(found) != looks(scene):
            continue
        right += scenes.satisfies(found, said)
        at = {(t.kind, t.color, t.x, t.y) for t in scene.things}
        assert at == {(t.kind, t.color, t.x, t.y) for t in found.things}  # to half a pixel
        wrong = [claim for claim in swaps(said) if not scenes.satisfies(scene, claim)]
        assert len(wrong) >= 5 and not any(scenes.satisfies(found, claim) for claim in wrong)
    assert right >= 0.995 * N


@pytest.mark.parametrize("split", ["validation", "held_out"])
def test_reconstructed_scenes_are_read_right(split):
    pixels, _, made = scenes.batch(range(N), split, seed=4)
    found = judge.read(reconstructed(pixels))
    right = sum(looks(a) == looks(b) for a, b in zip(made, found, strict=True))
    assert right >= 0.95 * N


def test_smeared_and_empty_pictures_show_nothing():
    pixels, _, made = scenes.batch(range(24), "validation", seed=5)
    smeared = F.avg_pool2d(pixels, 9, 1, 4, count_include_pad=False)
    found = judge.read(smeared)
    read = [(t.kind, t.color) for scene in found for t in scene.things if t.kind != judge.UNKNOWN]
    assert len(read) <= 4  # of about 50 things
    empty = [replace(scene, things=()) for scene in made]
    for scene, found in zip(empty, judge.read(scenes.render(empty) / 127.5 - 1), strict=True):
        assert found.things == () and looks(found) == looks(scene)
    noise = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert all(scene.place == judge.UNKNOWN for scene in judge.read(noise))


def test_two_things_in_one_place_are_neither():
    """The mean of two pictures that differ in kind alone is a ghost of both."""
    cat = scenes.Thing("cat", "red", "large", "solid", 32.0, 32.0)
    pair = [scenes.Scene("paper", False, (t,)) for t in (cat, replace(cat, kind="cross"))]
    ghost = scenes.render(pair).float().mean(0, keepdim=True) / 127.5 - 1
    assert [t.kind for t in judge.read(ghost)[0].things] == [judge.UNKNOWN]


def test_the_horizon_may_be_elsewhere():
    """A ridge 2 pixels too low is no thing and hides none."""
    scene = scenes.Scene("desert", False, (scenes.Thing("cat", "red", "small", "solid", 20, 30),))
    empty = replace(scene, things=())
    pixels, ground = (scenes.render([one]).float() for one in (scene, empty))
    moved = ground.roll(2, 2)
    moved[:, :, :2] = ground[:, :, :2]
    pixels = torch.where((pixels - ground).abs().sum(1, keepdim=True) > 0, pixels, moved)
    assert looks(judge.read(pixels / 127.5 - 1)[0]) == looks(scene)


def test_bad_pixels_are_refused():
    with pytest.raises(ValueError, match=r"must be \[b, 3, 64, 64\]; got shape \(3, 64, 64\)"):
        judge.read(torch.zeros(3, 64, 64))
    with pytest.raises(ValueError, match="finite"):
        judge.read(torch.full((1, 3, 64, 64), torch.nan))


def test_errors_are_those_of_painting():
    """The products give the squared error of behind * backdrop + color @ inks, pixel by pixel."""
    generator = torch.Generator().manual_seed(0)
    inks = sprites.sprites().fine[[3, 8], [0, 2], [1, 2], 0, 1]  # [m, 3, p]
    patches = torch.rand(3, 7, inks.shape[-1], generator=generator)
    error = sprites.errors(patches, sprites.basis(inks))
    for q, m, color in ((0, 0, 0), (1, 1, 4), (2, 0, 9)):
        painted = (1 - inks[m].sum(0)) * patches[q, 3:6] + sprites.palette()[color] @ inks[m]
        want = ((patches[q, :3] - painted).square() * patches[q, 6]).sum()
        assert error[q, m, color].item() == pytest.approx(want.item(), rel=1e-4)
