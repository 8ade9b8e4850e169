"""Writing that either happens whole or not at all."""

from __future__ import annotations

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
    """Write ``contents`` as files of ``directory``: beside it first, then renamed into place."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}."))
    try:
        fresh.chmod(0o755)
        for name, data in contents.items():
            with open(fresh / name, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
        if directory.exists():
            old = fresh.with_name(fresh.name + ".old")
            os.rename(directory, old)
            os.rename(fresh, directory)
            shutil.rmtree(old)
        else:
            os.rename(fresh, directory)
        sync_directory(directory.parent)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return directory


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
