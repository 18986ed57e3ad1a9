"""Routes of the console. Called by the composition root."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from stream_app.console import figures
from stream_app.console.access import COOKIE, Access
from stream_app.errors import StoreUnavailable, StreamAppError
from stream_app.worker import Worker

STATIC = Path(__file__).parent / "static"
FILES = {
    "console.css": "text/css",
    "console.js": "text/javascript",
    "login.js": "text/javascript",
}
ID_CHARS_MAX = 512
COOKIE_AGE_S = 12 * 3600
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
        " img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
Find = Callable[[Worker, str], Awaitable[dict[str, Any] | None]]


def serve(app: Any, worker: Worker) -> None:
    """Add the console to the web server of ``app``, if the settings want one."""
    settings = worker.settings
    secret = settings.console_token()
    access = Access(secret.get_secret_value() if secret else None, web_host=settings.web_host)
    if not access.served:
        return
    for name, kind in FILES.items():
        _serve_file(app, name, kind)

    def refused(view: Any, request: Any) -> Any:
        if access.allowed(request.headers, request.cookies):
            return None
        why = "log in first" if access.needs_token else "open it as http://127.0.0.1 or localhost"
        return view.json({"error": why}, status=401, headers=dict(HEADERS))

    _serve_page(app, access)

    @app.page("/console/api/live")  # type: ignore[untyped-decorator]
    async def live(view: Any, request: Any) -> Any:
        """This worker's figures."""
        found = figures.live(worker, app.partition_statuses())
        return refused(view, request) or view.json(found, headers=dict(HEADERS))

    _serve_search(app, worker, refused, "customer", figures.customer)
    _serve_search(app, worker, refused, "item", figures.item)
    _serve_search(app, worker, refused, "rules", figures.rules)


def _serve_file(app: Any, name: str, kind: str) -> None:
    content = (STATIC / name).read_text()

    @app.page(f"/console/{name}", name=f"console-{name}")  # type: ignore[untyped-decorator]
    async def static(view: Any, _request: Any) -> Any:
        """A file of the page, which says nothing about the shop."""
        return view.text(content, content_type=kind, headers=dict(HEADERS))


def _serve_page(app: Any, access: Access) -> None:
    page, login = ((STATIC / name).read_text() for name in ("index.html", "login.html"))

    @app.page("/console/")  # type: ignore[untyped-decorator]
    async def index(view: Any, request: Any) -> Any:
        """The console, or the login before it."""
        if access.allowed(request.headers, request.cookies):
            return view.html(page, headers=dict(HEADERS))
        if not access.needs_token:
            return view.text("open it as http://127.0.0.1 or localhost", status=401)
        return view.html(login, status=401, headers=dict(HEADERS))

    if not access.needs_token:
        return

    @app.page("/console/session")  # type: ignore[untyped-decorator]
    async def session(view: Any, request: Any) -> Any:
        """Set the cookie for who gives the token as a bearer: the login page does."""
        if not access.allowed(request.headers, {}):
            return view.json({"error": "that is not the token"}, status=401, headers=dict(HEADERS))
        answer = view.json({"fine": True}, headers=dict(HEADERS))
        answer.set_cookie(
            COOKIE,
            access.cookie(),
            max_age=COOKIE_AGE_S,
            path="/console/",
            httponly=True,
            samesite="Strict",
            secure=request.headers.get("X-Forwarded-Proto") == "https",
        )
        return answer


def _serve_search(
    app: Any, worker: Worker, refused: Callable[[Any, Any], Any], name: str, find: Find
) -> None:
    @app.page(f"/console/api/{name}", name=f"console-{name}")  # type: ignore[untyped-decorator]
    async def search(view: Any, request: Any) -> Any:
        """One customer or item, or the rules for a customer, by ``?id=``."""
        if denied := refused(view, request):
            return denied
        wanted = request.query.get("id", "")
        if not 0 < len(wanted) <= ID_CHARS_MAX:
            error = {"error": f"give an id of at most {ID_CHARS_MAX} characters"}
            return view.json(error, status=400, headers=dict(HEADERS))
        try:
            found = await find(worker, wanted)
        except StoreUnavailable as exc:
            error = {"error": f"Redis does not answer: {exc}"}
            return view.json(error, status=503, headers=dict(HEADERS))
        except StreamAppError as exc:
            return view.json({"error": str(exc)}, status=404, headers=dict(HEADERS))
        if found is None:
            error = {"error": f"there is no {name} {wanted!r}"}
            return view.json(error, status=404, headers=dict(HEADERS))
        return view.json(found, headers=dict(HEADERS))
