"""What the counts of an export mean: what the shop will get, its cuts, minutes and memory. Pure functions."""

from datetime import datetime, timedelta

from pipelines.doctor.survey import Survey
from pipelines.ingest.profile import Profile

CUTS = {"rank_from": 0.5, "valid_from": 0.75, "test_from": 0.875}  # of the span, as the simulated shop's
COARSE = 0.05  # share of contacts whose order within their visit is not known
# `dvc repro bundle` on two cores, from data/reports/stages.json of three shops of 0.4, 1.8 and 7.7 million
# rows and 2,500, 12,000 and 523 products: what remains, per million rows, per thousand products.
SECONDS = (163.0, 20.8, 14.9)
MEGABYTES = (655.0, 385.0, 9.5)
TABLE_BYTES = 8  # of a pair of products, while the item tables are fitted


def share(part: int, whole: int) -> str:
    """
    >>> share(1, 3), share(0, 0)
    ('33.3 %', '0.0 %')
    """
    return f"{100 * part / whole if whole else 0:.1f} %"


def cuts(first: datetime, last: datetime) -> dict[str, str]:
    """rank_from, valid_from, test_from for params.yaml; at midnight where a day matters little.

    >>> cuts(datetime(2026, 1, 5), datetime(2026, 3, 2))["test_from"]
    '2026-02-23T00:00:00Z'
    """
    span, found = last - first, {}
    for name, fraction in CUTS.items():
        moment = (first + fraction * span).replace(microsecond=0, tzinfo=None)
        if span >= timedelta(days=16):
            moment = moment.replace(hour=0, minute=0, second=0)
        found[name] = f"{moment.isoformat()}Z"
    return found


def estimate(rows: int, items: int) -> tuple[int, float]:
    """Minutes and gigabytes of `dvc repro bundle` on two cores, roughly.

    >>> estimate(377_688, 2_500)
    (3, 0.8)
    """
    seconds, megabytes = (
        base + by_rows * rows / 1e6 + by_items * items / 1e3
        for base, by_rows, by_items in (SECONDS, MEGABYTES)
    )
    tables = 400 + TABLE_BYTES * items**2 / 1e6
    return round(seconds / 60), round(max(megabytes, tables) / 1000, 1)


def refusal(seen: Survey) -> str:
    """Why nothing can be trained, and what to do; empty where it can."""
    if not seen.contacts:
        return (
            "no event is a contact with a product. Next: map the shop's words to product_viewed, "
            "add_to_cart or purchase_completed (types in the mapping)"
        )
    if seen.first == seen.last:
        return "all contacts have one instant. Next: export the times, too (event_ts)"
    return ""


def findings(seen: Survey, allowed: float) -> list[str]:
    """One sentence per thing to know, the gravest first; `allowed` is ingest.max_quarantined_share."""
    told = []
    if seen.tied > COARSE * seen.in_order:
        unit = seen.unit or "finer than seconds"
        told.append(
            f"times: {share(seen.tied, seen.in_order)} of the contacts share their instant with another "
            f"of their visit (unit: {unit}); their order is the file's: export finer times"
        )
    for name, pairs in seen.alike.items():
        examples = ", ".join(f"{a!r} and {b!r}" for a, b in pairs)
        told.append(f"{name}: some differ only by case or blanks, and are different ones: {examples}")
    if seen.repeated_ids:
        told.append(f"event_id: {seen.repeated_ids:,} rows repeat one; the first of each is kept")
    for part, rows in seen.unreadable.items():
        of = share(rows, rows + seen.parts[part])
        line = f"{part}: {rows:,} rows ({of}) have a cell that cannot be read; `endcap ingest` names each"
        bar = f" and refuses the export: at most {100 * allowed:g} % may"
        told.append(line + bar * (rows > allowed * (rows + seen.parts[part])))
    if seen.unknown:
        told.append(f"items: {seen.unknown:,} events are of products that the catalogue lacks")
    if seen.untouched:
        told.append(f"items: {seen.untouched:,} of {seen.items:,} products were never touched")
    for fact, rows in seen.without.items():
        if rows:
            told.append(f"items: {rows:,} of {seen.items:,} products have no {fact}")
    return told + _absences(seen)


def _absences(seen: Survey) -> list[str]:
    """What ingest will say is absent, and what follows from it."""
    known = {
        "price": seen.items - seen.without["price"],
        "category_path": seen.items - seen.without["category_path"],
    }
    shop = Profile(seen.types, seen.items, known, seen.visits, seen.following, seen.shoppers, seen.returning)
    orders = seen.types.get("purchase_completed") and not {"views", "carts"} - set(shop.lacks)
    return [*shop.in_words(), *(["orders only: baskets are the visits"] if orders else [])]
