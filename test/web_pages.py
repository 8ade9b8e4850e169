"""A page on loopback and a browser that looks at it, for the tests of dexpie_ros.web."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import threading
import time
import urllib.error
import urllib.request

import pytest

TOKEN = "token-of-the-tests"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--no-first-run", "--disable-dev-shm-usage",
]  # fmt: skip


@contextlib.contextmanager
def served(root, results=()):
    """Address of a server for the episodes below ``root``."""
    pytest.importorskip("starlette", reason="needs the extra `web`: pip install -e '.[web]'")
    with _listening(application(root, results)) as address:
        yield address


def application(root, results=(), plan=None):
    from dexpie_ros.web.app import make_app
    from dexpie_ros.web.library import Library
    from dexpie_ros.web.results import Results

    return make_app(Library(root), Results([root, *results]), TOKEN, plan=plan)


@contextlib.contextmanager
def _listening(app):
    import uvicorn

    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(
            app, log_level="error", timeout_graceful_shutdown=1, lifespan="on", ws="none"
        )
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        end = time.monotonic() + 60
        while not server.started and time.monotonic() < end:
            time.sleep(0.01)
        assert server.started
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


class Stand:
    """One server for a whole test module; what it serves changes from test to test."""

    def __init__(self):
        self.app, self.loop, self.address = None, None, ""

    async def __call__(self, scope, receive, send):
        if scope["type"] != "lifespan":
            await self.app(scope, receive, send)
            return
        self.loop = asyncio.get_running_loop()
        for kind in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{kind}.complete"})

    @contextlib.contextmanager
    def showing(self, root, **more):
        """Address at which the episodes below ``root`` are served meanwhile."""
        self.app = application(root, **more)
        begun, done = threading.Event(), asyncio.Event()

        async def live():
            async with self.app.router.lifespan_context(self.app):
                begun.set()
                await done.wait()

        life = asyncio.run_coroutine_threadsafe(live(), self.loop)
        try:
            assert begun.wait(60)
            yield self.address
        finally:
            self.loop.call_soon_threadsafe(done.set)
            life.result(60)


@contextlib.contextmanager
def standing():
    """A :class:`Stand` that listens."""
    pytest.importorskip("starlette", reason="needs the extra `web`: pip install -e '.[web]'")
    stand = Stand()
    with _listening(stand) as stand.address:
        yield stand


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


def ask(address, *, token=TOKEN, data=None, **headers):
    """(status, headers, body) of one request; ``token``: as the cookie, None for none."""
    request = urllib.request.Request(address, data=data, method="POST" if data else "GET")
    if token is not None:
        request.add_header("Cookie", f"dexpie={token}")
    if data is not None:
        request.add_header("Content-Type", "application/json")
    for name, value in headers.items():
        request.add_header(name.replace("_", "-"), value)
    try:
        with urllib.request.build_opener(NoRedirect).open(request, timeout=60) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


@contextlib.contextmanager
def browser():
    """A headless chromium; skips, naming the package, where there is none."""
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="needs the extra `dev`: pip install -e '.[dev]'"
    )
    if CHROMIUM is None:
        pytest.skip("no chromium here; install the system package `chromium`")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield running
        running.close()


@contextlib.contextmanager
def opened(running, address, path="/", **context):
    """A page; what fails in its scripts fails the test.

    ``running``: a browser, for cookies of its own, or a context, whose cookies, cache and page are
    used again: half the time is gone into the making of a new one.
    """
    own = running.new_context(**context) if hasattr(running, "new_context") else None
    page = own.new_page() if own else (running.pages or [running.new_page()])[0]
    page.set_default_timeout(60_000)
    errors, foreign = [], []

    def noted(error):
        errors.append(str(error))

    def asked(request):
        if not request.url.startswith((address, "data:", "about:")):
            foreign.append(request.url)

    page.on("pageerror", noted)
    page.on("request", asked)
    whole = False
    try:
        joint = "&" if "?" in path else "?"
        page.goto(f"{address}{path}{joint}token={TOKEN}")
        ready(page)
        yield page
        whole = True
    finally:
        if own or not whole:
            (own or page).close()
        else:
            _tidy(page)
            page.remove_listener("pageerror", noted)
            page.remove_listener("request", asked)
    assert errors == []
    assert foreign == [], "something is loaded from elsewhere"


def _tidy(page):
    """As if it were new, with nothing of it still asking the server."""
    page.unroute_all()
    # a report is sandboxed and has no storage
    page.evaluate(
        "() => { if (origin !== 'null') { sessionStorage.clear(); localStorage.clear(); } }"
    )
    page.goto("about:blank")
    page.set_viewport_size({"width": 1280, "height": 720})
    page.emulate_media(color_scheme="null", reduced_motion="null")


STREAM = {"name": "/control/step", "health": "fresh", "age": 0.02, "rate": 25.0, "nominal": 25}
LIVE = {
    "ros": True, "heard": True, "mode": "human", "reason": "the operator drives", "aligned": True,
    "panel": ["[HUMAN] the operator drives", "alignment: GO"], "pictures": {"front": 1, "wrist": 1},
    "streams": [STREAM, {**STREAM, "health": "late", "name": "/camera/front/color/image_raw/compressed", "age": 3.21}],
    "complaints": [{"name": "arm", "level": 1, "message": "slow"}, {"name": "hand", "level": 2, "message": "gone"}],
}  # fmt: skip
"""What the server says of a graph that runs; test_web_live.py asks a real one."""


def made_up_graph(page, **state):
    """Live shows :data:`LIVE` with ``state``; gives the list of what the page then orders."""
    import factories
    import numpy as np

    from dexpie_ros.episodes.images import encode_jpeg

    orders = []
    image = factories.synthetic_image(factories.Recipe(), 3, "front", np.random.default_rng(0))
    picture = encode_jpeg(image)

    def ordered(route):
        orders.append(route.request.post_data_json)
        route.fulfill(json={"message": "done"})

    page.route("**/api/live/state*", lambda route: route.fulfill(json=LIVE | state))
    page.route(
        "**/api/live/picture*", lambda route: route.fulfill(body=picture, content_type="image/jpeg")
    )
    page.route("**/api/live/command*", ordered)
    return orders


def ready(page):
    """Until the page has drawn itself."""
    page.wait_for_selector("body[data-ready]")


def at_step(page, step):
    """Until the pictures of a control step are shown."""
    page.wait_for_selector(f".cameras[data-step='{step}']")


# controls without a name that a screen reader could say
NAMELESS = """() => [...document.querySelectorAll('button, a[href], input, select, textarea, canvas, [role=img]')]
  .filter(e => e.checkVisibility() && !(e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length))
  .map(e => e.outerHTML.slice(0, 100))"""

# texts whose contrast with what is behind them is below 4.5
UNREADABLE = """() => {
  const parse = c => (c.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => { const f = v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b); };
  const ground = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] > 0.65) return c.slice(0, 3); } return [255, 255, 255]; };
  const found = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.checkVisibility() || e.disabled || e.closest('svg, dialog, .skip, :disabled, .unseen')) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) found.push(`${e.tagName}.${e.className}: ${e.textContent.slice(0, 30)} ${((a + 0.05) / (b + 0.05)).toFixed(2)}`);
  }
  return found; }"""
