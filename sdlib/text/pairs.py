"""Byte-pair encoding: symbols that are joined, and how the joins are learned (Chapter 16).

A word is spelled in an alphabet of 256 letters, one for each byte, and its last letter carries a
mark. A table of merges says which neighbors become one symbol, in the order in which training found
them: so every text has an encoding, frequent words have a short one, and "cat" as a word is another
symbol than the "cat" of "category". (Sennrich et al. 2016, section 3.2; bytes as the alphabet:
Radford et al. 2019, section 2.2.)

    merges = learn_merges({"low": 5, "lower": 2, "newest": 6, "widest": 3}, most=3)
    merges                                   # [('e', 's'), ('es', 't</w>'), ('l', 'o')]
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    apply_merges(spell("lowest"), ranks)     # ['lo', 'w', 'est</w>']
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Mapping
from itertools import pairwise

Symbols = list[str]
Pair = tuple[str, str]

MARK = "</w>"  # the end of a word


def _letters() -> dict[int, str]:
    """A visible letter for each byte: itself where it is printable, or else one from U+0100 on.

    In the order in which CLIP numbers them: the printable ones first.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + k) for k, b in enumerate(others)}


LETTERS = _letters()
BYTES = {letter: byte for byte, letter in LETTERS.items()}


def spell(word: str) -> Symbols:
    """The letters of a word, one for each byte of its UTF-8; the last one carries the mark.

    Raises:
        ValueError: for half a surrogate pair, which has no bytes.
    """
    try:
        letters = [LETTERS[byte] for byte in word.encode("utf-8")]
    except UnicodeEncodeError:
        raise ValueError(
            f"the text holds half of a surrogate pair, which is no character: {word!r}; "
            "read it again with the encoding in which it was written."
        ) from None
    return [*letters[:-1], letters[-1] + MARK]


def merge(symbols: Symbols, pair: Pair) -> Symbols:
    """The symbols with every occurrence of the pair joined, from left to right."""
    first, second = pair
    joined, i = [], 0
    while i < len(symbols):
        if symbols[i] == first and symbols[i + 1 : i + 2] == [second]:
            joined.append(first + second)
            i += 2
        else:
            joined.append(symbols[i])
            i += 1
    return joined


def apply_merges(symbols: Symbols, ranks: Mapping[Pair, int]) -> Symbols:
    """Joins neighbors as long as the table knows a pair, the earliest of the table first.

    Args:
        symbols: a spelled word.
        ranks: the place of each pair in the table.

    The same as one `merge` after another, in a time of n log n rather than n²: a queue holds the
    pairs, and each symbol knows the place of its neighbors.
    """
    n = len(symbols)
    symbols = [*symbols, ""]  # place n, and -1, is where the word ends: in no pair
    before, after = [*range(-1, n)], [*range(1, n + 1), n]
    queue = [(ranks[pair], i, pair) for i, pair in enumerate(pairwise(symbols)) if pair in ranks]
    heapq.heapify(queue)
    while queue:
        _, i, pair = heapq.heappop(queue)
        j = after[i]
        if (symbols[i], symbols[j]) != pair:
            continue  # another merge took one of the two
        symbols[i], symbols[j] = symbols[i] + symbols[j], ""
        after[i] = after[j]
        before[after[i]] = i
        for k in (before[i], i):
            pair = symbols[k], symbols[after[k]]
            if pair in ranks:
                heapq.heappush(queue, (ranks[pair], k, pair))
    return [symbol for symbol in symbols if symbol]


def learn_merges(words: Mapping[str, int], most: int) -> list[Pair]:
    """Joins the most frequent pair of neighbors, again and again (Sennrich et al. 2016, alg. 1).

    Of pairs that are equally frequent the first in alphabetical order is joined, so that the result
    depends on the counts alone and not on the order of the corpus. When a pair is joined, only the
    words that hold it are looked at.

    Args:
        words: how often each word occurs.
        most: how many merges to find; there are fewer when no neighbors are left.
    """
    spelled = [(spell(word), times) for word, times in words.items()]
    counts, where = Counter(), defaultdict(set)
    for i, (symbols, times) in enumerate(spelled):
        for pair in pairwise(symbols):
            counts[pair] += times
            where[pair].add(i)

    queue = [(-times, pair) for pair, times in counts.items()]
    heapq.heapify(queue)
    merges = []
    while queue and len(merges) < most:
        times, pair = heapq.heappop(queue)
        if counts[pair] != -times:
            continue  # the count has changed since: the pair stands elsewhere in the queue
        merges.append(pair)
        change = Counter()
        for i in where.pop(pair):
            old, times = spelled[i]
            new = merge(old, pair)
            spelled[i] = new, times
            for neighbors in pairwise(old):
                change[neighbors] -= times
            for neighbors in pairwise(new):
                change[neighbors] += times
                where[neighbors].add(i)
        for neighbors, difference in change.items():
            counts[neighbors] += difference
            if difference and counts[neighbors] > 0:
                heapq.heappush(queue, (-counts[neighbors], neighbors))
    return merges
