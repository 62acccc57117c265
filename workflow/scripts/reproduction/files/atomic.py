"""Files that are whole or absent: written under a temporary name, then renamed."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from reproduction.errors import WriteError


def cannot_write(path: Path, error: OSError, size: int | None = None) -> WriteError:
    """The error for a file that the system refused to write; `size`: its bytes, where they are known."""
    needed = "" if size is None else f"it needs {size / 1e6:.3g} MB; "
    if error.errno == errno.ENOSPC:
        hint = f"{needed}{_free(path) / 1e6:.3g} MB are free there: make room and run again"
    elif error.errno == errno.EDQUOT:
        hint = f"{needed}your quota there is used up: make room and run again"
    elif error.errno == errno.EFBIG:
        hint = f"{needed}a limit on the size of files forbids it: see `ulimit -f`"
    else:
        hint = f"make {path.parent} a folder that you can write to and run again"
    return WriteError(f"{path}: cannot be written ({error.strerror}); {hint}")


def _free(path: Path) -> int:
    """Bytes that are free on the disk of a file that need not be there yet."""
    there = next(folder for folder in path.absolute().parents if folder.exists())
    return shutil.disk_usage(there).free


def is_refusal(error: OSError, part: Path) -> bool:
    """Whether an error is the system's refusal to write `part`, and not of something else that went on meanwhile."""
    if error.filename is None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
    named = Path(os.fsdecode(error.filename))
    return not isinstance(error, FileNotFoundError) and (named == part or named in part.parents)


@contextmanager
def atomic_path(path: str | os.PathLike[str], size: int | None = None) -> Iterator[Path]:
    """Give a temporary sibling of `path` to write to; rename it to `path` on success, remove it on any error.

    The rename is atomic, so no reader and no crash ever sees half a file under the final name. A full disk and a folder
    that is not writable are a `WriteError` that names the file, and what it needs if `size` (bytes) says so.
    """
    final = Path(path)
    # The temporary name is fixed, so that the next try overwrites the file of a killed one.
    part = final.with_name(f".{final.name}.part")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with open(part, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(part, final)
    except OSError as error:
        if not is_refusal(error, part):
            raise
        raise cannot_write(final, error, size) from None
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
