"""The IDX format of the MNIST files: a magic number, the sizes, the bytes."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

_UNSIGNED_BYTES = 8


def read_idx(path: Path, shape: tuple[int | None, ...]) -> np.ndarray:
    """The unsigned bytes of an IDX file, gzipped or not.

    Args:
        path: The file.
        shape: What its sizes must be; None where any will do.

    Returns:
        An array of uint8.

    Raises:
        ValueError: If the file is not gzip where its name says so, has another magic number, other
            sizes, or another length than they say.
    """
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path} is not whole gzip: {error}") from error
    magic = struct.pack(">HBB", 0, _UNSIGNED_BYTES, len(shape))
    if content[:4] != magic:
        raise ValueError(
            f"{path} is no IDX file of bytes in {len(shape)} dimensions: it starts with "
            f"{content[:4].hex(' ')}, not {magic.hex(' ')}"
        )
    start = 4 + 4 * len(shape)
    if len(content) < start:
        raise ValueError(f"{path} ends in its header")
    sizes = struct.unpack(f">{len(shape)}I", content[4:start])
    if any(want is not None and want != size for want, size in zip(shape, sizes, strict=True)):
        raise ValueError(f"{path} holds sizes {sizes}; expected {shape}, None being any")
    if len(content) - start != math.prod(sizes):
        raise ValueError(
            f"{path} says sizes {sizes}, {math.prod(sizes)} bytes, and holds {len(content) - start}"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(sizes)
