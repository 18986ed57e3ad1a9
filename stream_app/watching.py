"""``/metrics``, which Prometheus reads. Called by the composition root."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from stream_app.adapters.telemetry import CONTENT_TYPE, Standing
from stream_app.outcomes import outcomes
from stream_app.worker import Worker


def watch(app: Any, worker: Worker) -> None:
    """Serve the metrics of ``worker`` from the web server of ``app``."""
    standing = Standing(
        worker.metrics,
        partitions=app.partition_statuses,
        stages={kept.topic: kept.name for kept in worker.kept},
        accounts=worker.accounts,
        sizes=worker.sizes,
        outcomes=lambda: outcomes(worker.stages.learn),
        ignored=worker.ignored,
        version=_release(),
    )
    worker.metrics.registry.register(standing)

    @app.page("/metrics")  # type: ignore[untyped-decorator]
    async def metrics(view: Any, _request: Any) -> Any:
        """Prometheus metrics of this worker."""
        return view.bytes(worker.metrics.exposition(), headers={"Content-Type": CONTENT_TYPE})


def _release() -> str:
    try:
        return version("stream_app")
    except PackageNotFoundError:
        return "source"  # run from the sources, not installed
