"""Where Redis and the local processes listen: the environment, else section `stack` of params.yaml.

And what opens them: run/<shop>/redis.password, and the keys of callers in run/<shop>/tokens.json.
"""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from feature_repo.errors import ParamsError
from feature_repo.files import read_json
from feature_repo.params import load, shop

HOST = "127.0.0.1"  # whoever wants other machines to reach a port puts a proxy in front of it
PORTS = ("redis_port", "service_port", "console_port", "storefront_port")
SECRET, PUBLISHABLE, CATALOGUE = "secret", "publishable", "catalogue"  # in tokens.json, what each opens
SENTINEL_PORT = 26379
MOST_VALID = 2  # of a name at a time: the key that comes and the one that goes
_LEAST = 16
_SENTINELS = re.compile(
    r"redis(?P<tls>s?)\+sentinel://(?:(?P<who>.*)@)?(?P<hosts>[^/?@]+)/(?P<name>[\w.-]+)"
    r"(?:/(?P<db>\d+))?/?(?:\?(?P<options>.*))?",
    re.ASCII,
)
_KEY = re.compile(rf"[A-Za-z0-9._~+/=-]{{{_LEAST},256}}")  # what a header takes as Bearer


@dataclass(frozen=True)
class StackParams:
    """`stack:`, the processes of `endcap up`."""

    redis_port: int
    service_port: int
    console_port: int
    storefront_port: int
    ready_timeout_s: float
    stop_timeout_s: float
    log_bytes: int


def stack_params() -> StackParams:
    """Section `stack`, with ENDCAP_REDIS_PORT and its like for the other ports applied."""
    params = load("stack", StackParams)
    for field in PORTS:
        name = variable(field)
        if name in os.environ:
            params = replace(params, **{field: _port(name, os.environ[name])})
    return params


def variable(field: str) -> str:
    """The environment variable that overrides a port.

    >>> variable("redis_port")
    'ENDCAP_REDIS_PORT'
    """
    return f"ENDCAP_{field.upper()}"


def _port(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise ParamsError(f"{name}: {text!r} is not allowed; allowed: a port from 1 to 65535")
    return int(text)


def password_file() -> Path:
    """Holds the password of the active shop's embedded Redis, once `endcap up` has started one."""
    return shop().run_dir() / "redis.password"


def embedded_redis_url() -> str:
    """Where `endcap up` puts its own Redis; any other $REDIS_URL is somebody else's server."""
    file = password_file()
    who = f":{file.read_text().strip()}@" if file.exists() else ""
    return f"redis://{who}{HOST}:{stack_params().redis_port}/0"


def redis_url() -> str:
    """$REDIS_URL, else the embedded Redis: one answer for every job and for the service.

    A $REDIS_URL that means the embedded Redis needs no password: it is the one in password_file().
    """
    given = os.environ.get("REDIS_URL")
    return given if given and given != without_password(embedded_redis_url()) else embedded_redis_url()


def without_password(url: str) -> str:
    """What may be shown of a Redis URL.

    >>> without_password("redis+sentinel://:secret@a:26379,b/mymaster/0?sentinel_password=too")
    'redis+sentinel://a:26379,b/mymaster/0'
    """
    scheme, colon, rest = url.partition("?")[0].partition("://")
    return scheme + colon + rest.rpartition("@")[2]


class Sentinels(NamedTuple):
    """Who knows which Redis is the primary; options as redis-py has them."""

    hosts: tuple[tuple[str, int], ...]
    name: str  # of the primary, as `sentinel monitor` says it
    redis: dict[str, Any]
    sentinel: dict[str, Any]


def sentinels(url: str) -> Sentinels | None:
    """What a URL of sentinels says, by the grammar of redis-sentinel-url and Prefect; None of another.

    redis+sentinel://[user:password@]host[:port][,host[:port]...]/NAME[/db][?sentinel_password=...]

    User and password are those of Redis; `sentinel_username` and `sentinel_password` open the sentinels.
    rediss+sentinel:// is TLS to both. Raises ParamsError for half of one.

    >>> sentinels("redis+sentinel://:secret@a:5000,b/mymaster/2")[:3]
    ((('a', 5000), ('b', 26379)), 'mymaster', {'db': 2, 'password': 'secret'})
    """
    if not url.partition("://")[0].endswith("+sentinel"):
        return None
    try:
        found = _SENTINELS.fullmatch(url)
        places = [urlsplit(f"//{one}") for one in found["hosts"].split(",")] if found else []
        hosts = tuple((place.hostname or "", place.port or SENTINEL_PORT) for place in places)
    except ValueError:  # a port that is none
        hosts = ()
    options = dict(parse_qsl(found["options"] or "", keep_blank_values=True)) if found else {}
    own = {name.removeprefix("sentinel_"): text for name, text in options.items()}
    odd = set(options) - {"sentinel_username", "sentinel_password"}
    if not found or not hosts or odd or not all(host for host, _ in hosts):
        raise ParamsError(
            f"REDIS_URL: {without_password(url)!r} is not allowed; allowed: redis+sentinel://:PASSWORD@HOST:PORT,"
            "HOST:PORT/NAME/DB, with ?sentinel_password=... where sentinels have one. Next: docs/replicas.md"
        )
    user, _, password = map(unquote, (found["who"] or "").partition(":"))
    tls = {"ssl": True} if found["tls"] else {}
    held = {name: text for name, text in (("username", user), ("password", password)) if text}
    return Sentinels(hosts, found["name"], {"db": int(found["db"] or 0), **held, **tls}, own | tls)


def tokens_file() -> Path:
    """JSON, name -> token, or -> an object of them: the keys of the active shop's callers, mode 0600.

    `endcap up` makes it, and adds what is missing.
    """
    return shop().run_dir() / "tokens.json"


def token(name: str) -> str | None:
    """The key that jobs of ours send: the first of `tokens`; None where there is none."""
    return next((keys[0] for keys in tokens(name).values()), None)


def authorization(name: str) -> dict[str, str]:
    """The header by which a job of ours shows the key `name`; none where there is no such key."""
    key = token(name)
    return {"authorization": f"Bearer {key}"} if key else {}


def tokens(name: str) -> dict[str, tuple[str, ...]]:
    """Label -> the keys that are valid at this time, of $ENDCAP_<NAME>_TOKEN, else of tokens_file().

    "T" and ["new", "old"] are keys without a label; {"de": "T", "at": ["new", "old"]} have one each. In the
    environment the two are separated by a comma. Raises ParamsError for a file that others may read, or that
    is none of ours.

    >>> os.environ["ENDCAP_DOCTEST_TOKEN"] = "the-new-key-0123,the-old-key-4567"; tokens("doctest")
    {'': ('the-new-key-0123', 'the-old-key-4567')}
    """
    variable, file = f"ENDCAP_{name.upper()}_TOKEN", tokens_file()
    if given := os.environ.get(variable):
        return {"": _valid(variable, given.split(","))}
    if not file.exists():
        return {}
    require_private(file)
    found = read_json(file, "remove it, `endcap up` makes another").get(name)
    labelled = found if isinstance(found, dict) else {} if found is None else {"": found}
    return {label: _valid(f"{file}: {name}", keys) for label, keys in labelled.items()}


def require_private(file: Path) -> None:
    """Raise ParamsError for a secret that others on this machine may read."""
    if mode := file.stat().st_mode & 0o077:
        raise ParamsError(f"{file}: mode {mode:03o} lets others in; allowed: 600. Next: chmod 600 {file}")


def _valid(where: str, keys: Any) -> tuple[str, ...]:
    keys = [keys] if isinstance(keys, str) else keys
    right = isinstance(keys, list) and 1 <= len(keys) <= MOST_VALID
    if not right or not all(isinstance(key, str) and _KEY.fullmatch(key) for key in keys):
        raise ParamsError(
            f"{where}: not a key; allowed: a text of {_LEAST} or more letters, digits and -._~+/=, or two of "
            "them while the older one is being replaced"
        )
    return tuple(keys)


def tokens_of(name: str) -> dict[str, str]:
    """The tokens that tokens_file() has within the object `name`; errors as of `tokens`."""
    file = tokens_file()
    if not file.exists():
        return {}
    require_private(file)
    found = read_json(file, "remove it, `endcap up` makes another").get(name)
    held = found if isinstance(found, dict) else {}
    return {one: text for one, text in held.items() if isinstance(text, str) and text}


def bearer(authorization: str) -> str:
    """The token of the header; empty where it has none.

    >>> bearer("Bearer abc"), bearer("Basic abc")
    ('abc', '')
    """
    scheme, _, given = authorization.partition(" ")
    return given.strip() if scheme.lower() == "bearer" else ""


def service_url() -> str:
    """The storefront plane: $ENDCAP_SERVICE_URL where it runs on another machine, else the local service."""
    return (
        os.environ.get("ENDCAP_SERVICE_URL", "").rstrip("/") or f"http://{HOST}:{stack_params().service_port}"
    )


def console_url() -> str:
    """The admin plane."""
    return f"http://{HOST}:{stack_params().console_port}"


def storefront_url() -> str:
    """The demo shop, whose pages ask the service."""
    return f"http://{HOST}:{stack_params().storefront_port}"
