"""The tokenizer: CLIP's table, ids and text, windows, words; tables trained, saved and read."""

import copy
import gzip
import hashlib
import json
import pickle
import random
import warnings
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdlib.files import data_path
from sdlib.text import Tokenizer
from sdlib.text.pairs import learn_merges

CORPUS = [
    "A small red circle above a large blue square.",
    "a large blue circle; a small green star, it's left of the square",
    "Two red stars & 12 blue squares: café, naïve, 猫 and 😀!",
]
CHARS = st.characters(exclude_categories=["Cs", "Cn"])
STRINGS = st.lists(
    st.one_of(st.text(CHARS), st.sampled_from([*CORPUS, "<|endoftext|>"])), max_size=5
)
LONG = "A photo of a Cat, "  # six tokens


@pytest.fixture(scope="module")
def clip():
    return Tokenizer.clip()


@pytest.fixture(scope="module")
def small():
    return Tokenizer.train(CORPUS, 570, length=12)


# --- CLIP's own table ---


def test_the_table_is_the_one_its_card_names():
    card = json.loads(data_path("clip/card.json").read_text(encoding="utf-8"))
    table = data_path(f"clip/{card['name']}").read_bytes()
    assert hashlib.sha256(table).hexdigest() == card["sha256"]
    said = data_path("clip/LICENSE").read_text(encoding="utf-8")
    assert said.startswith("MIT License") and "Copyright (c) 2021 OpenAI" in said


def test_ids_are_numbered_as_clips(clip, openai):
    assert clip.ids == openai.encoder and clip.ranks == openai.bpe_ranks
    assert (len(clip), clip.start, clip.end, clip.length) == (49408, 49406, 49407, 77)
    assert clip.encode("a red cube") == [320, 736, 11353]


# --- ids and text ---


@settings(max_examples=300, deadline=None, derandomize=True)
@given(text=STRINGS.map(" ".join))
def test_what_is_encoded_is_decoded(clip, small, text):
    for tokenizer in (clip, small):
        assert tokenizer.decode(tokenizer.encode(text)) == " ".join(tokenizer.clean(text))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(ids=st.lists(st.integers(0, 49405), max_size=20))
def test_any_ids_are_decoded_as_transformers_does(clip, hf, ids):
    assert clip.decode(ids).strip() == hf.decode(ids)


def test_decoding_takes_tensors_and_spells_out_start_and_end(clip):
    assert clip.decode(clip("A  cat's toy!")[0, :7]) == (
        "<|startoftext|> a cat 's toy ! <|endoftext|>"
    )
    assert clip.decode([]) == ""


def test_half_a_character_is_replaced(clip):
    assert clip.decode(clip.encode("ꙮ")[:1]) == "\ufffd"


@pytest.mark.parametrize("i", [-1, 49408])
def test_ids_that_there_are_not(clip, i):
    with pytest.raises(ValueError, match=f"between 0 and 49407; got {i}"):
        clip.decode([i])


@pytest.mark.parametrize("text", [None, 3, b"a cat", ["a cat"]])
def test_prompts_that_are_no_strings(clip, text):
    name = type(text).__name__
    for call in (
        clip.encode,
        clip.words,
        lambda text: clip([text]),
        lambda x: clip.train([x], 600),
    ):
        with pytest.raises(ValueError, match=f"a prompt must be a string; got {name}"):
            call(text)


@pytest.mark.parametrize("text", [None, 3, b"a cat"])
def test_one_prompt_that_is_no_string(clip, text):
    with pytest.raises(ValueError, match="a prompt must be a string"):
        clip(text)


def test_words_met_before_are_remembered(clip, monkeypatch):
    first = clip.encode("an unusual perpendicularity")
    monkeypatch.setattr("sdlib.text.tokenizer.apply_merges", None)
    assert clip.encode("an unusual perpendicularity") == first


def test_what_is_remembered_has_a_limit(monkeypatch):
    monkeypatch.setattr("sdlib.text.tokenizer.CACHE", 50)
    tokenizer = Tokenizer([])
    for i in range(200):
        assert tokenizer.decode(tokenizer.encode(chr(0x4E00 + i))) == chr(0x4E00 + i)
    assert len(tokenizer._known) == 50


def test_copies_encode_alike(small):
    for other in (copy.deepcopy(small), pickle.loads(pickle.dumps(small))):
        assert other.encode(CORPUS[2]) == small.encode(CORPUS[2])


def test_a_word_of_30000_letters(clip, hf):
    """Where each merge would look at the whole word, this took a minute."""
    word = "".join(random.Random(0).choices("etaoinshrdlucm", k=30_000))
    assert clip.encode(word) == hf(word, add_special_tokens=False).input_ids


# --- windows ---


def test_windows_are_those_of_transformers(clip, hf):
    texts = ["", "a cat", "  ", "12 <|endoftext|> it's 猫", LONG * 12, LONG * 12 + "a b c"]
    want = hf(texts, padding="max_length", max_length=77, return_tensors="pt").input_ids
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # 75 tokens have room
        got = clip(texts)
    assert got.dtype == torch.int64 and torch.equal(got, want)
    assert torch.equal(clip("a cat"), want[1:2])
    assert got[0].tolist() == [49406] + [49407] * 76


def test_a_long_prompt_is_cut_as_transformers_cuts_it(clip, hf):
    texts = [LONG * 30, "a cat", "猫" * 200]
    want = hf(texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
    with pytest.warns(UserWarning, match="tokens where 75 have room"):
        got = clip(texts)
    assert torch.equal(got, want.input_ids) and got[0, -1] == 49407


@pytest.mark.parametrize("kept", [74, 75])  # then the comma is the first token cut, or the cat
@pytest.mark.parametrize("cleaning", ["hf", "openai"])
def test_the_warning_quotes_the_words_lost_as_they_were_typed(cleaning, kept):
    tokenizer = Tokenizer.clip(cleaning)
    text = "word " * kept + "Cat,  Perpendicularity Ångström"
    with pytest.warns(UserWarning) as said:
        tokenizer(["a cat", text])
    assert len(said) == 1 and said[0].filename == __file__
    lost = str(said[0].message)
    assert '"Cat, Perpendicularity Ångström"' in lost and 'long_prompt="chunk"' in lost


def test_the_warning_falls_back_on_what_was_cleaned(clip):
    with pytest.warns(UserWarning, match='is "\x1c b"'):  # typed, these are no two words
        clip("word " * 75 + "\x1cb")
    with pytest.warns(UserWarning, match="where 75 have room"):
        clip("\x1c" * 300)
    with pytest.warns(UserWarning) as said:
        clip(LONG * 1000)
    assert len(str(said[0].message)) < 500


def test_chunks_go_on_in_more_windows(clip):
    texts = [LONG * 30, "a cat", ""]
    ids = clip.encode(texts[0])
    rows = clip(texts, long_prompt="chunk")
    assert rows.shape == (3, 3 * 77) and len(ids) == 180
    for k in range(3):
        part = ids[75 * k : 75 * k + 75]
        assert rows[0, 77 * k : 77 * k + 77].tolist() == (
            [49406, *part] + [49407] * (76 - len(part))
        )
    assert torch.equal(rows[1:], torch.cat([clip(texts[1:]), *[clip(["", ""])] * 2], dim=1))
    assert torch.equal(clip(texts[1:], long_prompt="chunk"), clip(texts[1:]))
    assert clip(LONG * 12 + "a b c", long_prompt="chunk").shape == (1, 77)  # 75 tokens
    assert clip(LONG * 12 + "a b c d", long_prompt="chunk").shape == (1, 154)


def test_windows_of_another_length(small):
    rows = small(["red", "a small red circle"])
    assert rows.shape == (2, 12) and rows[0, 0] == 568 and rows[0, -1] == 569
    with pytest.raises(ValueError, match="length must be a whole number, at least 3"):
        Tokenizer([], length=2)


def test_what_the_call_refuses(clip):
    with pytest.raises(ValueError, match="at least one prompt"):
        clip([])
    for call in (clip, clip.words):
        with pytest.raises(ValueError, match="unknown long_prompt 'wrap'; choose one of: cut, chu"):
            call("a cat", "wrap")
    with pytest.raises(ValueError, match="unknown cleaning 'basic'; choose one of: hf, openai"):
        Tokenizer.clip("basic")


# --- words ---


def test_words_and_their_positions(clip):
    assert clip.words("A Cat's perpendicularity, 12!") == [
        ("a", [1]),
        ("cat", [2]),
        ("'s", [3]),
        ("perpendicularity", [4, 5, 6, 7, 8]),
        (",", [9]),
        ("1", [10]),
        ("2", [11]),
        ("!", [12]),
    ]
    assert clip.words("") == []


@pytest.mark.parametrize("long_prompt", ["cut", "chunk"])
@pytest.mark.filterwarnings("ignore:the prompt has")
def test_positions_index_the_row(clip, long_prompt):
    text = "Perpendicularity of cats, 猫 and naïve dogs; " * 14
    row = clip(text, long_prompt)[0]
    words = clip.words(text, long_prompt)
    at = [i for _, positions in words for i in positions]
    ids = clip.encode(text)
    assert row[at].tolist() == (ids if long_prompt == "chunk" else ids[:75])
    for word, positions in words[:-1]:
        assert clip.decode(row[positions]) == word
    assert len(at) == len(set(at)) and len(words) == len(clip.clean(text)[: len(words)])


# --- tables: trained, saved, read ---


def test_training_learns_from_all_texts_and_numbers_as_clip(small):
    counts = Counter(word for text in CORPUS for word in small.clean(text))
    assert small.merges == learn_merges(counts, 570 - 514)
    assert small.symbols[512:568] == ["".join(pair) for pair in small.merges]
    assert len(small) == 570 and (small.start, small.end) == (568, 569)
    one = Tokenizer.train("\n".join(CORPUS), 570)
    assert one.merges == small.merges
    assert len(small.encode("large blue square")) == 3


def test_a_small_corpus_gives_fewer_ids():
    assert len(Tokenizer.train("cat <|endoftext|>", 1000)) == 514 + 2
    with pytest.raises(ValueError, match="size must be a whole number, at least 514"):
        Tokenizer.train("cat", 513)


def test_training_on_many_words_ends():
    """20,000 words, which the plain algorithm would count anew for each of 1,000 merges."""
    draw = random.Random(0)
    words = ["".join(draw.choices("etaoinshrdlu", k=draw.randint(2, 7))) for _ in range(20_000)]
    assert len(Tokenizer.train(" ".join(words), 1514)) == 1514


def test_what_is_saved_is_loaded(small, tmp_path):
    path = tmp_path / "merges.txt"
    small.save(path)
    lines = path.read_text(encoding="utf-8").split("\n")
    assert lines[0] == "#version: 0.2" and lines[1] == " ".join(small.merges[0])
    assert Tokenizer.load(path).merges == small.merges
    assert len(Tokenizer.load(path, size=550, length=20)) == 550
    (tmp_path / "merges.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert Tokenizer.load(tmp_path / "merges.gz").merges == small.merges
    (tmp_path / "dos.txt").write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert Tokenizer.load(tmp_path / "dos.txt").merges == small.merges


def test_transformers_reads_what_is_trained(small, transformers_tokenizer, tmp_path):
    small.save(tmp_path / "merges.txt")
    files = small.files()
    assert files["merges.txt"] == (tmp_path / "merges.txt").read_text(encoding="utf-8")
    other = transformers_tokenizer(files)
    assert other.get_vocab() == small.ids
    for text in [*CORPUS, "unseen words, 日本 42", LONG]:
        assert small.encode(text) == other(text, add_special_tokens=False).input_ids


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"#version: 0.2\na b\nc\n", "line 3 should hold two symbols .* it is 'c'"),
        (b"#version: 0.2\na b\nabc d\n", "line 3 .* that earlier lines have made"),
        (b'{\n  "version": "1.0"\n}', "line 2 should hold two symbols"),
        (b"\x89PNG\r\n\x1a\n", "cannot be read"),
    ],
)
def test_files_that_are_no_tables(tmp_path, content, match):
    path = tmp_path / "merges.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"merges.txt is no table of merges: .*{match}"):
        Tokenizer.load(path)


def test_other_files_that_cannot_be_read(tmp_path, small):
    path = tmp_path / "merges.txt"
    small.save(path)
    with pytest.raises(ValueError, match="holds 56 merges, and 700 ids need 186"):
        Tokenizer.load(path, size=700)
    whole = gzip.compress(path.read_bytes())
    torn = whole[:40] + bytes(40) + whole[80:]
    contents = {"plain.gz": path.read_bytes(), "short.gz": whole[:-40], "torn.gz": torn}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} is no table of merges: it cannot be read"):
            Tokenizer.load(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        Tokenizer.load(tmp_path / "none.txt")


# --- tokens of one's own ---


def test_added_tokens_are_one_id_each(clip):
    more = clip.with_tokens("<my-cat>", "<my-cat>s")
    assert len(more) == len(clip) + 2 and more.end == clip.end == 49407
    a, photo, of = clip.encode("a photo of")
    assert more.encode("a photo of <my-cat>") == [a, photo, of, 49408]
    assert more.encode("<my-cat>s,<my-cat>") == [
        49409,
        *clip.encode(","),
        49408,
    ]  # the longest first
    assert more.encode("<MY-CAT>") == clip.encode("<MY-CAT>")  # letter for letter
    assert more.decode(more.encode("a photo of <my-cat>")) == "a photo of <my-cat>"
    assert more.words("my <my-cat>") == [("my", [1]), ("<my-cat>", [2])]
    again = more.with_tokens("<style>")
    assert again.encode("<my-cat> <style>") == [49408, 49410]


def test_added_tokens_are_those_of_transformers(clip, hf):
    """Told apart by white space, where the two cut alike."""
    theirs, ours = copy.deepcopy(hf), clip.with_tokens("<cat-toy>", "sks1")
    theirs.add_tokens(["<cat-toy>", "sks1"])
    for text in ("a <cat-toy> on a shelf", "sks1 <cat-toy>", "<cat-toy>", "no such thing", ""):
        assert ours.encode(text) == theirs(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("token", ["", "two words", "<|endoftext|>", "cat</w>", "new"])
def test_tokens_that_cannot_be_added(clip, token):
    with pytest.raises(ValueError, match="cannot be added: a token of one's own is a new word"):
        clip.with_tokens("new", token)
