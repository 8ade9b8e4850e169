"""A request to a service that may never be answered, for programs that must not wait for it.

DDS goes on listing the server of a killed process for up to 20 s: a request that is sent then, or an
answer that is sent before the new server knows its client, is lost, and nobody says so.
"""

from __future__ import annotations

from typing import Any, TypeVar

AGAIN_S = 1.0
"""After so long what may be asked twice is asked again."""

About = TypeVar("About")


class Asking:
    """One request, until it is answered or given up. Knows nothing of ROS but a client's methods."""

    def __init__(
        self, client: Any, request: Any, now_s: float, patience_s: float, insist: bool = False
    ) -> None:
        """``insist``: sent again every second until it is answered, for what twice is once."""
        self._client, self._request = client, request
        self._began_s, self._patience_s = now_s, patience_s
        self.insist = insist
        self._sent_s = now_s
        self._futures = [client.call_async(request)]

    @property
    def answer(self) -> Any:
        """The first answer; None while there is none."""
        return next((future.result() for future in self._futures if future.done()), None)

    def over(self, now_s: float) -> bool:
        """Whether it was answered, or for too long not; to be called now and then."""
        if any(future.done() for future in self._futures):
            self._forget()
            return True
        if now_s - self._began_s >= self._patience_s:
            self._forget()
            return True
        if self.insist and now_s - self._sent_s >= AGAIN_S:
            self._sent_s = now_s
            self._futures.append(self._client.call_async(self._request))
        return False

    @property
    def silence(self) -> str:
        """What did not answer, and what to do."""
        return silence(self._client.srv_name, self._patience_s)

    def _forget(self) -> None:
        for future in self._futures:
            if not future.done():
                self._client.remove_pending_request(future)


class Requests(list[tuple[Asking, About]]):
    """What was asked and is not over, each with what the asker needs for its end."""

    def insist_no_more(self) -> None:
        """Before what undoes an earlier request (a stop) is asked for: that must not come after it."""
        for asked, _ in self:
            asked.insist = False

    def take_ended(self, now_s: float) -> list[tuple[Asking, About]]:
        """Those that were answered or given up since, which are no longer among these."""
        over: list[tuple[Asking, About]] = []
        left: list[tuple[Asking, About]] = []
        for asked, about in self:
            (over if asked.over(now_s) else left).append((asked, about))
        self[:] = left
        return over


def silence(service: str, patience_s: float) -> str:
    """For a person: the service that did not answer, and what to do about it."""
    return (
        f"{service} did not answer within {patience_s:g} s; its node may hang or have been started "
        "anew just now: see what the robot does, then try again"
    )
