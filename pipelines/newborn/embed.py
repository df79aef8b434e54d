"""`endcap embed`: a new item gets its vector while the shop is open.

catalogue row, announced (feature_repo/online/changes.py)
  -> title, category, brand, price      as training codes them (training/two_tower/item_features.py)
  -> MiniLM, item tower                 ONNX, per live release
  -> endcap:newborns:<space>            announced; every worker appends vector and row
"""

import logging
import signal
import threading
from typing import Annotated

import typer
from redis import Redis, RedisError

from feature_repo.errors import EndcapError
from feature_repo.online import newborns
from feature_repo.online.connection import answers, client, connect
from feature_repo.online.newborns import NewbornParams
from feature_repo.params import load
from feature_repo.places import ENCODER, at
from feature_repo.ports import redis_url
from pipelines.newborn.newcomers import Newcomers, Texts
from training.two_tower.encoder import TextEncoder, digest
from training.two_tower.text import TextParams

log = logging.getLogger("pipelines.newborn.embed")


def main(once: Annotated[bool, typer.Option(help="look once, and end")] = False) -> None:
    """Make vectors of items that a live release does not know, until SIGTERM."""
    logging.basicConfig(format="%(asctime)s %(message)s")
    logging.getLogger("pipelines").setLevel(logging.INFO)
    params, batch = load("newborns", NewbornParams), load("text", TextParams).batch
    stopping = threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: stopping.set())
    answers(redis_url())  # raises for a Redis that no waiting helps
    with connect() if once else client() as redis:
        newcomers = Newcomers(redis, params, batch, open_texts)
        if once:
            print(f"{newcomers.look():,} vectors made, {newcomers.left_out:,} items left out")
        else:
            run(redis, newcomers, params.poll_s, stopping)


def run(redis: Redis, newcomers: Newcomers, poll_s: float, stopping: threading.Event) -> None:
    """Look again and again; a Redis that is away, or was emptied, is waited for."""
    works = True
    while not stopping.is_set():
        try:
            if made := newcomers.look(lambda: newborns.beat(redis)):
                log.info("%d vectors made", made)
            newborns.beat(redis)
            works = True
        except (RedisError, OSError, EndcapError) as error:
            if works:
                log.warning("waiting: %s: %s", type(error).__name__, error)
            works = False
        stopping.wait(poll_s)


def open_texts() -> Texts | None:
    """The encoder that `endcap text` left; None, and a line of the log, where it is not there."""
    folder = at(ENCODER)
    try:
        return Texts(TextEncoder(folder), digest(folder))
    except Exception as error:  # onnxruntime's and tokenizers' own are not public
        log.error("%s: %s; new items have no text. Next: `endcap text`, or `dvc pull`", ENCODER, error)
        return None
