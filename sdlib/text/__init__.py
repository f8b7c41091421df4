"""Language: text to ids and back (Chapter 16)."""

from sdlib.text.saved import read_files
from sdlib.text.tokenizer import Tokenizer

__all__ = ["Tokenizer", "read_files"]
