"""Endcap and AsyncEndcap: the same calls, the one blocking, the other awaited."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import Any, Self, cast

import httpx

from endcap_client import exchange
from endcap_client.exchange import TIMEOUT_S, TRIES, Call, question
from endcap_client.messages import Event, List, Receipt, Surface


class Endcap:
    """`url` of the service. An answer may take `timeout_s`; a question is asked `tries` times in all.

    Every call raises Refused where the service says what is wrong, Unavailable where it does not answer.
    """

    def __init__(
        self, url: str, *, key: str | None = None, timeout_s: float = TIMEOUT_S, tries: int = TRIES
    ) -> None:
        self._timeout_s, self._tries = timeout_s, tries
        self._http = httpx.Client(base_url=url, headers=exchange.headers(key), trust_env=False)

    def recommend(self, surface: str, **fields: Any) -> List:
        """The slots of a surface; `fields` as docs/api.md has them, e.g. session_id, items, limit, fields."""
        return cast(List, self._ask(question("/v1/recommend", surface=surface, **fields)))

    def page(self, surfaces: Sequence[Surface], **fields: Any) -> list[List]:
        """A list for each, in their order; no product stands in two of them."""
        return cast(
            list[List], self._ask(question("/v1/page", surfaces=list(surfaces), **fields))["surfaces"]
        )

    def rank(self, surface: str, items: Sequence[str], **fields: Any) -> List:
        """`items`, best first."""
        return cast(List, self._ask(question("/v1/rank", surface=surface, items=list(items), **fields)))

    def events(self, events: Iterable[Event], *, wait: bool = False) -> Receipt:
        """Tell what happened; with `wait` the next lists know of it. Rejected ones stand in the receipt."""
        return cast(Receipt, self._ask(exchange.telling(events, wait)))

    def _ask(self, call: Call) -> Any:
        answer = cause = None
        for pause_s in (*exchange.pauses(self._tries), None):
            answer = cause = None
            try:
                answer = self._http.post(call.path, json=call.body, timeout=self._timeout_s + call.extra_s)
                if (told := exchange.judged(answer)) is not None:
                    return told
            except httpx.TransportError as error:
                cause = error
            if pause_s is not None:
                time.sleep(exchange.patience(answer, pause_s))
        raise exchange.gave_up(call, self._tries, answer) from cause

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncEndcap:
    """As Endcap; every call is awaited."""

    def __init__(
        self, url: str, *, key: str | None = None, timeout_s: float = TIMEOUT_S, tries: int = TRIES
    ) -> None:
        self._timeout_s, self._tries = timeout_s, tries
        self._http = httpx.AsyncClient(base_url=url, headers=exchange.headers(key), trust_env=False)

    async def recommend(self, surface: str, **fields: Any) -> List:
        """As Endcap.recommend."""
        return cast(List, await self._ask(question("/v1/recommend", surface=surface, **fields)))

    async def page(self, surfaces: Sequence[Surface], **fields: Any) -> list[List]:
        """As Endcap.page."""
        told = await self._ask(question("/v1/page", surfaces=list(surfaces), **fields))
        return cast(list[List], told["surfaces"])

    async def rank(self, surface: str, items: Sequence[str], **fields: Any) -> List:
        """As Endcap.rank."""
        return cast(List, await self._ask(question("/v1/rank", surface=surface, items=list(items), **fields)))

    async def events(self, events: Iterable[Event], *, wait: bool = False) -> Receipt:
        """As Endcap.events."""
        return cast(Receipt, await self._ask(exchange.telling(events, wait)))

    async def _ask(self, call: Call) -> Any:
        answer = cause = None
        for pause_s in (*exchange.pauses(self._tries), None):
            answer = cause = None
            try:
                answer = await self._http.post(
                    call.path, json=call.body, timeout=self._timeout_s + call.extra_s
                )
                if (told := exchange.judged(answer)) is not None:
                    return told
            except httpx.TransportError as error:
                cause = error
            if pause_s is not None:
                await asyncio.sleep(exchange.patience(answer, pause_s))
        raise exchange.gave_up(call, self._tries, answer) from cause

    async def aclose(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
