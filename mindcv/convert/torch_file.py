"""Reads the files of `torch.save` without PyTorch, and without running anything that is in them.

Two formats: the zip archive (PyTorch 1.6 and later) and the one before it, a row of pickles followed by the raw
storages. Source: PyTorch's notes on serialization, and the files themselves. Nothing is trusted: sizes, shapes, offsets
and names are checked before use. The file is mapped, so that a checkpoint of gigabytes costs what is used of it.
Checksums of the zip archive are not compared: that would read all of it.
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
    """What `torch.save` was given: nested dicts, lists, tuples and plain values.

    Tensors are `TorchTensor`, NumPy arrays `NumpyArray`: `array()` gives the values. Those are read-only views of the
    mapped file where the file holds them as this machine does; bfloat16 becomes float32.

    Raises:
        CheckpointError: no such file, a damaged one, another format, or one that holds more than tensors and plain
            values (the message names the function or class it asks for).
    """
    data = map_file(path)
    try:
        if data[:4] == _ZIP_MAGIC:
            return _Archive(data, path).read()
        if data[:1] == b"\x80":
            return _read_legacy(data)
        if data[257:262] == b"ustar":
            raise CheckpointError("it is a tar file of PyTorch before 0.1.10, which is not read")
        raise CheckpointError("it is not a file of torch.save")
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint '{path}': {error}") from None


class _Archive:
    """A zip archive that PyTorch wrote: NAME/data.pkl, NAME/data/0 ..., NAME/byteorder."""

    def __init__(self, data: memoryview, path: Union[str, os.PathLike]):
        self._data = data
        self._members = _members(path)
        pickles = [name for name in self._members if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise CheckpointError(f"it is a zip archive with {len(pickles)} data.pkl, not a file of torch.save")
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
            raise CheckpointError(f"its byte order is {ascii(word)}, neither little nor big")
        return "<" if word == b"little" else ">"

    def _find_storage(self, key: str, nbytes: int) -> Storage:
        if key not in self._storages:
            data = self._bytes_of(f"{self._folder}data/{key}")
            self._storages[key] = Storage(len(data), data, self._byteorder)
        if self._storages[key].nbytes != nbytes:
            raise CheckpointError(f"storage {quoted(key)} has {self._storages[key].nbytes} bytes, not {nbytes}")
        return self._storages[key]

    def _bytes_of(self, name: str) -> memoryview:
        """A member's bytes in the mapped file. Its own header says where they begin, the archive's list how many."""
        if name not in self._members:
            raise CheckpointError(f"its member {quoted(name)} is missing")
        info = self._members[name]
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise CheckpointError(f"its member {quoted(name)} is compressed, which torch.save does not do")
        start = info.header_offset + _LOCAL_HEADER.size
        if info.header_offset < 0 or start > len(self._data):
            raise CheckpointError(f"its member {quoted(name)} lies outside the file")
        fields = _LOCAL_HEADER.unpack(self._data[info.header_offset : start])
        if fields[0] != _ZIP_MAGIC or (fields[2] | info.flag_bits) & _ENCRYPTED:
            raise CheckpointError(f"its member {quoted(name)} is damaged or encrypted")
        start += fields[9] + fields[10]  # the lengths of its name and extra field
        if start + info.file_size > len(self._data):
            raise CheckpointError(f"its member {quoted(name)} goes beyond the end of the file")
        return self._data[start : start + info.file_size]


def _members(path: Union[str, os.PathLike]) -> dict[str, zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    # What zipfile raises for a damaged list, the last two for sizes and versions that make no sense.
    except (
        zipfile.BadZipFile,
        OSError,
        ValueError,
        EOFError,
        struct.error,
        OverflowError,
        NotImplementedError,
    ) as error:
        raise CheckpointError(f"it is a damaged or cut zip archive ({error})") from None
    by_name: dict[str, zipfile.ZipInfo] = {}
    for member in members:
        name = member.orig_filename
        if name in by_name:
            raise CheckpointError(f"its member {quoted(name)} is there twice")
        if name.startswith("/") or ".." in name.split("/"):
            raise CheckpointError(f"its member {quoted(name)} lies outside its folder")
        by_name[name] = member
    return by_name


def _read_legacy(data: memoryview) -> Any:
    """Magic number, protocol, facts of the machine, the object, the keys of the storages: five pickles. Then the raw
    storages, in the order of the keys: the number of elements in 64 bits, and the elements, always little-endian."""
    magic, at = read_pickle(data, _no_storage)
    if magic != _LEGACY_MAGIC:
        raise CheckpointError("it is a pickle, but not one of torch.save")
    protocol, at = read_pickle(data, _no_storage, at)
    if protocol != _LEGACY_PROTOCOL:
        raise CheckpointError("it is of an unknown protocol of torch.save")
    machine, at = read_pickle(data, _no_storage, at)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise CheckpointError("it was written by a big-endian machine in the old format, which is not read")
    storages: dict[str, Storage] = {}

    def find_storage(key: str, nbytes: int) -> Storage:
        if storages.setdefault(key, Storage(nbytes)).nbytes != nbytes:
            raise CheckpointError(f"storage {quoted(key)} has two sizes")
        return storages[key]

    content, at = read_pickle(data, find_storage, at)
    keys, at = read_pickle(data, _no_storage, at)
    whole = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    if not whole or len(keys) != len(storages) or {*keys} != storages.keys():
        raise CheckpointError("its list of storages is not that of its tensors")
    for key in keys:
        at = _fill(storages[key], data, at, key)
    if at != len(data):
        raise CheckpointError(f"it has {len(data) - at} bytes after its last storage")
    return content


def _no_storage(key: str, nbytes: int) -> Storage:
    raise CheckpointError("it has a tensor in its header")


def _fill(storage: Storage, data: memoryview, at: int, key: str) -> int:
    start = at + 8
    end = start + storage.nbytes
    if end > len(data):
        raise CheckpointError(f"it is cut: storage {quoted(key)} ends at byte {end} and the file at {len(data)}")
    count = int.from_bytes(data[at:start], "little")
    if storage.nbytes not in [count * size for size in (1, 2, 4, 8, 16)]:
        raise CheckpointError(f"it is damaged: storage {quoted(key)} has {storage.nbytes} bytes and {count} elements")
    storage.fill(data[start:end])
    return end
