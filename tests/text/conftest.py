"""The two references, made of OpenAI's package alone: nothing is downloaded, none of ours is used.

`clip` cannot be imported whole (it wants torchvision), so its one file about text is.
"""

import importlib.util
import json
import warnings
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def openai():
    """OpenAI's SimpleTokenizer: encode(text), decode(ids), encoder, bpe_ranks."""
    package = Path(importlib.util.find_spec("clip").origin).parent
    spec = importlib.util.spec_from_file_location("clip_text", package / "simple_tokenizer.py")
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves its table open
        spec.loader.exec_module(module)
        return module.SimpleTokenizer()


@pytest.fixture(scope="session")
def transformers_tokenizer(tmp_path_factory):
    """Makes a transformers.CLIPTokenizer of the texts of its two files."""

    def make(files: dict[str, str]):
        from transformers import CLIPTokenizer

        folder = tmp_path_factory.mktemp("vocabulary")
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        return CLIPTokenizer.from_pretrained(folder)

    return make


@pytest.fixture(scope="session")
def hf(openai, transformers_tokenizer):
    """transformers.CLIPTokenizer with CLIP's table."""
    table = "\n".join(["#version: 0.2", *map(" ".join, openai.bpe_ranks)])
    return transformers_tokenizer({"vocab.json": json.dumps(openai.encoder), "merges.txt": table})
