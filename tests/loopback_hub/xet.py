"""What hf_xet uploads: xorbs (compressed chunks) and shards (which chunks make up which file).

https://huggingface.co/docs/xet/xorb and https://huggingface.co/docs/xet/shard give the layouts; all
integers are little-endian. The hub puts the files together at once and serves them as plain ones.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

CHUNK_HEADER_BYTES = 8
SHARD_HEADER_BYTES = 48
ENTRY_BYTES = 48
WITH_VERIFICATION, WITH_METADATA = 1 << 31, 1 << 30
BOOKEND = b"\xff" * 32
STORED, LZ4, GROUPED_LZ4 = 0, 1, 2


@dataclass(frozen=True)
class Term:
    """Chunks `first` to `end` (excluded) of one xorb."""

    xorb: str
    first: int
    end: int


@dataclass(frozen=True)
class ShardFile:
    sha256: str
    terms: tuple[Term, ...]


def hash_text(raw: bytes) -> str:
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", raw))


def shard_files(shard: bytes) -> Iterator[ShardFile]:
    """The files that a shard describes; whoever uploads to a repository gives their sha256."""
    position = SHARD_HEADER_BYTES
    while shard[position : position + len(BOOKEND)] != BOOKEND:
        flags, count = struct.unpack_from("<2I", shard, position + 32)
        entries = position + ENTRY_BYTES
        terms = []
        for index in range(count):
            xorb, _, _, first, end = struct.unpack_from(
                "<32s4I", shard, entries + index * ENTRY_BYTES
            )
            terms.append(Term(hash_text(xorb), first, end))
        position = entries + count * ENTRY_BYTES * (2 if flags & WITH_VERIFICATION else 1)
        assert flags & WITH_METADATA, "a file of a repository comes with its sha256"
        yield ShardFile(hash_text(shard[position : position + 32]), tuple(terms))
        position += ENTRY_BYTES


def xorb_chunks(xorb: bytes) -> Iterator[bytes]:
    """The chunks of a xorb, decompressed; its footer is not needed."""
    position = 0
    while position < len(xorb) and xorb[position] == 0:  # a chunk's version; the footer has another
        packed = int.from_bytes(xorb[position + 1 : position + 4], "little")
        scheme = xorb[position + 4]
        size = int.from_bytes(xorb[position + 5 : position + 8], "little")
        position += CHUNK_HEADER_BYTES
        yield _unpack(xorb[position : position + packed], scheme, size)
        position += packed


def _unpack(data: bytes, scheme: int, size: int) -> bytes:
    if scheme == STORED:
        return data
    import pyarrow  # has LZ4, which the standard library lacks

    grouped: bytes = pyarrow.decompress(data, decompressed_size=size, codec="lz4", asbytes=True)
    if scheme == LZ4:
        return grouped
    assert scheme == GROUPED_LZ4, f"unknown compression {scheme}"
    chunk = bytearray(size)
    position = 0
    for offset in range(4):  # all first bytes of four, then all second bytes, ...
        count = len(range(offset, size, 4))
        chunk[offset::4] = grouped[position : position + count]
        position += count
    return bytes(chunk)


def contents(file: ShardFile, read_xorb: Callable[[str], bytes]) -> Iterator[bytes]:
    """A file's bytes, chunk by chunk."""
    for term in file.terms:
        yield from islice(xorb_chunks(read_xorb(term.xorb)), term.first, term.end)
