"""`endcap items push FILE`: tell the running shop of new prices, stock, items and deletions.

The file goes to POST /v1/items in batches. A batch is sent again, byte for byte, until it is answered: its
rows carry the instant at which it was first made, so that what others said meanwhile stays.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
import orjson
import typer

from feature_repo.errors import EndcapError, UnavailableError
from feature_repo.params import load
from feature_repo.ports import CATALOGUE, service_url, token, tokens_file
from feature_repo.terminal import console, progress, table
from pipelines.ingest.offers import Offer, read_offers
from serving.http.requests import MAX_PARTS, PARTS
from serving.params import Serving

ANSWER_S = 10.0
AGAIN = (502, 503, 504)
EXAMPLES = 3  # of each refusal
SPARE = 0.5  # of a body's limits: what a batch may fill
Refusal = tuple[str, str]  # field, what is allowed


def main(
    action: Annotated[Literal["push"], typer.Argument(help="push: send the file's rows.")],
    file: Annotated[Path, typer.Argument(help="CSV, JSON lines, parquet, or a Google Merchant feed.")],
    url: Annotated[str | None, typer.Option(help="Default: the service that `endcap up` started.")] = None,
    tries: Annotated[int, typer.Option(help="How often a batch is sent before it is given up.", min=1)] = 8,
) -> int:
    """Send a file of items to the running shop; 1 where a row was refused."""
    key = token(CATALOGUE)
    if key is None:
        raise EndcapError(
            f"catalogue key: neither $ENDCAP_CATALOGUE_TOKEN nor {tokens_file()} has one. Next: `endcap up`, "
            "or set the variable to the key of the service"
        )
    refused: Counter[Refusal] = Counter()
    examples: dict[Refusal, list[str]] = {}
    accepted = 0
    with (
        httpx.Client(base_url=url or service_url(), timeout=ANSWER_S) as client,
        progress(desc="items", unit=" rows", unit_scale=True) as bar,
    ):
        client.headers["authorization"] = f"Bearer {key}"
        for offers in batches(read_offers(file), load("serving", Serving)):
            sent = [offer for offer in offers if not offer.lost]
            answer = post(client, [offer.document for offer in sent], tries) if sent else {"rejected": []}
            accepted += answer.get("accepted", 0)
            told = [(offer, "row", offer.text, offer.lost) for offer in offers if offer.lost]
            told += [
                (sent[one["index"]], one["field"], one["value"], one["allowed"]) for one in answer["rejected"]
            ]
            for offer, field, value, allowed in told:
                refused[field, allowed] += 1
                found = examples.setdefault((field, allowed), [])
                if len(found) < EXAMPLES:
                    found.append(f"row {offer.row} ({offer.document.get('item_id', '?')!a}) {value}".rstrip())
            bar.update(len(offers))
    show(accepted, refused, examples)
    return int(bool(refused))


def batches(offers: Iterable[Offer], params: Serving) -> Iterator[list[Offer]]:
    """As many rows at once as one request may hold."""
    batch: list[Offer] = []
    size = parts = 0
    for offer in offers:
        body = orjson.dumps(offer.document, default=str)
        more = sum(map(body.count, PARTS)) + 1
        full = size + len(body) > SPARE * params.max_body_bytes or parts + more > SPARE * MAX_PARTS
        if batch and (full or len(batch) == params.max_changes):
            yield batch
            batch, size, parts = [], 0, 0
        batch.append(offer)
        size, parts = size + len(body), parts + more
    if batch:
        yield batch


def post(client: httpx.Client, documents: list[dict[str, Any]], tries: int) -> dict[str, Any]:
    """The answer to one batch, sent again while the service is away or asks for it.

    Raises UnavailableError after `tries`, EndcapError for an answer that another try would not change.
    """
    now = time.time_ns() // 1000
    body = orjson.dumps({"items": [{"event_ts": now, **one} for one in documents]}, default=str)
    told = ""
    for number in range(tries):
        pause_s = min(0.2 * 2**number, 5.0)
        try:
            answer = client.post("/v1/items", content=body)
        except httpx.TransportError as error:
            told = f"{type(error).__name__}: {error}"
        else:
            if answer.status_code in (202, 422) and "rejected" in (found := answer.json()):
                return dict(found)
            told = f"{answer.status_code} {answer.text[:300]}"
            if answer.status_code not in AGAIN:
                raise EndcapError(f"items: {client.base_url} answered {told}")
            wait = answer.headers.get("retry-after", "")
            pause_s = min(float(wait), 30.0) if wait.isdigit() else pause_s
        if number < tries - 1:
            time.sleep(pause_s)
    step = "look at `endcap status`, then push the file again: what is there already says the same"
    raise UnavailableError(
        f"items: {client.base_url} did not take a batch in {tries} tries ({told})", 1, step
    )


def show(accepted: int, refused: Counter[Refusal], examples: dict[Refusal, list[str]]) -> None:
    """How many were accepted, and what was refused and why."""
    print(f"{accepted:,} accepted, {refused.total():,} refused")
    if refused:
        shown = table(None, (">refused", "field", "allowed", "for example"))
        for (field, allowed), count in refused.most_common():
            shown.add_row(f"{count:,}", field, allowed, "; ".join(examples[field, allowed]))
        console().print(shown)
