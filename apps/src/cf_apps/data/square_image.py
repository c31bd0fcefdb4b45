"""From the bytes of any image file to a square RGB picture, or one line on why not."""

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

import numpy as np
from jaxtyping import UInt8

if TYPE_CHECKING:
    import PIL.Image

MAX_PIXELS = 80_000_000  # 8,944 x 8,944; below the count at which Pillow starts to warn of "bombs"
TURNS = {  # what puts a picture right again, by the orientation that EXIF says it is stored in
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
_OPENING = threading.Lock()  # Python's list of warnings to ignore belongs to the whole process


class UnreadableImage(ValueError):
    """The bytes are no image that can be shown in 8-bit RGB; the message says why, without a path."""


def square_rgb(data: bytes, image_size: int) -> UInt8[np.ndarray, "3 {image_size} {image_size}"]:
    """Decode, turn upright, flatten on white, cut the centre square out, resize (antialiased bicubic).

    Reads what `rgb` reads. Raises UnreadableImage.
    """
    from PIL import Image, ImageOps

    with _decoding(io.BytesIO(data)) as file:
        square = ImageOps.fit(_on_white(_upright(file)), (image_size, image_size), Image.Resampling.BICUBIC)
    return _channels_first(square)


def rgb(data: bytes) -> UInt8[np.ndarray, "3 h w"]:
    """Decode the whole picture, turn it upright, flatten it on white.

    Reads what Pillow reads, in any mode: palette, alpha, grey, 16-bit grey (scaled to 8 bit), CMYK;
    the first frame of an animation; up to MAX_PIXELS. Raises UnreadableImage.
    """
    with _decoding(io.BytesIO(data)) as file:
        picture = _on_white(_upright(file))
    return _channels_first(picture)


def shorter_side(path: Path) -> int:
    """Pixels of the shorter side, from the header alone. Raises UnreadableImage, or OSError."""
    with path.open("rb") as stream, _decoding(stream) as file:
        return min(file.size)


@contextmanager
def _decoding(stream: io.BufferedIOBase) -> Iterator["PIL.Image.Image"]:
    """The opened file; whatever goes wrong inside is an UnreadableImage."""
    from PIL import Image, UnidentifiedImageError

    if not stream.read(1):
        raise UnreadableImage("the file is empty (0 bytes)")
    stream.seek(0)
    try:
        with _opened(stream) as file:
            width, height = file.size
            if width * height > MAX_PIXELS:
                raise UnreadableImage(_too_large(f"{width:,} x {height:,}"))
            yield file
    except (MemoryError, UnreadableImage):
        raise
    except Image.DecompressionBombError:
        raise UnreadableImage(_too_large(f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,}")) from None
    except UnidentifiedImageError:
        raise UnreadableImage("not an image, or of a kind Pillow cannot read") from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, ...
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImage(f"damaged or truncated: {reason}") from error


def _opened(stream: io.BufferedIOBase) -> "PIL.Image.Image":
    """Image.open without its warning of large pictures: MAX_PIXELS decides on those."""
    from PIL import Image

    with _OPENING, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(cast("IO[bytes]", stream))


def _too_large(pixels: str) -> str:
    return f"too large: it has {pixels} pixels, and at most {MAX_PIXELS:,} are read"


def _upright(file: "PIL.Image.Image") -> "PIL.Image.Image":
    """The decoded picture as one looks at it: a phone stores its portraits lying down."""
    from PIL import Image

    file.load()
    with _OPENING, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of broken EXIF, which says nothing about the pixels
        try:
            turn = TURNS.get(file.getexif().get(0x0112, 1))
        except Exception:  # as many kinds as there are ways to break it
            turn = None
    return file if turn is None else file.transpose(Image.Transpose[turn])


def _on_white(image: "PIL.Image.Image") -> "PIL.Image.Image":
    """Any Pillow image as 8-bit RGB, its transparent parts white."""
    from PIL import Image

    if image.mode.startswith("I"):  # 16-bit grey; convert() would clip it at 255
        levels = np.asarray(image).clip(0, 65535).astype(np.uint32)
        return Image.fromarray(((levels + 128) // 257).astype(np.uint8)).convert("RGB")  # 65535 = 255 * 257
    if image.mode == "F":
        raise UnreadableImage("floating-point pixels have no agreed white; save it with 8 bits a channel")
    if not image.has_transparency_data:
        return image.convert("RGB")
    picture = image.convert("RGBA")
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, picture).convert("RGB")


def _channels_first(image: "PIL.Image.Image") -> UInt8[np.ndarray, "3 h w"]:
    return np.asarray(image).transpose(2, 0, 1).copy()  # a copy, for Pillow's memory is read-only
