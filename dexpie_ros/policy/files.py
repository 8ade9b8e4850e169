"""Writing that either happens whole or not at all."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file


def json_bytes(value: Any) -> bytes:
    """JSON as `config.write_json` writes it."""
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def sync_directory(directory: Path) -> None:
    """Make a rename inside ``directory`` survive a power cut."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_directory(directory: Path, contents: Mapping[str, bytes]) -> Path:
    """Write ``contents`` as files of ``directory``: beside it first, then put into its place.

    At any moment the old or the new directory is there; on a file system that cannot exchange two
    directories it may take :func:`recover_directory` to see it.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    recover_directory(directory)
    fresh = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}."))
    try:
        fresh.chmod(0o755)
        for name, data in contents.items():
            with open(fresh / name, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
        if not directory.exists():
            os.rename(fresh, directory)
        elif not _exchange(fresh, directory):
            _rename_twice(fresh, directory)
        sync_directory(directory.parent)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return directory


def recover_directory(directory: Path) -> None:
    """Put back what a kill between two renames left aside."""
    old = _aside(directory)
    if old.is_dir() and not directory.exists():
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            os.rename(old, directory)


def remove_leftovers(path: Path) -> None:
    """Delete what killed writers of ``path`` (a file or directory) left beside it.

    For the one process that writes there, before it does.
    """
    recover_directory(path)
    for leftover in path.parent.glob(f".{path.name}.*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _aside(directory: Path) -> Path:
    return directory.with_name(f".{directory.name}.old")


def _exchange(fresh: Path, directory: Path) -> bool:
    """Swap two directories in one step; False where kernel or file system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if renameat2(here, os.fsencode(fresh), here, os.fsencode(directory), exchange) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(directory))


def _rename_twice(fresh: Path, directory: Path) -> None:
    old = _aside(directory)
    shutil.rmtree(old, ignore_errors=True)
    os.rename(directory, old)
    try:
        os.rename(fresh, directory)
    except BaseException:
        os.rename(old, directory)
        raise
    shutil.rmtree(old)


def save_checkpoint(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]
) -> None:
    """Safetensors, atomically: a kill at any time leaves the file before or the file after."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        save_file(dict(tensors), temporary, dict(metadata))
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        sync_directory(path.parent)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
