"""Image files of chat data: found, measured without decoding, and made into the pictures that shards hold.

A file is data from anywhere, so its bytes and pixels are bounded before anything is decoded, only regular files are
opened, and Pillow may use only the decoders that such sets need. The picture is turned upright by its EXIF
orientation, becomes RGB as the processors convert it, and is resized, bicubic like them, to the size to which
the model's processor would resize it: training needs no resize, and its length is known from the file's header.
Of an animation, the first frame counts.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image

from corpus.errors import DocumentError
from corpus.records import PageGrid
from corpus.render import first_line
from corpus.vision_tokens import Family, snap

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MAX_IMAGE_BYTES = 64 * 2**20
MAX_PIXELS = 80_000_000  # 240 MB decoded; a photograph of a telephone has up to 50 million
ORIENTATION = 0x0112  # the EXIF tag
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ON_ITS_SIDE = (5, 6, 7, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatImage:
    """An image of a conversation. `orientation` 1-8 as in EXIF, 1 = upright."""

    path: str  # as the chat file gives it
    sha256: str
    orientation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a file looked like when it was read; -1 where it could not be."""

    path: str
    num_bytes: int
    mtime_ns: int


def look(folder: str, path: str) -> Seen:
    """What a file looks like now."""
    try:
        found = os.stat(os.path.join(folder, path))
        return Seen(path=path, num_bytes=found.st_size, mtime_ns=found.st_mtime_ns)
    except (OSError, ValueError):
        return Seen(path=path, num_bytes=-1, mtime_ns=-1)


def read_image(folder: str, path: str) -> bytes:
    """The bytes of an image file.

    Raises:
        DocumentError: `image-missing`, `image-unreadable`, `image-too-large`.
    """
    try:
        fd = os.open(os.path.join(folder, path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as f:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise DocumentError("image-unreadable", f"{path!r} is not a regular file")
            data = f.read(MAX_IMAGE_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise DocumentError("image-missing", f"{path!r} does not exist; paths are relative to the chat file") from None
    except (OSError, ValueError) as e:  # ValueError: a NUL in the path
        why = (e.strerror if isinstance(e, OSError) else "") or str(e)
        raise DocumentError("image-unreadable", f"{path!r}: {why}") from None
    if len(data) > MAX_IMAGE_BYTES:
        raise DocumentError("image-too-large", f"{path!r} has more than {MAX_IMAGE_BYTES >> 20} MiB")
    return data


def measure(data: bytes, path: str, family: Family) -> tuple[ChatImage, PageGrid]:
    """What there is to know from an image file's header, and the size that it is stored in.

    Raises:
        DocumentError: `image-unreadable`, `image-too-large`, `aspect-ratio`.
    """
    try:
        with _quietly(), _opened(data) as image:
            width, height = image.size
            in_header = image.format != "PNG" or "exif" in image.info  # else Pillow would decode the PNG to look on
            orientation = int(image.getexif().get(ORIENTATION, 1)) if in_header else 1
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as e:
        raise DocumentError("image-too-large", f"{path!r}: {first_line(e)}") from None
    except MemoryError:
        raise
    except Exception as e:  # Pillow raises what it likes
        raise DocumentError("image-unreadable", f"{path!r}: {first_line(e)}") from None
    if width * height > MAX_PIXELS:
        raise DocumentError("image-too-large", f"{path!r} has {width} x {height} px, the limit is {MAX_PIXELS:,}")
    if min(width, height) < 1:
        raise DocumentError("image-unreadable", f"{path!r} has {width} x {height} px")
    if orientation in ON_ITS_SIDE:
        width, height = height, width
    if orientation not in UPRIGHT:
        orientation = 1
    grid = snap(height, width, family)
    return ChatImage(path=path, sha256=hashlib.sha256(data).hexdigest(), orientation=orientation), grid


def picture(data: bytes, image: ChatImage, grid: PageGrid) -> Image.Image:
    """The image upright, in RGB, in the size of `grid`.

    Raises:
        DocumentError: `image-changed` since it was measured, `image-unreadable`.
    """
    if hashlib.sha256(data).hexdigest() != image.sha256:
        raise DocumentError("image-changed", f"{image.path!r} changed during the build; run it again")
    try:
        with _quietly(), _opened(data) as opened:
            opened.load()
            decoded = _eight_bits(opened).convert("RGB")
    except MemoryError:
        raise
    except Exception as e:  # Pillow raises what it likes
        raise DocumentError("image-unreadable", f"{image.path!r}: {first_line(e)}") from None
    if image.orientation in UPRIGHT:
        decoded = decoded.transpose(UPRIGHT[image.orientation])
    size = (grid.width, grid.height)
    return decoded if decoded.size == size else decoded.resize(size, Image.Resampling.BICUBIC)


def _opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data), formats=FORMATS)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without Pillow's warnings of odd metadata; that of a decompression bomb is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _eight_bits(image: Image.Image) -> Image.Image:
    """Pillow would clip the 16 bits of a grey PNG instead of scaling them."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
