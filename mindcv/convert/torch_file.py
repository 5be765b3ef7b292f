"""Reads the files of `torch.save` without PyTorch, and without running any code that they contain.

There are two formats. PyTorch 1.6 and later write a zip archive. Earlier versions write a sequence of pickles, followed
by the raw storages. The sources are PyTorch's notes on serialization and the files themselves.

Nothing in a file is trusted: sizes, shapes, offsets and names are checked before use. The file is mapped into memory,
so only the parts that are used are read. The checksums of the zip archive are not verified, because that would read all
of it.
"""

from __future__ import annotations

import os
import struct
import zipfile
from typing import Any, Union

from mindcv.convert.file_bytes import map_file, quoted
from mindcv.convert.torch_pickle import read_pickle
from mindcv.convert.torch_values import Storage
from mindcv.utils.errors import CheckpointError

__all__ = ["read_torch_file"]

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_ZIP_MAGIC = b"PK\x03\x04"
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_ENCRYPTED = 0x1


def read_torch_file(path: Union[str, os.PathLike]) -> Any:
    """Return the object that was given to `torch.save`: nested dicts, lists, tuples and plain values.

    A tensor is returned as a `TorchTensor` and a NumPy array as a `NumpyArray`. Their method `array()` returns the
    values, as a read-only view of the mapped file if it has this machine's byte order. bfloat16 is converted to
    float32.

    Raises:
        CheckpointError: the file does not exist, is damaged, has another format, or contains more than tensors and
            plain values (the message then names the function or class that the file refers to).
    """
    data = map_file(path)
    try:
        if data[:4] == _ZIP_MAGIC:
            return _Archive(data, path).read()
        if data[:1] == b"\x80":
            return _read_legacy(data)
        if data[257:262] == b"ustar":
            raise CheckpointError("it is a tar file of PyTorch before 0.1.10, which is not supported")
        raise CheckpointError("it was not written by torch.save")
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint '{path}': {error}") from None


class _Archive:
    """A zip archive that PyTorch wrote: NAME/data.pkl, NAME/data/0 ..., NAME/byteorder."""

    def __init__(self, data: memoryview, path: Union[str, os.PathLike]):
        self._data = data
        self._members = _members(path)
        pickles = [name for name in self._members if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise CheckpointError(
                f"it is a zip archive with {len(pickles)} files data.pkl; torch.save writes exactly one"
            )
        self._folder = pickles[0][: -len("data.pkl")]
        if self._folder + "constants.pkl" in self._members:
            raise CheckpointError("it is a TorchScript program: save its state_dict() instead")
        self._byteorder = self._read_byteorder()
        self._storages: dict[str, Storage] = {}

    def read(self) -> Any:
        return read_pickle(self._bytes_of(self._folder + "data.pkl"), self._find_storage)[0]

    def _read_byteorder(self) -> str:
        name = self._folder + "byteorder"
        if name not in self._members:  # PyTorch before 2.1
            return "<"
        word = self._bytes_of(name)[:16].tobytes()
        if word not in (b"little", b"big"):
            raise CheckpointError(f"its byte order is {ascii(word)}, which is neither little nor big")
        return "<" if word == b"little" else ">"

    def _find_storage(self, key: str, nbytes: int) -> Storage:
        if key not in self._storages:
            data = self._bytes_of(f"{self._folder}data/{key}")
            self._storages[key] = Storage(len(data), data, self._byteorder)
        if self._storages[key].nbytes != nbytes:
            size = self._storages[key].nbytes
            raise CheckpointError(f"storage {quoted(key)} has {size} bytes, but its tensors need {nbytes}")
        return self._storages[key]

    def _bytes_of(self, name: str) -> memoryview:
        """Return the bytes of a member of the archive in the mapped file.

        The member's own header gives the start, and the archive's directory gives the number of bytes.
        """
        if name not in self._members:
            raise CheckpointError(f"its member {quoted(name)} is missing")
        info = self._members[name]
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise CheckpointError(f"its member {quoted(name)} is compressed, but torch.save does not compress")
        start = info.header_offset + _LOCAL_HEADER.size
        if info.header_offset < 0 or start > len(self._data):
            raise CheckpointError(f"its member {quoted(name)} lies outside the file")
        fields = _LOCAL_HEADER.unpack(self._data[info.header_offset : start])
        if fields[0] != _ZIP_MAGIC or (fields[2] | info.flag_bits) & _ENCRYPTED:
            raise CheckpointError(f"its member {quoted(name)} is damaged or encrypted")
        start += fields[9] + fields[10]  # the lengths of its name and extra field
        if start + info.file_size > len(self._data):
            raise CheckpointError(f"its member {quoted(name)} extends beyond the end of the file")
        return self._data[start : start + info.file_size]


def _members(path: Union[str, os.PathLike]) -> dict[str, zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    # zipfile raises these for a damaged directory. The last two come from impossible sizes and
    # versions.
    except (
        zipfile.BadZipFile,
        OSError,
        ValueError,
        EOFError,
        struct.error,
        OverflowError,
        NotImplementedError,
    ) as error:
        raise CheckpointError(f"it is a damaged or truncated zip archive ({error})") from None
    by_name: dict[str, zipfile.ZipInfo] = {}
    for member in members:
        name = member.orig_filename
        if name in by_name:
            raise CheckpointError(f"its member {quoted(name)} occurs twice")
        if name.startswith("/") or ".." in name.split("/"):
            raise CheckpointError(f"its member {quoted(name)} lies outside its folder")
        by_name[name] = member
    return by_name


def _read_legacy(data: memoryview) -> Any:
    """Read a file in the format before PyTorch 1.6.

    The file holds five pickles: a magic number, the protocol, facts about the machine, the saved object, and the keys
    of the storages. The raw storages follow in the order of the keys. Each consists of its number of elements, as 64
    bits, and the elements in little-endian byte order.
    """
    magic, at = read_pickle(data, _no_storage)
    if magic != _LEGACY_MAGIC:
        raise CheckpointError("it is a pickle, but it was not written by torch.save")
    protocol, at = read_pickle(data, _no_storage, at)
    if protocol != _LEGACY_PROTOCOL:
        raise CheckpointError(f"its torch.save protocol is {ascii(protocol)[:20]}, but {_LEGACY_PROTOCOL} is expected")
    machine, at = read_pickle(data, _no_storage, at)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise CheckpointError("it was written by a big-endian machine in the old format, which is not supported")
    storages: dict[str, Storage] = {}

    def find_storage(key: str, nbytes: int) -> Storage:
        if storages.setdefault(key, Storage(nbytes)).nbytes != nbytes:
            raise CheckpointError(f"storage {quoted(key)} has two sizes")
        return storages[key]

    content, at = read_pickle(data, find_storage, at)
    keys, at = read_pickle(data, _no_storage, at)
    whole = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    if not whole or len(keys) != len(storages) or {*keys} != storages.keys():
        raise CheckpointError("its list of storages does not match the storages of its tensors")
    for key in keys:
        at = _fill(storages[key], data, at, key)
    if at != len(data):
        raise CheckpointError(f"it has {len(data) - at} bytes after its last storage")
    return content


def _no_storage(key: str, nbytes: int) -> Storage:
    raise CheckpointError("its header contains a tensor, which torch.save does not write")


def _fill(storage: Storage, data: memoryview, at: int, key: str) -> int:
    start = at + 8
    end = start + storage.nbytes
    if end > len(data):
        raise CheckpointError(
            f"it is truncated: storage {quoted(key)} ends at byte {end}, but the file ends at byte {len(data)}"
        )
    count = int.from_bytes(data[at:start], "little")
    if storage.nbytes not in [count * size for size in (1, 2, 4, 8, 16)]:
        raise CheckpointError(f"it is damaged: storage {quoted(key)} has {storage.nbytes} bytes and {count} elements")
    storage.fill(data[start:end])
    return end
