"""Shipped files are found in a checkout, a missing one gets a sentence; `~` is a folder."""

from pathlib import Path

import pytest

from sdlib.files import data_path, expand


def test_shipped_files_are_found():
    assert data_path("swiss_roll.safetensors").stat().st_size > 1000


def test_missing_files_are_named():
    with pytest.raises(FileNotFoundError, match="data/nothing.bin"):
        data_path("nothing.bin")


def test_a_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert expand("~/a.png") == tmp_path / "a.png" and expand("a~.png") == Path("a~.png")
    assert expand("~nobody-of-that-name/a.png") == Path("~nobody-of-that-name/a.png")
