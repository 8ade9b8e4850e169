"""The web application: pages, and the few addresses they fetch from. No ROS in it until Live.

Handlers are plain functions, which Starlette runs in threads: reading a bag blocks nobody else.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio.to_thread
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from dexpie_ros.control.keys import CAUSES
from dexpie_ros.episodes.annotations import AnnotationConflict, read_annotations
from dexpie_ros.episodes.episode import EpisodeError
from dexpie_ros.web import editing, pictures
from dexpie_ros.web.access import Access
from dexpie_ros.web.library import Library, UnknownEpisodeError
from dexpie_ros.web.live_routes import LiveRoutes
from dexpie_ros.web.results import Results
from dexpie_ros.web.rows import row
from dexpie_ros.web.series import series

STATIC = Path(__file__).parent / "static"
PAGES = ("/", "/episode", "/compare", "/live", "/results")
_LARGEST_REQUEST = 1 << 20
_REPORT_POLICY = "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_AGAIN = {"cache-control": "private, max-age=86400, immutable"}
"""For pictures: their address names the state of the bag."""


def make_app(library: Library, results: Results, token: str, cookie: str = "dexpie") -> Starlette:
    """The application behind its token."""
    site = _Site(library, results)
    live = LiveRoutes()
    routes: list[BaseRoute] = [
        *(Route(path, _page) for path in PAGES),
        Route("/api/episodes", site.episodes),
        Route("/api/thumbnail", site.thumbnail),
        Route("/api/episode", site.episode),
        Route("/api/series", site.series),
        Route("/api/picture", site.picture),
        Route("/api/annotate", site.annotate, methods=["POST"]),
        Route("/api/results", site.results),
        Route("/api/figures", site.figures),
        Route("/report", site.report),
        *live.routes(),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(Access, token=token, cookie=cookie)],
        exception_handlers={EpisodeError: _unusable},
        lifespan=live.lifespan,
    )


def _page(request: Request) -> Response:
    return FileResponse(STATIC / "page.html", headers={"cache-control": "no-cache"})


async def _unusable(request: Request, error: Exception) -> Response:
    status = 422
    if isinstance(error, UnknownEpisodeError):
        status = 404
    elif isinstance(error, AnnotationConflict):
        status = 409
    return JSONResponse({"error": str(error)}, status)


class _Site:
    def __init__(self, library: Library, results: Results) -> None:
        self._library, self._results = library, results
        self._small = pictures.SmallPictures()

    def episodes(self, request: Request) -> Response:
        entries = self._library.entries()
        return JSONResponse(
            {
                "root": self._library.name,
                "episodes": [row(name, entry) for name, entry in entries.items()],
            }
        )

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
        values = await _json(request)
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


def _name(request: Request) -> str:
    name = request.query_params.get("episode", "")
    if not name:
        raise UnknownEpisodeError("the address lacks ?episode=NAME")
    return name


async def _json(request: Request) -> dict[str, Any]:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _LARGEST_REQUEST:
            raise EpisodeError("the request is too large")
    try:
        values = json.loads(bytes(body))
    except (ValueError, RecursionError):
        raise EpisodeError("the request is no JSON") from None
    if not isinstance(values, dict):
        raise EpisodeError("the request is no JSON object")
    return values
