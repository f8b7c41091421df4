import pytest

from sdlib.datasets import scenes
from sdlib.datasets.scenes.captions import claims_held_out

EXAMPLES = {
    "single object": "a ring",
    "two objects": "a house and a cross",
    "counting": "three trees",
    "colors": "a brown ring",
    "position": "a house right of a cross",
    "attribute binding": "a white house and a red cross",
}


@pytest.mark.parametrize("category", scenes.CATEGORIES)
def test_prompts_of_each_category(category):
    made = scenes.prompts(category, 40)
    assert made[0].text == EXAMPLES[category]
    assert made == scenes.prompts(category, 40) != scenes.prompts(category, 40, seed=1)
    for prompt in made:
        assert prompt.category == category and prompt.text == scenes.words(prompt.claim)
        kinds = {m.kind for m in prompt.claim.mentions}
        colors = {m.color for m in prompt.claim.mentions}
        two = category in ("two objects", "position", "attribute binding")
        assert len(kinds) == len(prompt.claim.mentions) == (2 if two else 1)
        assert (colors == {None}) == (category not in ("colors", "attribute binding"))
        assert category != "attribute binding" or len(colors) == 2
        assert (prompt.claim.mentions[0].number > 1) == (category == "counting")
        assert bool(prompt.claim.relations) == (category == "position")
        assert not claims_held_out(prompt.claim)


def test_the_extra_categories_say_one_thing_more():
    for category in scenes.EXTRAS:
        for prompt in scenes.prompts(category, 40):
            (mention,), claim = prompt.claim.mentions, prompt.claim
            assert (mention.color, mention.number, claim.relations) == (None, 1, ())
            assert mention.size in (("small", "large") if category == "size" else (None,))
            assert (mention.texture is None) == (category != "texture")
            assert mention.texture != "solid"
            assert (claim.place in scenes.PLACES) == (category == "place")
            assert claim.sunset in ((True, None) if category == "place" else (None,))
            assert prompt.text == scenes.words(claim)


@pytest.mark.parametrize("category", ["colors", "position", "attribute binding"])
def test_held_out_prompts_state_what_is_held_out(category):
    assert all(claims_held_out(p.claim) for p in scenes.prompts(category, 20, "held_out"))


def test_prompts_are_judged_by_what_a_picture_shows():
    """A scene that a prompt was drawn from satisfies it, and few others do."""
    shown = [scenes.scene(i, "validation") for i in range(300)]
    for category in scenes.CATEGORIES:
        for prompt in scenes.prompts(category, 5):
            right = [scenes.satisfies(one, prompt.claim) for one in shown]
            assert 1 <= sum(right) < 90


def test_bad_requests_are_refused():
    with pytest.raises(ValueError, match="unknown category 'text'; choose one of: single object"):
        scenes.prompts("text", 3)
    with pytest.raises(ValueError, match="n must be"):
        scenes.prompts("colors", 0)
    with pytest.raises(ValueError, match="'counting' state no combination that is held out"):
        scenes.prompts("counting", 3, "held_out")
