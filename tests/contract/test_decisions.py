"""What a worker keeps of its decisions' texts."""

import tracemalloc

from stream_app.decisions import _render


def test_a_text_that_is_kept_takes_no_more_than_its_bytes() -> None:
    """A thousand of orjson's own results are four megabytes; a worker keeps up to 50,000."""
    _render.cache_clear()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        kept = [_render("none", None, "test", k / 1000, float(k)) for k in range(1_000)]
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        _render.cache_clear()
    assert kept[1] == (
        b'{"action":"none","promotion":null,"reason":"test","propensity":0.001,"expected_value":1.0}'
    )
    assert (after - before) / len(kept) < 1_000
