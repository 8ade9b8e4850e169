"""The web application: pages, and the few addresses they fetch from. No ROS in it until Live.

Handlers are plain functions, which Starlette runs in threads: reading a bag blocks nobody else.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio.to_thread
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from dexpie_ros.control.keys import CAUSES
from dexpie_ros.control.session import SessionConfig
from dexpie_ros.episodes.annotations import AnnotationConflict, read_annotations
from dexpie_ros.episodes.bag_reader import find_bag
from dexpie_ros.episodes.episode import EpisodeError
from dexpie_ros.episodes.labels import read_labels
from dexpie_ros.web import editing, pictures
from dexpie_ros.web.access import Access
from dexpie_ros.web.checks import Checks
from dexpie_ros.web.foxglove import layout
from dexpie_ros.web.json_requests import json_object
from dexpie_ros.web.label_topics import labels_mcap
from dexpie_ros.web.library import Library, UnknownEpisodeError
from dexpie_ros.web.live_routes import LiveRoutes
from dexpie_ros.web.quotas import quotas
from dexpie_ros.web.results import Results
from dexpie_ros.web.rows import row
from dexpie_ros.web.series import series
from dexpie_ros.web.videos import Videos

STATIC = Path(__file__).parent / "static"
PAGES = ("/", "/episode", "/compare", "/live", "/results")
_REPORT_POLICY = "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_AGAIN = {"cache-control": "private, max-age=86400, immutable"}
"""For what never changes at its address: that of a picture names the state of the bag."""
_NEW = {"cache-control": "no-cache"}


def make_app(
    library: Library,
    results: Results,
    token: str,
    cookie: str = "dexpie",
    plan: SessionConfig | None = None,
) -> Starlette:
    """The application behind its token. ``plan``: whose quotas the table shows."""
    site = _Site(library, results, plan)
    live, videos = LiveRoutes(library.root), Videos(library)
    page, assets = _assets()

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with live.lifespan(app):
            yield
        for work in (videos, site.checks):
            await anyio.to_thread.run_sync(work.close)

    routes: list[BaseRoute] = [
        *(Route(path, lambda _: HTMLResponse(page, headers=_NEW)) for path in PAGES),
        Route("/api/episodes", site.episodes),
        Route("/api/checks", site.misaligned),
        Route("/api/thumbnail", site.thumbnail),
        Route("/api/episode", site.episode),
        Route("/api/series", site.series),
        Route("/api/picture", site.picture),
        Route("/api/annotate", site.annotate, methods=["POST"]),
        Route("/api/results", site.results),
        Route("/api/figures", site.figures),
        Route("/report", site.report),
        Route("/bag", site.bag),
        Route("/labels", site.labels),
        Route("/foxglove_layout.json", site.foxglove),
        *live.routes(),
        *videos.routes(),
        Mount(assets, _Assets(directory=STATIC)),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(Access, token=token, cookie=cookie)],
        exception_handlers={EpisodeError: _unusable},
        lifespan=lifespan,
    )


def _assets() -> tuple[str, str]:
    """The page, and where it finds its scripts and styles: an address that names their content.

    So a browser keeps them for good and still never runs old ones.
    """
    digest = hashlib.sha256()
    for path in sorted(STATIC.iterdir()):
        digest.update(path.read_bytes())
    folder = f"/static/{digest.hexdigest()[:12]}"
    return (STATIC / "page.html").read_text(encoding="utf-8").replace("/static", folder), folder


class _Assets(StaticFiles):
    """Static files that never change at their address."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update(_AGAIN)
        return response


async def _unusable(request: Request, error: Exception) -> Response:
    status = 422
    if isinstance(error, UnknownEpisodeError):
        status = 404
    elif isinstance(error, AnnotationConflict):
        status = 409
    return JSONResponse({"error": str(error)}, status)


class _Site:
    def __init__(self, library: Library, results: Results, plan: SessionConfig | None) -> None:
        self._library, self._results, self._plan = library, results, plan
        self.checks = Checks(library)
        self._small = pictures.SmallPictures()

    def episodes(self, request: Request) -> Response:
        entries = self._library.entries()
        return JSONResponse(
            {
                "root": self._library.name,
                "episodes": [row(name, entry) for name, entry in entries.items()],
                "quotas": quotas(self._plan, entries.values()) if self._plan else [],
            }
        )

    def misaligned(self, request: Request) -> Response:
        return JSONResponse(self.checks.look())

    def thumbnail(self, request: Request) -> Response:
        directory = self._library.directory(_name(request))
        try:
            jpeg = self._small.get(directory)
        except EpisodeError:
            # Many episodes have no pictures: nothing to report, the table says so in its cell.
            return Response(status_code=204)
        headers = {"cache-control": "private, max-age=60"}
        return Response(jpeg, media_type="image/jpeg", headers=headers)

    def episode(self, request: Request) -> Response:
        values = editing.describe(self._library, _name(request))
        return JSONResponse(values | {"causes": CAUSES})

    def series(self, request: Request) -> Response:
        """The rows, and the annotations in steps; 422 with the reason for a broken bag."""
        opened = self._library.open(_name(request))
        values = series(opened)
        values["state"] = f"{opened.bag.path.stat().st_mtime_ns:x}"
        annotations = read_annotations(opened.directory)
        values["annotations"] = editing.plain(annotations, opened.aligned.arrays["time_ns"])
        return JSONResponse(values)

    def picture(self, request: Request) -> Response:
        number = request.query_params.get("number", "")
        if not number.isdecimal() or len(number) > 9:
            raise EpisodeError(f"picture {number!r:.40}: expected a number")
        opened = self._library.open(_name(request))
        jpeg = pictures.picture(opened, request.query_params.get("camera", ""), int(number))
        return Response(jpeg, media_type="image/jpeg", headers=_AGAIN)

    async def annotate(self, request: Request) -> Response:
        values = await json_object(request)
        return await anyio.to_thread.run_sync(self._annotate, _name(request), values)

    def _annotate(self, name: str, values: dict[str, Any]) -> Response:
        times = None
        try:
            times = self._library.open(name).aligned.arrays["time_ns"]
        except UnknownEpisodeError:
            raise
        except EpisodeError:
            # A broken bag must still be excluded from training; only its steps are unknown.
            times = None
        after = editing.change(self._library, name, values, times)
        self._library.entry(name)
        return JSONResponse(editing.plain(after, times))

    def results(self, request: Request) -> Response:
        roots = [str(root) for root in self._results.roots]
        return JSONResponse({"roots": roots, "files": self._results.find()})

    def figures(self, request: Request) -> Response:
        return JSONResponse(self._results.figures(request.query_params.get("name", "")))

    def report(self, request: Request) -> Response:
        path, data = self._results.read(request.query_params.get("name", ""))
        if path.suffix != ".html":
            raise EpisodeError(f"{path.name} is no report")
        # Whatever the file holds, it runs nothing and reads nothing of this page.
        headers = {"content-security-policy": _REPORT_POLICY}
        return Response(data, media_type="text/html; charset=utf-8", headers=headers)

    def bag(self, request: Request) -> Response:
        """The whole recording, for other programs."""
        name = _name(request)
        file = find_bag(self._library.directory(name))
        return FileResponse(file, media_type="application/octet-stream", filename=file.name)

    def labels(self, request: Request) -> Response:
        """Labels as a bag of their own, to be opened beside the recording."""
        episode = self._library.open(_name(request)).episode()
        tag = request.query_params.get("tag", "")
        data = labels_mcap(episode, read_labels(episode.path, tag, steps=len(episode)))
        headers = {"content-disposition": f'attachment; filename="{tag}_labels.mcap"'}
        return Response(data, media_type="application/octet-stream", headers=headers)

    def foxglove(self, request: Request) -> Response:
        headers = {"content-disposition": 'attachment; filename="dexpie_foxglove_layout.json"'}
        return JSONResponse(layout(), headers=headers)


def _name(request: Request) -> str:
    name = request.query_params.get("episode", "")
    if not name:
        raise UnknownEpisodeError("the address lacks ?episode=NAME")
    return name
