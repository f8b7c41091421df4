"""Pairs: the alphabet, training against a slow and plain version, and the two ways to merge."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdlib.text.pairs import BYTES, LETTERS, apply_merges, learn_merges, merge, spell

SENNRICH = {"low": 5, "lower": 2, "newest": 6, "widest": 3}  # the example of the paper


def plain(words, most):
    """Training as one would write it first: everything is counted anew for each merge."""
    spelled = {word: spell(word) for word in words}
    merges = []
    while len(merges) < most:
        counts = Counter()
        for word, times in words.items():
            for pair in pairwise(spelled[word]):
                counts[pair] += times
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        spelled = {word: merge(symbols, best) for word, symbols in spelled.items()}
    return merges, spelled


def ranks(merges):
    return {pair: rank for rank, pair in enumerate(merges)}


WORDS = st.dictionaries(
    st.text(st.sampled_from("aab.é"), min_size=1, max_size=9), st.integers(1, 9), max_size=12
)


# --- the alphabet ---


def test_every_byte_has_a_visible_letter_of_its_own():
    assert sorted(LETTERS) == list(range(256)) and len(BYTES) == 256
    assert all(letter.isprintable() and not letter.isspace() for letter in BYTES)
    assert all(LETTERS[ord(char)] == char for char in "az09!~")


def test_words_are_spelled_in_bytes():
    assert spell("cat") == ["c", "a", "t</w>"]
    assert [BYTES[s.removesuffix("</w>")] for s in spell("né\x00")] == list("né\x00".encode())
    assert [s.endswith("</w>") for s in spell("né\x00")] == [False, False, False, True]


def test_half_a_surrogate_pair_gets_a_sentence():
    with pytest.raises(ValueError, match=r"half of a surrogate pair, .* 'a\\ud800'"):
        spell("a\ud800")


# --- training ---


def test_the_example_of_the_paper():
    merges = learn_merges(SENNRICH, 3)
    assert merges == [("e", "s"), ("es", "t</w>"), ("l", "o")]
    assert apply_merges(spell("lowest"), ranks(merges)) == ["lo", "w", "est</w>"]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(words=WORDS)
def test_training_is_the_plain_algorithm(words):
    assert learn_merges(words, 40) == plain(words, 40)[0]


def test_training_does_not_depend_on_the_order_of_words():
    backwards = dict(reversed(SENNRICH.items()))
    assert learn_merges(SENNRICH, 99) == learn_merges(backwards, 99)


def test_equal_pairs_are_joined_in_alphabetical_order():
    assert learn_merges({"dc": 2, "ab": 2, "ad": 1}, 3) == [
        ("a", "b</w>"),
        ("d", "c</w>"),
        ("a", "d</w>"),
    ]


def test_training_ends_when_no_neighbors_are_left():
    merges = learn_merges(SENNRICH, 1000)
    assert {apply_merges(spell(word), ranks(merges))[0] for word in SENNRICH} == {
        f"{word}</w>" for word in SENNRICH
    }
    assert learn_merges(SENNRICH, 0) == learn_merges({}, 5) == learn_merges({"a": 3}, 5) == []


def test_training_looks_only_at_the_words_that_hold_a_pair(monkeypatch):
    looked = Counter()

    def counted(symbols, pair):
        looked[pair] += 1
        return merge(symbols, pair)

    monkeypatch.setattr("sdlib.text.pairs.merge", counted)
    words = {f"x{a}{b}": 1 for a in "abcdefghij" for b in "klmnopqrst"} | {"zz": 1000}
    learn_merges(words, 3)
    assert looked["z", "z</w>"] == 1 and max(looked.values()) <= 11  # of 101 words


# --- merging ---


def test_a_merge_goes_from_left_to_right():
    assert merge(["a", "a", "a", "b"], ("a", "a")) == ["aa", "a", "b"]
    assert merge(["a", "b", "a", "b"], ("a", "b")) == ["ab", "ab"]
    assert merge(["b", "a"], ("a", "b")) == ["b", "a"] and merge([], ("a", "b")) == []


@settings(max_examples=150, deadline=None, derandomize=True)
@given(words=WORDS, other=st.text(st.sampled_from("aab.é"), min_size=1, max_size=30))
def test_a_table_is_applied_merge_by_merge(words, other):
    """With a queue or without: in the words of training, and in a word never seen."""
    merges, spelled = plain(words, 40)
    for word, symbols in spelled.items():
        assert apply_merges(spell(word), ranks(merges)) == symbols
    symbols = spell(other)
    for pair in merges:
        symbols = merge(symbols, pair)
    assert apply_merges(spell(other), ranks(merges)) == symbols
