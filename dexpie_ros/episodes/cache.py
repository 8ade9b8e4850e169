"""Bags -> memory-mapped arrays, once: what the trainers read.

    <root>/<key>/entry.json               what it was made from, object names, events, problems
                 arrays.safetensors       every array of the episode
                 front.npy, wrist.npy     (T, 224, 224, 3) uint8, memory-mapped

``key`` is the hash of the bag's content (through its chunk checksums), of the alignment settings
and of this format, so nothing can be stale: a changed bag or setting has another key. Description
and annotations are not in it; they are read when an episode is loaded, and re-annotating costs
nothing. An entry appears by renaming a finished directory: two processes may build at once.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from dexpie_ros import config, geometry
from dexpie_ros.episodes.align import AlignConfig
from dexpie_ros.episodes.aligned import Aligned, align_bag
from dexpie_ros.episodes.bag_reader import BagReader, find_bag
from dexpie_ros.episodes.collection import Collection
from dexpie_ros.episodes.episode import Episode, EpisodeError
from dexpie_ros.episodes.images import IMAGE_SIZE
from dexpie_ros.episodes.picture_file import CachedImages, write_pictures
from dexpie_ros.episodes.reader import assemble

FORMAT = 2
Progress = Callable[[int, int, str], None]


@config.config
class CacheConfig:
    """What goes into the cache."""

    align: AlignConfig = AlignConfig()
    cameras: tuple[str, ...] = ("front", "wrist")
    """Of these, those that were recorded; none for policies without images."""
    image_size: int = IMAGE_SIZE
    workers: int = 0
    """Bags that are read at once; 0: one per core."""
    parallel: Literal["auto", "threads", "processes"] = "auto"
    """Decoding pictures leaves Python's lock, so threads do well, and start at once; from five cores
    on (``auto``) processes do better."""


class Cache:
    """The cache below ``root``, made when first needed."""

    def __init__(self, root: str | Path, settings: CacheConfig | None = None) -> None:
        self.root, self.settings = Path(root), settings or CacheConfig()

    def key(self, directory: str | Path) -> str:
        """Name of the entry for this bag under these settings; reads the index only."""
        settings = config.to_dict(self.settings)
        for how in ("workers", "parallel"):
            settings.pop(how)
        text = json.dumps([FORMAT, settings, geometry.ROT6D_CONVENTION, fingerprint(directory)])
        return hashlib.sha256(text.encode()).hexdigest()[:40]

    def build(self, paths: Iterable[str | Path], progress: Progress | None = None) -> list[Path]:
        """Make the entries that are missing, in parallel; gives the entries' paths in order.

        A bag that cannot be read is an EpisodeError, after all others have been built.
        """
        directories = [Path(path) for path in paths]
        entries = [self.root / self.key(path) for path in directories]
        todo = [(d, e) for d, e in dict(zip(directories, entries)).items() if not e.is_dir()]
        cores = len(os.sched_getaffinity(0))
        workers = max(1, min(self.settings.workers or cores, len(todo)))
        threads = max(1, cores // workers)
        errors: list[str] = []
        with contextlib.ExitStack() as stack:
            if workers == 1:
                results = (_build(self.root, e, d, self.settings, threads) for d, e in todo)
            else:
                pool = stack.enter_context(self._pool(workers, cores))
                pending = [
                    pool.submit(_build, self.root, e, d, self.settings, threads) for d, e in todo
                ]
                results = (_result(job) for job in pending)
            for done, error in enumerate(results, 1):
                errors += [error] if error else []
                if progress is not None:
                    progress(done, len(todo), str(todo[done - 1][0]))
        if errors:
            raise EpisodeError("\n".join(errors))
        return entries

    def _pool(self, workers: int, cores: int) -> Executor:
        how = self.settings.parallel
        if how == "threads" or (how == "auto" and cores <= 4):
            return ThreadPoolExecutor(workers)
        # spawn: a process with rclpy or torch threads must not be forked.
        return ProcessPoolExecutor(workers, mp_context=get_context("spawn"))

    def load(self, directory: str | Path) -> Episode:
        """One episode from its entry, which is built if need be; images stay on disk."""
        (entry,) = self.build([directory])
        return _load(entry, Path(directory), self.settings)

    def episodes(
        self, episodes: Collection | Iterable[str | Path], progress: Progress | None = None
    ) -> list[Episode]:
        """All of them, cached; of a Collection those that are usable."""
        if isinstance(episodes, Collection):
            paths = [entry.path for entry in episodes if entry.usable]
        else:
            paths = [Path(path) for path in episodes]
        entries = self.build(paths, progress)
        return [_load(entry, path, self.settings) for entry, path in zip(entries, paths)]


def fingerprint(directory: str | Path) -> str:
    """Hash of a bag's content: of its index and chunk checksums; of all bytes if it has none."""
    bag = BagReader(find_bag(directory))
    digest = hashlib.sha256(str(bag.size).encode())
    for part in bag.checksums():
        digest.update(part)
    return digest.hexdigest()


def _build(root: Path, entry: Path, directory: Path, settings: CacheConfig, threads: int) -> str:
    """Make one entry; gives an error in words, or nothing."""
    root.mkdir(parents=True, exist_ok=True)
    with _one_builder(root / f".{entry.name}.lock"):
        if entry.is_dir():
            return ""
        temporary = Path(tempfile.mkdtemp(dir=root, prefix=f".{entry.name}."))
        temporary.chmod(0o755)
        try:
            _write(temporary, directory, settings, threads)
            os.rename(temporary, entry)
        except EpisodeError as error:
            return str(error)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return ""


def _result(job: Future[str]) -> str:
    try:
        return job.result()
    except BrokenProcessPool:
        raise EpisodeError(
            "a worker was killed while it built the cache (out of memory?); set fewer workers"
        ) from None


def _write(entry: Path, directory: Path, settings: CacheConfig, threads: int) -> None:
    bag = BagReader(find_bag(directory))
    aligned = align_bag(bag, settings.align)
    if bag.indexed and bag.problems:
        # Its key is that of the whole bag: cached, it would stand in for the restored one.
        raise EpisodeError(f"{bag.problems[0]}; damaged since it was recorded, so not cached")
    cameras = [name for name in settings.cameras if name in aligned.cameras]
    with ThreadPoolExecutor(threads) as pool:
        for name in cameras:
            write_pictures(entry / f"{name}.npy", aligned.cameras[name], settings.image_size, pool)
    arrays = {name: np.ascontiguousarray(value) for name, value in aligned.arrays.items()}
    (entry / "arrays.safetensors").write_bytes(save(arrays))
    config.write_json(
        entry / "entry.json",
        {
            "format": FORMAT,
            "rot6d": geometry.ROT6D_CONVENTION,
            "settings": config.to_dict(settings),
            "object_names": aligned.object_names,
            "events": aligned.events,
            "cameras": cameras,
            "partial": aligned.partial,
            "problems": aligned.problems,
        },
    )


def _load(entry: Path, directory: Path, settings: CacheConfig) -> Episode:
    try:
        values = json.loads((entry / "entry.json").read_bytes())
        arrays = load_file(entry / "arrays.safetensors")
        cameras = {
            name: CachedImages(np.load(entry / f"{name}.npy", mmap_mode="r", allow_pickle=False))
            for name in values["cameras"]
        }
        aligned = Aligned(
            arrays=arrays,
            object_names=tuple(values["object_names"]),
            events=tuple((int(t), str(text)) for t, text in values["events"]),
            cameras={},
            partial=bool(values["partial"]),
            problems=tuple(values["problems"]),
            align=settings.align,
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise EpisodeError(f"{entry}: damaged ({error}); delete it, it is built anew") from None
    return assemble(directory, aligned, cameras)


@contextlib.contextmanager
def _one_builder(lock: Path) -> Iterator[None]:
    """The second process waits for the first and then finds the entry there."""
    while True:
        with open(lock, "w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            if not _is_still(lock, stream.fileno()):
                continue  # its last holder removed it meanwhile: others lock another file by now
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
            return


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
