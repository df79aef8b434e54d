"""POST /v1/explain: for which products, and how much of it at once.

The list is made and explained in a thread of its own, one question at a time, so that no answer to a shopper
waits for it. What waits is bounded; a question that waits too long is told so.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import orjson

from feature_repo.errors import UnavailableError
from serving.errors import RequestError
from serving.explain.explanation import explained
from serving.http.requests import build, parse_object, require_id
from serving.live.storefront import Storefront
from serving.types import Request

ASKED = "item_ids"
MOST_ASKED = 20
RETRY_AFTER_S = 1


def parse_explain(body: bytes, max_items: int) -> tuple[Request, tuple[str, ...]]:
    """The body of POST /v1/explain: that of recommend, and `item_ids`, the products asked for besides."""
    fields = parse_object(body)
    asked = fields.pop(ASKED, None)
    if asked is None:
        return build(fields, max_items), ()
    if not isinstance(asked, list) or len(asked) > MOST_ASKED:
        found = f"{len(asked)} ids" if isinstance(asked, list) else asked
        raise RequestError(ASKED, found, f"a list of at most {MOST_ASKED} item ids")
    for at, item in enumerate(asked):
        require_id(f"{ASKED}[{at}]", item)
    return build(fields, max_items), tuple(dict.fromkeys(asked))


class Inquiries:
    """Answers of one worker."""

    def __init__(self, storefront: Storefront, timeout_s: float, waiting: int) -> None:
        self._storefront, self._timeout_s, self._most = storefront, timeout_s, waiting
        self._thread = ThreadPoolExecutor(1, "explain")
        self._waiting = 0

    async def answer(self, request: Request, asked: Sequence[str]) -> bytes:
        """The JSON of `explained`. UnavailableError where too many wait, or it takes too long."""
        if self._waiting >= self._most:
            raise UnavailableError(f"{self._most} explanations are being made or wait", RETRY_AFTER_S)
        self._waiting += 1
        try:
            made = await self._storefront.record(request)
        except BaseException:
            self._waiting -= 1
            raise

        def told() -> bytes:
            return orjson.dumps(explained(made(), asked))

        future = asyncio.get_running_loop().run_in_executor(self._thread, told)
        future.add_done_callback(self._done)  # what nobody waits for any more still takes its turn
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.shield(future)
        except TimeoutError:
            raise UnavailableError(
                f"the explanation takes longer than {self._timeout_s} s", RETRY_AFTER_S
            ) from None

    def _done(self, future: "asyncio.Future[bytes]") -> None:
        self._waiting -= 1
        if not future.cancelled():
            future.exception()  # read here where nobody else does

    def close(self) -> None:
        """Let go of what waits."""
        self._thread.shutdown(wait=False, cancel_futures=True)
