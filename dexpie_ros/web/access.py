"""Who may see the page: those who know the token that the terminal printed.

The first address carries the token; the answer keeps it in a cookie and leads to the same address
without it, so that it stays out of histories and screenshots. Everything else without the cookie is
refused with 403. Changes are accepted only as JSON from the page itself, never from a foreign site.
"""

from __future__ import annotations

import hmac
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PARAMETER = "token"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Nothing is loaded from elsewhere, and no script but ours runs."""
_CHANGING = ("POST", "PUT", "PATCH", "DELETE")


class Access:
    """ASGI middleware: checks the token and sets the headers that keep a page to itself."""

    def __init__(self, app: ASGIApp, token: str, cookie: str) -> None:
        """``cookie``: its name; cookies know no ports, so two pages on one host need two names."""
        self.app, self._token, self._cookie = app, token, cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for key, value in query if key == PARAMETER]
        answer: ASGIApp = self.app
        if given:
            answer = self._enter(scope, query) if self._right(given[-1]) else refusal(scope)
        elif not self._right(self._from_cookie(headers)):
            answer = refusal(scope)
        elif scope["method"] in _CHANGING and (problem := _foreign(headers)):
            answer = JSONResponse({"error": problem}, 403)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                out = MutableHeaders(scope=message)
                out.setdefault("content-security-policy", POLICY)
                out.setdefault("x-content-type-options", "nosniff")
                out.setdefault("referrer-policy", "no-referrer")
                out.setdefault("cache-control", "no-store")
            await send(message)

        await answer(scope, receive, guarded)

    def _right(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), self._token.encode())

    def _from_cookie(self, headers: Headers) -> str:
        try:
            jar = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            return ""
        return jar[self._cookie].value if self._cookie in jar else ""

    def _enter(self, scope: Scope, query: list[tuple[str, str]]) -> Response:
        rest = urlencode([(key, value) for key, value in query if key != PARAMETER])
        # Only the path of this server: `//elsewhere` would be another host's address.
        path = "/" + scope["path"].lstrip("/")
        response = RedirectResponse(f"{path}?{rest}" if rest else path, 303)
        response.set_cookie(self._cookie, self._token, path="/", httponly=True, samesite="lax")
        return response


def refusal(scope: Scope) -> Response:
    """403, in words for a person or for a program."""
    said = "Open the address that `dexpie web` printed; it carries a token that this one lacks."
    if scope["path"].startswith("/api/"):
        return JSONResponse({"error": said}, 403)
    return HTMLResponse(
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>Refused</title>"
        f"<h1>Refused</h1><p>{said}</p></html>",
        403,
    )


def _foreign(headers: Headers) -> str:
    """Why a change is not from our own page; empty if it is."""
    origin = headers.get("origin", "")
    if origin and urlsplit(origin).netloc != headers.get("host", ""):
        return "a change from another site is refused"
    if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        return "a change must be sent as application/json"
    return ""
