"""Who calls: anybody, a page by its storefront's publishable key, the shop's own servers by the secret one.

A publishable key stands in pages, so it opens what pages need and no more. It may come in the address, where
a beacon can carry it (`key`); the secret key may not, for addresses are in every log.
"""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from feature_repo.errors import ParamsError
from feature_repo.ports import CATALOGUE, PUBLISHABLE, SECRET, tokens
from serving.errors import RequestError

OPEN = "open"
PARAMETER = "key"  # of an address
WHERE = "run/<shop>/tokens.json"
HOW = f"`endcap up` makes one in {WHERE}, or set ENDCAP_SECRET_TOKEN; then start the service"
SEND = "send Authorization: Bearer and the key; a page may add ?key= and a publishable one"
ANY_KEY = "a publishable or the secret key"
PROVEN = "the caller's own: with the user_proof of this id, or by the secret key"


class Sent(NamedTuple):
    """What a request shows of its caller; empty for nothing."""

    key: str = ""  # of a header
    in_address: str = ""
    origin: str | None = None


class Guessable(str):
    """The id of a visit that another system calls as its shopper: whoever guesses the one has the other."""


class Caller(NamedTuple):
    """Who asks: "open", "publishable", "publishable:de", "catalogue" or "secret"."""

    name: str

    @property
    def kind(self) -> str:
        return self.name.partition(":")[0]

    @property
    def trusted(self) -> bool:
        """Whether it is the shop's own server, which asks on behalf of its shoppers."""
        return self.name == SECRET


@dataclass(frozen=True)
class KeyRules:
    """`access.keys` of params.yaml. The keys themselves are secrets and stand elsewhere."""

    required: bool
    origins: dict[str, tuple[str, ...]]
    user_proof: bool = False  # a user_id is the caller's own, or it is refused


class Keys:
    """The keys that are valid, held by their hash: the time of a look-up tells nothing of any."""

    def __init__(self, rules: KeyRules, held: Mapping[str, Mapping[str, Iterable[str]]]) -> None:
        """`held`: kind -> label -> keys. Raises ParamsError for a key that would open two things."""
        self._rules = rules
        self._secrets = tuple(key for keys in held.get(SECRET, {}).values() for key in keys)
        self._callers: dict[bytes, Caller] = {}
        for kind, labelled in held.items():
            for label, keys in labelled.items():
                self._add(Caller(f"{kind}:{label}" if label and kind == PUBLISHABLE else kind), keys)
        self._kinds = {caller.kind for caller in self._callers.values()}
        if rules.required and not self._kinds & {PUBLISHABLE, SECRET}:
            raise ParamsError(f"access.keys.required: true, and there is no key. Next: {HOW}")
        if rules.user_proof and not self._secrets:
            raise ParamsError(f"access.keys.user_proof: true, and there is no secret key. Next: {HOW}")
        labels = {caller.name.partition(":")[2] for caller in self._callers.values()} - {""}
        if strange := sorted(set(rules.origins) - labels):
            raise ParamsError(
                f"access.keys.origins.{strange[0]}: no publishable key has this label; allowed: "
                f"{', '.join(sorted(labels)) or 'none so far'}. Next: add its key to {WHERE}"
            )

    def _add(self, caller: Caller, keys: Iterable[str]) -> None:
        for key in keys:
            other = self._callers.setdefault(_hash(key), caller)
            if other != caller:
                raise ParamsError(
                    f"{WHERE}: {caller.name} and {other.name} have the same key; allowed: one of its own each"
                )

    @classmethod
    def read(cls, rules: KeyRules) -> "Keys":
        """From the environment and tokens.json; errors as of feature_repo.ports.tokens."""
        return cls(rules, {kind: tokens(kind) for kind in (PUBLISHABLE, SECRET, CATALOGUE)})

    def caller(self, sent: Sent, foreign: bool = False) -> Caller:
        """Who sent it. `foreign`: a client of another system, whose key may mean nothing here.

        RequestError 401 for no key where one is required and for one that is unknown, 403 for one that may
        not come from there.
        """
        given = sent.key or sent.in_address
        if not given:
            if self._rules.required:
                raise RequestError("authorization", None, ANY_KEY, status=401, next_step=SEND)
            return Caller(OPEN)
        caller = self._callers.get(_hash(given))
        if caller is None and foreign and not self._rules.required:
            return Caller(OPEN)
        if caller is None:
            allowed = f"a key of {WHERE} that the service has read"
            raise RequestError("authorization", "an unknown key", allowed, status=401, next_step=SEND)
        if not sent.key and caller.kind != PUBLISHABLE:
            allowed = "a publishable key: an address is in the log of every machine on the way"
            step = "make a new one, and send it as Authorization: Bearer"
            raise RequestError(PARAMETER, f"the {caller.kind} key", allowed, status=403, next_step=step)
        if caller.kind == CATALOGUE and self._rules.required:
            raise RequestError("authorization", "the catalogue key", ANY_KEY, status=403, next_step=SEND)
        own = self._rules.origins.get(caller.name.partition(":")[2], ()) if caller.kind == PUBLISHABLE else ()
        if own and sent.origin is not None and sent.origin not in own:
            allowed = "the origins of this key's storefront, access.keys.origins in params.yaml"
            step = "use the key of that storefront"
            raise RequestError("origin", sent.origin, allowed, status=403, next_step=step)
        return caller

    def require_secret(self, caller: Caller, field: str, value: object) -> None:
        """RequestError unless the shop's own server asks: 403 where there is no secret key, else 401."""
        if caller.trusted:
            return
        if SECRET not in self._kinds:
            allowed = "with the secret key, and none is configured"
            raise RequestError(field, value, allowed, status=403, next_step=HOW)
        step = "leave it out, or send Authorization: Bearer and the secret key from a server"
        raise RequestError(field, value, "with the secret key", status=401, next_step=step)

    def owns(self, caller: Caller, user: str | None, proof: str | None) -> bool:
        """Whether `caller` may tell or ask of `user`; no `proof` is asked for unless it is configured.

        A visit needs none: its id is made at random and known to its page alone.
        """
        if user is None or caller.trusted or not self._rules.user_proof:
            return True
        given = (proof or "").encode("utf-8", "surrogatepass")
        return any([hmac.compare_digest(proof_of(key, user).encode(), given) for key in self._secrets])

    def visit(self, name: str | None) -> str | None:
        """What a visit is called here; a Guessable one, where ids are proven, by a digest of the secret key.

        So the doors alone, which ask whose it is, find it: a visit's own id needs no proof.
        """
        if not (isinstance(name, Guessable) and self._rules.user_proof):
            return name and str(name)
        told, key = name.encode("utf-8", "surrogatepass"), _hash(self._secrets[0])
        return hashlib.blake2b(told, key=key, digest_size=16).hexdigest()

    def require_own(self, caller: Caller, user: str | None, proof: str | None) -> None:
        """RequestError 401 for another shopper."""
        if not self.owns(caller, user, proof):
            step = "have the shop's server make user_proof (docs/api.md), or leave user_id out"
            raise RequestError("user_id", user, PROVEN, status=401, next_step=step)

    def admit_items(self, sent: Sent) -> None:
        """RequestError unless the header holds the catalogue or the secret key."""
        if not self._kinds & {CATALOGUE, SECRET}:
            step = HOW.replace("SECRET", "CATALOGUE")
            told = "no catalogue key is configured"
            raise RequestError("authorization", told, "one that is", status=403, next_step=step)
        caller = self._callers.get(_hash(sent.key))
        if caller is None or caller.kind not in (CATALOGUE, SECRET):
            given = "another token" if sent.key else None
            allowed = "Bearer and the catalogue key, or the secret one"
            raise RequestError(
                "authorization", given, allowed, status=401, next_step="send the catalogue key"
            )


def proof_of(key: str, user: str) -> str:
    """What the shop's server gives the page of a shopper who is logged in: HMAC-SHA256 by the secret key.

    >>> proof_of("a secret key of the shop", "U123")[:8]
    'e7df95e4'
    """
    return hmac.new(key.encode(), user.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
