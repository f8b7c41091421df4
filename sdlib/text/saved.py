"""Tokenizers out of the files that transformers keeps them in (Chapter 16).

Some folders have the table as merges.txt and vocab.json, others in one tokenizer.json; with what a
window is filled stands in one of two further files, if at all.
"""

import json
from collections.abc import Mapping
from typing import Any

from sdlib.text.cleaning import END
from sdlib.text.tokenizer import Tokenizer, parse_merges

PLACES = ("special_tokens_map.json", "tokenizer_config.json")  # of the padding; the first that says


def read_files(files: Mapping[str, str], cleaning: str = "hf", length: int = 77) -> Tokenizer:
    """The tokenizer that transformers makes of some files.

    Args:
        files: their texts by name, as `Tokenizer.files` gives them. Without a table, the merges
            are CLIP's; without anything, all is.
        cleaning, length: as for `Tokenizer`.

    Raises:
        ValueError: for a damaged table, or one that is not numbered as CLIP's with its added tokens
            behind.
    """
    told = (_json(files, name).get("pad_token") for name in PLACES)
    pads = [pad.get("content") if isinstance(pad, dict) else pad for pad in told]
    pad = next((pad for pad in pads if isinstance(pad, str)), END)
    whole, config = _json(files, "tokenizer.json"), _json(files, "tokenizer_config.json")
    try:
        if "merges.txt" in files:
            lines = files["merges.txt"].rstrip("\n").split("\n")[1:]
            ids = _json(files, "vocab.json")
        elif whole:
            pairs, ids = whole["model"]["merges"], whole["model"]["vocab"]
            lines = [pair if isinstance(pair, str) else " ".join(pair) for pair in pairs]
        else:
            lines, ids = map(" ".join, Tokenizer.clip().merges), {}
        added = {token["content"]: int(token["id"]) for token in whole.get("added_tokens", [])}
        for i, token in config.get("added_tokens_decoder", {}).items():
            added[token["content"]] = int(i)
        added |= {token: int(i) for token, i in _json(files, "added_tokens.json").items()}
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"the tokenizer's files are damaged ({error!r}).") from error
    tokenizer = Tokenizer(parse_merges(lines, "the tokenizer"), cleaning, length)
    added = {token: i for token, i in added.items() if token not in tokenizer.ids}
    more = sorted(added, key=added.get)
    if [added[token] for token in more] != list(range(len(tokenizer), len(tokenizer) + len(more))):
        raise ValueError(
            f"the tokenizer has tokens of its own whose ids do not follow the end token's: "
            f"{', '.join(more)[:80]}."
        )
    ids = {symbol: i for symbol, i in ids.items() if symbol not in added}
    if ids and ids != tokenizer.ids:
        raise ValueError(
            "the tokenizer's ids are not numbered as CLIP's are (letters, merges, start, end): "
            "sdlib cannot read prompts for this model."
        )
    return Tokenizer(tokenizer.merges, cleaning, length, pad, more)


def _json(files: Mapping[str, str], name: str) -> dict[str, Any]:
    """What one of the files says; nothing if it is not there."""
    try:
        found = json.loads(files.get(name, "{}"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the tokenizer's {name} is no JSON: {error}.") from error
    if not isinstance(found, dict):
        raise ValueError(f"the tokenizer's {name} holds no settings by name.")
    return found
