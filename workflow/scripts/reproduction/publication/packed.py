"""Compressed files of the repository: tables as .gz, arrays as .xz, the same bytes every time that they are written."""

import gzip
import lzma
import zlib
from pathlib import Path

from reproduction.errors import DataError
from reproduction.files.atomic import atomic_path

# Leading eigenvectors and weights (float32) take a tenth less under xz than under gzip; tables come out alike.
_SUFFIXES = {".csv": ".gz", ".safetensors": ".xz"}


def packed_name(name: str) -> str:
    """The name of a file once it is compressed, the kind of compression as its last suffix."""
    return name + _SUFFIXES[Path(name).suffix]


def pack(path: Path, content: bytes) -> None:
    """Write compressed content, whole or not at all, as the last suffix of `path` says."""
    packed = lzma.compress(content, preset=9) if path.suffix == ".xz" else gzip.compress(content, mtime=0)
    write_whole(path, packed)


def unpack(path: Path, remedy: str) -> bytes:
    """The content of a compressed file; a damaged one is a `DataError` that names it and the remedy."""
    try:
        content = path.read_bytes()
        return lzma.decompress(content) if path.suffix == ".xz" else gzip.decompress(content)
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{path}: damaged ({error}); {remedy}") from None


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    with atomic_path(path) as part:
        part.write_bytes(content)
