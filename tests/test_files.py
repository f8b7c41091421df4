"""Shipped files are found in a checkout; a missing one gets a sentence."""

import pytest

from sdlib.files import data_path


def test_shipped_files_are_found():
    assert data_path("swiss_roll.safetensors").stat().st_size > 1000


def test_missing_files_are_named():
    with pytest.raises(FileNotFoundError, match="data/nothing.bin"):
        data_path("nothing.bin")
