"""Fetching one file of known md5 from the first mirror that gives it whole, in bounded time."""

import hashlib
import http.client
import logging
import os
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from reproduction.errors import DataError, WriteError
from reproduction.files.atomic import atomic_path

LOGGER = logging.getLogger(__name__)
MIRRORS_VARIABLE = "EIGENDRIFT_MIRRORS"
_CHUNK = 1 << 16
_LARGEST = 64 << 20  # bytes; twice the largest of MNIST and its like, so that an endless answer does not fill the disk


@dataclass(frozen=True)
class Patience:
    """How long to wait: `silence` seconds without a byte, `attempt` seconds for one file from one mirror.

    All mirrors are tried in `rounds` rounds, `pause` seconds apart.
    """

    silence: float = 20.0
    attempt: float = 600.0
    rounds: int = 2
    pause: float = 2.0


class _MirrorError(Exception):
    """One mirror did not give the file."""


def mirrors_from_environment() -> list[str]:
    """The base addresses in EIGENDRIFT_MIRRORS, separated by white space; `DataError` for one that is not http(s)."""
    mirrors = os.environ.get(MIRRORS_VARIABLE, "").split()
    for mirror in mirrors:
        if urlsplit(mirror).scheme not in ("http", "https"):
            raise DataError(f"{MIRRORS_VARIABLE}: {mirror!r} is not an address that starts with http:// or https://")
    return mirrors


def fetch(
    path: Path, md5: str, addresses: Sequence[str], patience: Patience = Patience(), largest: int = _LARGEST
) -> None:
    """Write to `path` the file of checksum `md5` that one of the `addresses` gives, of at most `largest` bytes.

    The file appears under its name only when it is whole and verified. Raises `DataError` with every address and why
    it failed when none gives it, and when `path` cannot be written.
    """
    failures: dict[str, str] = {}
    for attempt in range(patience.rounds):
        if attempt:
            time.sleep(patience.pause)
        for address in addresses:
            try:
                with atomic_path(path) as part:
                    _download(address, part, md5, patience, largest)
            except _MirrorError as error:
                failures[address] = str(error)
                LOGGER.warning("%s: %s", address, error)
            except WriteError as error:
                raise DataError(f"{error}, or set data.root to another folder") from None
            else:
                LOGGER.info("%s: fetched from %s", path, address)
                return
    reasons = "; ".join(f"{address}: {reason}" for address, reason in failures.items())
    raise DataError(
        f"{path}: could not be downloaded (md5 {md5} expected), {patience.rounds} attempts a mirror: {reasons}. "
        f"Check the connection, name another mirror in {MIRRORS_VARIABLE}, or put the file there yourself"
    )


def _download(address: str, part: Path, md5: str, patience: Patience, largest: int) -> None:
    deadline = time.monotonic() + patience.attempt
    digest = hashlib.md5(usedforsecurity=False)
    received = 0
    with _open(address, patience) as response, open(part, "wb") as file:
        promised = response.length
        while chunk := _next_chunk(response, patience):
            received += len(chunk)
            if received > largest:
                raise _MirrorError(f"more than {largest} bytes")
            if time.monotonic() > deadline:
                raise _MirrorError(f"not complete after {patience.attempt:g} s")
            digest.update(chunk)
            file.write(chunk)
    if promised is not None and received < promised:
        raise _MirrorError(f"ended after {received} of {promised} bytes")
    if digest.hexdigest() != md5:
        raise _MirrorError(f"{received} bytes of md5 {digest.hexdigest()}")


def _next_chunk(response: Any, patience: Patience) -> bytes:
    try:
        # read1 returns what has come; read would wait for a full chunk while a slow mirror outlives the deadline.
        chunk: bytes = response.read1(_CHUNK)
    except TimeoutError:
        raise _MirrorError(f"silent for {patience.silence:g} s") from None
    except (OSError, http.client.HTTPException) as error:
        raise _MirrorError(_reason(error)) from None
    return chunk


def _open(address: str, patience: Patience) -> Any:
    # In a thread, because a socket's time limit covers neither the search for the host's address nor headers that
    # trickle in byte by byte.
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    request = urllib.request.Request(address, headers={"User-Agent": "eigendrift"})

    def ask() -> None:
        try:
            answers.put(urllib.request.urlopen(request, timeout=patience.silence))
        except (OSError, http.client.HTTPException, ValueError) as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=patience.attempt)
    except queue.Empty:
        raise _MirrorError(f"no answer after {patience.attempt:g} s") from None
    if isinstance(answer, urllib.error.HTTPError):
        answer.close()
    if isinstance(answer, Exception):
        raise _MirrorError(_reason(answer))
    return answer


def _reason(error: Exception) -> str:
    cause = getattr(error, "reason", error)
    if isinstance(error, urllib.error.HTTPError):
        return " ".join(f"HTTP {error.code} {error.reason}".split())
    return " ".join(str(cause).split()) or type(cause).__name__
