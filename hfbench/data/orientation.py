"""Which way up an image is stored: one tag of its EXIF, read without the others.

A camera stores what its sensor sees and how to turn it. Everything else in EXIF may be damaged,
often by editors, without any harm to the pixels.
"""

import re
import struct

from PIL import Image

_TAG = 0x0112
_SIZES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}  # TIFF's types of whole numbers
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_IN_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


def upright(image: Image.Image) -> tuple[Image.Image, bool]:
    """The image as it is to be looked at, and whether its EXIF says how that is.

    An image without EXIF, or whose EXIF has no orientation, is as it was stored; so is one whose
    EXIF is damaged before its orientation, or has one that is not from 1 to 8: then it is False.
    """
    image.load()  # of TIFF Pillow turns the pixels itself, and its EXIF is the file
    orientation: int | None = None
    try:
        orientation = _orientation(_exif_of(image))
        readable = orientation in (None, 1, *_TURNS)
    except (struct.error, ValueError):
        readable = False
    if orientation is None:
        orientation = _orientation_in_xmp(image)
        readable = readable or orientation is not None
    turn = _TURNS.get(orientation or 1)
    return image if turn is None else image.transpose(turn), readable


def _exif_of(image: Image.Image) -> bytes:
    """A TIFF file of tags; empty without one. Raises ValueError for what is none."""
    exif = image.info.get("exif")
    if exif is None and "Raw profile type exif" in image.info:  # ImageMagick's place in PNG
        exif = bytes.fromhex("".join(image.info["Raw profile type exif"].split("\n")[3:]))
    if not isinstance(exif, bytes):
        return b""
    return re.sub(b"^(Exif\0\0){1,2}", b"", exif)


def _orientation(exif: bytes) -> int | None:
    """The tag in the first directory; None where it is not there.

    Raises struct.error for a directory that is cut off before it, ValueError for other damage.
    Format: TIFF 6.0, section 2.
    """
    if not exif:
        return None
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        raise ValueError(f"EXIF begins with {exif[:2]!r}")
    magic, start = struct.unpack_from(f"{order}HI", exif, 2)
    if magic != 42:
        raise ValueError(f"EXIF has the number {magic} and not 42")
    (entries,) = struct.unpack_from(f"{order}H", exif, start)
    for entry in range(entries):
        place = start + 2 + 12 * entry
        tag, kind, count = struct.unpack_from(f"{order}HHI", exif, place)
        if tag == _TAG:
            if count != 1 or kind not in _SIZES:
                raise ValueError(f"an orientation of {count} values of type {kind}")
            return int(struct.unpack_from(f"{order}{_SIZES[kind]}", exif, place + 8)[0])
    return None


def _orientation_in_xmp(image: Image.Image) -> int | None:
    if hasattr(image, "tag_v2"):  # of TIFF, turned already
        return None
    xmp = image.info.get("XML:com.adobe.xmp") or image.info.get("xmp") or b""
    found = _IN_XMP.search(xmp.encode() if isinstance(xmp, str) else xmp)
    return None if found is None else int(found[1])
