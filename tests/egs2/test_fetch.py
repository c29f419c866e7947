"""Downloads of corpora: continued, checked, given up with a word on what to do."""

import hashlib
import http.server
import io
import tarfile
import threading
from base64 import b64encode
from multiprocessing import get_context

import pytest

CONTENT = bytes(range(256)) * 4096
MD5 = hashlib.md5(CONTENT).hexdigest()


def names(folder):
    """What is in a folder, but for the locks."""
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


@pytest.fixture
def fetch(local, monkeypatch):
    module = local("fleurs", "fetch")
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    return module


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT; ends each answer after ``cut`` bytes, if that is set."""

    def do_GET(self):
        server = self.server
        start = 0
        if server.ranges and "Range" in self.headers:
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
        server.starts.append(start)
        if server.status:
            return self.send_error(server.status)
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(206 if server.ranges else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        for value in server.hashes:
            self.send_header("x-goog-hash", value)
        self.end_headers()
        end = start + server.cut if server.cut else len(CONTENT)
        self.wfile.write(CONTENT[start:end])

    def log_message(self, *words):
        pass


@pytest.fixture
def server():
    """A server on loopback with what it is told to do, and what it was asked."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.starts, server.status, server.cut = [], 0, 0
    server.ranges, server.hashes = True, []
    server.url = f"http://127.0.0.1:{server.server_port}/corpus.tar.gz"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_download_goes_on_where_it_was_cut(fetch, server, tmp_path):
    server.cut = 400_000
    fetch.fetch(server.url, tmp_path / "a", MD5)
    assert server.starts == [0, 400_000, 800_000]
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert names(tmp_path) == {"a"}


def test_a_rerun_goes_on_where_the_last_one_was_killed(fetch, server, tmp_path):
    (tmp_path / "a.part").write_bytes(CONTENT[:1000])
    fetch.fetch(server.url, tmp_path / "a", MD5)
    assert server.starts == [1000] and (tmp_path / "a").read_bytes() == CONTENT


def test_a_whole_part_is_checked_and_taken(fetch, server, tmp_path):
    (tmp_path / "a.part").write_bytes(CONTENT)
    fetch.fetch(server.url, tmp_path / "a", MD5)
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_a_server_without_ranges_starts_anew(fetch, server, tmp_path):
    server.ranges = False
    (tmp_path / "a.part").write_bytes(b"x" * 1000)
    fetch.fetch(server.url, tmp_path / "a", MD5)
    assert (tmp_path / "a").read_bytes() == CONTENT


@pytest.mark.parametrize("told", ["given", "by the server"])
def test_a_wrong_file_is_removed_and_named(fetch, server, tmp_path, told):
    wrong = hashlib.md5(b"other").digest()
    server.hashes = ["crc32c=AAAAAA==", f"md5={b64encode(wrong).decode()}"]
    with pytest.raises(ValueError, match=f"MD5 of a must be {wrong.hex()}.*run again"):
        fetch.fetch(server.url, tmp_path / "a", wrong.hex() if told == "given" else "")
    assert names(tmp_path) == set()


def test_the_server_s_own_hash_is_met(fetch, server, tmp_path):
    server.hashes = [f"md5={b64encode(bytes.fromhex(MD5)).decode()}"]
    fetch.fetch(server.url, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT


@pytest.mark.parametrize(("status", "asked"), [(404, 1), (503, 6)])
def test_a_refusal_says_where_to_put_the_file(fetch, server, tmp_path, status, asked):
    server.status = status
    with pytest.raises(ValueError, match=f"{status}.*put the file at {tmp_path}/a"):
        fetch.fetch(server.url, tmp_path / "a", MD5)
    assert len(server.starts) == asked


def test_a_full_disk_is_named_before_it_is_full(fetch, server, tmp_path, monkeypatch):
    class Usage:
        free = 1000

    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda folder: Usage)
    with pytest.raises(ValueError, match="must have 0.0 GB free for the download"):
        fetch.fetch(server.url, tmp_path / "a", MD5)


def archive(path, *names):
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 1000
            tar.addfile(info, io.BytesIO(bytes(range(250)) * 4))


def test_a_folder_is_unpacked_whole_or_not_at_all(fetch, tmp_path):
    archive(tmp_path / "a.tgz", "top/in/x", "top/in/y")
    whole = (tmp_path / "a.tgz").read_bytes()
    (tmp_path / "a.tgz").write_bytes(whole[:-20])
    with pytest.raises(ValueError, match="a.tgz must be a whole tar archive"):
        fetch.provide(tmp_path / "out", "top/in", tmp_path / "a.tgz")
    assert names(tmp_path) == {"a.tgz"}
    (tmp_path / ".out.unpacking").mkdir()  # of a run that was killed
    (tmp_path / "a.tgz").write_bytes(whole)
    fetch.provide(tmp_path / "out", "top/in", tmp_path / "a.tgz")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"x", "y"}
    assert names(tmp_path) == {"a.tgz", "out"}


def test_an_archive_without_the_folder_is_named(fetch, tmp_path):
    archive(tmp_path / "a.tgz", "other/x")
    with pytest.raises(ValueError, match="must have a folder top, but has .'other'"):
        fetch.unpack(tmp_path / "a.tgz", tmp_path / "out", "top")


def packed():
    """The bytes of an archive with a folder ``top``."""
    with io.BytesIO() as file:
        with tarfile.open(fileobj=file, mode="w:gz") as tar:
            info = tarfile.TarInfo("top/x")
            info.size = len(CONTENT)
            tar.addfile(info, io.BytesIO(CONTENT))
        return file.getvalue()


def test_two_recipes_share_a_folder_of_downloads(fetch, tmp_path, monkeypatch):
    """One of them downloads and unpacks, the other waits."""
    asked, errors, folder = [], [], tmp_path / "top"

    def receive(url, part):
        asked.append(url)
        with part.open("ab") as file:
            file.write(packed()[:1000])
            threading.Event().wait(0.1)
            file.write(packed()[1000:])
        return ""

    def provide():
        try:
            fetch.provide(folder, "top", tmp_path / "a.tgz", "https://a")
            assert (folder / "x").read_bytes() == CONTENT
        except Exception as error:
            errors.append(error)

    monkeypatch.setattr(fetch, "_receive", receive)
    threads = [threading.Thread(target=provide) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [] and asked == ["https://a"]
    assert names(tmp_path) == {"a.tgz", "top"}


def test_a_killed_download_lets_the_next_recipe_go_on(
    fetch, server, tmp_path, monkeypatch
):
    fork = get_context("fork")
    begun = fork.Event()

    def hang(url, part):
        part.write_bytes(CONTENT[:1000])
        begun.set()
        threading.Event().wait(60)

    with monkeypatch.context() as patched:
        patched.setattr(fetch, "_receive", hang)
        killed = fork.Process(target=fetch.fetch, args=("", tmp_path / "a"))
        killed.start()
    assert begun.wait(30)
    other = threading.Thread(target=fetch.fetch, args=(server.url, tmp_path / "a", MD5))
    other.start()
    other.join(0.2)
    assert other.is_alive() and server.starts == []
    killed.kill()
    killed.join()
    other.join(30)
    assert server.starts == [1000] and (tmp_path / "a").read_bytes() == CONTENT
