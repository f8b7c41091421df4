"""The tokenizer: from prompts to ids, and to the windows that a text encoder reads (Chapter 16).

Three steps: a text is cut into words (`sdlib.text.cleaning`), a word into symbols
(`sdlib.text.pairs`), and each symbol has a number.

    tokenizer = Tokenizer.clip()
    tokenizer.encode("a red cube")           # [320, 736, 11353]
    tokenizer(["a red cube", ""])            # LongTensor [2, 77], as CLIP's text encoder wants it

    small = Tokenizer.train(captions, size=1000)
    small.save("merges.txt")
"""

import gzip
import json
import math
import re
import warnings
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from sdlib.checks import pick, whole_number
from sdlib.files import data_path, expand
from sdlib.text.cleaning import CLEANINGS, END, START
from sdlib.text.pairs import BYTES, LETTERS, MARK, Pair, apply_merges, learn_merges, spell

BASE = [*LETTERS.values(), *(letter + MARK for letter in LETTERS.values())]  # ids 0 to 511
CLIP_SIZE = 49_408
CACHE = 100_000  # words whose ids are remembered
VERSION = "#version: 0.2"  # the first line of a table of merges


class Tokenizer:
    """Text to ids and back, by a table of merges.

    Ids are numbered as CLIP's: the 256 letters, the same with the mark, one symbol a merge, the
    start token and, last, the end token.

    Args:
        merges: pairs of symbols, in the order in which they are joined.
        cleaning: "hf" or "openai", see `sdlib.text.cleaning`.
        length: ids in a window, the start and the end token among them.
        pad: the symbol that fills what is left of a window: the end token in Stable Diffusion 1,
            "!" in 2. Wherever a text spells it out it is that token, too, as in transformers.
        added: tokens of one's own, as textual inversion learns them; see `with_tokens`.

    Attributes:
        start, end, pad: the ids of the three tokens.
        symbols: the symbol of each id.

    Raises:
        ValueError: for an unknown cleaning or padding, a window without room, or an added token
            that is there already, empty, or holds white space.
    """

    def __init__(
        self,
        merges: Sequence[Pair],
        cleaning: str = "hf",
        length: int = 77,
        pad: str = END,
        added: Sequence[str] = (),
    ):
        self.cleaning, self.added = cleaning, tuple(added)
        self.clean = pick("cleaning", CLEANINGS, cleaning)
        self.length = whole_number("length", length, least=3)
        self.merges = [tuple(pair) for pair in merges]
        self.symbols = [*BASE, *map("".join, self.merges), START, END, *self.added]
        self.ids = {symbol: i for i, symbol in enumerate(self.symbols)}
        for token in self.added:
            if not token or token.split() != [token] or self.symbols.count(token) > 1:
                raise ValueError(
                    f"{token!r} cannot be added: a token of one's own is a new word without white "
                    "space, as <my-cat>."
                )
        self.ranks = {pair: rank for rank, pair in enumerate(self.merges)}
        if pad not in self.ids:
            raise ValueError(f"pad must be one of the tokenizer's symbols; got {pad!r}.")
        self.start, self.end, self.pad = (self.ids[symbol] for symbol in (START, END, pad))
        self._known = {symbol: [self.ids[symbol]] for symbol in (START, END, pad, *self.added)}
        spelled = sorted({*self.added, *([] if pad == END else [pad])}, key=len, reverse=True)
        self._spelled = re.compile("|".join(map(re.escape, spelled))) if spelled else None

    # --- where a table comes from, and goes ---

    @classmethod
    def clip(cls, cleaning: str = "hf") -> "Tokenizer":
        """CLIP's own, with which Stable Diffusion v1 reads its prompts: 49,408 ids.

        The table, in `data/clip/`, is OpenAI's (MIT license). It holds more merges than CLIP uses.
        """
        return cls.load(data_path("clip/bpe_simple_vocab_16e6.txt.gz"), CLIP_SIZE, cleaning)

    @classmethod
    def train(
        cls, corpus: str | Iterable[str], size: int, cleaning: str = "hf", length: int = 77
    ) -> "Tokenizer":
        """A tokenizer for a corpus: one text, or many.

        Args:
            corpus: what to learn from. A word costs the same however often it occurs.
            size: how many ids there may be, the 514 among them that no merge makes. A corpus with
                too few pairs gives fewer: `len(tokenizer)`.
            cleaning, length: as for `Tokenizer`.
        """
        most, words = _merges_for(size), Counter()
        clean = pick("cleaning", CLEANINGS, cleaning)
        for text in [corpus] if isinstance(corpus, str) else corpus:
            words.update(clean(_string(text)))
        for special in (START, END):
            words.pop(special, None)
        return cls(learn_merges(words, most), cleaning, length)

    @classmethod
    def load(
        cls, path: str | Path, size: int | None = None, cleaning: str = "hf", length: int = 77
    ) -> "Tokenizer":
        """From a file of merges (`merges.txt`, or `.gz`): a first line, then a pair a line.

        Args:
            path: the file.
            size: how many ids to make of it, where its last merges are not wanted.
            cleaning, length: as for `Tokenizer`.

        Raises:
            ValueError: for a file that is no table of merges, or too short for the size.
        """
        path = expand(path)
        opened = gzip.open if path.suffix == ".gz" else open
        try:
            with opened(path, "rt", encoding="utf-8") as file:
                lines = file.read().rstrip("\n").split("\n")
        except (UnicodeDecodeError, gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise ValueError(f"{path} is no table of merges: it cannot be read: {error}.") from None
        most = None if size is None else _merges_for(size)
        merges = parse_merges(lines[1:][:most], str(path))
        if most is not None and len(merges) < most:
            raise ValueError(
                f"{path} holds {len(merges)} merges, and {size} ids need {most}: "
                "ask for a smaller size, or for none."
            )
        return cls(merges, cleaning, length)

    def save(self, path: str | Path) -> None:
        """Writes the merges as plain text, for `load` and for transformers (`merges.txt`)."""
        expand(path).write_text(self.files()["merges.txt"], encoding="utf-8", newline="\n")

    def files(self) -> dict[str, str]:
        """The texts of the files that transformers makes the same tokenizer of, by name.

        `sdlib.text.read_files` is the way back.
        """
        merges = "\n".join([VERSION, *map(" ".join, self.merges), ""])
        config = {
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": self.length,
            "bos_token": START,
            "eos_token": END,
            "pad_token": self.symbols[self.pad],
            "unk_token": END,
            "do_lower_case": True,
            "errors": "replace",
            "add_prefix_space": False,
        }
        own = {token: self.ids[token] for token in self.added}
        table = {symbol: i for symbol, i in self.ids.items() if symbol not in own}
        return {
            "vocab.json": json.dumps(table),
            "merges.txt": merges,
            "tokenizer_config.json": json.dumps(config, indent=2) + "\n",
            **({"added_tokens.json": json.dumps(own)} if own else {}),
        }

    def with_tokens(self, *tokens: str) -> "Tokenizer":
        """The same tokenizer with more tokens, whose ids follow the end token's.

        Each is one id wherever a prompt spells it out: "<my-cat>" in "a photo of <my-cat>". A text
        encoder needs as many more rows in its embedding of tokens.
        """
        pad, added = self.symbols[self.pad], (*self.added, *tokens)
        return Tokenizer(self.merges, self.cleaning, self.length, pad, added)

    # --- text to ids, ids to text ---

    def __len__(self) -> int:
        return len(self.symbols)

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without start and end (unless the text spells them out)."""
        return [i for word in self._words(text) for i in self._encode(word)]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids: what `encode` was given, clean and with one space between words.

        Start, end and padding are spelled out. Bytes that are no UTF-8, as where a window has cut a
        character in two, become U+FFFD.
        """
        text = b""
        for i in map(int, ids):
            if not 0 <= i < len(self):
                raise ValueError(f"an id must lie between 0 and {len(self) - 1}; got {i}.")
            if i in (self.start, self.end, self.pad) or i > self.end:
                text += self.symbols[i].encode() + b" "
                continue
            letters = self.symbols[i].removesuffix(MARK)
            text += bytes(BYTES[letter] for letter in letters)
            if letters != self.symbols[i]:
                text += b" "
        return text.decode("utf-8", errors="replace").removesuffix(" ")

    def _words(self, text: str) -> list[str]:
        """The words of a text, tokens that it spells out among them; the end token is a word of
        the cleaning."""
        if self._spelled is None:
            return self.clean(_string(text))
        words, done = [], 0
        for found in self._spelled.finditer(_string(text)):
            words += [*self.clean(text[done : found.start()]), found[0]]
            done = found.end()
        return words + self.clean(text[done:])

    def _encode(self, word: str) -> list[int]:
        if word in self._known:
            return self._known[word]
        ids = [self.ids[symbol] for symbol in apply_merges(spell(word), self.ranks)]
        if len(self._known) < CACHE:
            self._known[word] = ids
        return ids

    # --- windows for a text encoder ---

    def __call__(self, texts: str | Iterable[str], long_prompt: str = "cut") -> Tensor:
        """The ids of prompts as a text encoder takes them, int64 `[b, n]`.

        Args:
            texts: one prompt, or several.
            long_prompt: what happens to a prompt for which a window has no room (75 ids in CLIP's
                77). "cut" keeps what fits and warns, naming the words lost; n = length. "chunk"
                goes on in further windows, each with its own start and end, as many for every
                prompt as the longest one needs; n = windows * length.

        Raises:
            ValueError: for what is no text, for no prompt at all, or another `long_prompt`.
        """
        prompts, room = [], self.length - 2
        several = isinstance(texts, Iterable) and not isinstance(texts, (str, bytes))
        for text in texts if several else [texts]:
            ids = self.encode(text)
            kept = ids[: self._limit(long_prompt)]
            if len(kept) < len(ids):
                warnings.warn(
                    f"the prompt has {len(ids)} tokens where {room} have room; what is lost is "
                    f'"{self._lost(text, ids)}". Shorten it, or use long_prompt="chunk".',
                    stacklevel=2,
                )
            prompts.append(kept)
        if not prompts:
            raise ValueError("texts must hold at least one prompt; it is empty.")
        windows = max(1, math.ceil(max(map(len, prompts)) / room))
        starts = range(0, windows * room, room)
        return torch.tensor(
            [[i for k in starts for i in self._window(ids[k : k + room])] for ids in prompts],
            device="cpu",
        )

    def words(self, text: str, long_prompt: str = "cut") -> list[tuple[str, list[int]]]:
        """Each word of a prompt, and the positions of its ids in the row that `__call__` gives it.

        For maps of attention by word. Words are those of the cleaning: in lower case, punctuation
        and digits on their own. A word that is cut away is left out.
        """
        room, limit, words, done = self.length - 2, self._limit(long_prompt), [], 0
        for word in self._words(text):
            ids = range(done, done + len(self._encode(word)))
            kept = [i for i in ids if limit is None or i < limit]
            if kept:
                words.append((word, [i // room * self.length + 1 + i % room for i in kept]))
            done += len(ids)
        return words

    def _limit(self, long_prompt: str) -> int | None:
        """How many ids of a prompt are kept; None if all are."""
        return pick("long_prompt", {"cut": self.length - 2, "chunk": None}, long_prompt)

    def _window(self, ids: list[int]) -> list[int]:
        return [self.start, *ids] + [self.end] + [self.pad] * (self.length - 2 - len(ids))

    def _lost(self, text: str, ids: list[int]) -> str:
        """What a cut takes away: words as they were typed, where cleaning lets that be told."""
        room, typed = self.length - 2, text.split()
        ends = list(accumulate(len(self.encode(word)) for word in typed))
        if ends[-1:] == [len(ids)]:  # word by word gives the same ids
            lost = " ".join(word for word, end in zip(typed, ends, strict=True) if end > room)
        else:
            lost = self.decode(ids[room:])
        return lost if len(lost) <= 300 else f"{lost[:300]} ..."


def parse_merges(lines: Iterable[str], where: str) -> list[Pair]:
    """The pairs of a table, less its first line; `where` is what to call it in an error.

    Raises:
        ValueError: for a line that is no pair of symbols that there are by then.
    """
    merges, known = [], set(BASE)
    for number, line in enumerate(lines, start=2):
        pair = tuple(line.split(" "))
        if len(pair) != 2 or not known.issuperset(pair):
            raise ValueError(
                f"{where} is no table of merges: line {number} should hold two symbols that "
                f"earlier lines have made, with a space between; it is {line[:80]!r}."
            )
        merges.append(pair)
        known.add("".join(pair))
    return merges


def _merges_for(size: int) -> int:
    """How many merges make `size` ids."""
    return whole_number("size", size, least=len(BASE) + 2) - len(BASE) - 2


def _string(text: str) -> str:
    if not isinstance(text, str):
        raise ValueError(f"a prompt must be a string; got {type(text).__name__}: {text!r}.")
    return text
