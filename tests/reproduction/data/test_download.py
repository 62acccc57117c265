"""Downloads from a local server with every fault that a mirror can have."""

import gzip
import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from experiments import PACKAGES
from refusals import refused

from reproduction.data.download import Patience, fetch, mirrors_from_environment
from reproduction.data.sources import load_raw
from reproduction.errors import DataError
from reproduction.experiment.datasets import DATASETS, RawFile

QUICK = Patience(silence=0.3, attempt=0.8, rounds=2, pause=0.0)
CONTENT = np.random.RandomState(0).bytes(200_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `files` by path; the first part of a path names the fault: /ok/name, /truncated/name, ..."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {"file": CONTENT}
        self.requests: list[str] = []
        self.stopping = threading.Event()
        self.base = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gave up is what these tests provoke."""


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.close_connection = True
        _, fault, name = self.path.split("/", 2)
        self.server.requests.append(fault)
        getattr(self, fault)(self.server.files.get(name, b""))

    def start(self, status: int, length: int | None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Connection", "close")
        if length is not None:
            self.send_header("Content-Length", str(length))
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()

    def trickle(self, content: bytes) -> None:
        for position in range(len(content)):
            self.wfile.write(content[position : position + 1])
            if self.server.stopping.wait(0.02):
                break

    def ok(self, content: bytes) -> None:
        self.start(200, len(content))
        self.wfile.write(content)

    def truncated(self, content: bytes) -> None:
        self.start(200, len(content))
        self.wfile.write(content[: len(content) // 2])

    def truncated_silently(self, content: bytes) -> None:
        self.start(200, None)
        self.wfile.write(content[: len(content) // 2])

    def broken_chunk(self, content: bytes) -> None:
        self.start(200, None, **{"Transfer-Encoding": "chunked"})
        self.wfile.write(b"ffff\r\n" + content[:100])

    def corrupt(self, content: bytes) -> None:
        self.ok(content[:-1] + bytes([content[-1] ^ 1]) if content else b"x")

    def empty(self, content: bytes) -> None:
        self.ok(b"")

    def page(self, content: bytes) -> None:
        self.ok(b"<html>Please sign in to this network</html>")

    def silent(self, content: bytes) -> None:
        self.server.stopping.wait(10)

    def stalls(self, content: bytes) -> None:
        self.start(200, len(content))
        self.wfile.write(content[:1000])
        self.server.stopping.wait(10)

    def slow(self, content: bytes) -> None:
        self.start(200, len(content))
        self.trickle(content)

    def slow_header(self, content: bytes) -> None:
        self.trickle(b"HTTP/1.1 200 OK\r\nX-Long: " + 10_000 * b"x")

    def endless(self, content: bytes) -> None:
        self.start(200, None)
        while not self.server.stopping.is_set():
            self.wfile.write(bytes(1 << 20))

    def hangs_up(self, content: bytes) -> None:
        self.connection.close()

    def nonsense(self, content: bytes) -> None:
        self.wfile.write(b"hello, this is no HTTP\r\n\r\n")

    def missing(self, content: bytes) -> None:
        self.start(404, 0)

    def unavailable(self, content: bytes) -> None:
        self.start(503, 0, **{"Retry-After": "1000"})

    def redirect(self, content: bytes) -> None:
        self.start(302, 0, Location=self.path.replace("/redirect/", "/ok/"))

    def redirect_to_missing(self, content: bytes) -> None:
        self.start(301, 0, Location=self.path.replace("/redirect_to_missing/", "/missing/"))

    def redirect_in_circles(self, content: bytes) -> None:
        self.start(302, 0, Location=self.path)

    def redirect_to_disk(self, content: bytes) -> None:
        self.start(302, 0, Location="file:///etc/hostname")

    def log_message(self, *arguments: object) -> None:
        """No talk on the terminal."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.stopping.set()
    server.shutdown()
    thread.join()
    server.server_close()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


FAULTS = {
    "truncated": "ended after 100000 of 200000 bytes",
    "truncated_silently": "100000 bytes of md5 ",
    "broken_chunk": "IncompleteRead",
    "corrupt": "200000 bytes of md5 ",
    "empty": "0 bytes of md5 ",
    "page": "43 bytes of md5 ",
    "silent": "timed out",
    "stalls": "silent for 0.3 s",
    "slow": "not complete after 0.8 s",
    "slow_header": "no answer after 0.8 s",
    "endless": "",
    "hangs_up": "",
    "nonsense": "hello",
    "missing": "HTTP 404",
    "unavailable": "HTTP 503",
    "redirect_to_missing": "HTTP 404",
    "redirect_in_circles": "HTTP 302",
    "redirect_to_disk": "HTTP 302",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_mirror_is_followed_by_the_next_one(fault: str, server: Server, tmp_path: Path) -> None:
    path = tmp_path / "data" / "file"
    fetch(path, MD5, [f"{server.base}/{fault}/file", f"{server.base}/ok/file"], QUICK)
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == ["file"]
    assert server.requests[0] == fault
    assert server.requests[-1] == "ok"


@pytest.mark.parametrize("fault", FAULTS)
def test_when_every_mirror_fails_one_error_says_how_and_nothing_is_kept(
    fault: str, server: Server, tmp_path: Path
) -> None:
    path = tmp_path / "data" / "file"
    addresses = [f"{server.base}/{fault}/file", f"{server.base}/missing/file"]
    start = time.monotonic()
    with pytest.raises(DataError) as caught:
        fetch(path, MD5, addresses, QUICK)
    message = str(caught.value)
    assert time.monotonic() - start < 4
    assert "\n" not in message
    assert str(path) in message
    assert MD5 in message
    for address, reason in zip(addresses, [FAULTS[fault], "HTTP 404"], strict=True):
        assert f"{address}: {reason}" in message
    assert f"{addresses[0]}: ;" not in message
    assert names(path.parent) == []
    assert server.requests.count(fault) >= 2, "a second round"


def test_a_redirect_is_followed(server: Server, tmp_path: Path) -> None:
    fetch(tmp_path / "file", MD5, [f"{server.base}/redirect/file"], QUICK)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_fault_that_passes_is_overcome_in_the_second_round(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def once_unavailable(handler: Handler, content: bytes) -> None:
        Handler.unavailable(handler, content) if len(server.requests) == 1 else Handler.ok(handler, content)

    monkeypatch.setattr(Handler, "busy", once_unavailable, raising=False)
    fetch(tmp_path / "file", MD5, [f"{server.base}/busy/file"], QUICK)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.requests == ["busy", "busy"]


def test_hosts_that_do_not_answer_are_named(tmp_path: Path) -> None:
    with refused(DataError, "http://127.0.0.1:9/file"):
        fetch(tmp_path / "file", MD5, ["http://127.0.0.1:9/file"], QUICK)


def test_an_endless_answer_is_cut_at_the_size_limit(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"more than {1 << 20} bytes"):
        fetch(tmp_path / "file", MD5, [f"{server.base}/endless/file"], QUICK, largest=1 << 20)


def test_a_full_disk_or_a_foreign_folder_is_one_error(server: Server, tmp_path: Path) -> None:
    (tmp_path / "occupied").write_text("a file where the folder should be")
    with refused(DataError, "occupied/file", "data.root"):
        fetch(tmp_path / "occupied" / "file", MD5, [f"{server.base}/ok/file"], QUICK)
    code = (  # a limit on the size of files stands for the full disk
        "import resource; from pathlib import Path; from reproduction.data.download import fetch;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000));"
        f"fetch(Path({str(tmp_path / 'file')!r}), {MD5!r}, ['{server.base}/ok/file'])"
    )
    environment = {**os.environ, "PYTHONPATH": PACKAGES}
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "DataError" in ended.stderr
    assert "cannot be written (File too large); a limit on the size of files" in ended.stderr
    assert names(tmp_path) == ["occupied"]


def test_a_killed_download_leaves_no_file_and_the_next_one_succeeds(server: Server, tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from reproduction.data.download import fetch;"
        f"fetch(Path({str(tmp_path / 'file')!r}), {MD5!r}, ['{server.base}/stalls/file'])"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": PACKAGES})
    try:
        limit = time.monotonic() + 10
        while not any(p.name.endswith(".part") for p in tmp_path.iterdir()) and time.monotonic() < limit:
            time.sleep(0.02)
        assert any(p.name.endswith(".part") for p in tmp_path.iterdir())
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "file").exists()
    fetch(tmp_path / "file", MD5, [f"{server.base}/ok/file"], QUICK)
    assert (tmp_path / "file").read_bytes() == CONTENT


# The way from an empty folder to arrays


@pytest.fixture
def archives(server: Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Four small archives of a stand-in for MNIST, on the server and with checksums that the library knows."""
    random = np.random.RandomState(1)
    arrays = [random.randint(0, 10, shape).astype(np.uint8) for shape in ((20, 28, 28), (20,), (10, 28, 28), (10,))]
    files, packed = [], {}
    for file, array in zip(DATASETS["MNIST"].files, arrays, strict=True):
        sizes = b"".join(n.to_bytes(4, "big") for n in array.shape)
        content = bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()
        archive = packed[file.archive] = gzip.compress(content, mtime=0)
        files.append(RawFile(file.name, hashlib.md5(content).hexdigest(), hashlib.md5(archive).hexdigest()))
        server.files[f"MNIST/{file.archive}"] = archive
    monkeypatch.setitem(DATASETS, "MNIST", replace(DATASETS["MNIST"], samples=20, files=tuple(files)))
    return packed


def test_an_empty_folder_is_filled_and_then_read_without_the_network(
    server: Server, archives: dict[str, bytes], tmp_path: Path
) -> None:
    mirrors = [f"{server.base}/corrupt", f"{server.base}/ok/"]
    first = load_raw("MNIST", tmp_path, download=True, mirrors=mirrors)
    assert first.train_inputs.shape == (20, 784)
    assert first.test_targets.shape == (10,)
    assert {p.name: p.read_bytes() for p in (tmp_path / "MNIST" / "raw").iterdir()} == archives
    asked = len(server.requests)
    again = load_raw("MNIST", tmp_path, download=True, mirrors=mirrors)
    assert len(server.requests) == asked == 8
    np.testing.assert_array_equal(first.train_inputs, again.train_inputs)


def test_only_what_is_absent_is_fetched(server: Server, archives: dict[str, bytes], tmp_path: Path) -> None:
    load_raw("MNIST", tmp_path, download=True, mirrors=[f"{server.base}/ok"])
    (tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte.gz").unlink()
    server.requests.clear()
    load_raw("MNIST", tmp_path, download=True, mirrors=[f"{server.base}/ok"])
    assert server.requests == ["ok"]


def test_without_download_the_network_is_left_alone(server: Server, archives: dict[str, bytes], tmp_path: Path) -> None:
    with refused(DataError, "data.download: true"):
        load_raw("MNIST", tmp_path, download=False, mirrors=[f"{server.base}/ok"])
    assert server.requests == []
    assert list(tmp_path.iterdir()) == []


def cifar(images: np.ndarray, labels: np.ndarray, folder: str, members: dict[str, slice], extra: int) -> bytes:
    """A tar archive of rows of labels and images; of `extra` labels in front, which are not the class."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for name, rows in members.items():
            others = np.full((len(labels[rows]), extra), 77, np.uint8)
            content = np.concatenate([others, labels[rows, None], images[rows]], axis=1).astype(np.uint8).tobytes()
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def published(name: str, images: np.ndarray, labels: np.ndarray) -> bytes:
    """An archive as it is published, of 25 training samples and 5 of the test."""
    test = slice(25, 30)
    if name == "CIFAR10":
        parts = {f"data_batch_{n}.bin": slice(5 * n - 5, 5 * n) for n in range(1, 6)}
        return cifar(images, labels, "cifar-10-batches-bin", {**parts, "test_batch.bin": test}, 0)
    if name == "CIFAR100":
        return cifar(images, labels, "cifar-100-binary", {"train.bin": slice(25), "test.bin": test}, 1)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for part, rows in (("train", slice(25)), ("test", test)):
            turned = images[rows].reshape(-1, 28, 28).transpose(0, 2, 1)
            for kind, array in (("images-idx3", turned), ("labels-idx1", labels[rows])):
                sizes = b"".join(n.to_bytes(4, "big") for n in array.shape)
                content = bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()
                file.writestr(f"gzip/emnist-balanced-{part}-{kind}-ubyte.gz", gzip.compress(content))
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["EMNIST", "CIFAR10", "CIFAR100"])
def test_a_data_set_of_one_archive_is_fetched_once_verified_and_read(
    name: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, random = DATASETS[name], np.random.RandomState(2)
    assert record.archive is not None
    images = random.randint(0, 256, (30, record.inputs)).astype(np.uint8)
    labels = random.randint(0, record.classes, 30).astype(np.uint8)
    content = published(name, images, labels)
    archive = replace(record.archive, md5=hashlib.md5(content).hexdigest())
    monkeypatch.setitem(DATASETS, name, replace(record, samples=25, archive=archive))
    server.files[f"{name}/{archive.name}"] = content
    with refused(DataError, archive.name, "data.download: true"):
        load_raw(name, tmp_path, download=False)
    for _ in range(2):
        raw = load_raw(name, tmp_path, download=True, mirrors=[f"{server.base}/corrupt", f"{server.base}/ok"])
        np.testing.assert_array_equal(raw.train_inputs, images[:25])
        np.testing.assert_array_equal(raw.train_targets, labels[:25])
        np.testing.assert_array_equal(raw.test_inputs, images[25:])
        np.testing.assert_array_equal(raw.test_targets, labels[25:])
    assert server.requests == ["corrupt", "ok"]
    path, part = tmp_path / name / archive.name, content[: len(content) // 2]
    path.write_bytes(part)
    with refused(DataError, path, archive.md5):
        load_raw(name, tmp_path, download=False)
    known = replace(archive, md5=hashlib.md5(part).hexdigest())
    monkeypatch.setitem(DATASETS, name, replace(record, samples=25, archive=known))
    with refused(DataError, path, "published"):
        load_raw(name, tmp_path, download=False)


def test_a_file_whose_own_checksum_is_not_known_is_read_from_its_archive(
    server: Server, archives: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = DATASETS["MNIST"]
    monkeypatch.setitem(DATASETS, "MNIST", replace(record, files=tuple(replace(f, md5="") for f in record.files)))
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    (folder / record.files[0].name).write_bytes(b"nobody knows what this is")
    raw = load_raw("MNIST", tmp_path, download=True, mirrors=[f"{server.base}/ok"])
    assert gzip.decompress(archives[record.files[0].archive])[16:] == raw.train_inputs.tobytes()
    assert {path.name for path in folder.iterdir()} == {*archives, record.files[0].name}


def test_the_environment_names_the_mirrors(
    server: Server, archives: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EIGENDRIFT_MIRRORS", f"{server.base}/missing/ {server.base}/redirect")
    assert load_raw("MNIST", tmp_path, download=True).train_inputs.shape == (20, 784)
    assert server.requests == ["missing", "redirect", "ok"] * 4


def test_torchvisions_mirrors_are_used_where_none_is_named(
    server: Server, archives: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision import datasets

    monkeypatch.delenv("EIGENDRIFT_MIRRORS", raising=False)
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"{server.base}/missing/MNIST/", f"{server.base}/ok/MNIST/"])
    assert load_raw("MNIST", tmp_path, download=True).train_inputs.shape == (20, 784)
    assert server.requests == ["missing", "ok"] * 4


def test_a_mirror_that_is_no_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EIGENDRIFT_MIRRORS", "http://a file:///etc")
    with refused(DataError, "EIGENDRIFT_MIRRORS", "'file:///etc'"):
        mirrors_from_environment()
