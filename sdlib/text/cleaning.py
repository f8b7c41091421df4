"""From text to words: what happens before a pair is merged (Chapter 16).

A tokenizer's ids depend on its table of merges and, as much, on how text is cleaned and cut into
words before. CLIP is used with two rules, each that of a program whose ids people have:

    hf        transformers.CLIPTokenizer, behind the prompts of Stable Diffusion
    openai    OpenAI's SimpleTokenizer, with which CLIP was trained; it mends text first, with ftfy
              (`pip install "sdlib[openai]"`)

Both compose accents (NFC), lower the case, and split alike. They differ in this:

    text                              hf                             openai
    mojibake: schÃ¶n                  as it stands                   mended: schön
    ligatures, full width: ﬁn, ３      as they stand                  plain: fin, 3
    curly quotes: don’t               don ’ t                        straight: don 't
    entities: &lt; or &amp;lt;        & lt ;                         <
    control characters, a BOM         words, or parts of one         most are taken away
    a capital sigma at an end: ΑΣ     letter by letter: ασ           as Greek has it: ας
    a special token in capitals       three words: <| endoftext |>   the end token
    's with a long s: 'ſ              ' ſ                            'ſ, as case is ignored
    half a surrogate pair             an error                       U+FFFD

A word is a run of letters, or one digit, or a run of anything else; white space only separates.
What is a letter, and which is its lower case, Python's own table of Unicode says: both are exact
for every character that the Python at hand knows; one that is younger may be cut elsewhere.
"""

import html
import re
import unicodedata

START, END = "<|startoftext|>", "<|endoftext|>"

_SPECIAL = "|".join(map(re.escape, (START, END)))
_SHORT = "'(?:s|t|re|ve|m|ll|d)"  # 's 't 're 've 'm 'll 'd
_RUN = re.compile("L+|N|O+|S+")


class _Kinds(dict):
    """For `str.translate`: a code point becomes L(etter), N(umber), S(pace) or O(ther)."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        if char.isspace() and not "\x1c" <= char <= "\x1f":  # Python's spaces that Unicode's aren't
            kind = "S"
        else:
            kind = {"L": "L", "N": "N"}.get(unicodedata.category(char)[0], "O")
        self[code] = kind
        return kind


_KINDS = _Kinds()


def split(text: str, first: re.Pattern) -> list[str]:
    """Cuts clean text into words, from left to right.

    Args:
        text: already clean, in lower case.
        first: what is a word of its own wherever a word may begin, before any run is looked for.
    """
    kinds = text.translate(_KINDS)  # as long as the text: one letter for each character
    words, i = [], 0
    while i < len(text):
        end = (first.match(text, i) or _RUN.match(kinds, i)).end()
        if kinds[i] != "S":
            words.append(text[i:end])
        i = end
    return words


def hf(text: str) -> list[str]:
    """The words of a text as `transformers.CLIPTokenizer` sees them (version 5).

    The start and end tokens are found first, as they are typed. The rest is split twice, since
    transformers does: the second split no longer knows the two names, so "<|ENDOFTEXT|>" ends as
    three words that have nothing to do with what follows it.
    """
    words = []
    for part in _HF_SPECIAL.split(text):
        if part in (START, END):
            words.append(part)
            continue
        lower = "".join(char.lower() for char in unicodedata.normalize("NFC", part))
        for rough in split(lower, _HF_FIRST):
            words += split(rough, _HF_SECOND)
    return words


_HF_SPECIAL = re.compile(f"({_SPECIAL})")
_HF_FIRST = re.compile(f"{_SPECIAL}|{_SHORT}")
_HF_SECOND = re.compile(_SHORT)


def openai(text: str) -> list[str]:
    """The words of a text as OpenAI's SimpleTokenizer sees them.

    Raises:
        ImportError: where ftfy is not installed.
    """
    try:
        from ftfy import fix_text
    except ImportError:
        raise ImportError(
            'cleaning="openai" mends text with ftfy, which is not installed: '
            'pip install ftfy, or keep cleaning="hf".'
        ) from None
    text = html.unescape(html.unescape(fix_text(text))).strip().lower()
    return split(text, _OPENAI_FIRST)


_OPENAI_FIRST = re.compile(f"{_SPECIAL}|{_SHORT}", re.IGNORECASE)

CLEANINGS = {"hf": hf, "openai": openai}
