"""Tests of downloads, from a test server that interrupts transfers, changes files and sends errors on request."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import ssl
import subprocess
import tarfile
import threading
import urllib.request
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from mindcv.utils import download as module
from mindcv.utils.download import DownLoad, cache_root, download, extract_archive
from mindcv.utils.errors import UserError

CONTENT = np.random.default_rng(0).integers(0, 256, 300_000, np.uint8).tobytes()
SHA256, MD5 = hashlib.sha256(CONTENT).hexdigest(), hashlib.md5(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves `server.content`. `server.how` describes the faults, and `server.seen` records the requests."""

    def do_GET(self):
        how, content = self.server.how, self.server.content
        self.server.seen.append((self.path, self.headers.get("Range"), self.headers.get("If-Range")))
        if self.path in how.get("redirects", {}):
            self.send_response(302)
            self.send_header("Location", how["redirects"][self.path])
            if "linked" in how:
                self.send_header("X-Linked-ETag", how["linked"])
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif how.get("status"):
            self.send_error(how["status"].pop(0))
        else:
            self.send_content(how, content)

    def send_content(self, how, content):
        asked, start = self.headers.get("Range"), 0
        if asked and not how.get("no_range"):
            start = int(asked[len("bytes=") : -1])
            if self.headers.get("If-Range", how.get("etag")) != how.get("etag"):
                start = 0
            elif start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if how.get("etag"):
            self.send_header("ETag", how["etag"])
        if "linked" in how and "redirects" not in how:
            self.send_header("X-Linked-ETag", how["linked"])
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        pieces = how.get("pieces")
        self.wfile.write(content[start : start + pieces.pop(0)] if pieces else content[start:])
        if "afterwards" in how:
            how.pop("afterwards")(self.server)
        self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module, "_PAUSES", (0.0, 0.0, 0.0))
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.how, server.seen, server.content = {}, [], CONTENT
        server.url = f"http://127.0.0.1:{server.server_address[1]}/data.bin"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_download_fetches_a_file(server, tmp_path):
    path = tmp_path / "new" / "folder" / "data.bin"
    assert download(server.url, path, sha256=SHA256, md5=MD5.upper()) == path
    assert path.read_bytes() == CONTENT and os.listdir(path.parent) == ["data.bin"]
    assert server.seen == [("/data.bin", None, None)]


def test_download_does_not_fetch_an_existing_file(server, tmp_path):
    path = tmp_path / "data.bin"
    path.write_bytes(CONTENT)
    download(server.url, path, sha256=SHA256)
    path.write_bytes(b"mine")
    download(server.url, path)
    assert server.seen == [] and path.read_bytes() == b"mine"
    download(server.url, path, md5=MD5)
    assert len(server.seen) == 1 and path.read_bytes() == CONTENT


def test_download_resumes_after_a_lost_connection(server, tmp_path):
    server.how = {"pieces": [100_000, 50_000], "etag": '"v1"'}
    download(server.url, tmp_path / "data.bin")
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert [asked[1:] for asked in server.seen] == [
        (None, None),
        ("bytes=100000-", '"v1"'),
        ("bytes=150000-", '"v1"'),
    ]


def test_download_starts_again_when_the_server_has_no_ranges(server, tmp_path):
    server.how = {"pieces": [200_000, 100_000], "no_range": True}
    download(server.url, tmp_path / "data.bin", sha256=SHA256)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT and len(server.seen) == 3


@pytest.mark.parametrize("etag", ["", '"v1"'])
def test_download_does_not_join_parts_of_two_versions(server, tmp_path, etag):
    def replace(server):
        server.content = CONTENT[::-1] + b"more"
        server.how["etag"] = etag and '"v2"'

    server.how = {"pieces": [100_000], "etag": etag, "afterwards": replace}
    download(server.url, tmp_path / "data.bin")
    assert (tmp_path / "data.bin").read_bytes() == CONTENT[::-1] + b"more"


def test_download_resumes_an_earlier_run_only_with_a_digest(server, tmp_path):
    part = tmp_path / "data.bin.part"
    part.write_bytes(CONTENT[:1000])
    download(server.url, tmp_path / "data.bin", sha256=SHA256)
    assert server.seen == [("/data.bin", "bytes=1000-", None)]
    (tmp_path / "data.bin").unlink()
    part.write_bytes(b"of another file")
    download(server.url, tmp_path / "data.bin")
    assert server.seen[1:] == [("/data.bin", "bytes=15-", None), ("/data.bin", None, None)]
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("how", ["redirect", "directly"])
def test_download_verifies_the_digest_of_the_server(server, tmp_path, how):
    """Hugging Face sends the digest with the redirect to the file, and some mirrors send it with the file."""
    url = server.url.replace("data.bin", "hub") if how == "redirect" else server.url
    server.how = {"linked": f'"{SHA256}"', **({"redirects": {"/hub": "/data.bin"}} if how == "redirect" else {})}
    (tmp_path / "data.bin.part").write_bytes(CONTENT[:1000])
    assert download(url, tmp_path / "data.bin").read_bytes() == CONTENT
    assert server.seen[-1] == ("/data.bin", "bytes=1000-", None) and len(server.seen) == (2 if how == "redirect" else 1)
    server.how["linked"] = "0" * 64
    with pytest.raises(UserError, match=f"its sha256 is {SHA256}, but it must be {'0' * 64}"):
        download(url, tmp_path / "other.bin")
    server.how["linked"] = '"an-etag-of-another-kind"'
    download(url, tmp_path / "other.bin")
    assert sorted(os.listdir(tmp_path)) == ["data.bin", "other.bin"]


def test_download_accepts_an_abbreviated_digest(server, tmp_path):
    path = tmp_path / "data.bin"
    download(server.url, path, sha256=SHA256[:8], md5=MD5[:9].upper())
    download(server.url, path, sha256=SHA256[:8])
    assert len(server.seen) == 1
    with pytest.raises(UserError, match=f"its sha256 is {SHA256}, but it must begin with {MD5[:8]}"):
        download(server.url, path, sha256=MD5[:8])
    assert path.read_bytes() == CONTENT and len(server.seen) == 2
    with pytest.raises(ValueError, match="at least 8 digits"):
        download(server.url, path, sha256=SHA256[:7])


@pytest.mark.parametrize("left", [CONTENT, CONTENT + b"too long"], ids=["whole", "longer"])
def test_download_handles_a_complete_or_longer_partial_file(server, tmp_path, left):
    (tmp_path / "data.bin.part").write_bytes(left)
    download(server.url, tmp_path / "data.bin", sha256=SHA256)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT and os.listdir(tmp_path) == ["data.bin"]
    assert len(server.seen) == (1 if left == CONTENT else 2)


@pytest.mark.parametrize("name, found", [("sha256", SHA256), ("md5", MD5)])
def test_download_names_both_digests_and_removes_the_file_when_they_differ(server, tmp_path, name, found):
    expected = "0" * len(found)
    with pytest.raises(UserError, match=f"its {name} is {found}, but it must be {expected}"):
        download(server.url, tmp_path / "data.bin", **{name: expected})
    assert os.listdir(tmp_path) == []


def test_download_does_not_retry_a_missing_file(server, tmp_path):
    server.how = {"status": [404]}
    with pytest.raises(UserError, match=r"data.bin': the server answers 404 \(Not Found\)"):
        download(server.url, tmp_path / "data.bin")
    assert len(server.seen) == 1 and os.listdir(tmp_path) == []


def test_download_retries_when_the_server_is_busy(server, tmp_path):
    server.how = {"status": [503, 429]}
    download(server.url, tmp_path / "data.bin", md5=MD5)
    assert len(server.seen) == 3
    server.how = {"status": [500] * 9}
    with pytest.raises(UserError, match=r"the server answers 500 .*, 3 times in a row"):
        download(server.url, tmp_path / "other.bin")
    assert os.listdir(tmp_path) == ["data.bin"]


def test_download_gives_up_after_three_attempts_without_progress(server, tmp_path):
    server.how = {"pieces": [1000] * 9, "no_range": True}
    with pytest.raises(UserError, match="the connection ended after 1000 of 300000 bytes, 3 times in a row"):
        download(server.url, tmp_path / "data.bin", md5=MD5)
    assert len(server.seen) == 4 and os.listdir(tmp_path) == ["data.bin.part"]


def test_download_names_a_refused_connection(server, tmp_path):
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as other:
        port = other.server_address[1]
    with pytest.raises(UserError, match="Connection refused"):
        download(f"http://127.0.0.1:{port}/x", tmp_path / "x")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("url", ["ftp://a.org/b", "file:///etc/hosts", "data.bin", "https:///b"])
def test_download_refuses_other_addresses(url, tmp_path):
    with pytest.raises(UserError, match="must be an http or https address"):
        download(url, tmp_path / "x")


def test_download_follows_redirects_but_not_in_a_loop(server, tmp_path):
    server.how = {"redirects": {"/old": "/data.bin", "/loop": "/loop"}}
    base = server.url.replace("/data.bin", "")
    assert download(f"{base}/old", tmp_path / "a", md5=MD5).read_bytes() == CONTENT
    with pytest.raises(UserError, match="answers 302"):
        download(f"{base}/loop", tmp_path / "b")


@pytest.fixture
def https_server(server, tmp_path_factory):
    """Return the same server over https. `certificate` is the file of its certificate, which no authority signed."""
    if not shutil.which("openssl"):
        pytest.skip("needs the openssl command to make a certificate")
    folder = tmp_path_factory.mktemp("certificate")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as secure:
        secure.socket = context.wrap_socket(secure.socket, server_side=True)
        secure.how, secure.seen, secure.content = {"redirects": {"/down": server.url}}, [], CONTENT
        secure.url, secure.certificate = f"https://127.0.0.1:{secure.server_address[1]}", str(certificate)
        thread = threading.Thread(target=secure.serve_forever, args=(0.01,))
        thread.start()
        yield secure
        secure.shutdown()
        thread.join()


def test_download_verifies_certificates_when_the_default_context_does_not(https_server, tmp_path, monkeypatch):
    monkeypatch.setattr(ssl, "_create_default_https_context", ssl._create_unverified_context)
    with urllib.request.urlopen(
        f"{https_server.url}/data.bin"
    ) as response:  # the default context verifies nothing here
        assert response.status == 200
    https_server.seen.clear()
    with pytest.raises(UserError, match="CERTIFICATE_VERIFY_FAILED"):
        download(f"{https_server.url}/data.bin", tmp_path / "x")
    assert https_server.seen == []
    monkeypatch.setenv("SSL_CERT_FILE", https_server.certificate)
    assert download(f"{https_server.url}/data.bin", tmp_path / "x", md5=MD5).is_file()


def test_download_refuses_a_redirect_from_https_to_http(https_server, server, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", https_server.certificate)
    with pytest.raises(UserError, match=f"redirects to '{server.url}', which is not encrypted"):
        download(f"{https_server.url}/down", tmp_path / "x")
    assert server.seen == [] and os.listdir(tmp_path) == []


def test_download_uses_the_proxy_of_the_environment(server, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url.replace("/data.bin", ""))
    monkeypatch.setenv("no_proxy", "")
    download("http://nowhere.invalid/data.bin", tmp_path / "x", md5=MD5)
    assert server.seen == [("http://nowhere.invalid/data.bin", None, None)]


def test_download_fetches_a_file_once_for_many_callers(server, tmp_path):
    """Threads stand for processes here: a lock on an open file also excludes other open files of the same process."""
    server.how = {"pieces": [10_000] * 5}
    done = []
    threads = [
        threading.Thread(target=lambda: done.append(download(server.url, tmp_path / "data.bin", md5=MD5)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 8 and len(server.seen) == 6 and os.listdir(tmp_path) == ["data.bin"]


def test_download_shows_progress_only_on_a_terminal(server, tmp_path, capfd):
    download(server.url, tmp_path / "data.bin")
    shown = capfd.readouterr().err
    assert shown == f"downloading {server.url} to '{tmp_path / 'data.bin'}'\n"


def test_cache_root_follows_the_environment(monkeypatch):
    monkeypatch.setenv("MINDCV_HOME", "~/kept")
    assert cache_root() == Path.home() / "kept"
    monkeypatch.delenv("MINDCV_HOME")
    assert cache_root() == Path.home() / ".mindcv"


FILES = {"a.txt": b"first", "folder/b.bin": CONTENT[:5000], "folder/deep/c": b""}


def zipped(path, files, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tarred(path, files, mode="w", **fields):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for field, value in fields.items():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(content))
    return path


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["zip", "zip deflated", "w", "w:gz", "w:xz"])
def test_extract_archive_unpacks_zip_and_tar(tmp_path, kind):
    if kind.startswith("zip"):
        compression = zipfile.ZIP_DEFLATED if "deflated" in kind else zipfile.ZIP_STORED
        path = zipped(tmp_path / "archive", FILES, compression=compression)
    else:
        path = tarred(tmp_path / "archive", FILES, kind)
    target = tmp_path / "target"
    (target / "folder").mkdir(parents=True)
    (target / "folder" / "b.bin").write_bytes(b"old")
    (target / "folder" / "kept").write_bytes(b"other")
    extract_archive(path, target)
    assert tree(target) == {**FILES, "folder/kept": b"other"} and len(os.listdir(target)) == 2
    assert oct((target / "folder").stat().st_mode) == oct(target.stat().st_mode)


def test_extract_archive_reads_a_tar_archive_that_ends_in_a_zip_archive(tmp_path):
    inner = zipped(tmp_path / "inner.zip", {"x": b"inner"}).read_bytes()
    extract_archive(tarred(tmp_path / "outer.tar", {"inner.zip": inner}), tmp_path / "target")
    assert tree(tmp_path / "target") == {"inner.zip": inner}


@pytest.mark.parametrize("name", ["../x", "/x", "good/../../x", "..\\x", "C:\\x"])
@pytest.mark.parametrize("make", [zipped, tarred])
def test_extract_archive_refuses_members_outside_the_folder(tmp_path, name, make):
    path = make(tmp_path / "archive", {"good": b"1", name: b"2"})
    with pytest.raises(UserError, match="would lie outside the folder"):
        extract_archive(path, tmp_path / "inner" / "target")
    assert tree(tmp_path) == {"archive": path.read_bytes()}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_extract_archive_refuses_links_and_devices(tmp_path, kind):
    path = tarred(tmp_path / "archive", {"link": b""}, type=kind, linkname="/etc/hosts")
    with pytest.raises(UserError, match="'link' is neither a file nor a folder"):
        extract_archive(path, tmp_path / "target")
    assert os.listdir(tmp_path / "target") == []


def test_extract_archive_refuses_a_link_in_a_zip_archive(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "archive", "w") as archive:
        archive.writestr(link, "/etc/hosts")
    with pytest.raises(UserError, match="'link' is neither a file nor a folder"):
        extract_archive(tmp_path / "archive", tmp_path / "target")


def test_extract_archive_reports_damaged_and_other_files(tmp_path):
    files = {"a": CONTENT[:50_000], "b": CONTENT[50_000:]}
    cut = tarred(tmp_path / "cut.tgz", files, "w:gz")
    cut.write_bytes(cut.read_bytes()[:200_000])
    broken = zipped(tmp_path / "broken.zip", files)
    content = bytearray(broken.read_bytes())
    content[70_000] ^= 1
    broken.write_bytes(content)
    for path in (cut, broken):
        with pytest.raises(UserError, match="because it is damaged"):
            extract_archive(path, tmp_path / "target")
        assert os.listdir(tmp_path / "target") == []
    with pytest.raises(UserError, match="neither a zip nor a tar archive"):
        (tmp_path / "text").write_text("text")
        extract_archive(tmp_path / "text", tmp_path / "target")
    with pytest.raises(UserError, match="the file does not exist"):
        extract_archive(tmp_path / "nothing", tmp_path / "target")


def test_download_class_offers_the_methods_of_mindcv(server, tmp_path, monkeypatch):
    monkeypatch.setenv("MINDCV_HOME", str(tmp_path / "home"))
    assert DownLoad().download_url(server.url, md5=MD5) == tmp_path / "home" / "data.bin"
    assert DownLoad().download_file(server.url, tmp_path / "file").read_bytes() == CONTENT
    server.content = zipped(tmp_path / "archive.zip", FILES).read_bytes()
    DownLoad().download_and_extract_archive(server.url, str(tmp_path / "a"), filename="x.zip")
    assert tree(tmp_path / "a") == {**FILES, "x.zip": server.content}
    DownLoad().download_and_extract_archive(server.url, tmp_path / "b", tmp_path / "c", remove_finished=True)
    assert tree(tmp_path / "b") == {} and tree(tmp_path / "c") == FILES
    assert DownLoad().extract_archive(str(tmp_path / "a" / "x.zip"), tmp_path / "d") == tmp_path / "d"
    with pytest.raises(UserError, match="set filename"):
        DownLoad().download_url("http://127.0.0.1/", tmp_path)
