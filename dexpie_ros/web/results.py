"""Reports and figures of experiments, benchmarks and demo runs below some directories."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from dexpie_ros.bench import BENCHMARKS
from dexpie_ros.episodes.episode import EpisodeError
from dexpie_ros.episodes.episode_file import FILE_NAME

KINDS = {
    "report.html": "report",
    "results.json": "figures",
    **{f"{name}.json": "bench" for name in BENCHMARKS},
}
"""What a file of this name is; one called as `dexpie bench` calls its own has to look like it too."""
_DEEPEST = 6
_LARGEST_BENCH = 1 << 20
_LARGEST = 32 << 20


class Results:
    """The files by a name that the page asks with; nothing else can be asked for."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = [root.resolve() for root in roots]
        self._lock = threading.Lock()
        self._files: dict[str, Path] = {}

    def find(self) -> list[dict[str, Any]]:
        """Newest first."""
        found: dict[str, tuple[Path, os.stat_result, dict[str, Any]]] = {}
        for number, root in enumerate(self.roots):
            for path in _walk(root, 0):
                if any(path.is_relative_to(earlier) for earlier in self.roots[:number]):
                    continue
                about = _bench(path) if KINDS[path.name] == "bench" else {}
                if about is not None:
                    name = f"{number}/{path.relative_to(root).as_posix()}"
                    found[name] = (path, path.stat(), about)
        with self._lock:
            self._files = {name: path for name, (path, *_) in found.items()}
        newest = sorted(found.items(), key=lambda item: -item[1][1].st_mtime)
        return [
            {
                "name": name,
                "folder": str(path.parent),
                "file": path.name,
                "kind": KINDS[path.name],
                "bytes": state.st_size,
                "time": datetime.fromtimestamp(state.st_mtime, timezone.utc).isoformat(
                    "T", "seconds"
                ),
                **about,
            }
            for name, (path, state, about) in newest
        ]

    def read(self, name: str) -> tuple[Path, bytes]:
        """A listed file. EpisodeError if it is not listed, gone or absurdly large."""
        with self._lock:
            known = name in self._files
        if not known:
            self.find()
        with self._lock:
            path = self._files.get(name)
        if path is None:
            raise EpisodeError(f"no report or figures called {name!r}")
        try:
            if path.stat().st_size > _LARGEST:
                raise EpisodeError(f"{path}: too large to show; open the file itself")
            return path, path.read_bytes()
        except OSError as error:
            raise EpisodeError(f"{path}: cannot be read: {error.strerror}") from None

    def figures(self, name: str) -> Any:
        """The content of a file of figures."""
        path, data = self.read(name)
        try:
            return json.loads(data, parse_constant=lambda text: text)
        except (ValueError, RecursionError) as error:
            raise EpisodeError(f"{path}: no JSON ({error})") from None


def _bench(path: Path) -> dict[str, Any] | None:
    """What `dexpie bench` wrote beside the figures; None where it did not write this file."""
    try:
        content = json.loads(path.read_bytes()) if path.stat().st_size < _LARGEST_BENCH else None
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or not isinstance(content.get("figures"), dict):
        return None
    provenance = content.get("provenance")
    commit = provenance.get("commit", "") if isinstance(provenance, dict) else ""
    return {
        "bench": str(content.get("bench", path.stem)),
        "date": str(content.get("date", "")),
        "commit": str(commit),
        "quick": content.get("quick") is True,
    }


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    """Files of interest; neither into episodes nor through links."""
    try:
        with os.scandir(folder) as items:
            inside = sorted(items, key=lambda item: item.name)
    except OSError:
        return  # gone or not ours to read: nothing to list there
    names = {item.name for item in inside}
    if FILE_NAME in names or any(name.endswith(".mcap") for name in names):
        return
    for item in inside:
        if item.name in KINDS and item.is_file(follow_symlinks=False):
            yield Path(item.path)
        elif (
            depth < _DEEPEST
            and not item.name.startswith(".")
            and item.is_dir(follow_symlinks=False)
        ):
            yield from _walk(Path(item.path), depth + 1)
