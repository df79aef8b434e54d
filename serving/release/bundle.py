"""A release bundle: towers, tables, ranker and settings that move together or not at all.

    data/bundles/<digest>/manifest.json   user_tower.onnx item_tower.onnx item_words.json item_ids.json
                                          item_vectors.npy covisit.npz next.npz ease.npz together.npz
                                          carted.npz links.npz attraction.npy als_items.npy
                                          rails.json ranker.* catalogue.parquet reference.parquet

`write` makes one, `load` refuses one whose files, embedding space, columns or feature schema are not what its
manifest and this program say, and one of another shop.
"""

import hashlib
import re
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from scipy import sparse

from feature_repo import params
from feature_repo.assemble.schema import schema_hash
from feature_repo.assemble.vectorize import COLUMNS
from feature_repo.errors import ParamsError
from feature_repo.events import HISTORY
from feature_repo.files import whole, write_json
from feature_repo.places import BUNDLES, SUFFIXES, at
from serving.errors import BundleError
from serving.pipeline import Bundle
from serving.rankers import readers
from serving.release.mapped import Arrays, place, shared
from serving.release.state import Release
from serving.stages.diversify import Diversify
from serving.stages.fitted import Models, read_table
from serving.stages.index import IndexParams, build
from serving.stages.odds import BY_RELEVANCE, Chances, Clicks, Profit
from serving.stages.retrieve import Retrieve
from serving.stages.tower import UserTower
from serving.surfaces.craft import Surfaces

FILES = (
    "user_tower.onnx",
    "item_tower.onnx",  # not served: pipelines/newborn makes the vectors of later items by it,
    "item_words.json",  # and by what its codes mean
    "item_ids.json",
    "item_vectors.npy",
    "covisit.npz",
    "next.npz",
    "ease.npz",
    "together.npz",
    "carted.npz",
    "links.npz",
    "attraction.npy",
    "als_items.npy",
    "rails.json",
    "ranker.txt",  # by another suffix where it is of another kind
    "catalogue.parquet",
    "reference.parquet",  # not served: what live answers are compared with (monitoring/drift)
)
BESIDE = ("scores.parquet",)  # of people's use; the digest is not of it, and it may be missing
TABLES = ("covisit", "next", "ease", "together", "carted", "links")
SPACE_FILES = ("user_tower.onnx", "item_tower.onnx", "item_words.json", "item_ids.json", "item_vectors.npy")
SETTINGS = (
    "feature_service",
    "retrieve",
    "clicks",
    "diversify",
    "surfaces",
)  # what else decides an answer; the digest covers it
LATER = ("profit",)  # of those that an earlier bundle does without
DIGEST = re.compile("[0-9a-f]{16}")
_PARTS = ("data", "indices", "indptr")  # of a table
_AGAIN = "build it again with `endcap bundle`"


def ranker_of(there: Collection[str]) -> str:
    """The ranker's file, of whatever kind, that is `there`; ranker.txt where none is."""
    return next((name for name in map("ranker{}".format, SUFFIXES.values()) if name in there), "ranker.txt")


def files_of(there: Collection[str]) -> tuple[str, ...]:
    """FILES with the ranker that is `there`."""
    return tuple(ranker_of(there) if name == "ranker.txt" else name for name in FILES)


def space_id(files: Mapping[str, str]) -> str:
    """The embedding space: 16 hex digits of towers, item order and vectors. `files`: name -> sha256."""
    return _sha256("".join(files[name] for name in SPACE_FILES).encode())[:16]


def bundle_digest(manifest: Mapping[str, Any]) -> str:
    """16 hex digits over the sorted file hashes and the settings that decide an answer.

    Two bundles of equal files but another diversity are two releases, hence the settings.
    """
    settings = {name: manifest[name] for name in SETTINGS}  # quotas' order counts: keys are not sorted
    settings |= {name: manifest[name] for name in LATER if name in manifest}
    return _sha256(orjson.dumps([sorted(manifest["files"].items()), settings]))[:16]


def write(folder: Path, told: Mapping[str, Any], into: Path | None = None) -> Path:
    """Copy the files of `folder` to <into>/<digest> with a manifest, and give back that path.

    `told` must hold SETTINGS (all but the service as in params.yaml) and may hold what people want
    to know: metrics, data_span, git, dvc. Its shop is the active one. `into` defaults to data/bundles.
    Writing the same twice gives the same path. Raises BundleError for a missing file or setting.
    """
    parts = files_of([path.name for path in folder.iterdir()])
    if missing := [name for name in parts if not (folder / name).is_file()]:
        raise BundleError(folder, "the file list", parts, f"no {missing[0]}", "run the stage that makes it")
    if missing := [name for name in SETTINGS if name not in told]:
        raise BundleError(folder, "the manifest", SETTINGS, f"no {missing[0]}", "pass it to bundle.write")
    files = {name: _sha256((folder / name).read_bytes()) for name in parts}
    manifest = {
        "shop": params.shop().name,
        **told,
        "files": files,
        "space": space_id(files),
        "schema": schema_hash(),
        "columns": list(COLUMNS),
        "items": len(orjson.loads((folder / "item_ids.json").read_bytes())),
    }
    manifest["digest"] = bundle_digest(manifest)
    target = (into or at(BUNDLES)) / manifest["digest"]
    if target.exists():
        return target
    with whole(target) as draft:
        draft.mkdir()
        for name in parts:
            shutil.copyfile(folder / name, draft / name)
        for name in BESIDE:
            if (folder / name).exists():
                shutil.copyfile(folder / name, draft / name)
        write_json(draft / "manifest.json", manifest)
    return target


def verify(path: Path) -> dict[str, Any]:
    """The manifest of the bundle at `path`, after every check that needs no model in memory.

    Raises BundleError naming the file, what was expected, what was found and what to do.
    """
    file = path / "manifest.json"
    try:
        manifest = orjson.loads(file.read_bytes())
        files, digest = manifest["files"], manifest["digest"]
        own = {name: manifest[name] for name in (*SETTINGS, "space", "schema", "columns", "items")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(file, "the manifest", "readable and complete", repr(error), _AGAIN) from None
    ours = "name a bundle of this shop, or make the other shop the active one with `endcap shop`"
    _expect(file, "shop", params.shop().name, manifest.get("shop"), ours)
    _expect(file, "the file list", sorted(files_of(files)), sorted(files))
    for name in files:
        _expect(path / name, "sha256", files[name], _file_hash(path / name))
    _expect(file, "digest", digest, bundle_digest(manifest))
    _expect(file, "embedding space", space_id(files), own["space"])
    other = "check out the revision named in the manifest, or " + _AGAIN
    _expect(file, "columns", list(COLUMNS), own["columns"], other)
    _expect(file, "feature schema", schema_hash(), own["schema"], other)
    return dict(manifest)


def installed() -> list[Release]:
    """The bundles in data/bundles, newest first, by their names; what is in them is not looked at."""
    folders = [path for path in at(BUNDLES).glob("*/") if DIGEST.fullmatch(path.name)]
    newest = sorted(folders, key=lambda path: (-path.stat().st_mtime, path.name))
    return [Release(path.name, str(BUNDLES / path.name)) for path in newest]


def load(path: Path) -> Bundle:
    """Verify and load the bundle at `path`; takes a second, so not on the event loop. Raises BundleError."""
    manifest = verify(path)
    ids = _read(path / "item_ids.json", lambda file: orjson.loads(file.read_bytes()))
    _expect(path / "item_ids.json", "size", manifest["items"], len(ids))
    arrays, graphs = _arrays(path, manifest)
    vectors, als = arrays["item_vectors"], arrays["als_items"]
    sizes = params.load("index", IndexParams)
    models = Models(
        ids=ids,
        item_vectors=vectors,
        tower=_read(path / "user_tower.onnx", UserTower),
        index=build(vectors, sizes, graphs / "item_vectors"),
        attraction=arrays["attraction"],
        als_items=als,
        factors=build(als, sizes, graphs / "als_items"),
        **{name: _table(arrays, name) for name in TABLES},
    )
    bundle = Bundle(
        models=models,
        rails=_read(path / "rails.json", lambda file: orjson.loads(file.read_bytes())),
        ranker=_read(path / ranker_of(manifest["files"]), readers.load),
        retrieve=Retrieve(**_settings(path, manifest, "retrieve", Retrieve)),
        clicks=Clicks(**_settings(path, manifest, "clicks", Clicks)),
        profit=_profit(path, manifest),
        diversify=Diversify(**_settings(path, manifest, "diversify", Diversify)),
        surfaces=_surfaces(path, manifest),
        manifest=manifest,
    )
    _try_out(path, bundle)
    return bundle


def _arrays(path: Path, manifest: Mapping[str, Any]) -> tuple[Arrays, Path]:
    """Vectors, attraction and the tables' parts, and the folder for what is made of them."""
    rows = ("item_vectors.npy", "als_items.npy", "attraction.npy")
    names, n = (*rows, *(f"{name}.npz" for name in TABLES)), manifest["items"]

    def read() -> Arrays:
        found = {name[:-4]: _read(path / name, np.load) for name in rows}
        for name in rows:
            _expect(path / name, "size", n, len(found[name[:-4]]))
        found = {name: np.ascontiguousarray(values, np.float32) for name, values in found.items()}
        for name in TABLES:
            table = _read(path / f"{name}.npz", read_table)
            _expect(path / f"{name}.npz", "size", (n, n), table.shape)
            found |= {f"{name}.{part}": getattr(table, part) for part in _PARTS}
        return found

    key = _sha256("".join(manifest["files"][name] for name in names).encode())[:24]
    return shared(key, read), place(key)


def _table(arrays: Arrays, name: str) -> sparse.csr_matrix:
    n = len(arrays["attraction"])
    return sparse.csr_matrix(tuple(arrays[f"{name}.{part}"] for part in _PARTS), shape=(n, n))


def _try_out(path: Path, bundle: Bundle) -> None:
    """One prediction of each model, so that a tower or a ranker of another shape is refused here."""
    zeros, context = np.zeros((1, HISTORY), np.int64), np.zeros((1, 3), np.int64)
    width = bundle.models.item_vectors.shape[1:]
    ages, newborn = zeros.astype(np.float32), np.zeros((1, HISTORY, *width), np.float32)
    found = _shape(bundle.models.tower.user_vector, zeros, ages, zeros, context, newborn)
    _expect(path / "user_tower.onnx", "output", width, found)
    found = _shape(bundle.ranker.predict, np.zeros((2, len(COLUMNS)), np.float32))
    _expect(path / ranker_of(bundle.manifest["files"]), "output of 2 rows", (2,), found)


def _shape(model: Callable[..., Any], *inputs: Any) -> Any:
    """Of its output, or the error; onnxruntime's are not public, and those of lleaves are not LightGBM's."""
    try:
        return model(*inputs).shape
    except Exception as error:
        return repr(error)


def _settings(path: Path, manifest: Mapping[str, Any], section: str, kind: type[Any]) -> dict[str, Any]:
    """A section of the manifest that has exactly the fields of this program's dataclass `kind`.

    One with a default may be missing, and is then what it was before there was such a field.
    """
    found: dict[str, Any] = manifest[section]
    needed = sorted(f.name for f in fields(kind) if f.default is MISSING or f.name in found)
    _expect(path / "manifest.json", section, needed, sorted(found))
    return found


def _profit(path: Path, manifest: Mapping[str, Any]) -> Profit:
    if "profit" not in manifest:
        return BY_RELEVANCE
    found = _settings(path, manifest, "profit", Profit)
    return Profit(found["weight"], Chances(**found["chances"]))


def _surfaces(path: Path, manifest: Mapping[str, Any]) -> Surfaces:
    try:
        return params.parse(manifest["surfaces"], Surfaces, "surfaces")
    except ParamsError as error:
        raise BundleError(
            path / "manifest.json", "surfaces", "as this program has it", str(error), _AGAIN
        ) from None


def _read(file: Path, reader: Callable[[Path], Any]) -> Any:
    try:
        return reader(file)
    except Exception as error:  # each format's reader raises its own types
        if isinstance(error, BundleError):
            raise
        raise BundleError(file, "the content", "readable", repr(error), _AGAIN) from error


def _expect(file: Path, what: str, expected: Any, found: Any, next_step: str = _AGAIN) -> None:
    if expected != found:
        raise BundleError(file, what, expected, found, next_step)


def _file_hash(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        return f"missing ({error.strerror})"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
