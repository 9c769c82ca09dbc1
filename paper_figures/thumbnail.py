"""A picture made small enough to be committed and to be shown beside fifty others."""

from __future__ import annotations

import io
from pathlib import Path

LARGEST = 60_000  # bytes
_WIDTHS = (900, 760, 640, 520, 400, 300, 200)
_COLOURS = (256, 128, 64, 32, 16)


def thumbnail(picture: Path, largest: int = LARGEST) -> bytes:
    """A PNG of the picture, the widest and most colourful that is at most `largest` bytes.

    Plots have few colours: a palette makes them a third as large and looks the same. The same
    picture gives the same bytes.

    Args:
        picture: A PNG file.
        largest: Bytes.

    Raises:
        ValueError: If not even the narrowest fits.
    """
    from PIL import Image

    with Image.open(picture) as file:
        whole = Image.new("RGB", file.size, "white")
        whole.paste(file, mask=file.getchannel("A") if "A" in file.getbands() else None)
    for width in dict.fromkeys(min(width, whole.width) for width in _WIDTHS):
        height = max(1, round(whole.height * width / whole.width))
        small = whole.resize((width, height), Image.Resampling.LANCZOS)
        for colours in _COLOURS:
            out = io.BytesIO()
            small.quantize(colours, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
                out, "PNG", optimize=True
            )
            if out.tell() <= largest:
                return out.getvalue()
    raise ValueError(f"{picture} is too intricate for {largest} bytes at {_WIDTHS[-1]} pixels wide")
