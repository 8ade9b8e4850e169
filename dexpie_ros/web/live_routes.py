"""Addresses of the Live page. ROS is joined when somebody looks, and left when nobody does."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from dexpie_ros.contract import CAMERAS
from dexpie_ros.control.keys import BINDINGS, CAUSES, SERVICES, Action
from dexpie_ros.web.json_requests import SHORT, json_object
from dexpie_ros.web.start_overlay import read_start, start_file

if TYPE_CHECKING:
    from dexpie_ros.web.live import LiveGraph

IDLE_S = 20.0
"""Nobody asked for so long: the subscriptions cost the graph nothing any more."""
OUTCOMES = ("success", "failure", "aborted")


class LiveRoutes:
    """Holds the one :class:`~dexpie_ros.web.live.LiveGraph`, if there is one.

    ``root``: of the episodes; nothing outside of it is shown.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._graph: LiveGraph | None = None
        self._asked = 0.0

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/api/live/keys", self.keys),
            Route("/api/live/state", self.state),
            Route("/api/live/picture", self.picture),
            Route("/api/live/start", self.start),
            Route("/api/live/command", self.command, methods=["POST"]),
        ]

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Leaves the graph when nobody looks, and when the server ends."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._leave_when_idle)
            yield
            tasks.cancel_scope.cancel()
        await anyio.to_thread.run_sync(self.leave)

    async def _leave_when_idle(self) -> None:
        while True:
            await anyio.sleep(2.0)
            if self._graph is not None and time.monotonic() - self._asked > IDLE_S:
                await anyio.to_thread.run_sync(self.leave)

    def leave(self) -> None:
        """Free everything of ROS."""
        with self._lock:
            graph, self._graph = self._graph, None
        if graph is not None:
            graph.stop()

    def join(self) -> LiveGraph:
        """The graph, joined now if need be. ImportError where there is no ROS 2."""
        self._asked = time.monotonic()
        with self._lock:
            if self._graph is None:
                from dexpie_ros.web.live import LiveGraph

                self._graph = LiveGraph()
            return self._graph

    def keys(self, request: Request) -> Response:
        """The same table of keys as in the terminal, without the one that ends the session."""
        rows = [
            {"keys": binding.keys, "action": binding.action.value, "help": binding.help}
            for binding in BINDINGS
            if binding.action is not Action.QUIT
        ]
        return JSONResponse({"bindings": rows, "causes": CAUSES})

    def state(self, request: Request) -> Response:
        try:
            graph = self.join()
            return JSONResponse({"ros": True, **graph.state(), "start": self._start(graph)})
        except ImportError as error:
            return JSONResponse(
                {
                    "ros": False,
                    "reason": f"ROS 2 cannot be imported here ({error}): source its setup.bash, or "
                    "install the wheels, then start `dexpie web` again",
                }
            )

    def picture(self, request: Request) -> Response:
        camera = request.query_params.get("camera", "")
        with self._lock:
            graph = self._graph
        jpeg = graph.picture(camera) if graph is not None and camera in CAMERAS else None
        if jpeg is None:
            return JSONResponse({"error": f"no picture of camera {camera!r:.40}"}, 404)
        return Response(jpeg, media_type="image/jpeg")

    def _start(self, graph: LiveGraph) -> dict[str, Any] | None:
        start = graph.start()
        if start is None:
            return None
        file = start_file(start, self._root)
        problem = f"{start.path} is not below {self._root}" if file is None else ""
        return {"episode": start.episode_id, "problem": problem}

    def start(self, request: Request) -> Response:
        """The picture that the plan names now, if it is of the episode that is asked for."""
        episode = request.query_params.get("episode", "")
        with self._lock:
            graph = self._graph
        start = graph.start() if graph is not None else None
        jpeg = None
        if start is not None and start.episode_id == episode:
            jpeg = read_start(start, self._root)
        if jpeg is None:
            return JSONResponse({"error": f"no picture of the start of {episode!r:.60}"}, 404)
        return Response(jpeg, media_type="image/jpeg")

    async def command(self, request: Request) -> Response:
        values = await json_object(request, SHORT)
        return await anyio.to_thread.run_sync(self._command, values)

    def _command(self, values: dict[str, Any]) -> Response:
        try:
            graph = self.join()
            from dexpie_ros.web.live import LiveError
        except ImportError as error:
            return JSONResponse({"error": f"ROS 2 cannot be imported here ({error})"}, 409)
        action, outcome, cause = (values.get(key, "") for key in ("action", "outcome", "cause"))
        known = {wanted.value: wanted for wanted in SERVICES if wanted is not Action.QUIT}
        if not isinstance(cause, str) or len(cause) > 200:
            return JSONResponse({"error": "cause: expected a short text"}, 422)
        try:
            if action == "take":
                said = graph.take_over()
            elif action == "give":
                said = graph.give_back()
            elif action == "end" and outcome in OUTCOMES:
                said = graph.end(outcome, cause)
            elif isinstance(action, str) and action in known:
                said = graph.act(known[action])
            else:
                return JSONResponse({"error": f"no such command: {action!r:.40}"}, 422)
        except LiveError as error:
            return JSONResponse({"error": str(error)}, 409)
        return JSONResponse({"message": said or "done"})
