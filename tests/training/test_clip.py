"""CLIP on scenes: its tokenizer, its batches, and that it learns, goes on, saves and loads."""

import math
from dataclasses import dataclass, replace
from zlib import crc32

import pytest
import torch
from torch.nn.functional import normalize

from sdlib.datasets import scenes
from sdlib.training.recipes import RECIPES, run, save_trained
from sdlib.training.recipes.clip import GROUP, CLIPRecipe
from sdlib.training.recipes.recipe import load_weights

SIZES = {
    "batch": 16, "steps": 4, "warmup": 1, "captions": 300, "vocabulary": 750, "length": 40,
    "patch": 16, "projection": 32,
    **{f"{tower}_{size}": n for tower in ("text", "image")
       for size, n in {"width": 32, "layers": 1, "heads": 2}.items()},
}  # fmt: skip
SMALL = CLIPRecipe("small_clip", **SIZES)


@dataclass(frozen=True)
class Unjudged(CLIPRecipe):
    """The same, whose card says nothing, which takes no time."""

    def evaluate(self, network):
        return {}

    def validate(self, network):
        return {"one": 1.0}


def test_captions_fit_in_the_length_and_the_tokenizer_fills_its_size():
    recipe = RECIPES["mini_clip"]
    tokenizer = recipe.tokenizer
    assert tokenizer is recipe.tokenizer and len(tokenizer) == recipe.vocabulary
    assert (tokenizer.end, tokenizer.length) == (recipe.config.text.end, recipe.length)
    made = [scenes.scene(i, split) for split in scenes.SPLITS for i in range(300)]
    texts = [f(one) for one in made for f in (scenes.caption, scenes.false_caption)]
    assert max(len(tokenizer.encode(text)) for text in texts) <= recipe.length - 2
    known = [len(tokenizer.encode(word)) for word in ("crescent", "striped", "house", "orange")]
    assert known == [1, 1, 1, 1]


def test_a_size_that_words_do_not_fill_is_refused():
    with pytest.raises(ValueError, match=r"50 captions fill only \d+ of 5000 ids; set vocabulary"):
        replace(SMALL, captions=50, vocabulary=5000).batches(None)


def test_batches_pair_pictures_with_their_captions():
    stream = replace(SMALL, negatives=2).batches(torch.Generator())
    pixels, ids, false = next(iter(stream))
    assert pixels.shape == (16, 3, 64, 64) and ids.shape[0] == 16
    assert false.shape == (16, 2, ids.shape[1])
    one, words = scenes.scene(0), SMALL.tokenizer
    assert torch.equal(pixels[:1], scenes.batch([0])[0])

    def text(row):
        return words.decode(i for i in row.tolist() if i not in (words.start, words.end))

    assert text(ids[0]) == words.decode(words.encode(scenes.caption(one)))
    assert text(ids[1]) == words.decode(words.encode(scenes.caption(scenes.exchange_colors(one))))
    for k in range(2):
        assert text(false[0, k]) == words.decode(words.encode(scenes.false_caption(one, 0, k)))
    assert (torch.cat([ids, false.flatten(0, 1)]) == words.end).any(1).all()
    position = stream.state_dict()
    assert 8 <= position["position"] < 16
    again = SMALL.batches(torch.Generator())
    again.load_state_dict(position)
    assert torch.equal(next(iter(again))[0], next(iter(stream))[0])


def test_one_batch_is_learned_by_heart():
    torch.manual_seed(0)
    recipe = replace(SMALL, batch=8, negative_weight=0.0)
    network, batch = recipe.make_network(), next(iter(recipe.batches(torch.Generator())))
    hard = replace(recipe, negative_weight=1.0)

    def both():
        info = recipe.loss(network, batch, None)
        return info, hard.loss(network, batch, None) - info

    optimizer, start = torch.optim.AdamW(network.parameters(), lr=5e-3), both()
    assert start[0].item() > 0.9 * math.log(8) and start[1].item() > 0.5 * math.log(2)
    for _ in range(60):
        optimizer.zero_grad()
        hard.loss(network, batch, None).backward()
        optimizer.step()
    end = both()
    assert end[0].item() < 0.5 * math.log(8) and end[1].item() < 0.5 * math.log(2)


def test_a_run_goes_on_to_the_same_weights(tmp_path):
    class Stopped(Unjudged):
        def validate(self, network):
            raise KeyboardInterrupt

    def weights(network):
        return torch.cat([p.flatten() for p in network.parameters()])

    whole, _ = run(Unjudged("small", **SIZES), tmp_path / "a", every=2)
    with pytest.raises(KeyboardInterrupt):
        run(Stopped("small", **SIZES), tmp_path / "b", every=3)
    again, _ = run(Unjudged("small", **SIZES), tmp_path / "b", every=2)
    assert torch.equal(weights(whole), weights(again))


def test_the_tokenizer_is_saved_with_the_weights(tmp_path, monkeypatch):
    network = SMALL.make_network()
    words = network.tokenizer
    path = save_trained(network, {"name": "small_clip"}, tmp_path)

    def learn(*sizes):
        raise AssertionError("the tokenizer was learned again")

    monkeypatch.setattr("sdlib.training.recipes.clip.learn_tokenizer", learn)
    loaded = load_weights(SMALL, path)
    assert loaded.tokenizer is not words and loaded.tokenizer.merges == words.merges
    assert loaded.tokenizer.length == SMALL.length
    assert loaded.text is loaded.clip.text
    said = ["a red house", "two cats"]
    assert torch.equal(loaded.embed_captions(said), network.eval().embed_captions(said))


# --- how it is judged ---


class Memory:
    """Knows each caption by heart: a vector of its own, drawn at random."""

    def embed_captions(self, captions):
        seeds = [torch.Generator().manual_seed(crc32(text.encode())) for text in captions]
        return normalize(torch.stack([torch.randn(64, generator=g) for g in seeds]), dim=1)


def test_judging_a_perfect_and_a_blind_network(monkeypatch):
    def judge(embed):
        monkeypatch.setattr("sdlib.training.recipes.clip._embed", embed)
        found = SMALL.retrieval(Memory(), 1)
        return [*found.values()], SMALL.swaps(Memory(), 40, "held_out")

    both, swaps = judge(lambda net, made: net.embed_captions(map(scenes.full_caption, made)))
    assert both == [{"accuracy": 1.0, "interval": 0.0, "n": GROUP}] * 2
    assert set(swaps) == set(scenes.SWAPS)
    assert all(swap["accuracy"] == 1 for swap in swaps.values())
    assert swaps["place"]["n"] == 40 > swaps["count"]["n"] > 0

    both, swaps = judge(lambda net, made: torch.ones(len(made), 64) / 8)
    assert [found["accuracy"] for found in both] == [round(1 / GROUP, 4)] * 2
    assert 0.2 < swaps["place"]["accuracy"] < 0.8
    assert swaps["place"]["interval"] == pytest.approx(0.155, abs=0.035)


def test_validation_is_a_row_of_numbers():
    row = SMALL.validate(SMALL.make_network().eval())
    assert set(row) == {"image_to_text", "text_to_image", "swaps"}
    assert all(0 <= value <= 1 for value in row.values())
