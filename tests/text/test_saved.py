"""Tokenizers out of transformers' files: the same ids as there, or a sentence."""

import json

import pytest
import torch

from sdlib.text import Tokenizer, read_files

TEXTS = ["a cat", "", "Wow! a!b ! !!it's <|endoftext|>!", "猫 and 12 naïve dogs!?", "dog, " * 60]
CLIP = Tokenizer.clip()
TWO = Tokenizer(CLIP.merges, pad="!")  # of Stable Diffusion 2


def texts_in(folder):
    return {file.name: file.read_text(encoding="utf8") for file in folder.iterdir()}


def hubs():
    """As the hub has Stable Diffusion 2: two files say different things, and the first counts."""
    files = CLIP.files()
    return {**files, "special_tokens_map.json": json.dumps({"pad_token": "!"})}


def added():
    """The padding spelled out as the one kind of token that transformers has for it."""
    config = json.loads(CLIP.files()["tokenizer_config.json"])
    config["pad_token"] = {"__type": "AddedToken", "content": "!", "lstrip": False,
                           "normalized": True, "rstrip": False, "single_word": False}  # fmt: skip
    return {**CLIP.files(), "tokenizer_config.json": json.dumps(config)}


@pytest.mark.parametrize("files", [CLIP.files(), TWO.files(), hubs(), added()], ids=range(4))
def test_ids_are_those_of_transformers(files, transformers_tokenizer, tmp_path):
    theirs = transformers_tokenizer(files)
    theirs.save_pretrained(tmp_path)
    want = theirs(TEXTS, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
    for given in (files, texts_in(tmp_path)):  # in two files, and in tokenizer.json
        ours = read_files(given)
        with pytest.warns(UserWarning, match="the prompt has"):
            assert ours(TEXTS).tolist() == want.input_ids.tolist()
        assert ours.pad == theirs.pad_token_id
    assert "tokenizer.json" in texts_in(tmp_path)


def test_what_is_saved_is_read():
    small = Tokenizer.train("a small red circle!", 540, length=12)
    ours = read_files(small.files(), length=12)
    assert ours.ids == small.ids and ours("red").tolist() == small("red").tolist()
    assert json.loads(small.files()["tokenizer_config.json"])["model_max_length"] == 12
    assert read_files(TWO.files()).files() == TWO.files()


def test_without_a_table_it_is_clips():
    assert read_files({}).files() == CLIP.files()
    files = {"tokenizer_config.json": TWO.files()["tokenizer_config.json"]}
    assert read_files(files).files() == TWO.files()


def test_words_and_text_with_a_padding_that_can_be_typed():
    text = "A cat! it's!!"
    assert TWO.words(text)[1:4] == [("cat", [2]), ("!", [3]), ("it", [4])]
    assert TWO.encode(text) == [320, 2368, 0, 585, 568, 0, 0]
    assert TWO.decode(TWO.encode(text)) == "a cat ! it 's ! !"
    assert TWO("a cat")[0].tolist() == [49406, 320, 2368, 49407] + 73 * [0]
    with pytest.raises(ValueError, match=r"pad must be .* got '\[PAD\]'"):
        Tokenizer([], pad="[PAD]")


SMALL = Tokenizer.train("a small red circle", 530)
FILES = SMALL.files()
VOCAB = json.loads(FILES["vocab.json"])
WHOLE = {"model": {"vocab": VOCAB, "merges": FILES["merges.txt"].split("\n")[1:-1]}}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vocab.json": json.dumps({**VOCAB, "a": 7})}, "not numbered as CLIP's"),
        ({"merges.txt": "#version: 0.2\na b c\n"}, "the tokenizer is no table of merges: line 2"),
        ({"added_tokens.json": '{"<cat>": 530}'}, "tokens of its own .*: <cat>"),
        (
            {"tokenizer_config.json": '{"added_tokens_decoder": {"530": {"content": "<dog>"}}}'},
            "tokens of its own .*: <dog>",
        ),
        ({"tokenizer_config.json": "<html>"}, "tokenizer_config.json is no JSON"),
        ({"vocab.json": "[1]"}, "vocab.json holds no settings"),
        ({"tokenizer_config.json": '{"added_tokens_decoder": [3]}'}, "files are damaged"),
    ],
)
def test_what_ours_cannot_be_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        read_files({**FILES, **changes})


@pytest.mark.parametrize(
    ("whole", "words"),
    [
        ({"model": {"merges": [[1, 2]], "vocab": {}}}, "files are damaged"),
        ({"model": {}}, "files are damaged"),
        ({**WHOLE, "added_tokens": [{"content": "<cat>", "id": 9}]}, "tokens of its own .*: <cat>"),
        ({"model": {**WHOLE["model"], "vocab": {"a": 7}}}, "not numbered as CLIP's"),
    ],
)
def test_what_ours_cannot_be_is_refused_in_one_file(whole, words):
    assert read_files({"tokenizer.json": json.dumps(WHOLE)}).ids == SMALL.ids
    with pytest.raises(ValueError, match=words):
        read_files({"tokenizer.json": json.dumps(whole)})


def test_tokens_of_ones_own_come_back(transformers_tokenizer):
    more = SMALL.with_tokens("<my-cat>", "<style>")
    files = more.files()
    back = read_files(files, length=more.length)
    assert back.added == ("<my-cat>", "<style>") and back.ids == more.ids
    text = "a <my-cat> in <style>"
    theirs = transformers_tokenizer(files)
    assert back.encode(text) == more.encode(text)
    assert theirs(text, add_special_tokens=False)["input_ids"] == more.encode(text)
    files["added_tokens.json"] = json.dumps({"<my-cat>": len(SMALL) + 5})
    with pytest.raises(ValueError, match="do not follow the end token's: <my-cat>"):
        read_files(files)


def test_a_token_of_ones_own_may_be_the_padding():
    own = Tokenizer(SMALL.merges, length=SMALL.length, pad="<pad>", added=("<pad>",))
    back = read_files(own.files(), length=own.length)
    assert back.ids == own.ids and back.pad == own.pad == len(SMALL)
    assert torch.equal(back("a"), own("a"))
