"""Pictures in and out, against diffusers' image processor and files made to be difficult."""

import json
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image, PngImagePlugin

from sdlib.images import (
    LATENT_TO_RGB,
    check_suffix,
    fingerprint,
    fit,
    open_image,
    open_mask,
    parameters,
    preview,
    save,
    to_images,
    to_tensor,
)

ORIENTATION = 0x0112
MADE_BY = {"prompt": "a cat, naïve — 猫 🐈", "seed": 2**53 + 1, "guidance_scale": 7.5}


def noise(width, height, channels=3, seed=0):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def picture(width=24, height=16, mode="RGB", seed=0):
    channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4}[mode]
    raw = noise(width, height, channels, seed)
    return Image.frombytes(mode, (width, height), raw.tobytes())


def pixels(image):
    return np.asarray(image)


# --- against diffusers ---


@pytest.mark.parametrize("size", [(24, 16), (37, 50), (100, 71)])
@pytest.mark.parametrize("asked", [(None, None), (32, 64), (None, 40)])
def test_fit_and_to_tensor_are_what_diffusers_does(size, asked):
    image, (width, height) = picture(*size), asked
    want = VaeImageProcessor().preprocess(image, height=height, width=width)
    assert torch.equal(to_tensor(fit(image, width, height)), want)


def test_to_images_is_what_diffusers_does():
    x = 2.5 * torch.rand(3, 3, 16, 24) - 1.25
    x[0, 0, 0] = torch.linspace(-1, 1, 24)  # some of it halfway between two levels
    x[0, 0, 1] = (torch.arange(24) + 0.5) / 127.5 - 1
    want = VaeImageProcessor().postprocess(x)
    assert [pixels(i).tolist() for i in to_images(x)] == [pixels(i).tolist() for i in want]


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("size", [(24, 16), (37, 50)])
def test_masks_are_what_diffusers_makes(mode, size):
    image = picture(*size, mode)
    processor = VaeImageProcessor(
        do_normalize=False, do_binarize=True, do_convert_grayscale=True, do_resize=True
    )
    got = open_mask(image, 24, 16)
    assert torch.equal(got, processor.preprocess(image, height=16, width=24))
    assert got.shape == (1, 1, 16, 24) and set(got.unique().tolist()) == {0, 1}


# --- tensors ---


def test_there_and_back_loses_nothing():
    images = [picture(seed=1), picture(seed=2)]
    x = to_tensor(images)
    assert x.shape == (2, 3, 16, 24) and x.dtype == torch.float32 and x.is_contiguous()
    assert [i.tobytes() for i in to_images(x)] == [i.tobytes() for i in images]
    rough = x.bfloat16()  # levels are rounded once, after going to float32
    same = zip(to_images(rough), to_images(rough.float()), strict=True)
    assert all(a.tobytes() == b.tobytes() for a, b in same)
    ends = to_tensor([Image.new("RGB", (8, 8), c) for c in ("black", "white")])
    assert ends[0].unique().tolist() == [-1] and ends[1].unique().tolist() == [1]


def test_no_picture_is_made_of_nan():
    x = torch.zeros(1, 3, 8, 8)
    x[0, 1, 2, 3:5] = torch.tensor([torch.nan, torch.inf])
    with pytest.raises(ValueError, match="2 of 192 values of the image are NaN or infinite: a ne"):
        to_images(x)
    with pytest.raises(ValueError, match="NaN"):
        preview(torch.full((1, 4, 8, 8), torch.nan))


def test_shapes_and_modes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"\[b, 3, h, w\]; got \[3, 8, 8\]"):
        to_images(torch.zeros(3, 8, 8))
    with pytest.raises(ValueError, match=r"\[b, c, h, w\]; got \[4, 8, 8\]"):
        preview(torch.zeros(4, 8, 8))
    with pytest.raises(ValueError, match="of one size.*got RGB 8 x 8, RGB 24 x 16"):
        to_tensor([picture(), picture(8, 8)])
    with pytest.raises(ValueError, match="RGB.*got L 24 x 16"):
        to_tensor(picture(mode="L"))
    with pytest.raises(ValueError, match="got none"):
        to_tensor([])


def test_sizes_that_do_not_fit():
    with pytest.raises(ValueError, match="width must be a multiple of 8; got 100, and 96 would do"):
        fit(picture(), 100, 64)
    for height in (0, -8, 2.5, True):
        with pytest.raises(ValueError, match="height must be a whole number, at least 8"):
            fit(picture(), 64, height)
    with pytest.raises(ValueError, match="the image's height must be at least 8 pixels; it has 5"):
        fit(picture(20, 5))
    assert fit(picture(20, 5), 16, 8).size == (16, 8)


# --- whatever people have ---


def test_a_photo_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # the camera was held upright
    picture(24, 16).save(tmp_path / "a.png", exif=exif)
    got = open_image(tmp_path / "a.png")
    assert got.size == (16, 24)
    assert (pixels(got) == np.rot90(pixels(picture(24, 16)), -1)).all()
    assert open_mask(tmp_path / "a.png", 16, 24).shape == (1, 1, 24, 16)
    assert open_image(Image.open(tmp_path / "a.png")).size == (16, 24)


def test_transparent_parts_become_white():
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    clear.putpixel((3, 4), (10, 20, 30, 255))
    clear.putpixel((5, 6), (0, 0, 0, 128))
    got = open_image(clear)
    assert got.mode == "RGB" and got.getpixel((0, 0)) == (255, 255, 255)
    assert got.getpixel((3, 4)) == (10, 20, 30) and got.getpixel((5, 6)) == (127, 127, 127)
    gray = Image.merge("LA", [Image.new("L", (8, 8), 0), Image.new("L", (8, 8), 0)])
    assert open_image(gray).getpixel((0, 0)) == (255, 255, 255)


def test_a_palette_with_a_transparent_color(tmp_path):
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 9, 8, 7])
    image.putpixel((2, 2), 0)
    image.save(tmp_path / "a.gif", transparency=0)
    got = open_image(tmp_path / "a.gif")
    assert got.getpixel((2, 2)) == (255, 255, 255) and got.getpixel((0, 0)) == (9, 8, 7)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_not_cut_off(tmp_path, suffix):
    ramp = np.linspace(0, 65535, 128).reshape(8, 16).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / f"a.{suffix}")
    got = pixels(open_image(tmp_path / f"a.{suffix}"))
    assert (got == np.rint(ramp / 257)[..., None]).all()
    assert open_mask(tmp_path / f"a.{suffix}", 16, 8).mean() == 0.5
    dark = Image.fromarray(np.full((8, 8), 200, np.uint16))
    assert pixels(open_image(dark)).max() == 1  # of 65535, not of 255


@pytest.mark.parametrize("white", [1.0, 255.0, 65535.0])
def test_grays_without_a_scale(white):
    ramp = np.linspace(0, 1, 64).reshape(8, 8)
    want = np.rint(ramp * 255)[..., None]
    assert (pixels(open_image(Image.fromarray((ramp * white).astype(np.float32)))) == want).all()
    if white > 1:
        whole = Image.fromarray(np.rint(ramp * white).astype(np.int32))
        assert abs(pixels(open_image(whole)) - want).max() <= 1
    for bad in (-1.0, 70000.0, np.nan):
        odd = Image.fromarray(np.where(ramp == 0, bad, ramp).astype(np.float32))
        with pytest.raises(ValueError, match="a picture in grays must go from 0 to 1, 255 or"):
            open_image(odd)


def test_other_color_models(tmp_path):
    cyan = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    cyan.save(tmp_path / "a.jpg")
    assert open_image(tmp_path / "a.jpg").getpixel((4, 4)) == (0, 255, 255)
    assert open_image(cyan).getpixel((0, 0)) == (0, 255, 255)
    for mode in ("1", "L", "P", "YCbCr", "HSV", "LAB", "RGBX", "RGBa"):
        assert open_image(Image.new(mode, (8, 9))).size == (8, 9)
    dots = Image.fromarray(noise(8, 8, 1) > 127)
    assert (pixels(open_image(dots))[..., 0] == 255 * pixels(dots)).all()


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_of_a_film_the_first_frame(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), c) for c in ((255, 0, 0), (0, 0, 255))]
    path = tmp_path / f"a.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
    assert open_image(path).getpixel((0, 0)) == (255, 0, 0)


def test_what_is_given_stays_as_it_is(tmp_path):
    image = picture(mode="RGBA")
    before = image.tobytes()
    open_image(image), open_mask(image, 24, 16)
    assert image.mode == "RGBA" and image.tobytes() == before
    picture().save(tmp_path / "a.png")
    lazy = Image.open(tmp_path / "a.png")
    assert pixels(open_image(lazy)).tolist() == pixels(picture()).tolist()


# --- masks ---


def test_transparent_counts_as_black_in_a_mask():
    layer = Image.new("RGBA", (16, 8), (255, 255, 255, 0))
    layer.paste((255, 255, 255, 255), (0, 0, 8, 8))  # white strokes on an empty layer
    assert torch.equal(open_mask(layer, 16, 8)[0, 0, 0], torch.tensor([1.0] * 8 + [0.0] * 8))


def test_masks_that_keep_nothing_or_all():
    with pytest.raises(ValueError, match="nothing white, so nothing to repaint; paint that white"):
        open_mask(Image.new("L", (8, 8), 127), 8, 8)
    with pytest.warns(UserWarning, match="all white: nothing of the image will be kept"):
        assert open_mask(Image.new("1", (8, 8), 1), 16, 8).mean() == 1


def test_a_mask_of_another_size_is_stretched():
    half = Image.new("L", (40, 40))
    half.paste(255, (0, 0, 20, 40))
    got = open_mask(half, 16, 8)
    assert torch.equal(got[0, 0], torch.tensor([1.0] * 8 + [0.0] * 8).expand(8, 16))


# --- files that are not what they seem ---


def png(width, height, *chunks, data=b""):
    """A PNG by hand: a header that claims a size, any chunks, and pixels as given."""

    def chunk(name, body):
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    parts = [header, *(chunk(*c) for c in chunks), chunk(b"IDAT", zlib.compress(data))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


ROWS = b"\0" * (8 * 25)  # 8 x 8 black pixels, a filter byte a row


@pytest.mark.parametrize("width", [10_000, 20_000])  # where Pillow warns; where it refuses
def test_bombs_are_refused_without_decoding(tmp_path, width):
    (tmp_path / "a.png").write_bytes(png(width, 10_000))
    message = r"a.png' is too large to open safely: its size \(\d+ pixels\) exceeds limit of \d+ pi"
    for call in (open_image, parameters, fingerprint, lambda p: open_mask(p, 8, 8)):
        with pytest.raises(ValueError, match=message):
            call(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "gif"])
def test_files_cut_short(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    picture(64, 64).save(path)
    assert open_image(path).size == (64, 64)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=rf"a.{suffix}' (cannot be read as a pict|is no picture)"):
        open_image(path)


def test_other_damage(tmp_path):
    whole = png(8, 8, data=ROWS)
    assert open_image_bytes(tmp_path, "a.png", whole).size == (8, 8)
    for data in (whole.replace(b"IDAT", b"IDAt"), whole[:40], whole.replace(b"IHDR", b"IHDr")):
        with pytest.raises(ValueError, match="a.png' (cannot be read as a picture|is no picture)"):
            open_image_bytes(tmp_path, "a.png", data)
    picture().save(tmp_path / "cut.png")
    with open(tmp_path / "cut.png", "r+b") as file:
        file.truncate(400)
    with pytest.raises(ValueError, match="the image cannot be read as a picture: "):
        open_image(Image.open(tmp_path / "cut.png"))


def open_image_bytes(folder, name, data):
    (folder / name).write_bytes(data)
    return open_image(folder / name)


@pytest.mark.parametrize(
    "data", [b"", b"<!doctype html>", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"]
)
def test_files_that_are_no_picture(tmp_path, data):
    """Among them a program: Pillow hands PostScript to an interpreter, and we never."""
    with pytest.raises(ValueError, match="a.png' is no picture, or a damaged one; PNG, JPEG, WEBP"):
        open_image_bytes(tmp_path, "a.png", data)


def test_things_that_are_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file 'nowhere.png'"):
        open_image("nowhere.png")
    with pytest.raises(ValueError, match="is a folder; give a picture"):
        open_image(tmp_path)
    with pytest.raises(ValueError, match="a path or a PIL image .*; got Tensor"):
        open_image(torch.zeros(3, 8, 8))
    with pytest.raises(ValueError, match="the image has no pixels: it is 0 x 8"):
        open_image(Image.new("RGB", (0, 8)))


# --- what a file says ---


def made(mode="RGB"):
    image = picture(mode=mode)
    image.info["sdlib"] = json.dumps(MADE_BY, ensure_ascii=False)
    return image


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".jpg", ".jpeg", ".webp"])
def test_parameters_come_back(tmp_path, suffix):
    path = save(made(), tmp_path / f"a{suffix}")
    assert parameters(path) == MADE_BY and parameters(made()) == MADE_BY
    assert [p.name for p in tmp_path.iterdir()] == [f"a{suffix}"]
    same = (pixels(open_image(path)) == pixels(made())).all()
    assert same == ("jp" not in suffix)
    again = save(Image.open(path), tmp_path / "again.webp") if suffix == ".png" else path
    assert parameters(again) == MADE_BY  # a file that was opened carries them on


def test_a_png_says_it_in_a_text_chunk(tmp_path):
    save(made(), tmp_path / "a.png")
    assert json.loads(Image.open(tmp_path / "a.png").text["sdlib"]) == MADE_BY
    assert b"iTXtsdlib\0" in (tmp_path / "a.png").read_bytes()


def test_a_picture_without_parameters(tmp_path):
    for suffix in ("png", "jpg", "webp"):
        save(picture(), tmp_path / f"a.{suffix}")
        with pytest.raises(ValueError, match=rf"a.{suffix}' carries no parameters; those that sd"):
            parameters(tmp_path / f"a.{suffix}")


def test_a_damaged_exif_block_says_nothing(tmp_path):
    path = save(made(), tmp_path / "a.jpg")
    data = path.read_bytes()
    damage = {b"MM\0*": b"MX\0*", b"ASCII\0\0\0": b"ASCII\0\0X", b'{"prompt': b'\xff"prompt'}
    for old, new in damage.items():
        assert old in data
        path.write_bytes(data.replace(old, new))
        assert open_image(path).size == (24, 16)
        with pytest.raises(ValueError, match="carries no parameters"):
            parameters(path)


@pytest.mark.parametrize(
    "text", ["", "[1]", "7", '"a"', "{", "[" * 100_000, '{"a": "' + "b" * 10**6 + '"}']
)
def test_parameters_that_are_not_ours(tmp_path, text):
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("sdlib", text)
    picture().save(tmp_path / "a.png", pnginfo=chunks)
    with pytest.raises(ValueError, match="parameters in '.*a.png' are not those of sdlib"):
        parameters(tmp_path / "a.png")


@pytest.mark.parametrize("name", [b"zTXt", b"iTXt"])
def test_text_that_swells_is_refused(tmp_path, name):
    packed = zlib.compress(b"a" * 10**8)
    head = b"sdlib\0" + (b"\0" if name == b"zTXt" else b"\1\0\0\0")
    (tmp_path / "a.png").write_bytes(png(8, 8, (name, head + packed), data=ROWS))
    with pytest.raises(ValueError, match="a.png' (cannot be read|carries no parameters)"):
        parameters(tmp_path / "a.png")


def test_writing_is_whole_or_not_at_all(tmp_path, monkeypatch):
    path = save(made(), tmp_path / "a.png")
    before = path.read_bytes()

    def half(self, file, *_, **__):
        file.write(b"half")
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", half)
        with pytest.raises(OSError, match="no space"):
            save(picture(seed=3), path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    save(picture(seed=3), path)  # in place of the old one
    assert (pixels(open_image(path)) == pixels(picture(seed=3))).all()


@pytest.mark.parametrize("name", ["a", "a.gif", "a.png.txt"])
def test_names_that_cannot_be_written(tmp_path, name):
    for call in (check_suffix, lambda path: save(picture(), path)):
        with pytest.raises(ValueError, match=r"must end in .png, .jpg, .jpeg, .webp; got '.*a"):
            call(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_fingerprint_is_of_the_pixels(tmp_path):
    picture().save(tmp_path / "a.png")
    picture().save(tmp_path / "b.bmp")
    prints = [fingerprint(p) for p in (picture(), tmp_path / "a.png", tmp_path / "b.bmp")]
    assert len(set(prints)) == 1 and len(prints[0]) == 64
    other = picture()
    other.putpixel((3, 3), (1, 2, 3))
    turned = Image.frombytes("RGB", (16, 24), picture().tobytes())
    paints = [Image.new("P", (8, 8)), Image.new("P", (8, 8))]
    for image, color in zip(paints, ((1, 2, 3), (4, 5, 6)), strict=True):
        image.putpalette(color)
    strangers = [fingerprint(i) for i in (other, turned, picture(mode="L"), *paints)]
    assert len({*prints, *strangers}) == 1 + len(strangers)


def test_a_fingerprint_does_not_see_how_pixels_are_kept(tmp_path):
    few = picture().quantize(20)
    clear = few.copy()
    clear.info["transparency"] = 3
    gray, deep = picture(mode="L"), picture(mode="L").convert("I;16").point(lambda v: v * 257)
    for kept, plain in [
        (few, few.convert("RGB")),
        (few, few.convert("RGBA")),
        (clear, clear.convert("RGBA")),
        (gray, gray.convert("RGB")),
        (gray, gray.convert("LA")),
        (gray, deep),
        (picture(mode="CMYK"), picture(mode="CMYK").convert("RGB")),
    ]:
        file = tmp_path / ("a.tif" if kept.mode == "CMYK" else "a.png")
        kept.save(file)
        assert fingerprint(kept) == fingerprint(plain) == fingerprint(file)
    assert fingerprint(clear) != fingerprint(few)
    upright, turned = picture(), picture().transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6
    assert fingerprint(turned) == fingerprint(upright)


def test_writing_side_by_side(tmp_path, monkeypatch):
    """Two threads at one name: each writes a file of its own, and the later stays."""
    write, names = Image.Image.save, []

    def slow(self, file, *args, **options):
        names.append(file.name)
        if len(names) == 1:
            save(picture(seed=2), tmp_path / "a.png")
        write(self, file, *args, **options)

    monkeypatch.setattr(Image.Image, "save", slow)
    save(picture(seed=1), tmp_path / "a.png")
    assert len(set(names)) == 2 and os.listdir(tmp_path) == ["a.png"]
    assert (pixels(open_image(tmp_path / "a.png")) == pixels(picture(seed=1))).all()


def test_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder '.*no' to write 'a.png' to"):
        save(picture(), tmp_path / "no" / "a.png")
    with pytest.raises(ValueError, match="is a folder; give a picture"):
        open_image(tmp_path)


# --- previews ---


def test_a_preview_is_the_linear_map_of_scaled_latents():
    latents = torch.zeros(2, 4, 3, 5)
    latents[0, 0], latents[1, 3] = 1.0, -0.5
    first, second = preview(latents)
    assert first.size == (5, 3) and first.mode == "RGB"
    want = [round((v + 1) / 2 * 255) for v in LATENT_TO_RGB[0]]
    assert list(first.getpixel((4, 2))) == want
    want = [round((1 - 0.5 * v) / 2 * 255) for v in LATENT_TO_RGB[3]]
    assert list(second.getpixel((0, 0))) == want
    # Latents of variance 1 fill the range of a picture: the factors are for the scaled ones.
    spread = torch.tensor(LATENT_TO_RGB).square().sum(0).sqrt()
    assert (spread > 0.3).all() and (spread < 1).all()
    assert preview(latents.to(torch.bfloat16).requires_grad_())[0].size == (5, 3)


def test_a_preview_of_other_latents_has_colors_that_mean_nothing():
    """The first three channels, from two standard deviations below 0 to two above."""
    latents = torch.tensor([2.0, -1.0, 0.0, 5.0]).reshape(1, 4, 1, 1)
    assert preview(latents, scale=0.13025)[0].getpixel((0, 0)) == (255, 64, 128)
    eight = torch.cat([latents, latents], dim=1)
    assert preview(eight)[0].getpixel((0, 0)) == (255, 64, 128)
    assert preview(latents[:, :2])[0].getpixel((0, 0)) == (255, 64, 128)
    assert preview(latents[:, 1:2])[0].getpixel((0, 0)) == (64, 64, 64)
    assert preview(latents)[0].getpixel((0, 0)) != (255, 64, 128)


def test_paths_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert save(picture(), "~/a.png") == tmp_path / "a.png"
    assert open_image("~/a.png").size == picture().size


@pytest.mark.parametrize("suffix, side", [("webp", 16_384), ("jpg", 65_501)])
def test_more_pixels_than_a_format_has(tmp_path, suffix, side):
    with pytest.raises(
        ValueError, match=f"a side of a .{suffix} has at most .*: save it as a .png"
    ):
        save(Image.new("RGB", (side, 1)), tmp_path / f"a.{suffix}")
    save(Image.new("RGB", (side - 1, 1)), tmp_path / f"a.{suffix}")


@pytest.mark.parametrize("suffix", ["jpg", "webp", "png"])
def test_parameters_of_any_length(tmp_path, suffix):
    """What a JPEG has no room for, it goes without."""
    image, text = picture(), {"prompt": "猫" * 11_000}
    image.info["sdlib"] = json.dumps(text)
    if suffix == "jpg":
        with pytest.warns(UserWarning, match="66,014 bytes are more than a JPEG has room for"):
            save(image, tmp_path / "a.jpg")
        assert open_image(tmp_path / "a.jpg").size == image.size
    else:
        save(image, tmp_path / f"a.{suffix}")
        assert parameters(tmp_path / f"a.{suffix}") == text
