"""GenEval's scores: a perfect painter, a careless one, and intervals by hand."""

import math
from functools import cache

import pytest
import torch

from sdlib.datasets import scenes
from sdlib.evaluation import geneval

N = 3  # prompts a category
LINE = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}


@cache
def claims():
    """What each text that `score` asks for claims."""
    asked = [scenes.prompts(name, N) for name in (*scenes.CATEGORIES, *scenes.EXTRAS)]
    asked += [scenes.prompts(name, N, "held_out") for name in geneval.HELD_OUT]
    return {prompt.text: prompt.claim for some in asked for prompt in some}


def painted(claim):
    """A scene that satisfies a claim, and says nothing that it leaves open with any care."""
    spots = [(16.0, 16.0), (48.0, 48.0), (48.0, 16.0), (16.0, 48.0)]
    if claim.relations:
        (a, name, b), *_ = claim.relations
        x, y = LINE[name]
        spots = {a: (32.0 + 16 * x, 32.0 + 16 * y), b: (32.0 - 16 * x, 32.0 - 16 * y)}
    mentions = [m for m in claim.mentions for _ in range(m.number)]
    things = [
        scenes.Thing(m.kind, m.color or "red", m.size or "medium", m.texture or "solid", *spots[i])
        for i, m in enumerate(mentions)
    ]
    return scenes.Scene(claim.place or "paper", bool(claim.sunset), tuple(things))


def oracle(texts, seeds):
    assert len(texts) == len(seeds) <= geneval.BATCH
    return scenes.render(painted(claims()[text]) for text in texts) / 127.5 - 1


def careless(texts, seeds):
    """Pictures of the world that have nothing to do with the prompts."""
    return scenes.batch(seeds, "validation", seed=1)[0]


def test_a_perfect_painter_scores_one():
    found = geneval.score(oracle, N, pictures=1)
    assert found["overall"] == 1
    names = [*scenes.CATEGORIES, *scenes.EXTRAS, *(f"held-out {n}" for n in geneval.HELD_OUT)]
    assert list(found["categories"]) == names
    for one in found["categories"].values():
        assert one["score"] == 1 and one["pictures"] == N and one["interval"][1] == 1


def test_a_careless_painter_scores_low():
    found = geneval.score(careless, 8, pictures=1)
    assert found["overall"] < 0.2
    assert found["categories"]["attribute binding"]["score"] == 0


def test_overall_is_the_mean_of_the_six_categories(monkeypatch):
    right = {name: i / 8 for i, name in enumerate((*scenes.CATEGORIES, *scenes.EXTRAS))}
    monkeypatch.setattr(geneval, "_score", lambda draw, some, _: {"score": right[some[0].category]})
    assert geneval.score(oracle, 1)["overall"] == sum(range(6)) / 8 / 6


def test_each_prompt_is_drawn_with_seeds_of_its_own():
    calls = []

    def draw(texts, seeds):
        calls.append((texts, seeds))
        return torch.zeros(len(texts), 3, 64, 64)

    found = geneval._score(draw, scenes.prompts("position", 2), 4)
    ((texts, seeds),) = calls
    assert texts[:4] == texts[:1] * 4 and texts[4:] == texts[4:5] * 4 and texts[0] != texts[4]
    assert seeds == list(range(8))
    assert found == {
        "score": 0,
        "interval": geneval.wilson(0, 2),
        "prompts": 2,
        "pictures": 8,
    }
    with pytest.raises(ValueError, match="a picture for each prompt; got 7 for 8"):
        geneval._score(lambda t, s: draw(t, s)[1:], scenes.prompts("position", 2), 4)


def test_wilson_by_hand():
    """Both ends solve (p - q)**2 = z**2 q (1 - q) / n; at p = 0 the upper is z2 / (n + z2)."""
    z2 = geneval.NORMAL_95**2
    assert geneval.wilson(0, 10) == pytest.approx([0, z2 / (10 + z2)])
    assert math.erf(math.sqrt(z2 / 2)) == pytest.approx(0.95, abs=1e-6)
    for q in geneval.wilson(0.3, 40):
        assert (0.3 - q) ** 2 == pytest.approx(z2 * q * (1 - q) / 40)


def test_intervals_of_clusters():
    """Fully alike within prompts, pictures count once a prompt; fully unlike, each counts."""
    alike = [[True] * 4] * 3 + [[False] * 4] * 7
    mixed = [[True, False]] * 20
    assert geneval.interval(mixed) == pytest.approx(geneval.wilson(0.5, 40))
    assert geneval.interval(alike) == pytest.approx(geneval.wilson(0.3, 9))  # n - 1 of 10
    assert geneval.interval([[True] * 4] * 5) == geneval.wilson(1, 5)
