"""A refusal in another system's payload is `consent: false` of each of its events; silence is none."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from feature_repo.params import load
from serving.compat.gtag import HITS, hits
from serving.payloads.payload import System
from serving.payloads.pixels import PIXELS
from serving.payloads.snowplow import TRACKER
from serving.payloads.terms import Terms
from serving.payloads.tracks import TRACKS

VIEW = {"type": "track", "event": "Product Viewed", "anonymousId": "a", "properties": {"product_id": "1"}}
PIXEL = {"name": "product_viewed", "clientId": "c", "data": {"productVariant": {"product": {"id": "7"}}}}


def tag(said: str) -> list[dict[str, str]]:
    return hits(b"v=2&cid=1.2&sid=7&en=view_item&pr1=idSKU-1" + said.encode(), b"")


def call(**context: Any) -> dict[str, Any]:
    return VIEW | {"context": context}


def ecommerce(consent: str | None, scopes: list[str] | None = None) -> dict[str, Any]:
    def of(name: str, data: Any) -> dict[str, Any]:
        return {"schema": f"iglu:com.snowplowanalytics.snowplow/{name}/jsonschema/1-0-0", "data": data}

    entities = [of("product", {"id": "P1"})]
    entities += (
        [of("consent_preferences", {"eventType": consent, "consentScopes": scopes})] if consent else []
    )
    told = of("unstruct_event", of("snowplow_ecommerce_action", {"type": "product_view"}))
    return {"e": "ue", "duid": "d", "ue_pr": orjson.dumps(told).decode()} | {
        "co": orjson.dumps(of("contexts", entities)).decode()
    }


@pytest.mark.parametrize(
    ("system", "body", "agreed"),
    [
        (TRACKS, VIEW, True),
        (TRACKS, call(consent={"categoryPreferences": {"Advertising": False, "Analytics": True}}), False),
        (TRACKS, call(consent={"categoryPreferences": {"Advertising": True, "Analytics": False}}), True),
        (TRACKS, call(consentManagement={"deniedConsentIds": ["Advertising"]}), False),
        (TRACKS, call(consentManagement={"deniedConsentIds": None}, consent=[1]), True),
        (TRACKS, call(consentManagement={"allowedConsentIds": ["Analytics"]}), False),
        (
            TRACKS,
            call(consentManagement={"allowedConsentIds": ["Advertising"], "deniedConsentIds": []}),
            True,
        ),
        (TRACKS, call(consentManagement={"allowedConsentIds": []}), True),
        (PIXELS, PIXEL, True),
        (PIXELS, PIXEL | {"customerPrivacy": {"preferencesProcessingAllowed": False}}, False),
        (PIXELS, PIXEL | {"customerPrivacy": {"preferencesProcessingAllowed": True}}, True),
        (TRACKER, ecommerce(None), True),
        (TRACKER, ecommerce("allow_all"), True),
        (TRACKER, ecommerce("deny_all"), False),
        (TRACKER, ecommerce("withdrawn"), False),
        (TRACKER, ecommerce("implicit_consent"), True),
        (TRACKER, ecommerce("allow_selected"), False),
        (TRACKER, ecommerce("allow_selected", ["necessary"]), False),
        (TRACKER, ecommerce("allow_selected", ["necessary", "Advertising"]), True),
        (HITS, tag(""), True),
        (HITS, tag("&gcs=G1--&npa=0"), True),
        (HITS, tag("&gcs=G111"), True),
        (HITS, tag("&gcs=G111&npa=1"), False),
        (HITS, tag("&gcs=G110"), False),
        (HITS, tag("&gcs=G101"), True),
        (HITS, tag("&gcs=G101&npa=1"), False),
        (HITS, tag("&gcs=G100"), False),
    ],
)
def test_a_refusal_in_their_words_is_one_in_ours(system: System, body: Any, agreed: bool) -> None:
    terms = load("compat", Terms)
    (found,) = [event for part in system.events(body) for event in system.translate(part, terms)]
    assert found["consent"] is agreed
