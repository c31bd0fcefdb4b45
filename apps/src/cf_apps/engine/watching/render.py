"""Pictures of results: a grid of images with words under them, and a way from image to image as a GIF."""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Union

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cf_apps.engine.errors import RunError
from cf_apps.engine.files import replaced

if TYPE_CHECKING:
    import matplotlib.figure
    import PIL.Image
    import PIL.ImageDraw
    import PIL.ImageFont

Font = Union["PIL.ImageFont.FreeTypeFont", "PIL.ImageFont.ImageFont"]
MIN_SIDE = (
    96  # pixels; smaller images are enlarged by a whole factor, so that each of their pixels stays square
)
GIF_SIDE = 192  # the same for a moving picture, which stands alone
FRAME, HOLD = 80, 800  # milliseconds of a GIF's frame; of one to look at
GAP, FONT_SIZE, MAX_LINES = 8, 12, 6
PAPER, INK, FAINT = (255, 255, 255), (20, 20, 20), (200, 200, 200)


def image_grid(
    images: UInt8[Tensor, "n 3 h w"] | Float[Tensor, "n 3 h w"],
    columns: int | None = None,
    *,
    captions: Sequence[str] | None = None,
    column_titles: Sequence[str] | None = None,
    row_titles: Sequence[str] | None = None,
    upscale: int | None = None,
) -> "PIL.Image.Image":
    """Lay images out row by row, `columns` wide (near square if None), with wrapped captions under them.

    images: bytes in [0, 255], or floats in [0, 1] (clamped). captions: one an image, "" for none.
    column_titles, row_titles: one a column, one a row. upscale: whole factor, by nearest neighbour; None
    enlarges to at least 96 pixels.
    """
    from PIL import Image, ImageDraw

    n, _, height, width = images.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    for name, words, count in (
        ("captions", captions, n),
        ("column_titles", column_titles, columns),
        ("row_titles", row_titles, rows),
    ):
        if words is not None and len(words) != count:
            have = f"{n} images in {columns} columns"
            raise ValueError(f"{name} must hold {count} strings for {have}, got {len(words)}")

    factor = upscale or max(1, math.ceil(MIN_SIDE / min(height, width)))
    height, width = height * factor, width * factor
    font = _font_for([*(captions or ()), *(column_titles or ()), *(row_titles or ())])
    under = [_wrapped(caption, width, font) for caption in captions or [""] * n]
    beside = [_wrapped(title, MIN_SIDE, font) for title in row_titles or [""] * rows]
    above = [_wrapped(title, width, font) for title in column_titles or [""] * columns]
    left = GAP + (MIN_SIDE + GAP if row_titles else 0)
    line = FONT_SIZE + 3
    # every row is as high as its longest caption asks
    caption_heights = [
        line * max(len(t) for t in under[r * columns : (r + 1) * columns]) for r in range(rows)
    ]
    top = GAP + line * max(len(title) for title in above)

    size = (left + columns * (width + GAP), top + sum(height + GAP + extra for extra in caption_heights))
    page = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(page)
    for column, title in enumerate(above):
        _write(draw, title, left + column * (width + GAP), GAP // 2, font)
    y = top
    for row in range(rows):
        _write(draw, beside[row], GAP, y, font)
        for column, index in enumerate(range(row * columns, min((row + 1) * columns, n))):
            x = left + column * (width + GAP)
            picture = to_pil(images[index]).resize((width, height), Image.Resampling.NEAREST)
            draw.rectangle((x - 1, y - 1, x + width, y + height), outline=FAINT)
            page.paste(picture, (x, y))
            _write(draw, under[index], x, y + height + 1, font)
        y += height + caption_heights[row] + GAP
    return page


def stacked(pages: Sequence["PIL.Image.Image"]) -> "PIL.Image.Image":
    """Grids of different lengths, one under the other."""
    from PIL import Image

    whole = Image.new("RGB", (max(page.width for page in pages), sum(page.height for page in pages)), PAPER)
    y = 0
    for page in pages:
        whole.paste(page, (0, y))
        y += page.height
    return whole


def to_pil(image: UInt8[Tensor, "3 h w"] | Float[Tensor, "3 h w"]) -> "PIL.Image.Image":
    """A picture from bytes in [0, 255] or floats in [0, 1] (clamped)."""
    from PIL import Image

    return Image.fromarray(to_bytes(image).permute(1, 2, 0).contiguous().numpy())


def to_bytes(image: UInt8[Tensor, "3 h w"] | Float[Tensor, "3 h w"]) -> UInt8[Tensor, "3 h w"]:
    """The picture as a file holds it: bytes, on the CPU; floats in [0, 1] are clamped and rounded."""
    if image.is_floating_point():
        image = (image.clamp(0, 1) * 255).round().to(torch.uint8)
    return image.cpu()


def save_png(picture: "PIL.Image.Image", path: Path) -> Path:
    """Write a PNG, whole or not at all, making its folder; raises RunError when the disk refuses."""
    return _written(path, lambda place: picture.save(place, format="PNG"))


def save_figure(figure: "matplotlib.figure.Figure", path: Path) -> Path:
    """Write a matplotlib figure as a PNG, as `save_png` does."""
    return _written(path, lambda place: figure.savefig(place, format="png", dpi=110))


def save_gif(
    images: UInt8[Tensor, "n 3 h w"] | Float[Tensor, "n 3 h w"], path: Path, hold: Sequence[int] = ()
) -> Path:
    """Write a GIF that plays for ever, whole or not at all; raises RunError when the disk refuses.

    images: one a frame, as in `image_grid`; small ones are enlarged by a whole factor to at least 192 pixels. Frames
    last 80 ms, those in `hold` 800 ms. Each has a palette of its own, undithered: up to 256 colours are kept exactly.
    """
    from PIL import Image

    if len(images) < 1:
        raise ValueError("a GIF needs at least one frame, got none")
    height, width = images.shape[2:]
    factor = max(1, math.ceil(GIF_SIDE / min(height, width)))
    frames = [
        to_pil(image)
        .quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        .resize((width * factor, height * factor), Image.Resampling.NEAREST)
        for image in images
    ]
    times = [HOLD if place in hold else FRAME for place in range(len(frames))]
    first, *rest = frames
    return _written(
        path,
        lambda place: first.save(
            place, format="GIF", save_all=True, append_images=rest, duration=times, loop=0
        ),
    )


def _written(path: Path, write: Callable[[Path], object]) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as temporary:
            write(temporary)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}; choose another --out") from error
    return path


def _font_for(texts: Sequence[str]) -> Font:
    """Pillow's own font, which knows ASCII; for other letters DejaVu Sans, which matplotlib carries."""
    from PIL import ImageFont

    if all(text.isascii() for text in texts):
        return ImageFont.load_default(FONT_SIZE)
    import matplotlib

    path = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    return ImageFont.truetype(str(path), FONT_SIZE)


def _wrapped(text: str, width: int, font: Font) -> list[str]:
    """Lines no wider than `width` pixels, `MAX_LINES` at most; what is longer ends in an ellipsis."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        elif len(lines) == MAX_LINES:
            lines[-1] += " …"
            break
        else:
            lines.append(word)
    return [_shortened(line, width, font) for line in lines]


def _shortened(line: str, width: int, font: Font) -> str:
    if font.getlength(line) <= width:
        return line
    kept = line.removesuffix(" …")
    fits = bisect_right(range(len(kept) + 1), width, key=lambda count: font.getlength(f"{kept[:count]}…"))
    return f"{kept[: max(fits - 1, 0)]}…"


def _write(draw: "PIL.ImageDraw.ImageDraw", lines: list[str], x: int, y: int, font: Font) -> None:
    for number, line in enumerate(lines):
        draw.text((x, y + number * (FONT_SIZE + 3)), line, fill=INK, font=font)
