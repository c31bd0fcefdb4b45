"""From the bytes of any image file to a square RGB picture, or one line on why not."""

import io
from typing import Any

import numpy as np
from jaxtyping import UInt8


class UnreadableImage(ValueError):
    """The bytes are no image that can be shown in 8-bit RGB; the message says why, without a path."""


def square_rgb(data: bytes, image_size: int) -> UInt8[np.ndarray, "3 {image_size} {image_size}"]:
    """Decode, turn upright, flatten on white, cut the centre square out, resize (antialiased bicubic).

    Reads what Pillow reads, in any mode: palette, alpha, grey, 16-bit grey (scaled to 8 bit), CMYK;
    the first frame of an animation. Raises UnreadableImage.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not data:
        raise UnreadableImage("the file is empty (0 bytes)")
    try:
        with Image.open(io.BytesIO(data)) as file:
            image = ImageOps.exif_transpose(file)  # decodes; a phone stores its portraits lying down
            square = ImageOps.fit(_on_white(image), (image_size, image_size), Image.Resampling.BICUBIC)
    except (MemoryError, UnreadableImage):
        raise
    except UnidentifiedImageError:
        raise UnreadableImage("not an image, or of a kind Pillow cannot read") from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, ...
        raise UnreadableImage(f"damaged or truncated: {error}") from error
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))


def _on_white(image: Any) -> Any:
    """Any Pillow image as 8-bit RGB, its transparent parts white."""
    from PIL import Image

    if image.mode.startswith("I"):  # 16-bit grey; convert() would clip it at 255
        levels = np.asarray(image).astype(np.float64) * (255 / 65535)
        return Image.fromarray(np.rint(levels.clip(0, 255)).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise UnreadableImage("floating-point pixels have no agreed white; save it with 8 bits a channel")
    if not image.has_transparency_data:
        return image.convert("RGB")
    picture = image.convert("RGBA")
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, picture).convert("RGB")
