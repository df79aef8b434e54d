"""The pages of the demo shop: rendered here, their shelves filled in the browser by the service's endcap.js.

/   /category?path=Home/Kitchen/Pans   /product/<id>   /picture/<id>.svg   /cart
Whatever the service does, a page is whole: a shelf has products of the catalogue until there is a list.
"""

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import jinja2
import pyarrow as pa
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.templating import Jinja2Templates

from feature_repo.events import is_id
from feature_repo.ports import PUBLISHABLE, SECRET, authorization, token
from pipelines.demo.pictures import picture

HERE = Path(__file__).parent
SHELF, LISTED, CARRIED = 8, 24, 20  # products of a shelf before there is a list, of a category, of a cart
MAX_FORM_BYTES = 4096
PATIENCE_S = 1.0
VISIT, USER, CART = "visit", "user", "cart"
Product = dict[str, Any]


class Catalogue:
    """The products as the shop's export has them, and what a page shows of them without being told."""

    def __init__(self, items: pa.Table) -> None:
        self.products: dict[str, Product] = {row["item_id"]: row for row in items.to_pylist()}
        self.aisles: dict[str, list[Product]] = {}
        for product in self.products.values():
            self.aisles.setdefault(product["category_path"] or "Other", []).append(product)

    def newest(self, count: int = SHELF) -> list[Product]:
        """In stock, the last that came first."""
        there = [one for one in self.products.values() if one["stock"] != 0]
        return sorted(there, key=lambda one: str(one["available_from"] or ""), reverse=True)[:count]

    def beside(self, product: Product, count: int = SHELF) -> list[Product]:
        """Others of its category."""
        aisle = self.aisles[product["category_path"] or "Other"]
        return [one for one in aisle if one is not product and one["stock"] != 0][:count]


def build_app(items: pa.Table, service: str, known: Sequence[str] = ()) -> Starlette:
    """The ASGI app. `service`: address of the storefront plane; `known`: shoppers that a visitor may be."""
    catalogue = Catalogue(items)
    pages = Jinja2Templates(
        env=jinja2.Environment(
            loader=jinja2.FileSystemLoader(HERE / "pages"), autoescape=True, undefined=jinja2.StrictUndefined
        )
    )
    policy = (
        f"default-src 'none'; script-src 'self' {service}; connect-src {service}; style-src 'self'; "
        "img-src 'self' https:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    headers = {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "strict-origin-when-cross-origin",
        "Cache-Control": "no-store",
    }

    def page(request: Request, name: str, status: int = 200, **told: Any) -> Response:
        visit = _cookie(request, VISIT) or secrets.token_hex(12)
        shown: dict[str, Any] = {
            "service": service,
            "key": token(PUBLISHABLE) or "",
            "visit": visit,
            "user": _cookie(request, USER),
            "known": known,
            "cart": _cart(request, catalogue),
            "aisles": sorted(catalogue.aisles),
            "product": None,
        }
        answer = pages.TemplateResponse(request, name, shown | told, status, headers)
        answer.set_cookie(VISIT, visit, httponly=True, samesite="lax")
        return answer

    async def home(request: Request) -> Response:
        return page(request, "home.html", shelf=catalogue.newest())

    async def category(request: Request) -> Response:
        path = request.query_params.get("path", "")
        if path not in catalogue.aisles:
            return page(request, "missing.html", 404)
        found = catalogue.aisles[path][:LISTED]
        asked = {"surface": "category_sort", "items": [one["item_id"] for one in found]}
        order = await _ordered(service, asked | _who(request))
        ranked = sorted(found, key=lambda one: order.get(one["item_id"], LISTED))
        return page(request, "category.html", path=path, listed=ranked, personal=bool(order))

    async def product(request: Request) -> Response:
        found = catalogue.products.get(request.path_params["item"])
        if found is None:
            return page(request, "missing.html", 404)
        return page(request, "product.html", product=found, shelf=catalogue.beside(found))

    async def drawn(request: Request) -> Response:
        found = catalogue.products.get(request.path_params["item"])
        if found is None:
            return Response("no such product\n", 404, media_type="text/plain")
        safe = {"Content-Security-Policy": "default-src 'none'", "Cache-Control": "max-age=3600"}
        return Response(picture(found["title"], found["category_path"]), 200, safe, "image/svg+xml")

    async def cart(request: Request) -> Response:
        if request.method == "GET":
            return page(request, "cart.html", shelf=catalogue.newest())
        form = await _form(request)
        held = [one["item_id"] for one in _cart(request, catalogue)]
        if form.get("item") in catalogue.products and form["item"] not in held:
            held = [*held, form["item"]][-CARRIED:]
        answer = RedirectResponse("/cart", 303)
        answer.set_cookie(CART, ",".join([] if "order" in form else held), httponly=True, samesite="lax")
        return answer

    async def become(request: Request) -> Response:
        """Another shopper begins another visit."""
        answer = RedirectResponse("/", 303)
        for cookie in (VISIT, USER, CART):
            answer.delete_cookie(cookie)
        user = (await _form(request)).get("user", "")
        if user in known:
            answer.set_cookie(USER, user, httponly=True, samesite="lax")
        return answer

    return Starlette(
        routes=[
            Route("/", home),
            Route("/category", category),
            Route("/product/{item:path}", product),
            Route("/picture/{item:path}.svg", drawn),
            Route("/cart", cart, methods=["GET", "POST"]),
            Route("/visitor", become, methods=["POST"]),
            *(
                Route(f"/{name}", lambda _, name=name: FileResponse(HERE / "pages" / name))
                for name in ("shop.css", "shop.js")
            ),
        ]
    )


def _cookie(request: Request, name: str) -> str | None:
    value = request.cookies.get(name)
    return value if is_id(value) else None


def _who(request: Request) -> dict[str, str]:
    found = {"session_id": _cookie(request, VISIT), "user_id": _cookie(request, USER)}
    return {name: value for name, value in found.items() if value}


def _cart(request: Request, catalogue: Catalogue) -> list[Product]:
    held = request.cookies.get(CART, "").split(",")[:CARRIED]
    return [catalogue.products[item] for item in dict.fromkeys(held) if item in catalogue.products]


async def _form(request: Request) -> dict[str, str]:
    """The fields of a small form; of a larger one nothing."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            return {}
    fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)
    return {name: values[0] for name, values in fields.items()}


async def _ordered(service: str, asked: dict[str, Any]) -> dict[str, int]:
    """Item -> its place as /v1/rank orders them; empty where it does not answer in time."""
    try:
        async with httpx.AsyncClient(timeout=PATIENCE_S, trust_env=False) as client:
            headers = authorization(SECRET)
            answer = (await client.post(f"{service}/v1/rank", json=asked, headers=headers)).raise_for_status()
    except httpx.HTTPError:
        return {}
    return {slot["item_id"]: slot["slot"] for slot in answer.json()["items"]}
