"""Files from the network: whole, verified, and fetched once."""

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
_PAUSES = (1.0, 2.0, 4.0)  # seconds before each new try; after as many tries in a row that brought nothing new, no more
_CHUNK = 1 << 20
_LEAST_DIGITS = 8  # of a digest
# Request timeout, too many requests, and the servers' own troubles: what may be gone a moment later.
_PASSING_STATUS = {408, 429, 500, 502, 503, 504}


def cache_root() -> Path:
    """The folder for what is downloaded: that of the environment variable MINDCV_HOME, or ~/.mindcv."""
    return Path(os.environ.get("MINDCV_HOME") or "~/.mindcv").expanduser()


def download(url: str, path: _PathLike, sha256: Optional[str] = None, md5: Optional[str] = None) -> Path:
    """Fetch a file, unless it is there already.

    A file at `path` counts as there when its digests are those given, or when none is given: it is never half written.
    Bytes arrive in `<path>.part`. A transfer that breaks off is taken up where it stopped; so is one of an earlier run,
    if a digest is known that tells whether the two halves fit: one that is given, or that the server tells of the file,
    as Hugging Face's does. Several processes may ask for the same file at once: one fetches it and the others wait. A
    progress bar is drawn on a terminal; proxies are those of the environment.

    Args:
        url: http or https. Certificates are verified, and https is never left for http by a redirect.
        path: of the file, not its folder, which is made.
        sha256, md5: digests in hexadecimal, or the first 8 digits of them or more, as names of published files have.

    Returns:
        `path`.

    Raises:
        UserError: the server cannot be reached, does not have the file, or broke off again and again; or a digest
            differs, after which the partial file is gone.
    """
    path = Path(path)
    if urlsplit(url).scheme not in _SCHEMES or not urlsplit(url).netloc:
        raise UserError(f"cannot download '{url}': not an http or https address")
    digests = {name: value.lower() for name, value in (("sha256", sha256), ("md5", md5)) if value}
    if any(len(value) < _LEAST_DIGITS for value in digests.values()):
        raise ValueError(f"a digest needs {_LEAST_DIGITS} digits or more, got {digests}")
    if _is_there(path, digests):
        return path
    ensure_writable_dir(path.parent)
    part = path.with_name(path.name + ".part")
    with locked(part) as file:
        if _is_there(path, digests):  # another process fetched it while this one waited
            part.unlink()
            return path
        try:
            logger.info("downloading %s to '%s'", url, path)
            told = _Transfer(url, file, path.name, is_verified=bool(digests)).run()
            _verify(part, {**told, **digests}, url)
            # Not by atomic_path: between its two names another process would find neither, and fetch the file again.
            os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            if not os.fstat(file.fileno()).st_size:
                part.unlink(missing_ok=True)
    return path


def extract_archive(path: _PathLike, folder: _PathLike) -> None:
    """Unpack a zip or tar archive (plain, or compressed by gzip, bzip2 or xz) into `folder`, which is made.

    Files go to a hidden folder beside their places first, so that a place never holds half a file.

    Raises:
        UserError: it is no archive, or a damaged one; or a member is a link or device, or would lie outside `folder`,
            in which case nothing at all is unpacked.
    """
    path, folder = Path(path), ensure_writable_dir(folder)
    if not path.is_file():
        raise UserError(f"cannot unpack '{path}': there is no such file")
    try:
        with _members_of(path) as members, tempfile.TemporaryDirectory(prefix=".unpack-", dir=folder) as side:
            for member in members:
                _check_member(member, path)
            for member in members:
                _unpack(member, Path(side))
            _move_tree(Path(side), folder)
    except (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError) as error:
        raise UserError(f"cannot unpack '{path}', which is damaged: {error}") from None
    except RuntimeError as error:  # zipfile's word for encryption and for methods it does not know
        raise UserError(f"cannot unpack '{path}': {error}") from None


class DownLoad:
    """The functions of this module under the names of MindCV's class, for code written for that library.

    Unlike there, a broken certificate is an error instead of a reason to go on without one, or without encryption.
    """

    def download_file(self, url: str, file_path: _PathLike) -> Path:
        """Fetch `url` to `file_path` unless that is there, see `download`."""
        return download(url, file_path)

    def download_url(
        self, url: str, path: Optional[_PathLike] = None, filename: Optional[str] = None, md5: Optional[str] = None
    ) -> Path:
        """Fetch `url` into the folder `path`, by default `cache_root()`; the name is the address's unless given."""
        folder = cache_root() if path is None else Path(path).expanduser()
        return download(url, folder / (filename or _name_of(url)), md5=md5)

    def extract_archive(self, from_path: _PathLike, to_path: Optional[_PathLike] = None) -> Path:
        """Unpack an archive into the folder `to_path`, by default its own; see the function of this name."""
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
        """Fetch an archive as `download_url` does, and unpack it; with `remove_finished` the archive is removed."""
        archive = self.download_url(url, download_path, filename, md5)
        self.extract_archive(archive, extract_path)
        if remove_finished:
            archive.unlink()


def _name_of(url: str) -> str:
    name = unquote(PurePosixPath(urlsplit(url).path).name)
    if not name:
        raise UserError(f"'{url}' does not end in the name of a file: give filename")
    return name


def _is_there(path: Path, digests: dict[str, str]) -> bool:
    return path.is_file() and all(_digest(path, name).startswith(value) for name, value in digests.items())


def _digest(path: Path, algorithm: str) -> str:
    digest = hashlib.new(algorithm, usedforsecurity=False)  # md5 would be refused in FIPS mode otherwise
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(_CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()


def _verify(part: Path, digests: dict[str, str], url: str) -> None:
    for name, expected in digests.items():
        found = _digest(part, name)
        if not found.startswith(expected):
            part.unlink()
            be = "be" if len(expected) == len(found) else "begin with"
            raise UserError(f"'{url}' is not the file expected: its {name} is {found}, and should {be} {expected}")


def _told_digest(headers: http.client.HTTPMessage) -> dict[str, str]:
    """The SHA-256 of a large file as Hugging Face and its mirrors tell it, beside or before a redirect to the file."""
    tag = headers.get("X-Linked-ETag", "").strip('"').lower()
    return {"sha256": tag} if re.fullmatch("[0-9a-f]{64}", tag) else {}


class _Interrupted(Exception):
    """A transfer broke off for a reason that may have passed the next time."""


class _SameSafety(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but not from https to anything else."""

    def __init__(self):
        self.told: dict[str, str] = {}

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # noqa: ANN001, ANN202
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise UserError(f"cannot download '{req.full_url}': it leads to '{newurl}', which is not encrypted")
        self.told.update(_told_digest(headers))
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Transfer:
    """Brings `file` (open for appending) up to the whole of what is at `url`.

    `is_verified` says that the caller will know a file of two versions for what it is.
    """

    def __init__(self, url: str, file: IO[bytes], name: str, is_verified: bool):
        self._url = url
        self._file = file
        self._name = name
        self._may_go_on = is_verified  # with the bytes of an earlier run
        self._total: Optional[int] = None
        self._validator = ""  # the server's name for the version that the bytes so far are of
        # The context is our own: programs are known to replace the default one by one that verifies nothing.
        https = urllib.request.HTTPSHandler(context=ssl.create_default_context())
        self._redirects = _SameSafety()
        self._opener = urllib.request.build_opener(https, self._redirects)

    def run(self) -> dict[str, str]:
        """Fetch what lacks, and give the digests that the server told of the file, by algorithm."""
        most, failures = self._size(), 0
        while True:
            try:
                self._fetch_rest()
                return self._redirects.told
            except _Interrupted as error:
                failures = 0 if self._size() > most else failures + 1
                most = max(most, self._size())
                if failures >= len(_PAUSES):
                    raise UserError(f"cannot download '{self._url}': {error}, {failures} times in a row") from None
                logger.info("%s: %s; trying again", self._name, error)
                time.sleep(_PAUSES[failures])

    def _size(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def _fetch_rest(self) -> None:
        have = self._size()
        headers = {"User-Agent": "mindcv"}
        if have:
            headers["Range"] = f"bytes={have}-"
            if self._validator:
                headers["If-Range"] = self._validator
        with closing(self._open(urllib.request.Request(self._url, headers=headers))) as response:
            self._redirects.told.update(_told_digest(response.headers))
            may_go_on, self._may_go_on = self._may_go_on or bool(self._redirects.told), True
            if have and not may_go_on:
                self._file.truncate(0)
                return self._fetch_rest()
            if response.status == 416:
                return self._check_complete(response)
            if response.status == 206:
                self._check_range(response, have)
            else:  # the whole file, asked for or not
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
            if error.code == 416:  # nothing lies beyond the bytes that are here
                return error
            error.close()
            says = f"the server answers {error.code} ({error.reason})"
            if error.code in _PASSING_STATUS:
                raise _Interrupted(says) from None
            raise UserError(f"cannot download '{self._url}': {says}") from None
        except urllib.error.URLError as error:
            reason = error.reason
            if isinstance(reason, (ssl.SSLCertVerificationError, ConnectionRefusedError, socket.gaierror)):
                raise UserError(f"cannot download '{self._url}': {reason}") from None
            raise _Interrupted(f"{reason}") from None
        except (OSError, http.client.HTTPException) as error:
            raise _Interrupted(f"{error}") from None

    def _check_range(self, response: http.client.HTTPResponse, have: int) -> None:
        start, total = _read_range(response.headers.get("Content-Range", ""))
        if total is None and response.length is not None:
            total = have + response.length
        if start != have or self._total not in (None, total):
            self._start_over("the server's file is another one by now")
        self._total = total

    def _check_complete(self, response: http.client.HTTPResponse) -> None:
        total = _read_range(response.headers.get("Content-Range", ""))[1]
        if total != self._size():
            self._start_over("the partial file is longer than the whole one")

    def _start_over(self, why: str) -> None:
        self._file.truncate(0)
        self._total, self._validator = None, ""
        raise _Interrupted(why)

    def _copy(self, response: http.client.HTTPResponse) -> None:
        scale = {"unit": "B", "unit_scale": True, "unit_divisor": 1024}
        # disable=None: a bar on a terminal, nothing elsewhere
        with tqdm(total=self._total, initial=self._size(), desc=self._name, disable=None, leave=False, **scale) as bar:
            while True:
                try:
                    chunk = response.read1(_CHUNK)
                except (OSError, http.client.HTTPException) as error:
                    raise _Interrupted(f"the connection broke ({error})") from None
                if not chunk:
                    break
                self._file.write(chunk)
                self._file.flush()  # what is kept after a broken connection, or a killed process
                bar.update(len(chunk))


def _read_range(text: str) -> tuple[Optional[int], Optional[int]]:
    """First byte and size of the whole file in a Content-Range header; None for what it does not tell."""
    match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", text.strip())
    start, total = match.groups() if match else (None, None)
    return int(start) if start else None, int(total) if total not in (None, "*") else None


class _Member(NamedTuple):
    """What an archive holds under one name; `open` gives its bytes."""

    name: str
    is_folder: bool
    is_file: bool
    open: Callable[[], IO[bytes]]


@contextmanager
def _members_of(path: Path) -> Iterator[list[_Member]]:
    if tarfile.is_tarfile(path):  # asked first: a tar archive that ends in a zip archive passes for one
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
    """Move what is below `source` to its place below `target`, over files of the same names."""
    for path in sorted(source.rglob("*")):  # a folder sorts before what it holds
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir(exist_ok=True)
        else:
            os.replace(path, place)
