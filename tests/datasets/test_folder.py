"""Folders of captioned images: what is read, what is left out, and what is said about it."""

import json
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from sdlib.datasets.folder import Folder, crop, read_captions
from sdlib.images import to_tensor

ORIENTATION = 0x0112


@pytest.fixture(autouse=True)
def _no_warning_unasked():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def picture(width=16, height=16, seed=0):
    raw = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(raw)


def fill(folder, *names):
    """Pictures of these names, each with a seed of its own."""
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture(seed=seed).save(folder / name)
    return folder


def lines(folder, *rows):
    text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    (folder / "metadata.jsonl").write_text(text, encoding="utf8")


def row(name, text):
    return {"file_name": name, "text": text}


def names(folder, captions):
    return {file.relative_to(folder).as_posix(): text for file, text in captions.items()}


# --- the three ways to give captions ---


def test_a_table_in_lines_of_json(tmp_path):
    fill(tmp_path, "b.png", "a/c.png", "A.PNG")
    odd = 'a fox,\u2028 "naïve" — 猫'
    text = json.dumps(row("b.png", odd), ensure_ascii=False)
    lines(tmp_path, text, "", row("./a/c.png", ""), {**row("A.PNG", "an A"), "other": [1]})
    captions = read_captions(tmp_path)
    assert names(tmp_path, captions) == {"A.PNG": "an A", "a/c.png": "", "b.png": odd}
    assert list(captions) == sorted(captions)


def test_a_table_in_comma_separated_values(tmp_path):
    fill(tmp_path, "b.png", "a/c.png")
    text = 'width,text,file_name\r\n3,"a fox, ""red""\nand old",a/c.png\r\n4,,b.png\r\n'
    (tmp_path / "metadata.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    want = {"a/c.png": 'a fox, "red"\nand old', "b.png": ""}
    assert names(tmp_path, read_captions(str(tmp_path))) == want


def test_a_text_beside_each_image(tmp_path):
    fill(tmp_path, "a.jpg", "deep/er/b.v2.PNG", "deep/a.png", "猫 é.webp", "two.png", "two.jpg")
    texts = {
        "a.txt": " a fox,\r\n red \n",
        "deep/er/b.v2.TXT": "",
        "deep/a.txt": "deep",
        "猫 é.txt": "\ufeff猫 🐈",
        "two.txt": "both",
    }
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text.encode())
    assert names(tmp_path, read_captions(tmp_path)) == {
        "a.jpg": "a fox, red",
        "deep/a.png": "deep",
        "deep/er/b.v2.PNG": "",
        "two.jpg": "both",
        "two.png": "both",
        "猫 é.webp": "猫 🐈",
    }


def test_a_table_counts_alone(tmp_path):
    fill(tmp_path, "a.png")
    (tmp_path / "a.txt").write_text("beside")
    lines(tmp_path, row("a.png", "in the table"))
    assert list(read_captions(tmp_path).values()) == ["in the table"]
    (tmp_path / "metadata.csv").write_text("file_name,text\na.png,in the other\n")
    with pytest.raises(ValueError, match="both metadata.jsonl and metadata.csv; keep one of them"):
        read_captions(tmp_path)


def test_hidden_files_are_passed_over(tmp_path):
    fill(tmp_path, "a.png", "._a.png", ".ipynb_checkpoints/b.png")
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "._a.txt").write_bytes(b"\xff")
    assert names(tmp_path, read_captions(tmp_path)) == {"a.png": "a"}


# --- what is left out, once, by name ---


def test_images_without_a_caption_are_left_out(tmp_path):
    fill(tmp_path, *(f"{k}.png" for k in range(6)))
    (tmp_path / "3.txt").write_text("three")
    message = (
        r"left out of '.*': images without a caption \(5\): "
        r"'0.png', '1.png', '2.png', and 2 more\.$"
    )
    with pytest.warns(UserWarning, match=message) as found:
        folder = Folder(tmp_path)
    assert len(found) == 1 and folder.captions == ("three",)
    lines(tmp_path, row("4.png", "four"))
    with pytest.warns(UserWarning, match=r"images without a caption \(5\): '0.png'") as found:
        assert Folder(tmp_path).captions == ("four",)
    assert len(found) == 1


def test_captions_without_an_image_are_left_out(tmp_path):
    fill(tmp_path, "a.png")
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "README.txt").write_bytes(b"never read: \xff")
    with pytest.warns(UserWarning, match=r"captions without an image \(1\): 'README.txt'\.$"):
        assert len(read_captions(tmp_path)) == 1
    lines(tmp_path, row("a.png", "a"), row("gone/b.png", "b"), row("a\0.png", "c"))
    with pytest.warns(
        UserWarning, match=r"captions without an image \(2\): 'gone/b.png', 'a\\x00.png"
    ):
        assert len(read_captions(tmp_path)) == 1


def test_damaged_images_are_named_and_left_out(tmp_path):
    fill(tmp_path, "a.png", "cut.JPG", "e.png")
    cut = tmp_path / "cut.JPG"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    (tmp_path / "no.png").write_text("<!doctype html>")
    (tmp_path / "empty.gif").write_bytes(b"")
    for name in ("a", "cut", "e", "no", "empty"):
        (tmp_path / f"{name}.txt").write_text(name)
    message = (
        r"images that cannot be read \(3\): 'cut.JPG', 'empty.gif', 'no.png'\. "
        r"First: '.*cut.JPG' cannot be read as a picture: "
    )
    with pytest.warns(UserWarning, match=message) as found:
        folder = Folder(tmp_path)
    assert len(found) == 1 and folder.captions == ("a", "e")
    assert [file.name for file in folder.files] == ["a.png", "e.png"] and len(list(folder)) == 2
    for name in ("a.png", "e.png"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"no captioned image in .* can be read \(5 were tried\). The f"
    ):
        Folder(tmp_path)


# --- one clear sentence each ---


def test_folders_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder '.*gone'"):
        Folder(tmp_path / "gone")
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(NotADirectoryError, match="a.png' is a file; give the folder that it is in"):
        Folder(tmp_path / "a.png")


def test_folders_with_nothing_to_train_on(tmp_path):
    (tmp_path / "notes.txt").write_text("a")
    with pytest.raises(ValueError, match="there is no image in '.*': no file in it ends in .png,"):
        Folder(tmp_path)
    fill(tmp_path, "a.png", "b.png")
    three = (
        r"no image in .* has a caption \(2 are there\); give "
        r'metadata.jsonl with a line {"file_name".*metadata.csv.*a .txt file beside each image'
    )
    with pytest.raises(ValueError, match=three):
        Folder(tmp_path)
    lines(tmp_path)
    with pytest.raises(ValueError, match="metadata.jsonl in '.*' names no image; give each a line"):
        Folder(tmp_path)
    lines(tmp_path, row("x/a.png", "a"), row("x/b.png", "b"))
    message = r"no image that metadata.jsonl names is there \('x/a.png', 'x/b.png'\); its names"
    with pytest.raises(ValueError, match=message):
        Folder(tmp_path)


@pytest.mark.parametrize(
    "line, message",
    [
        ({"image": "a.png", "caption": "a"}, "must have file_name and text; it has image, caption"),
        ({}, "must have file_name and text; it has neither"),
        ([1, 2], r"must have file_name and text; it has \[1, 2\]"),
        ("{", "line 2 of '.*metadata.jsonl' is no JSON: "),
        ("[" * 100_000, "line 2 of '.*metadata.jsonl' is no JSON: "),
        (row("a.png", None), "file_name and text must be text in line 2 .*got 'a.png' and None"),
        (row(7, "a"), "file_name and text must be text in line 2 of .*got 7 and 'a'"),
        (row("b.png", "again"), "line 2 of '.*' names 'b.png' a second time; keep one line for"),
        (row("./b.png", "again"), r"line 2 of '.*' names './b.png' a second time"),
        (row("../a.png", "a"), r"line 2 of .* names '../a.png'; names must be relative to the fol"),
        (row("a/../../a.png", "a"), "names must be relative to the folder and stay within it"),
        (row("/etc/a.png", "a"), "names must be relative to the folder and stay within it"),
    ],
)
def test_lines_that_say_something_else(tmp_path, line, message):
    fill(tmp_path, "a.png", "b.png")
    lines(tmp_path, row("b.png", "b"), line)
    with pytest.raises(ValueError, match=message):
        read_captions(tmp_path)


@pytest.mark.parametrize(
    "table, message",
    [
        ("file;text\na.png;a\n", "line 2 of .* must have file_name and text; it has file;text"),
        ("file_name,text\na.png\n", "file_name and text must be text in line 2 of .*and None"),
        ("file_name,text\na.png,a\na.png,b\n", "line 3 of .* names 'a.png' a second time"),
        ("file_name,text\na.png," + "a" * 200_000, "is no table of comma-separated values: field"),
    ],
)
def test_rows_that_say_something_else(tmp_path, table, message):
    fill(tmp_path, "a.png")
    (tmp_path / "metadata.csv").write_text(table)
    with pytest.raises(ValueError, match=message):
        read_captions(tmp_path)


@pytest.mark.parametrize("name", ["a.txt", "metadata.csv", "metadata.jsonl"])
def test_text_in_another_encoding(tmp_path, name):
    fill(tmp_path, "a.png")
    (tmp_path / name).write_bytes("na\u00efve".encode("latin-1"))
    with pytest.raises(ValueError, match=rf"{name}' is not UTF-8 \(at byte 2\); save it in that"):
        read_captions(tmp_path)


# --- pixels ---


def captioned(tmp_path, image, name="a.png", **options):
    image.save(tmp_path / name, **options)
    (tmp_path / "a.txt").write_text("a")
    return tmp_path


def test_a_sample_is_pixels_and_a_caption(tmp_path):
    folder = Folder(captioned(tmp_path, picture(16, 16)), size=16)
    pixels, caption = folder[0]
    assert caption == "a" and pixels.dtype == torch.float32
    assert torch.equal(pixels, to_tensor(picture(16, 16))[0])
    assert len(folder) == 1 and folder[-1][0].shape == (3, 16, 16)
    with pytest.raises(IndexError):
        folder[1]
    with pytest.raises(ValueError, match="size must be a whole number, at least 1; got 0"):
        Folder(tmp_path, size=0)


@pytest.mark.parametrize(
    "width, height", [(16, 16), (31, 16), (16, 41), (64, 32), (96, 32), (4, 12)]
)
def test_the_short_side_fits_and_the_middle_stays(tmp_path, width, height):
    image, side = picture(width, height), min(width, height)
    whole = image.resize((16 * width // side, 16 * height // side), Image.Resampling.LANCZOS)
    left, top = (whole.width - 16) // 2, (whole.height - 16) // 2
    want = to_tensor(whole.crop((left, top, left + 16, top + 16)))[0]
    assert torch.equal(Folder(captioned(tmp_path, image), 16)[0][0], want)


def test_a_long_strip_stays_small():
    """Resizing before cropping would make 64 x 6,400,000 pixels of it."""
    assert crop(Image.new("RGB", (100_000, 1)), 64).size == (64, 64)


def test_random_squares_come_from_the_generator(tmp_path):
    captioned(tmp_path, picture(19, 16))
    whole = to_tensor(picture(19, 16))[0]
    places = [whole[:, :, k : k + 16] for k in range(4)]

    def draws(seed):
        folder = Folder(tmp_path, 16, torch.Generator().manual_seed(seed))
        return [folder[0][0] for _ in range(40)]

    found = [[torch.equal(x, place) for place in places] for x in draws(0)]
    assert all(sum(row) == 1 for row in found) and all(map(any, zip(*found, strict=True)))
    assert torch.equal(torch.stack(draws(1)), torch.stack(draws(1)))
    assert not torch.equal(torch.stack(draws(1)), torch.stack(draws(2)))


def test_photos_are_upright(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    folder = Folder(captioned(tmp_path, picture(16, 16), exif=exif), 16)
    assert torch.equal(folder[0][0], to_tensor(picture(16, 16))[0].rot90(-1, (1, 2)))


def test_transparent_parts_are_white(tmp_path):
    clear = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    assert (Folder(captioned(tmp_path, clear), 16)[0][0] == 1).all()


@pytest.mark.parametrize(
    "mode, color, name, want",
    [
        ("CMYK", (255, 0, 0, 0), "a.JPEG", (-1, 1, 1)),
        ("P", 0, "a.gif", (-1, -1, -1)),
        ("I;16", 65535, "a.TIF", (1, 1, 1)),
        ("L", 0, "a.bmp", (-1, -1, -1)),
    ],
)
def test_other_kinds_of_pictures(tmp_path, mode, color, name, want):
    folder = Folder(captioned(tmp_path, Image.new(mode, (16, 16), color), name), 16)
    assert folder[0][0].amin((1, 2)).tolist() == folder[0][0].amax((1, 2)).tolist() == list(want)


# --- fingerprint ---


def test_the_fingerprint_is_of_what_decides_the_pixels(tmp_path):
    fill(tmp_path, "a.png", "b.png")
    lines(tmp_path, row("a.png", "a"), row("b.png", "b"))
    first = Folder(tmp_path, 16).fingerprint()
    assert Folder(tmp_path, 32).fingerprint() != first
    lines(tmp_path, row("b.png", "another"), row("a.png", "order"))
    assert Folder(tmp_path, 16).fingerprint() == first
    (tmp_path / "b.png").rename(tmp_path / "0.png")
    lines(tmp_path, row("0.png", "b"), row("a.png", "a"))
    assert Folder(tmp_path, 16).fingerprint() != first  # the rows are in another order
    with pytest.raises(ValueError, match="random crops .* no fingerprint; make the Folder without"):
        Folder(tmp_path, 16, torch.Generator()).fingerprint()
