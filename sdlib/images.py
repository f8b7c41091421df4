"""Pictures in and out: opening what people have, tensors both ways, and files that say how.

    image = fit(open_image("photo.jpg"), 512, 512)
    x = to_tensor(image)                       # [1, 3, 512, 512], from -1 to 1
    mask = open_mask("mask.png", 512, 512)     # [1, 1, 512, 512], 1 where to repaint
    save(to_images(x)[0], "out.png")           # with info["sdlib"], which `parameters` reads

Files are not trusted: only pixel formats are opened, and a picture too large for its own good is
refused before it is decoded.
"""

import hashlib
import json
import math
import os
import secrets
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sdlib.checks import whole_number

if TYPE_CHECKING:
    from PIL.Image import Image

READS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
WRITES = {  # suffix: Pillow's name, and how
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"lossless": True}),
}
WHITES = (1, 255, 65535)  # what white may be in a picture that does not say
EXIF, USER_COMMENT, ASCII = 0x8769, 0x9286, b"ASCII\0\0\0"  # EXIF 2.3, sections 4.6.3 and 4.6.5
LONGEST = 1_000_000  # characters of parameters that are looked at

# Rows: latent channels; columns: red, green, blue, from -1 to 1. Of the scaled latents of Stable
# Diffusion v1.5 (what its U-Net sees, 0.18215 times what its encoder says): fitted by torridgristle
# for InvokeAI, after keturn's fit for v1.4 (discuss.huggingface.co/t/23204, answers 2 and 7).
V1_SCALE = 0.18215
LATENT_TO_RGB = (
    (0.3444, 0.1385, 0.0670),
    (0.1247, 0.4027, 0.1494),
    (-0.3192, 0.2513, 0.2103),
    (-0.1307, -0.1874, -0.7445),
)


def open_image(source: "str | os.PathLike | Image") -> "Image":
    """A picture as 8-bit RGB, whatever it was.

    The first frame, turned as its EXIF orientation says. Transparent parts become white; 16-bit
    and floating-point grays are scaled, not cut off; CMYK and palettes are converted (a color
    profile is ignored).

    Args:
        source: a file (PNG, JPEG, WebP, TIFF, BMP, GIF or PPM) or a PIL image, which is left as
            it is.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: for a file that is no picture, is damaged, or has more pixels than
            `PIL.Image.MAX_IMAGE_PIXELS` (89 million), which is refused without decoding it.
    """
    return _flat(_read(source), "white")


def open_mask(source: "str | os.PathLike | Image", width: int, height: int) -> Tensor:
    """A mask `[1, 1, height, width]` of 0 and 1 from a picture: 1, repaint, where it is white.

    It is opened like any picture (see `open_image`), but what is transparent counts as black, so
    that white strokes on an empty layer repaint what they cover. It is stretched to the size asked
    for (Lanczos), turned gray, and cut at one half.

    Raises:
        ValueError: as `open_image`, and for a mask with no white in it. One that is all white
            warns.
    """
    gray = fit(_flat(_read(source), "black"), width, height).convert("L")
    mask = torch.from_numpy(np.asarray(gray) >= 127.5).float()[None, None]
    if not mask.any():
        raise ValueError("the mask has nothing white, so nothing to repaint; paint that white.")
    if mask.all():
        warnings.warn("the mask is all white: nothing of the image will be kept.", stacklevel=2)
    return mask


def fit(
    image: "Image", width: int | None = None, height: int | None = None, multiple: int = 8
) -> "Image":
    """The picture stretched to a size that the model takes (Lanczos).

    Args:
        width, height: in pixels. By default the picture's own, rounded down to a multiple.
        multiple: what both must be multiples of: how many pixels wide a latent is, 8 in v1.
    """
    from PIL.Image import Resampling

    own = {"width": image.width, "height": image.height}
    asked = {"width": width, "height": height}
    size = tuple(side(name, asked[name], own[name], multiple) for name in own)
    return image.resize(size, Resampling.LANCZOS)


def side(name: str, asked: int | None, own: int, multiple: int = 8) -> int:
    """A side in pixels: what was asked for, or else its own, rounded down to a multiple."""
    if asked is None:
        if own < multiple:
            raise ValueError(
                f"the image's {name} must be at least {multiple} pixels; it has {own}."
            )
        return own - own % multiple
    if over := whole_number(name, asked, least=multiple) % multiple:
        raise ValueError(
            f"{name} must be a multiple of {multiple}; got {asked}, and {asked - over} would do."
        )
    return int(asked)


def to_tensor(images: "Image | list[Image]") -> Tensor:
    """RGB pictures of one size as a tensor `[b, 3, h, w]`, float32, from -1 (black) to 1."""
    images = images if isinstance(images, list | tuple) else [images]
    kinds = {(image.mode, *image.size) for image in images}
    if len(kinds) != 1 or images[0].mode != "RGB":
        found = ", ".join(f"{mode} {w} x {h}" for mode, w, h in sorted(kinds)) or "none"
        raise ValueError(
            f"images must be RGB and of one size: use open_image and fit; got {found}."
        )
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    return (2 * (pixels.float() / 255) - 1).permute(0, 3, 1, 2).contiguous()


def to_images(x: Tensor) -> "list[Image]":
    """Pictures from a tensor `[b, 3, h, w]` in which black is -1 and white 1; beyond is clipped.

    Raises:
        ValueError: for another shape, or for NaN and infinity, of which no picture is made.
    """
    from PIL import Image

    if x.ndim != 4 or x.shape[1] != 3:
        raise ValueError(f"x must have shape [b, 3, h, w]; got {list(x.shape)}.")
    x = x.detach().float().cpu()
    bad = int((~torch.isfinite(x)).sum())
    if bad:
        raise ValueError(
            f"{bad} of {x.numel()} values of the image are NaN or infinite: a network overflowed; "
            "use dtype float32 for it."
        )
    pixels = ((x * 0.5 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    return [Image.fromarray(p) for p in pixels.permute(0, 2, 3, 1).contiguous().numpy()]


def preview(latents: Tensor, scale: float = V1_SCALE) -> "list[Image]":
    """Small pictures of latents `[b, c, h, w]` in the U-Net's scale, one pixel a latent.

    A linear map in place of the decoder: rough, and thousands of times cheaper. It was fitted to
    Stable Diffusion v1's autoencoder, of 4 channels scaled by 0.18215. Of another one's latents the
    first three channels are shown as red, green and blue (a single one as gray, two without blue),
    two standard deviations wide on either side: shapes, in colors that mean nothing.

    Args:
        latents: of variance about 1.
        scale: by which the autoencoder multiplied them, which tells whose they are.
    """
    if latents.ndim != 4 or latents.shape[1] == 0:
        raise ValueError(f"latents must have shape [b, c, h, w]; got {list(latents.shape)}.")
    latents = latents.detach().float().cpu()
    if latents.shape[1] == len(LATENT_TO_RGB) and scale == V1_SCALE:
        factors = torch.tensor(LATENT_TO_RGB)
    elif latents.shape[1] == 1:
        factors = torch.full((1, 3), 0.5)
    else:
        factors = 0.5 * torch.eye(latents.shape[1], 3)
    return to_images(torch.einsum("bchw,cr->brhw", latents, factors))


def save(image: "Image", path: str | os.PathLike) -> Path:
    """Write a .png, .jpg or .webp, whole or not at all, in place of a file of that name.

    What `image.info["sdlib"]` holds (the JSON text of an object) goes with it: into a text chunk
    of a PNG, into the EXIF comment of the others. PNG and WebP keep every pixel; JPEG does not.

    Raises:
        ValueError: for another kind of file.
        OSError: for a folder that is not there, or cannot be written to.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    path = Path(path)
    check_suffix(path)
    name, options = WRITES[path.suffix.lower()]
    text = image.info.get("sdlib")
    if text is not None and name == "PNG":
        chunks = PngInfo()
        chunks.add_itxt("sdlib", json.dumps(json.loads(text)))
        options = {**options, "pnginfo": chunks}
    elif text is not None:
        exif = Image.Exif()
        exif[EXIF] = {USER_COMMENT: ASCII + json.dumps(json.loads(text)).encode("ascii")}
        options = {**options, "exif": exif}
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"there is no folder {str(path.parent)!r} to write {path.name!r} to."
        )
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with open(part, "xb") as file:
            image.save(file, name, **options)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def check_suffix(path: str | os.PathLike) -> None:
    """Refuse a name that `save` cannot write, before there is a picture to lose."""
    if Path(path).suffix.lower() not in WRITES:
        raise ValueError(f"a picture's name must end in {', '.join(WRITES)}; got {str(path)!r}.")


def parameters(source: "str | os.PathLike | Image") -> dict:
    """What a picture says about how it was made: the object that `save` wrote into it.

    Raises:
        ValueError: as `open_image`, and for a picture that carries none, or something else.
    """
    image = _read(source)
    text, name = image.info.get("sdlib", _comment(image)), _name(source)
    if text is None:
        raise ValueError(
            f"{name} carries no parameters; those that sdlib saves do, until another program "
            "writes them anew."
        )
    try:
        if len(text) > LONGEST:
            raise ValueError
        found = json.loads(text)
        if not isinstance(found, dict):
            raise ValueError
    except (TypeError, ValueError, RecursionError):
        raise ValueError(f"the parameters in {name} are not those of sdlib.") from None
    return found


def _comment(image: "Image") -> str | None:
    """The EXIF comment of a picture; where there is none, or nothing can be made of it, None."""
    try:
        comment = image.getexif().get_ifd(EXIF)[USER_COMMENT]
        return comment.removeprefix(ASCII).decode("ascii") if comment.startswith(ASCII) else None
    except Exception:  # a damaged block raises nearly anything
        return None


def fingerprint(source: "str | os.PathLike | Image") -> str:
    """The SHA-256 of a picture's size and pixels, upright and as 8-bit RGBA.

    It is the same for every lossless file of the picture, with a palette or without.
    """
    image = _eight_bits(_read(source))
    image = (image if image.has_transparency_data else image.convert("RGB")).convert("RGBA")
    head = f"{image.width} x {image.height}\n"
    return hashlib.sha256(head.encode() + image.tobytes()).hexdigest()


def _name(source) -> str:
    return repr(str(source)) if isinstance(source, str | os.PathLike) else "the image"


def _read(source) -> "Image":
    """A picture, decoded and upright, in the mode it has."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    if isinstance(source, str | os.PathLike):
        if not Path(source).exists():
            raise FileNotFoundError(f"there is no file {_name(source)}.")
        if Path(source).is_dir():
            raise ValueError(f"{_name(source)} is a folder; give a picture.")
    elif not isinstance(source, Image.Image):
        raise ValueError(
            f"an image must be a path or a PIL image (see to_images); got {type(source).__name__}."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if isinstance(source, Image.Image):
                image = ImageOps.exif_transpose(source)
            else:
                with Image.open(source, formats=READS) as file:
                    image = ImageOps.exif_transpose(file)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        why = str(error).split(", could")[0].removeprefix("Image size ")
        raise ValueError(
            f"{_name(source)} is too large to open safely: its size {why}; make it smaller."
        ) from None
    except UnidentifiedImageError:
        raise ValueError(
            f"{_name(source)} is no picture, or a damaged one; {', '.join(READS)} can be read."
        ) from None
    except Exception as error:  # decoders of damaged files raise nearly anything
        raise ValueError(f"{_name(source)} cannot be read as a picture: {error}.") from error
    if not image.width * image.height:
        raise ValueError(f"{_name(source)} has no pixels: it is {image.width} x {image.height}.")
    return image


def _flat(image: "Image", background: str) -> "Image":
    """8-bit RGB, with a background where there was transparency."""
    from PIL import Image

    image = _eight_bits(image)
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, background)
        canvas.alpha_composite(image.convert("RGBA"))
        image = canvas
    return image.convert("RGB")


def _eight_bits(image: "Image") -> "Image":
    """8 bits of grays of 16, of 32, or floating: white is 65535, or else the least of WHITES."""
    from PIL import Image

    if image.mode[0] not in "IF":
        return image
    values = np.asarray(image).astype(np.float64)
    whites = WHITES[-1:] if image.mode.startswith("I;16") else WHITES
    white = next((white for white in whites if values.max() <= white), None)
    if white is None or values.min() < 0:
        raise ValueError(
            f"a picture in grays must go from 0 to 1, 255 or 65535; "
            f"this one goes from {values.min():g} to {values.max():g}."
        )
    return Image.fromarray(np.rint(values * (255 / white)).astype(np.uint8))


def sheet(x: Tensor, columns: int | None = None, gap: int = 2) -> "Image":
    """Pictures `[n, 3, h, w]` in [-1, 1] side by side on white, row by row.

    Args:
        x: the pictures.
        columns: in a row; by default as many as make a square.
        gap: white pixels between two of them.
    """
    n, c, h, w = x.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    canvas = x.new_ones(c, rows * (h + gap) - gap, columns * (w + gap) - gap)
    for i, picture in enumerate(x):
        top, left = i // columns * (h + gap), i % columns * (w + gap)
        canvas[:, top : top + h, left : left + w] = picture
    return to_images(canvas[None])[0]
