"""Payloads of ours held against the types that their system publishes, by the TypeScript compiler.

ENDCAP_NODE_CLIENTS is a node_modules, as in test_published_clients.py, with `typescript` and
`@shopify/web-pixels-extension`; without them the tests are skipped.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from shops.payloads import pixels_of

from feature_repo.vocabulary.trackers import SHOPIFY

PIXELS, COMPILER = "@shopify/web-pixels-extension", "typescript/bin/tsc"
CHECKED = f"""
import type {{ PixelEvents, RegisterInit }} from "{PIXELS}";
type Some<T> = {{ [K in keyof T]?: Some<T[K]> }};
type Sent<E> = E extends {{ type: string; context: infer C }}
  ? Omit<E, "type" | "context"> & {{ type: `${{E["type"]}}`; context: Some<C> }}
  : never;
type Name = keyof PixelEvents;
"""
PASSED_OVER = {
    *("alert_displayed", "cart_viewed", "page_viewed", "payment_info_submitted", "ui_extension_errored"),
    *("checkout_address_info_submitted", "checkout_contact_info_submitted", "checkout_started"),
    "checkout_shipping_info_submitted",
}
"""Standard events that tell no contact with a product, or tell again what was told before."""


def compiled(folder: Path, code: str) -> tuple[bool, str]:
    """Whether the types agree, and what the compiler says."""
    modules = Path(os.environ.get("ENDCAP_NODE_CLIENTS", "nowhere"))
    for needed in (PIXELS, COMPILER):
        if not (modules / needed).exists() or not shutil.which("node"):
            pytest.skip(f"{needed} is not installed in ENDCAP_NODE_CLIENTS ({modules})")
    (folder / "node_modules").symlink_to(modules)
    (folder / "told.ts").write_text(CHECKED + code)
    flags = ("--noEmit", "--strict", "--skipLibCheck", "--moduleResolution", "bundler", "--module", "esnext")
    command = ["node", str(modules / COMPILER), *flags, "--target", "es2022", "told.ts"]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    return ended.returncode == 0, ended.stdout + ended.stderr


def test_shopifys_own_types_allow_each_pixel_that_is_read_here(tmp_path: Path) -> None:
    """Nothing is missing in them, nothing stands there that Shopify does not send; the consent is its own."""
    told = pixels_of("2026-01-31T12:00:00Z")
    code = "".join(
        f"({json.dumps(event)}) satisfies Sent<PixelEvents[{json.dumps(event['name'])}]>;\n" for event in told
    )
    code += "const agreed: boolean = (null! as RegisterInit).customerPrivacy.preferencesProcessingAllowed;\n"
    agree, said = compiled(tmp_path, code + "export { agreed };")
    assert agree, said


def test_the_pixel_of_the_docs_is_one_by_shopifys_own_types(tmp_path: Path) -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "compat.md").read_text()
    (pixel,) = re.findall(r"A custom pixel for Shopify:\n\n```js\n(.*?)^```", text, re.S | re.M)
    given = "declare const api: Pick<ExtensionApi, 'customerPrivacy'>;\n"
    given += "declare const { analytics, init }: ExtensionApi;\n"
    agree, said = compiled(tmp_path, f'import type {{ ExtensionApi }} from "{PIXELS}";\n{given}{pixel}')
    assert agree, said


@pytest.mark.parametrize(("lost", "more"), [("seq", {}), (None, {"handle": "tee"})])
def test_a_field_too_little_or_too_much_would_be_found(
    tmp_path: Path, lost: str | None, more: dict[str, str]
) -> None:
    viewed = pixels_of("2026-01-31T12:00:00Z")[0]
    viewed["data"]["productVariant"]["product"] |= more
    viewed.pop(lost, None)
    code = f"({json.dumps(viewed)}) satisfies Sent<PixelEvents['product_viewed']>; export {{}};"
    agree, said = compiled(tmp_path, code)
    assert not agree and (lost or "handle") in said, said


def test_every_standard_event_of_shopify_is_read_or_known_to_tell_nothing(tmp_path: Path) -> None:
    names = " | ".join(json.dumps(name) for name in sorted({*SHOPIFY, *PASSED_OVER}))
    dom = "`advanced_dom_${string}` | 'clicked' | `form_${string}` | `input_${string}`"
    code = f"""
type Standard = Exclude<Name, {dom}>;
type Same<A, B> = [A] extends [B] ? ([B] extends [A] ? true : false) : false;
const same: Same<Standard, {names}> = true;
export {{ same }};
"""
    agree, said = compiled(tmp_path, code)
    assert agree, said
