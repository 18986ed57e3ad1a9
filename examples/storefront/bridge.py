"""A shop window in two routes: clicks go to Kafka, lists come from Redis.

    python examples/storefront/bridge.py [PORT]        # then open http://127.0.0.1:8080

Reads the same ``STREAM_APP_*`` variables as the worker. Visitors are anonymous: a random id in a
cookie is their session, the key of their events, and whose lists they are shown.
"""

import json
import secrets
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web
from aiokafka import AIOKafkaProducer
from redis.asyncio import Redis

from stream_app.reader import AsyncReader
from stream_app.settings import Settings, load_settings
from stream_app.worker import security

STATIC = Path(__file__).parent / "static"
EVENTS = frozenset({"view", "add_to_cart", "remove_from_cart", "purchase"})
BODY_BYTES_MAX = 2_000
COOKIE = "visitor"
SETTINGS = web.AppKey("settings", Settings)
PRODUCER = web.AppKey("producer", AIOKafkaProducer)
READER = web.AppKey("reader", AsyncReader)


async def clients(app: web.Application) -> AsyncIterator[None]:
    """Connect for as long as the server runs."""
    settings = app[SETTINGS]
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.bootstrap, **security(settings).client_arguments()
    )
    redis = Redis.from_url(settings.redis_url, protocol=2)
    await producer.start()
    app[PRODUCER], app[READER] = producer, AsyncReader(redis)
    yield
    await producer.stop()
    await redis.aclose()


async def page(request: web.Request) -> web.StreamResponse:
    """The shop window; a first visit gets its session here."""
    answer = web.FileResponse(STATIC / "index.html")
    if COOKIE not in request.cookies:
        answer.set_cookie(COOKIE, secrets.token_hex(16), httponly=True, samesite="Lax")
    return answer


async def event(request: web.Request) -> web.Response:
    """``{"event", "item_id", "price"}`` to Kafka; answers which version of the lists knows it."""
    visitor = request.cookies.get(COOKIE, "")
    try:
        said = await request.json()
        kind, item = said["event"], said["item_id"]
    except (ValueError, KeyError, TypeError):
        raise web.HTTPBadRequest(text="an event is {event, item_id}") from None
    if kind not in EVENTS or not isinstance(item, str) or not visitor:
        raise web.HTTPBadRequest(text=f"event is one of {sorted(EVENTS)}, and cookies are on")
    # Who and when is decided here: a page could say anything.
    record = {
        "event": kind,
        "item_id": item,
        "session_id": visitor,
        "event_id": secrets.token_hex(8),
        "ts": time.time(),
        "channel": "web",
    }
    if isinstance(said.get("price"), int | float):
        record["price"] = said["price"]
    topic = request.app[SETTINGS].clickstream_topic
    sent = await request.app[PRODUCER].send_and_wait(
        topic, json.dumps(record).encode(), visitor.encode()
    )
    return web.json_response({"version": sent.offset + 1}, status=202)


async def lists(request: web.Request) -> web.Response:
    """What this visitor sees now; ``?item=`` helps while nothing is known of them."""
    reader, visitor = request.app[READER], request.cookies.get(COOKIE, "")
    customer = await reader.customer(visitor, anonymous=True) if visitor else None
    step = customer.step if customer else "new"
    name = "cart" if customer and "cart" in customer.lists and step == "checkout" else "home"
    answer = await reader.recommend(
        None,
        name,
        session_id=visitor or None,
        item_id=request.query.get("item"),
        segments=["web"],
        limit=6,
    )
    return web.json_response(
        {
            "version": customer.version if customer else 0,
            "step": step,
            "origin": answer.origin,
            "items": [
                {
                    "item_id": entry.item_id,
                    "because": entry.reason.because if entry.reason else None,
                    "source": entry.reason.source if entry.reason else None,
                }
                for entry in answer.entries
            ],
        }
    )


def make_app(settings: Settings) -> web.Application:
    """The server, not yet running."""
    app = web.Application(client_max_size=BODY_BYTES_MAX)
    app[SETTINGS] = settings
    app.cleanup_ctx.append(clients)
    app.add_routes(
        [
            web.get("/", page),
            web.post("/events", event),
            web.get("/lists", lists),
            web.static("/static", STATIC),
        ]
    )
    return app


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8080
    web.run_app(make_app(load_settings()), host="127.0.0.1", port=port)
