"""Opens the feature store; the only importer of Feast's FeatureStore.

feature_store.yaml says what kinds of stores are used; where they are follows the active shop and the
environment, so the same definitions serve a test folder, a second shop and another Redis.
"""

import hashlib
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml
from feast import FeatureStore, FeatureView, RepoConfig

from feature_repo.errors import ParamsError
from feature_repo.features.entities import BY_KEY
from feature_repo.features.views import services, views
from feature_repo.files import alone
from feature_repo.params import on_spark, shop
from feature_repo.ports import redis_url, sentinels, without_password

ON_SPARK = {"type": "feature_repo.offline.spark_store.SparkAsofOfflineStore"}
ANSWER_S = 10.0  # of Redis to Feast's own client, which loads the items of a release
FOLDER = Path(__file__).resolve().parents[1]


def open_store(url: str | None = None) -> FeatureStore:
    """The active shop's feature store on the Redis at `url` (default: redis_url()).

    Definitions that the registry does not hold yet are applied first, under a lock: workers start together.
    """
    folder = shop().run_dir()
    applied = folder / "registry.sha256"
    with alone(folder / "registry.lock"):
        store = FeatureStore(config=store_config(folder / "registry.db", url or redis_url()))
        declared = views()
        digest = registry_digest(declared)
        known = applied.read_text() if applied.exists() and (folder / "registry.db").exists() else ""
        if known != digest:
            store.apply([*BY_KEY.values(), *declared.values(), *services(declared)])
            applied.write_text(digest)
    return store


def store_config(registry: Path, url: str) -> RepoConfig:
    """feature_store.yaml with its registry, its Redis and, on Spark, its offline store replaced."""
    values: dict[str, Any] = yaml.safe_load((FOLDER / "feature_store.yaml").read_text())
    values["registry"]["path"] = str(registry.resolve())
    values["online_store"]["connection_string"] = connection_string(url) + "".join(
        f",{name}={ANSWER_S:g}" for name in ("socket_timeout", "socket_connect_timeout")
    )
    if on_spark():
        values["offline_store"] = ON_SPARK
    if named := sentinels(url):
        values["online_store"] |= {"redis_type": "redis_sentinel", "sentinel_master": named.name}
    return RepoConfig(repo_path=FOLDER, **values)


def connection_string(url: str) -> str:
    """A Redis URL in Feast's own notation. Raises ParamsError for a scheme that it cannot express.

    >>> connection_string("redis://:secret@cache:6379/2")
    'cache:6379,db=2,password=secret'
    """
    if named := sentinels(url):
        told = {name: "true" if held is True else held for name, held in named.redis.items()}
        hosts = [f"{host}:{port}" for host, port in named.hosts]
        return ",".join([*hosts, *(f"{name}={held}" for name, held in told.items())])
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss") or not parts.hostname:
        raise ParamsError(
            f"REDIS_URL: {without_password(url)!r} is not allowed; allowed: redis://host:port/db, "
            "rediss://..., or redis+sentinel://... (docs/replicas.md)"
        )
    who = {"username": unquote(parts.username or ""), "password": unquote(parts.password or "")}
    options = {"db": parts.path.strip("/") or "0", **who, "ssl": "true" if parts.scheme == "rediss" else ""}
    rest = "".join(f",{name}={value}" for name, value in options.items() if value)
    return f"{parts.hostname}:{parts.port or 6379}{rest}"


def registry_digest(declared: dict[str, FeatureView]) -> str:
    """sha256 of all views and services as Feast's registry holds them; another one: apply them again."""
    of_views = [view.to_proto().spec for view in declared.values()]
    of_services = [service.to_proto().spec for service in services(declared)]
    for sourced in (*of_views, *(view for service in of_services for view in service.features)):
        sourced.batch_source.ClearField("meta")  # when this process declared it
    specs: list[Any] = [*of_views, *of_services]
    content = b"".join(spec.SerializeToString(deterministic=True) for spec in specs)
    return hashlib.sha256(content).hexdigest()
