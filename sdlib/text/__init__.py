"""Language: text to ids and back (Chapter 16)."""

from sdlib.text.tokenizer import Tokenizer

__all__ = ["Tokenizer"]
