"""Pages of Great Expectations that need no network."""

from __future__ import annotations

from pipelines.validate.data_docs import local_only


def test_pages_keep_their_links_but_load_nothing_from_other_hosts() -> None:
    page = (
        '<head><link rel="stylesheet" href="https://cdn.example/a.css"><script src="https://cdn.example/a.js">'
        '</script></head><img\n class="x"\n src="https://cdn.example/seen.png?d=1"><img src="static/b.png">'
        '<a href="https://docs.example">docs</a>'
    )
    kept = local_only(page)
    assert "cdn.example" not in kept
    assert '<a href="https://docs.example">docs</a>' in kept and '<img src="static/b.png">' in kept
