"""Images are upright as their EXIF says, whatever else of their EXIF is damaged."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from classification_tasks import config
from PIL import Image, ImageOps, PngImagePlugin

from hfbench.data.cropping import Facts
from hfbench.data.media import decode_image
from hfbench.tasks import make_task

UPRIGHT = np.array([[1, 2, 3], [4, 5, 6]])
# EXIF 2.32, tag 0x0112: the stored row 0 is the upright image's ..., its column 0 is ...
STORED = {
    1: [[1, 2, 3], [4, 5, 6]],  # top, left
    2: [[3, 2, 1], [6, 5, 4]],  # top, right
    3: [[6, 5, 4], [3, 2, 1]],  # bottom, right
    4: [[4, 5, 6], [1, 2, 3]],  # bottom, left
    5: [[1, 4], [2, 5], [3, 6]],  # left, top
    6: [[3, 6], [2, 5], [1, 4]],  # right, top
    7: [[6, 3], [5, 2], [4, 1]],  # right, bottom
    8: [[4, 1], [5, 2], [6, 3]],  # left, bottom
}
ORIENTATION, SHORT, LONG, ASCII = 0x0112, 3, 4, 2
TURNED = (ORIENTATION, SHORT, 1, 6 << 16)

Entry = tuple[int, int, int, int]  # tag, type, count, value or its place


def exif(*entries: Entry, announced: int | None = None, start: int = 8) -> bytes:
    """Of big-endian entries; ``announced`` is how many there are said to be."""
    count = len(entries) if announced is None else announced
    head = b"Exif\0\0MM" + struct.pack(">HI", 42, start)
    return head + struct.pack(">H", count) + b"".join(struct.pack(">HHII", *e) for e in entries)


def encoded(kind: str, stored: list[list[int]], description: bytes | Image.Exif) -> bytes:
    """Blocks of 16 × 16 pixels, which JPEG keeps apart, of 40 times the numbers."""
    pixels = np.kron(np.array(stored) * 40, np.ones((16, 16))).astype(np.uint8)
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    if kind == "WEBP":
        image = image.convert("RGB")
    image.save(buffer, kind, exif=description, quality=95, lossless=True)
    return buffer.getvalue()


def decoded(data: bytes, facts: Facts | None = None) -> list[list[int]]:
    """One number a block."""
    pixels = np.asarray(decode_image(data, "L", "train row 0", facts), dtype=float)
    found: list[list[int]] = np.rint(pixels[8::16, 8::16] / 40).astype(int).tolist()
    return found


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_orientation_is_upright(kind: str, orientation: int) -> None:
    description = Image.Exif()
    description[ORIENTATION] = orientation
    facts = Facts(float)
    assert decoded(encoded(kind, STORED[orientation], description), facts) == UPRIGHT.tolist()
    assert not facts


@pytest.mark.parametrize(
    "entries",
    [
        [TURNED, (0x0100, ASCII, 2, 0x61620000)],  # a width that is a text
        [TURNED, (0x8769, LONG, 1, 2**32 - 1)],  # more EXIF behind the end
        [(0x010F, ASCII, 2**31, 10**6), TURNED],  # a maker's name of 2 GiB
        [TURNED, (0x011A, 99, 1, 0)],  # of an unknown type
        [(ORIENTATION, LONG, 1, 6)],
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.filterwarnings("ignore:.*:UserWarning:PIL")
def test_what_else_is_damaged_does_not_matter(kind: str, entries: list[Entry]) -> None:
    facts = Facts(float)
    assert decoded(encoded(kind, STORED[6], exif(*entries)), facts) == UPRIGHT.tolist()
    assert not facts


@pytest.mark.parametrize(
    "description",
    [
        exif((0x010F, ASCII, 4, 0x61626300), announced=9),  # cut off before the orientation
        exif(TURNED)[:-3],
        exif(TURNED, start=5000),
        exif((ORIENTATION, ASCII, 2, 0x36000000)),
        exif((ORIENTATION, SHORT, 2, 6 << 16)),
        exif((ORIENTATION, SHORT, 1, 9 << 16)),
        b"Exif\0\0no file of tags",
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.filterwarnings("ignore:.*:UserWarning:PIL")
def test_without_a_readable_orientation_an_image_is_as_stored(
    kind: str, description: bytes
) -> None:
    facts = Facts(float)
    assert decoded(encoded(kind, STORED[6], description), facts) == STORED[6]
    assert facts == {"images with unreadable EXIF": 1}


def test_an_exif_that_pillow_cannot_write_again_is_no_error() -> None:
    """What makes the difference: this one fails where EXIF is rewritten."""
    data = encoded("JPEG", STORED[6], exif(TURNED, (0x0100, ASCII, 2, 0x61620000)))
    with pytest.raises(struct.error), Image.open(io.BytesIO(data)) as image:
        ImageOps.exif_transpose(image)
    assert decoded(data) == UPRIGHT.tolist()


def test_orientations_beside_exif_are_read_too() -> None:
    """Of XMP, and of the text in which ImageMagick keeps EXIF."""
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    hexadecimal = PngImagePlugin.PngInfo()
    content = exif(TURNED)
    hexadecimal.add_text("Raw profile type exif", f"\nexif\n{len(content):8}\n{content.hex()}\n")
    pixels = np.kron(np.array(STORED[6]) * 40, np.ones((16, 16))).astype(np.uint8)
    for texts in (info, hexadecimal):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG", pnginfo=texts)
        assert decoded(buffer.getvalue()) == UPRIGHT.tolist()


def test_unreadable_exif_is_counted_over_all_splits(tiny_vit: Path, tmp_path: Path) -> None:
    for split, count in (("train", 6), ("validation", 2), ("test", 2)):
        for label, level in (("dark", 1), ("light", 5)):
            folder = tmp_path / "data" / split / label
            folder.mkdir(parents=True)
            for index in range(count):
                description = exif(TURNED)[:-3] if index == 0 else exif(TURNED)
                data = encoded("JPEG", [[level] * 2] * 2, description)
                (folder / f"{index}.jpg").write_bytes(data)
    task = make_task(config("image_classification", tiny_vit, tmp_path / "data"))
    notes = task.prepare_data().summary["notes"]
    said = "EXIF of 6 images cannot be read: they are used as stored, perhaps not upright"
    assert said in notes
