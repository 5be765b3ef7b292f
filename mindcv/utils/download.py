"""Downloads files, verifies and unpacks them. Each file is downloaded once and is never half written."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import lzma
import os
import re
import shutil
import socket
import ssl
import stat
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, NamedTuple, Optional, Union
from urllib.parse import unquote, urlsplit

from tqdm import tqdm

from mindcv.utils.errors import UserError
from mindcv.utils.files import ensure_writable_dir
from mindcv.utils.locks import locked
from mindcv.utils.logger import logger

__all__ = ["DownLoad", "cache_root", "download", "extract_archive"]

_PathLike = Union[str, os.PathLike]

_SCHEMES = ("http", "https")
_TIMEOUT = 30.0  # seconds without a byte
# Seconds before each retry. After this number of consecutive attempts without new bytes, the
# download fails.
_PAUSES = (1.0, 2.0, 4.0)
_CHUNK = 1 << 20
_MIN_DIGITS = 8  # smallest length of an abbreviated digest
# Temporary HTTP errors: request timeout, too many requests, and errors of the server.
_TEMPORARY_STATUS = {408, 429, 500, 502, 503, 504}


def cache_root() -> Path:
    """Return the folder for downloads: the value of the environment variable MINDCV_HOME, or ~/.mindcv."""
    return Path(os.environ.get("MINDCV_HOME") or "~/.mindcv").expanduser()


def download(url: str, path: _PathLike, sha256: Optional[str] = None, md5: Optional[str] = None) -> Path:
    """Download a file unless it exists already.

    An existing file at `path` is used if it has the given digests, or if no digest is given: files are never half
    written. The bytes are written to `<path>.part`. An interrupted transfer continues where it stopped. A transfer of
    an earlier run continues only if a digest can verify that both parts belong together. The digest is an argument, or
    the server sends it, as Hugging Face does. Several processes may download the same file at the same time: one
    downloads it and the others wait. A terminal shows a progress bar. The proxies of the environment are used.

    Args:
        url: http or https address. Certificates are verified, and a redirect from https to http is refused.
        path: path of the file. Its folder is created if it does not exist.
        sha256, md5: digests in hexadecimal. They may be abbreviated to the first 8 digits or more, as in the names of
            published files.

    Returns:
        `path`.

    Raises:
        UserError: the server cannot be reached, does not have the file, or repeatedly closed the connection; or a
            digest does not match, and then the partial file is removed.
    """
    path = Path(path)
    if urlsplit(url).scheme not in _SCHEMES or not urlsplit(url).netloc:
        raise UserError(f"cannot download '{url}': it must be an http or https address")
    digests = {name: value.lower() for name, value in (("sha256", sha256), ("md5", md5)) if value}
    if any(len(value) < _MIN_DIGITS for value in digests.values()):
        raise ValueError(f"a digest must have at least {_MIN_DIGITS} digits, got {digests}")
    if _is_complete(path, digests):
        return path
    ensure_writable_dir(path.parent)
    part = path.with_name(path.name + ".part")
    with locked(part) as file:
        if _is_complete(path, digests):  # another process fetched it while this one waited
            part.unlink()
            return path
        try:
            logger.info("downloading %s to '%s'", url, path)
            server_digests = _Transfer(url, file, path.name, is_verified=bool(digests)).run()
            _verify(part, {**server_digests, **digests}, url)
            # atomic_path is not used: for a moment another process would find neither file, and
            # download it again.
            os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            if not os.fstat(file.fileno()).st_size:
                part.unlink(missing_ok=True)
    return path


def extract_archive(path: _PathLike, folder: _PathLike) -> None:
    """Unpack a zip or tar archive (plain, or compressed by gzip, bzip2 or xz) into `folder`.

    The folder is created if it does not exist. Files are first written to a hidden folder inside it and then moved, so
    no file is ever half written.

    Raises:
        UserError: the file is not an archive or is damaged; or a member is a link or a device, or would lie outside
            `folder`. Then nothing is unpacked.
    """
    path, folder = Path(path), ensure_writable_dir(folder)
    if not path.is_file():
        raise UserError(f"cannot unpack '{path}': the file does not exist")
    try:
        with _members_of(path) as members, tempfile.TemporaryDirectory(prefix=".unpack-", dir=folder) as side:
            for member in members:
                _check_member(member, path)
            for member in members:
                _unpack(member, Path(side))
            _move_tree(Path(side), folder)
    except (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError) as error:
        raise UserError(f"cannot unpack '{path}', because it is damaged: {error}") from None
    except RuntimeError as error:  # zipfile raises it for encryption and unknown methods
        raise UserError(f"cannot unpack '{path}': {error}") from None


class DownLoad:
    """The functions of this module under the names of MindCV's class, for code that was written for MindCV.

    Unlike in MindCV, an invalid certificate is an error. MindCV continues without verification or without encryption.
    """

    def download_file(self, url: str, file_path: _PathLike) -> Path:
        """Download `url` to `file_path` unless the file exists (see `download`)."""
        return download(url, file_path)

    def download_url(
        self, url: str, path: Optional[_PathLike] = None, filename: Optional[str] = None, md5: Optional[str] = None
    ) -> Path:
        """Download `url` into the folder `path`, by default `cache_root()`. The default file name is the URL's."""
        folder = cache_root() if path is None else Path(path).expanduser()
        return download(url, folder / (filename or _name_of(url)), md5=md5)

    def extract_archive(self, from_path: _PathLike, to_path: Optional[_PathLike] = None) -> Path:
        """Unpack an archive into the folder `to_path`, by default its own folder (see `extract_archive`)."""
        folder = Path(from_path).parent if to_path is None else Path(to_path).expanduser()
        extract_archive(from_path, folder)
        return folder

    def download_and_extract_archive(
        self,
        url: str,
        download_path: Optional[_PathLike] = None,
        extract_path: Optional[_PathLike] = None,
        filename: Optional[str] = None,
        md5: Optional[str] = None,
        remove_finished: bool = False,
    ) -> None:
        """Download an archive as `download_url` does, and unpack it. `remove_finished` then removes the archive."""
        archive = self.download_url(url, download_path, filename, md5)
        self.extract_archive(archive, extract_path)
        if remove_finished:
            archive.unlink()


def _name_of(url: str) -> str:
    name = unquote(PurePosixPath(urlsplit(url).path).name)
    if not name:
        raise UserError(f"'{url}' does not end in the name of a file: set filename")
    return name


def _is_complete(path: Path, digests: dict[str, str]) -> bool:
    return path.is_file() and all(_digest(path, name).startswith(value) for name, value in digests.items())


def _digest(path: Path, algorithm: str) -> str:
    digest = hashlib.new(algorithm, usedforsecurity=False)  # otherwise FIPS mode would refuse md5
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(_CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()


def _verify(part: Path, digests: dict[str, str], url: str) -> None:
    for name, expected in digests.items():
        actual = _digest(part, name)
        if not actual.startswith(expected):
            part.unlink()
            verb = "be" if len(expected) == len(actual) else "begin with"
            raise UserError(f"'{url}' is not the expected file: its {name} is {actual}, but it must {verb} {expected}")


def _server_digest(headers: http.client.HTTPMessage) -> dict[str, str]:
    """Return the SHA-256 that Hugging Face and its mirrors send for a large file, with the file or with a redirect."""
    tag = headers.get("X-Linked-ETag", "").strip('"').lower()
    return {"sha256": tag} if re.fullmatch("[0-9a-f]{64}", tag) else {}


class _Interrupted(Exception):
    """A transfer was interrupted for a reason that may be temporary."""


class _SecureRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but not from https to another scheme."""

    def __init__(self):
        self.digests: dict[str, str] = {}

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # noqa: ANN001, ANN202
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise UserError(f"cannot download '{req.full_url}': it redirects to '{newurl}', which is not encrypted")
        self.digests.update(_server_digest(headers))
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Transfer:
    """Downloads the missing part of `url` to `file`, which is open for appending.

    `is_verified` says that the caller verifies the file, so a mixture of two versions will be detected.
    """

    def __init__(self, url: str, file: IO[bytes], name: str, is_verified: bool):
        self._url = url
        self._file = file
        self._name = name
        self._can_resume = is_verified  # whether bytes of an earlier run may be kept
        self._total: Optional[int] = None
        self._validator = ""  # the server's identifier (ETag) of the version that the bytes belong to
        # Some programs replace Python's default context by one that verifies nothing. This context
        # is not affected.
        https = urllib.request.HTTPSHandler(context=ssl.create_default_context())
        self._redirects = _SecureRedirects()
        self._opener = urllib.request.build_opener(https, self._redirects)

    def run(self) -> dict[str, str]:
        """Download the missing bytes. Return the digests that the server sent, by algorithm."""
        largest_size, failures = self._size(), 0
        while True:
            try:
                self._fetch_rest()
                return self._redirects.digests
            except _Interrupted as error:
                failures = 0 if self._size() > largest_size else failures + 1
                largest_size = max(largest_size, self._size())
                if failures >= len(_PAUSES):
                    raise UserError(f"cannot download '{self._url}': {error}, {failures} times in a row") from None
                logger.info("%s: %s; trying again", self._name, error)
                time.sleep(_PAUSES[failures])

    def _size(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def _fetch_rest(self) -> None:
        offset = self._size()
        headers = {"User-Agent": "mindcv"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if self._validator:
                headers["If-Range"] = self._validator
        with closing(self._open(urllib.request.Request(self._url, headers=headers))) as response:
            self._redirects.digests.update(_server_digest(response.headers))
            can_resume, self._can_resume = self._can_resume or bool(self._redirects.digests), True
            if offset and not can_resume:
                self._file.truncate(0)
                return self._fetch_rest()
            if response.status == 416:
                return self._check_complete(response)
            if response.status == 206:
                self._check_range(response, offset)
            else:  # the server sends the whole file
                self._file.truncate(0)
                self._total = response.length
            tag = response.headers.get("ETag", "")
            self._validator = "" if tag.startswith("W/") else tag
            self._copy(response)
        if self._total is not None and self._size() != self._total:
            raise _Interrupted(f"the connection ended after {self._size()} of {self._total} bytes")

    def _open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        try:
            return self._opener.open(request, timeout=_TIMEOUT)
        except http.client.InvalidURL as error:
            raise UserError(f"cannot download '{self._url}': {error}") from None
        except urllib.error.HTTPError as error:
            if error.code == 416:  # the server has no bytes after the present ones
                return error
            error.close()
            reason = f"the server answers {error.code} ({error.reason})"
            if error.code in _TEMPORARY_STATUS:
                raise _Interrupted(reason) from None
            raise UserError(f"cannot download '{self._url}': {reason}") from None
        except urllib.error.URLError as error:
            reason = error.reason
            if isinstance(reason, (ssl.SSLCertVerificationError, ConnectionRefusedError, socket.gaierror)):
                raise UserError(f"cannot download '{self._url}': {reason}") from None
            raise _Interrupted(f"{reason}") from None
        except (OSError, http.client.HTTPException) as error:
            raise _Interrupted(f"{error}") from None

    def _check_range(self, response: http.client.HTTPResponse, offset: int) -> None:
        start, total = _read_range(response.headers.get("Content-Range", ""))
        if total is None and response.length is not None:
            total = offset + response.length
        if start != offset or self._total not in (None, total):
            self._start_over("the file on the server has changed")
        self._total = total

    def _check_complete(self, response: http.client.HTTPResponse) -> None:
        total = _read_range(response.headers.get("Content-Range", ""))[1]
        if total != self._size():
            self._start_over("the partial file is longer than the complete file")

    def _start_over(self, reason: str) -> None:
        self._file.truncate(0)
        self._total, self._validator = None, ""
        raise _Interrupted(reason)

    def _copy(self, response: http.client.HTTPResponse) -> None:
        scale = {"unit": "B", "unit_scale": True, "unit_divisor": 1024}
        # disable=None shows the bar only on a terminal.
        with tqdm(total=self._total, initial=self._size(), desc=self._name, disable=None, leave=False, **scale) as bar:
            while True:
                try:
                    chunk = response.read1(_CHUNK)
                except (OSError, http.client.HTTPException) as error:
                    raise _Interrupted(f"the connection was lost ({error})") from None
                if not chunk:
                    break
                self._file.write(chunk)
                self._file.flush()  # so the bytes are kept if the connection is lost or the process is killed
                bar.update(len(chunk))


def _read_range(text: str) -> tuple[Optional[int], Optional[int]]:
    """Return (first byte, size of the whole file) from a Content-Range header, with None for unknown values."""
    match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", text.strip())
    start, total = match.groups() if match else (None, None)
    return int(start) if start else None, int(total) if total not in (None, "*") else None


class _Member(NamedTuple):
    """A member of an archive. `open` returns a file object with its bytes."""

    name: str
    is_folder: bool
    is_file: bool
    open: Callable[[], IO[bytes]]


@contextmanager
def _members_of(path: Path) -> Iterator[list[_Member]]:
    if tarfile.is_tarfile(
        path
    ):  # this test comes first: a tar archive that ends in a zip archive also looks like a zip archive
        with tarfile.open(path) as tar:
            yield [_Member(m.name, m.isdir(), m.isfile(), partial(tar.extractfile, m)) for m in tar.getmembers()]
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield [
                _Member(i.filename, i.is_dir(), not stat.S_ISLNK(i.external_attr >> 16), partial(archive.open, i))
                for i in archive.infolist()
            ]
    else:
        raise UserError(f"cannot unpack '{path}': it is neither a zip nor a tar archive")


def _check_member(member: _Member, archive: Path) -> None:
    paths = PurePosixPath(member.name), PureWindowsPath(member.name)
    if any(path.anchor or ".." in path.parts for path in paths):
        raise UserError(f"cannot unpack '{archive}': its member '{member.name}' would lie outside the folder")
    if not (member.is_folder or member.is_file):
        raise UserError(f"cannot unpack '{archive}': its member '{member.name}' is neither a file nor a folder")


def _unpack(member: _Member, folder: Path) -> None:
    target = folder / member.name
    if member.is_folder:
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with member.open() as source, open(target, "wb") as file:
        shutil.copyfileobj(source, file, _CHUNK)


def _move_tree(source: Path, target: Path) -> None:
    """Move all files below `source` to the same relative paths below `target`. Existing files are replaced."""
    for path in sorted(source.rglob("*")):  # a folder sorts before its contents
        destination = target / path.relative_to(source)
        if path.is_dir():
            destination.mkdir(exist_ok=True)
        else:
            os.replace(path, destination)
