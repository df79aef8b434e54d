"""Who can get at a deployment: ports that listen to other machines, secrets that others can read or guess."""

import os
from collections import defaultdict
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import psutil
from redis import Redis

from feature_repo import ports as own
from feature_repo.clock import DAY_S
from feature_repo.errors import DataError
from feature_repo.files import read_json
from feature_repo.online.connection import answers
from feature_repo.params import load, root, shop
from feature_repo.persons.privacy import VARIABLE, Privacy, key_file
from pipelines.doctor.finding import MUST, NOTE, WARN, Finding, judged
from pipelines.local.stack import REDIS_CONF
from serving.access import signatures
from serving.access.policy import Access

KEYS = (own.SECRET, own.PUBLISHABLE, own.CATALOGUE, "console")
PERSON = "person key"
LEAST, KINDS = 16, 8  # characters of a secret, and how many different ones
SAMPLES = ("secret", "passw", "change", "example", "default", "key-", "-key")  # words of examples
LOCAL = ("127.0.0.1", "localhost", "::1")


def secrets(_: Redis) -> Iterator[Finding]:
    """Files that others may read, and secrets that they may guess; none is ever told."""
    for file in (key_file(), own.tokens_file(), own.password_file(), shop().run_dir() / REDIS_CONF):
        if file.exists() and (mode := file.stat().st_mode & 0o777) & 0o077:
            told = str(file.relative_to(root()) if file.is_relative_to(root()) else file)
            yield Finding(told, MUST, f"mode {mode:03o}", "600", "chmod 600")
    try:
        held = dict(_held())
    except DataError:
        yield Finding("tokens.json", MUST, "no JSON object", next="remove it; endcap up makes another")
        return
    weak = [name for name, text in held.items() if _guessable(text)]
    for name in weak:
        step = "docs/privacy.md" if name == PERSON else f"{LEAST} characters at random"
        yield Finding(name, MUST, "guessable", next=step)
    if not weak:
        yield judged("secrets", True, f"{len(held)} held, none of them guessable")
    if shop().adapter == "simulated":
        yield judged(PERSON, True, "known to all: simulated shoppers are nobody")
    elif load("privacy", Privacy).pseudonyms:
        value = "held" if PERSON in held else "none"
        yield judged(PERSON, value == "held", value, "one of its own", "put it back, or endcap up")
    else:
        yield Finding(PERSON, WARN, "unused: ids stay as they come", next="privacy.pseudonyms: true")
    closed = load("access", Access).keys.required
    value = "every list and event needs one" if closed else "the door is open"
    yield judged("API keys", closed, value, "", "access.keys.required: true", WARN)


def _held() -> Iterator[tuple[str, str]]:
    """What it is of -> the secret. Raises DataError for a file of tokens that is none."""
    if found := urlsplit(own.redis_url()).password:
        yield "redis password", found
    stored = key_file().read_text().strip() if key_file().exists() else ""
    if shop().adapter != "simulated" and (given := os.environ.get(VARIABLE) or stored):
        yield PERSON, given
    file = own.tokens_file()
    tokens = read_json(file, "remove it") if file.exists() else {}
    for name in KEYS:
        yield from _texts(name, tokens.get(name))
        variable = f"ENDCAP_{name.upper()}_TOKEN"
        yield from _texts(f"${variable}", [text for text in os.environ.get(variable, "").split(",") if text])


def _texts(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, dict | list):
        for label, one in value.items() if isinstance(value, dict) else enumerate(value, 1):
            yield from _texts(f"{name}.{label}", one)


def _guessable(text: str) -> bool:
    return len(text) < LEAST or len(set(text)) < KINDS or any(word in text.lower() for word in SAMPLES)


def signing(redis: Redis) -> Iterator[Finding]:
    """Workers make the key of a day the day before; without one no click counts."""
    seconds, _ = redis.time()  # type: ignore[misc]
    found: Any = redis.get(f"{signatures.KEY}{seconds // DAY_S}")
    right = found is not None and len(found) == 64
    value = "today's key is held" if right else "no key of today"
    yield judged("signing", right, value, "", "endcap up service")


def way(_: Redis) -> Iterator[Finding]:
    """Whether the Redis asks who is there, and whether the way there can be listened to."""
    url = own.redis_url()
    here = all(host in LOCAL for host in _hosts(url))
    closed = not answers(own.without_password(url))
    value, step = "asked for" if closed else "none is asked for", "set requirepass, and REDIS_URL"
    yield judged("redis password", closed, value, "", step, WARN if here else MUST)
    if not here:
        scheme, step = urlsplit(url).scheme, "TLS, or a private network"
        yield judged("way to redis", scheme.startswith("rediss"), scheme, "rediss", step, WARN)


def _hosts(url: str) -> list[str | None]:
    """Of Redis, or of the sentinels that know where it is."""
    named = own.sentinels(url)
    return [host for host, _ in named.hosts] if named else [urlsplit(url).hostname]


def ports(_: Redis) -> Iterator[Finding]:
    """From where each is reached, by the sockets that listen on this machine."""
    params, url = own.stack_params(), own.redis_url()
    listening: dict[int, set[str]] = defaultdict(set)
    try:
        for one in psutil.net_connections("tcp"):
            if one.status == psutil.CONN_LISTEN:
                listening[one.laddr.port].add(one.laddr.ip)
    except psutil.AccessDenied:
        yield Finding("ports", NOTE, "this system tells its listeners to root alone")
        return
    wanted = [("console", params.console_port, MUST, "drop --host")]
    if not own.sentinels(url) and _hosts(url)[0] in LOCAL:
        wanted += [("redis", urlsplit(url).port or 6379, MUST, "bind 127.0.0.1")]
    wanted += [("service", params.service_port, WARN, "a proxy in front")]
    wanted += [("storefront", params.storefront_port, WARN, "end it")]
    for name, port, worst, step in wanted:
        wide = sorted(ip for ip in listening[port] if not ip_address(ip).is_loopback)
        if listening[port]:
            value = f"{wide[0]}:{port}" if wide else f"{port}, this machine alone"
            yield judged(f"{name}'s port", not wide, value, "127.0.0.1" if wide else "", step, worst)
        else:
            yield Finding(f"{name}'s port", NOTE, f"nobody listens on {port} of this machine")
