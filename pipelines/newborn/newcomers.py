"""Which items a live release does not know, and their vectors: found, made, written, taken away.

What a look does follows from what Redis holds, so it may end anywhere and be done again by anybody: a kill, a
second process and a release that was promoted meanwhile need no care of their own.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from feature_repo.errors import EndcapError
from feature_repo.features.catalogue import ITEM_CATALOGUE
from feature_repo.features.words import Words, row_of
from feature_repo.files import chunks
from feature_repo.online import changes, newborns
from feature_repo.online.lifetimes import LISTED
from feature_repo.online.listings import read_words
from feature_repo.online.newborns import Newborn, NewbornParams
from feature_repo.online.rows import OnlineView
from feature_repo.params import root
from pipelines.newborn.item_tower import ItemTower, catalogue_of
from serving.release import state
from serving.release.state import Release
from training.two_tower.encoder import WIDTH, TextEncoder
from training.two_tower.text import spec_texts

READ = 500  # ids per round trip

log = logging.getLogger(__name__)


class Texts(NamedTuple):
    """The encoder, and the digest by which a release names it."""

    encoder: TextEncoder
    digest: str


class Found(NamedTuple):
    """An item that a release does not know: since when (us), and its row of the catalogue."""

    item: str
    ts: int
    row: Mapping[str, Any]

    @classmethod
    def of(cls, item: str, words: Words) -> "Found":
        """By what was said of it: it is as old as the oldest word that holds, whoever looks when."""
        return cls(item, min(ts for ts, _ in words.values()), row_of(words))


class Newcomers:
    """One process' part; `texts` opens the encoder when it is first needed, None where there is none."""

    def __init__(
        self, redis: Any, params: NewbornParams, batch: int, texts: Callable[[], Texts | None]
    ) -> None:
        self._redis, self._params, self._batch, self._open_texts = redis, params, batch, texts
        self._catalogue = OnlineView(ITEM_CATALOGUE)
        self._towers: dict[str, ItemTower] = {}  # digest of a live release -> its tower
        self._swept: set[str] = set()  # spaces that were looked at whole
        self._refused: dict[str, str] = {}
        self._seen: changes.Seen | None = None
        self._texts: Texts | None = None
        self.left_out = 0

    def look(self, beat: Callable[[], None] = lambda: None) -> int:
        """Bring the vectors of every live release up to date; how many were made. `beat`: after each batch.

        Raises redis' errors, and UnavailableError where the features are gone; the next look does it then.
        """
        self._follow()
        before = self._seen
        nothing = changes.News(changes.seen(self._redis), None, None)
        seen, items, listings = nothing if before is None else changes.since(self._redis, before)
        changed = None if items is None or listings is None else sorted({*items, *listings})
        made, left_out = 0, 0
        for tower in {tower.space: tower for tower in self._towers.values()}.values():
            everything = changed is None or tower.space not in self._swept
            new, over = self._tend(tower, self._listed(tower) if everything else changed or (), beat)
            made, left_out = made + new, max(left_out, over)
            self._swept.add(tower.space)
            newborns.renew(self._redis, tower.space, self._params.keep_hours)
        self._seen = seen
        self._tell(left_out)
        return made

    def _follow(self) -> None:
        """Load the towers of the releases that serve now, forget the others."""
        found = state.read(self._redis)
        live = [r for r in (found.champion, found.challenger) if r] if found else []
        self._towers = {r.digest: self._towers[r.digest] for r in live if r.digest in self._towers}
        for release in live:
            if release.digest not in self._towers:
                self._load(release)
        self._swept &= {tower.space for tower in self._towers.values()}

    def _load(self, release: Release) -> None:
        try:
            self._towers[release.digest] = ItemTower.load(root() / release.path)
            log.info("release %s: new items get vectors by its item tower", release.digest)
        except (EndcapError, OSError) as error:
            if self._refused.get(release.digest) != str(error):
                log.error("release %s: no vectors for new items: %s", release.digest, error)
            self._refused[release.digest] = str(error)

    def _listed(self, tower: ItemTower) -> list[str]:
        """All that may be new to it or is no more: what is listed, and what has a vector."""
        listed = {raw.decode() for raw in self._redis.sscan_iter(LISTED, count=1_000)}
        return sorted(listed | set(newborns.names(self._redis, tower.space)))

    def _tend(self, tower: ItemTower, items: Iterable[str], beat: Callable[[], None]) -> tuple[int, int]:
        """(vectors made, items beyond `most`) of the `items` that `tower` does not know."""
        wanted: list[tuple[Found, bytes, int]] = []  # with digest of the inputs, and when it was born
        seen: dict[str, Newborn] = {}
        there = newborns.count(self._redis, tower.space)
        for part in chunks([item for item in items if item not in tower.ids], READ):
            held = newborns.read(self._redis, tower.space, part)  # before the catalogue, see newborns.write
            seen |= held
            found, gone = self._found(part)
            if gone := [item for item in gone if item in held]:
                nothing = dict.fromkeys(gone)
                newborns.write(self._redis, tower.space, nothing, held, self._params.keep_hours)
                there -= len(gone)
            catalogue = catalogue_of([one.item for one in found], [one.row for one in found])
            inputs = tower.inputs(catalogue, spec_texts(catalogue)) if found else []
            for one, digest in zip(found, inputs, strict=True):
                known = held.get(one.item)
                if known is None or known.inputs != digest:
                    wanted.append((one, digest, known.born if known else one.ts))
                    there += known is None
        over = max(there - self._params.most, 0)
        wanted.sort(key=lambda one: (one[2], one[0].item))
        wanted = wanted[: max(len(wanted) - over, 0)]  # those that came first
        for batch in chunks(wanted, self._batch):
            self._make(tower, batch, seen)
            beat()
        return len(wanted), over

    def _found(self, items: Sequence[str]) -> tuple[list[Found], list[str]]:
        """Those of the catalogue with their rows, and the others."""
        listed = self._redis.smismember(LISTED, items)
        told = read_words(self._redis, self._catalogue, items)
        found = [
            Found.of(item, words)
            for item, (words, _), yes in zip(items, told, listed, strict=True)
            if yes and words
        ]
        names = {one.item for one in found}
        return found, [item for item in items if item not in names]

    def _make(
        self, tower: ItemTower, wanted: Sequence[tuple[Found, bytes, int]], held: Mapping[str, Newborn]
    ) -> None:
        if self._texts is None and tower.encoder:
            self._texts = self._open_texts()
        vectors = vectors_of(tower, [one for one, _, _ in wanted], self._texts, self._batch)
        made = {
            one.item: Newborn(born, digest, vector)
            for (one, digest, born), vector in zip(wanted, vectors, strict=True)
        }
        newborns.write(self._redis, tower.space, made, held, self._params.keep_hours)

    def _tell(self, left_out: int) -> None:
        if left_out and not self.left_out:
            log.warning(
                "newborns.most: %d new items get no vector, more than %d came after the fit. Next: fit and "
                "promote a release that knows them, or raise newborns.most",
                *(left_out, self._params.most),
            )
        self.left_out = left_out


def vectors_of(tower: ItemTower, found: Sequence[Found], texts: Texts | None, batch: int) -> np.ndarray:
    """float32 (n, d). Without text where the release was fitted with another encoder, or with none."""
    catalogue = catalogue_of([one.item for one in found], [one.row for one in found])
    text = np.zeros((len(found), WIDTH), np.float32)
    if texts is not None and texts.digest == tower.encoder:
        text = texts.encoder.encode(spec_texts(catalogue), batch)
    return tower.vectors(catalogue, text)
