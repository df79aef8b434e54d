"""Clients that other systems publish, unchanged but for their address, against the service as it runs.

ENDCAP_CLIENTS is a folder of `pip install --target`, ENDCAP_NODE_CLIENTS a node_modules; who is not there is
skipped.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from shops.service import Service

pytest_plugins = ("shops.service",)

PYTHON = {
    "gorse": """
from datetime import UTC, datetime
from gorse import Gorse
client, now = Gorse(URL + "/compat/gorse", "key", timeout=10), datetime.now(UTC).isoformat()
assert client.insert_feedback("read", "u", "item-1", now) == {"RowAffected": 1}
cart = {"FeedbackType": "cart", "UserId": "u", "ItemId": "item-2", "Timestamp": now}
assert client.insert_feedbacks([cart]) == {"RowAffected": 1}
assert len(client.get_recommend("u", n=3)) == 3 and client.get_recommend("u", n=1)[0].id
assert len(client.session_recommend([cart], n=3)) == 3
""",
    "segment": """
import segment.analytics as analytics
analytics.write_key, analytics.host = "w", URL + "/compat/segment"
def fail(error, items): raise SystemExit(f"{error} {items}")
analytics.on_error = fail
analytics.track("u", "Product Viewed", {"product_id": "item-3"}, anonymous_id="a")
products = [{"product_id": "item-3", "quantity": 2}]
analytics.track("u", "Order Completed", {"order_id": "o1", "products": products}, anonymous_id="a")
analytics.flush()
""",
    "snowplow": """
from snowplow_tracker import Emitter, SelfDescribing, SelfDescribingJson, Subject, Tracker
schemas, failed = "iglu:com.snowplowanalytics.snowplow.ecommerce/", []
for method in ("post", "get"):
    told = {"batch_size": 1, "on_failure": lambda *why: failed.append(why)}
    emitter, subject = Emitter(URL + "/compat/snowplow", method=method, **told), Subject()
    subject.set_domain_user_id("d")
    tracker = Tracker("n", emitters=[emitter], subject=subject, encode_base64=method == "post")
    product = {"id": "item-5", "category": "c", "price": 3, "currency": "EUR"}
    tracker.track(SelfDescribing(
        SelfDescribingJson(schemas + "snowplow_ecommerce_action/jsonschema/1-0-2", {"type": "product_view"}),
        context=[SelfDescribingJson(schemas + "product/jsonschema/1-0-0", product)],
    ))
    tracker.flush()
assert not failed, failed
""",
}
NODE = {
    "gorse": """
const { Gorse } = require("gorsejs");
const client = new Gorse({ endpoint: URL + "/compat/gorse", secret: "s" });
const row = { FeedbackType: "read", UserId: "u", ItemId: "item-1", Timestamp: new Date().toISOString() };
const cart = { ...row, FeedbackType: "cart" };
const assert = require("node:assert");
assert.equal(await client.insertFeedbacks([row]), 1);
assert.equal(await client.upsertFeedbacks([cart]), 1);
assert.equal((await client.getRecommend({ userId: "u", cursorOptions: { n: 3 } })).length, 3);
assert.ok((await client.getSessionRecommend([row], { cursorOptions: { n: 2 } }))[0].Id);
""",
    "segment": """
const { Analytics } = require("@segment/analytics-node");
const client = new Analytics({ writeKey: "w", host: URL, path: "/compat/segment/v1/batch" });
client.on("error", (error) => { console.error(error); process.exit(1); });
client.track({ anonymousId: "a", event: "Product Viewed", properties: { product_id: "item-6" } });
await client.closeAndFlush();
""",
    "snowplow": """
const { newTracker, buildSelfDescribingEvent } = require("@snowplow/node-tracker");
const schemas = "iglu:com.snowplowanalytics.snowplow.ecommerce/";
const schema = schemas + "snowplow_ecommerce_action/jsonschema/1-0-2";
const product = { id: "item-7", category: "c", price: 2, currency: "EUR", quantity: 1 };
await new Promise((sent, failed) => {
  const ends = { onRequestSuccess: sent, onRequestFailure: failed };
  const emitter = { endpoint: URL + "/compat/snowplow", bufferSize: 1, ...ends };
  const tracker = newTracker({ namespace: "n", appId: "shop" }, emitter);
  tracker.setDomainUserId("d");
  const event = buildSelfDescribingEvent({ event: { schema, data: { type: "add_to_cart" } } });
  tracker.track(event, [{ schema: schemas + "product/jsonschema/1-0-0", data: product }]);
});
""",
}
PACKAGES = {
    "gorse": ("gorse", "gorsejs"),
    "segment": ("segment/analytics", "@segment/analytics-node"),
    "snowplow": ("snowplow_tracker", "@snowplow/node-tracker"),
}
EVENTS = {"gorse": 2, "segment": 1, "snowplow": 1}  # of each client, at least


def accepted(service: Service, system: str) -> float:
    pattern = rf'^endcap_compat_events_total{{outcome="accepted",system="{system}"}} (\S+)$'
    found = re.search(pattern, httpx.get(f"{service.url}/metrics", timeout=5).text, re.M)
    return float(found[1]) if found else 0.0


@pytest.mark.parametrize("system", PACKAGES)
@pytest.mark.parametrize("language", ["python", "node"])
def test_a_published_client_works_by_its_address_alone(
    language: str, system: str, request: pytest.FixtureRequest
) -> None:
    variable = "ENDCAP_CLIENTS" if language == "python" else "ENDCAP_NODE_CLIENTS"
    folder = Path(os.environ.get(variable, "nowhere"))
    package = PACKAGES[system][language == "node"]
    if not (folder / package).is_dir() or not shutil.which(language):
        pytest.skip(f"{package} is not installed in {variable} ({folder})")
    service: Service = request.getfixturevalue("service")
    before = accepted(service, system)
    if language == "python":
        script = f"import sys; sys.path.insert(0, {str(folder)!r}); URL = {service.url!r}\n{PYTHON[system]}"
        command, env = [sys.executable, "-c", script], {**os.environ}
    else:
        script = f"(async () => {{ const URL = '{service.url}';\n{NODE[system]}\n}})()"
        script += ".catch((error) => { console.error(error); process.exit(1); })"
        command, env = ["node", "-e", script], {**os.environ, "NODE_PATH": str(folder)}
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr[-2000:]
    deadline = time.monotonic() + 5
    while accepted(service, system) < before + EVENTS[system] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert accepted(service, system) >= before + EVENTS[system]
