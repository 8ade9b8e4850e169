"""Value-overlay videos for the Episode page: made in the background, one at a time, then fetched.

They lie in a temporary directory that goes with the server; the newest few are kept, so that asking
twice for the same episode, labels and annotations makes nothing twice.
"""

from __future__ import annotations

import logging
import re
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from dexpie_ros.episodes.annotations import read_annotations
from dexpie_ros.episodes.episode import EpisodeError
from dexpie_ros.episodes.labels import labels_path, read_labels
from dexpie_ros.evaluation.errors import EvaluationError
from dexpie_ros.web.json_requests import SHORT, json_object
from dexpie_ros.web.library import Library

KEPT = 4
"""Finished videos that stay; a request for an older one makes it anew."""
WAITING = 8
"""More than this are not queued."""


class _Cancelled(Exception):
    """Nobody wants this video any more."""


@dataclass(eq=False)
class Video:
    """One video, wanted or made."""

    key: tuple[str, str, int, int, int]
    """Episode, labels, and the states of bag, labels and annotations that it shows."""
    file: Path
    name: str
    """What the file is called when it is saved."""
    state: str = "waiting"
    """waiting, running, done, failed or cancelled"""
    progress: float = 0.0
    error: str = ""
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def over(self) -> bool:
        return self.state in ("done", "failed", "cancelled")

    def plain(self) -> dict[str, Any]:
        done = self.state == "done"
        return {
            "id": self.file.stem,
            "state": self.state,
            "progress": round(self.progress, 3),
            "error": self.error,
            "name": self.name,
            "bytes": self.file.stat().st_size if done and self.file.is_file() else 0,
        }


class Videos:
    """Makes videos in a thread of its own. :meth:`close` when the server ends."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._lock = threading.Lock()
        self._videos: dict[str, Video] = {}
        self._count = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._worker: ThreadPoolExecutor | None = None

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/api/video", self.status, methods=["GET"]),
            Route("/api/video", self.wanted, methods=["POST"]),
            Route("/video", self.download),
        ]

    # -- the work ------------------------------------------------------------------------------
    def want(self, name: str, tag: str) -> Video:
        """The video of an episode with the labels of ``tag``, made from now on unless it is there.

        EpisodeError if the bag or the labels cannot be read, or too many wait already.
        """
        opened = self._library.open(name)
        labels = labels_path(opened.directory, tag)
        read_labels(opened.directory, tag, steps=len(opened.aligned.arrays["time_ns"]))
        key = (
            name,
            tag,
            opened.bag.path.stat().st_mtime_ns,
            labels.stat().st_mtime_ns,
            read_annotations(opened.directory).revision,
        )
        with self._lock:
            for video in self._videos.values():
                if video.key == key and video.state in ("waiting", "running", "done"):
                    return video
            if sum(not video.over for video in self._videos.values()) >= WAITING:
                raise EpisodeError(f"{WAITING} videos are being made already; wait for one of them")
            if self._folder is None or self._worker is None:
                self._folder = tempfile.TemporaryDirectory(prefix="dexpie_videos.")
                self._worker = ThreadPoolExecutor(1, thread_name_prefix="videos")
            self._count += 1
            said = re.sub(r"[^A-Za-z0-9_.+-]+", "_", f"{opened.directory.name}_{tag}")
            video = Video(key, Path(self._folder.name) / f"{self._count}.mp4", f"{said}.mp4")
            self._videos[video.file.stem] = video
            self._worker.submit(self._make, video).add_done_callback(_report)
            self._forget()
            return video

    def get(self, number: str) -> Video:
        with self._lock:
            video = self._videos.get(number)
        if video is None:
            raise EpisodeError("this video is no longer there; make it again")
        return video

    def close(self) -> None:
        """Stop what runs and delete all files."""
        with self._lock:
            for video in self._videos.values():
                video.stop.set()
            worker, self._worker = self._worker, None
            folder, self._folder = self._folder, None
            self._videos.clear()
        if worker is not None:
            worker.shutdown(wait=True, cancel_futures=True)
        if folder is not None:
            folder.cleanup()

    def _make(self, video: Video) -> None:
        try:
            self._write(video)
            video.state = "done"
        except _Cancelled:
            video.state = "cancelled"
        except (EpisodeError, EvaluationError, OSError, ValueError) as error:
            video.error = str(error)
            video.state = "failed"
        finally:
            if not video.over:
                video.error = "an error in the program; `dexpie web` printed it"
                video.state = "failed"

    def _write(self, video: Video) -> None:
        # Drawing costs an import of matplotlib's parts; a page without videos does without.
        from dexpie_ros.evaluation.overlay import write_overlay

        _check(video)
        video.state = "running"
        name, tag = video.key[:2]
        episode = self._library.open(name).episode()
        labels = read_labels(episode.path, tag, steps=len(episode))
        write_overlay(video.file, episode, labels, progress=_teller(video))

    def _forget(self) -> None:
        """Delete all but the newest finished ones."""
        over = [number for number, video in self._videos.items() if video.over]
        for number in over[: max(0, len(over) - KEPT)]:
            self._videos.pop(number).file.unlink(missing_ok=True)

    # -- what the page asks --------------------------------------------------------------------
    def status(self, request: Request) -> Response:
        return JSONResponse(self.get(request.query_params.get("id", "")).plain())

    async def wanted(self, request: Request) -> Response:
        """``{"tag": ...}`` for ``?episode=``, or ``{"cancel": id}``."""
        values = await json_object(request, SHORT)
        cancel, tag = values.get("cancel"), values.get("tag")
        if isinstance(cancel, str):
            video = self.get(cancel)
            video.stop.set()
        elif isinstance(tag, str):
            name = request.query_params.get("episode", "")
            video = await anyio.to_thread.run_sync(self.want, name, tag)
        else:
            raise EpisodeError("a video needs the `tag` of its labels")
        return JSONResponse(video.plain())

    def download(self, request: Request) -> Response:
        video = self.get(request.query_params.get("id", ""))
        if video.state != "done" or not video.file.is_file():
            raise EpisodeError(f"the video is {video.state}, not done")
        return FileResponse(video.file, media_type="video/mp4", filename=video.name)


def _report(work: Future[None]) -> None:
    if not work.cancelled() and (error := work.exception()) is not None:
        logging.getLogger(__name__).error("a video failed", exc_info=error)


def _check(video: Video) -> None:
    if video.stop.is_set():
        raise _Cancelled


def _teller(video: Video) -> Callable[[int, int], None]:
    def tell(done: int, total: int) -> None:
        _check(video)
        video.progress = done / total

    return tell
