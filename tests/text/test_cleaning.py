"""The two cleanings, against the two programs whose they are."""

import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdlib.text import Tokenizer
from sdlib.text.cleaning import hf as hf_words
from sdlib.text.cleaning import openai as openai_words

TEXTS = [
    "",
    " ",
    "a photo of a cat",
    "  two  spaces,\ttabs\nand\r\nlines \u2028\u3000\xa0 of all kinds \x85\x0b\x0c",
    "a\x1cb\x1d\x1e\x1f c\x00d\x7f\x9f",  # what Python calls space, and Unicode does not
    "It's they're I've I'm she'll he'd don't can'T 'S ''s '''ll o'clock 'sun' x'",
    "don’t “quote” ‘single’",
    "1 12 1920s 3.14 ½ ² Ⅷ ４２ 一二三 ١٢٣ 8k",
    "&lt;b&gt; &amp; &amp;amp; &amp;lt; &quot;hi&quot; &#39; &#x41; &#32; &nbsp; &no; AT&T",
    "<b> &amp;lt; &amp;amp;amp;lt; &lt;",  # ftfy leaves entities alone where a tag may be
    "schÃ¶n donâ€™t cafÃ© âœ” Ð¿Ñ€Ð¸Ð²ÐµÑ‚",
    "ﬁne ﬂow oﬃce ﬆ Ｆｕｌｌ ｗｉｄｔｈ ㌀ ㎏",
    "😀 👍🏽 🏳️‍🌈 👩‍👩‍👧‍👦 🇩🇪 ☺️ 1️⃣ 👩🏾‍🚀s",
    "猫の写真、東京タワー。 고양이 사진 一只猫坐在窗台上 แมวน่ารัก हिन्दी नमस्ते",
    "café cafe\u0301 Å A\u030a \u212b ñ n\u0303 q\u0323\u0307 q\u0307\u0323 각 \u1100\u1161\u11a8",
    "ΑΣ ΌΣΟΣ. Σ ς σ ΣΑΣ'Σ",
    "İstanbul ISI ıi ß ẞ ŒUVRE ǅ ſ 'ſ it'ſ K",
    "<|startoftext|>a<|endoftext|>b <|startoftext|><|startoftext|>'s",
    "<|STARTOFTEXT|>!! x<|EndOfText|>'s !<|ENDOFTEXT|>? <|ſtartoftext|>.",
    "<|endoftext|>\u0338 &lt;|endoftext|&gt; < |endoftext|> <|endoftext| > <|end",
    "</w> a</w> <w>",
    "(red hair:1.3), [blue|green]::0.5 --ar 16:9 __name__ #tag @me https://x.org/?a=b&c=d",
    "\ufeffbom zero\u200bwidth soft\xadhyphen \u202eright to left\u202c a\u0300\u0301\u0302\u0303",
    "\x1b[31mred\x1b[0m \ufffd \ufffe \U0010ffff \ue000",
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
    "a" * 1000 + " " + "xyz" * 300 + " " + "!" * 500 + " " + "7" * 100 + "猫" * 300 + "😀" * 99,
]
CHARS = st.characters(exclude_categories=["Cs", "Cn"])  # surrogates; what this Python does not know
BLOCKS = st.one_of(
    CHARS,
    st.characters(max_codepoint=0x7F),
    st.characters(min_codepoint=0x80, max_codepoint=0x24F),
    st.sampled_from(
        "\u0300\u0301\u0308\u0327\u0338\u20dd\ufe0f\u200d\u200b\x1c\x85\u2028ΣςİſK'’&;<|>"
    ),
    st.characters(min_codepoint=0x4E00, max_codepoint=0x9FA5),
    st.characters(min_codepoint=0x1F300, max_codepoint=0x1F64F),
)
PARTS = st.one_of(
    st.text(BLOCKS, max_size=12),
    st.text(CHARS, max_size=8),
    st.sampled_from([*(word for text in TEXTS[:-1] for word in text.split(" ")), "'s", "'LL"]),
    st.sampled_from(["", " ", "  ", "\n", "'", "&amp;", "<|startoftext|>", "<|ENDOFTEXT|>"]),
)
STRINGS = st.lists(PARTS, max_size=6).map("".join)
many = settings(max_examples=1100, deadline=None, derandomize=True)


@pytest.fixture(scope="module")
def ours():
    return {name: Tokenizer.clip(name) for name in ("hf", "openai")}


# --- "hf" is transformers.CLIPTokenizer ---


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_hf(ours, hf, text):
    assert ours["hf"].encode(text) == hf(text, add_special_tokens=False).input_ids


@many
@given(text=STRINGS)
def test_hf_on_any_text(ours, hf, text):
    assert ours["hf"].encode(text) == hf(text, add_special_tokens=False).input_ids


# --- "openai" is OpenAI's SimpleTokenizer ---


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_openai(ours, openai, text):
    assert ours["openai"].encode(text) == openai.encode(text)


@many
@given(text=STRINGS)
def test_openai_on_any_text(ours, openai, text):
    assert ours["openai"].encode(text) == openai.encode(text)


# --- all of Unicode ---


def every_character(step=1):
    """Each character that this Python knows, twice between two letters.

    That makes one word if it is a letter, two if a space, four if a number, else three.
    """
    known = [c for c in map(chr, range(0x110000)) if unicodedata.category(c) not in UNKNOWN]
    return "\n".join(f"a{c}{c}b" for c in known[::step])


UNKNOWN = ("Cn", "Cs", "Co")  # unassigned, surrogates; private use (all alike, and 137,000 of them)


def test_hf_on_every_character(ours, hf):
    text = every_character()
    assert ours["hf"].encode(text) == hf(text, add_special_tokens=False).input_ids


def test_openai_on_every_seventh_character(ours, openai):
    text = every_character(7)
    assert ours["openai"].encode(text) == openai.encode(text)


# --- where the two differ: the table in the module's docstring ---


@pytest.mark.parametrize(
    ("text", "hf_says", "openai_says"),
    [
        ("schÃ¶n", None, "schön"),
        ("ﬁn", "ﬁn", "fin"),
        ("３", "３", "3"),
        ("don’t", "don ’ t", "don 't"),
        ("&lt;", "& lt ;", "<"),
        ("&amp;lt;", "& amp ; lt ;", "<"),
        ("a\x1cb \ufeffc", "a \x1c b \ufeff c", "ab c"),
        ("ΑΣ", "ασ", "ας"),
        ("<|ENDOFTEXT|>", "<| endoftext |>", "<|endoftext|>"),
        ("'ſ", "' ſ", "'ſ"),
    ],
)
def test_where_the_two_differ(text, hf_says, openai_says):
    assert " ".join(openai_words(text)) == openai_says
    assert " ".join(hf_words(text)) == (hf_says or "schã ¶ n")


def test_half_a_surrogate_pair(ours):
    assert openai_words("a\ud800b") == ["a", "\ufffd", "b"]
    with pytest.raises(ValueError, match="half of a surrogate pair"):
        ours["hf"].encode("a\ud800b")


def test_openai_needs_ftfy(monkeypatch):
    monkeypatch.setitem(sys.modules, "ftfy", None)
    with pytest.raises(ImportError, match='ftfy, which is not installed: .* keep cleaning="hf"'):
        openai_words("a cat")
    assert hf_words("a cat") == ["a", "cat"]
