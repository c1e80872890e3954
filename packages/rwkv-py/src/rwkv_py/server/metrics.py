"""What is counted, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from ..request import Request

if TYPE_CHECKING:
    from .models import Models

__all__ = ["Metrics"]

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)


class Metrics:
    """The counters of one server."""

    def __init__(self, models: Models):
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "rwkv_requests", "Requests answered.", ["route", "status"], registry=self._registry
        )
        self._prompt = Counter(
            "rwkv_prompt_tokens", "Tokens of prompts.", ["model"], registry=self._registry
        )
        self._cached = Counter(
            "rwkv_cached_tokens",
            "Tokens of prompts that were not read again.",
            ["model"],
            registry=self._registry,
        )
        self._written = Counter(
            "rwkv_completion_tokens", "Tokens written.", ["model"], registry=self._registry
        )
        self._first = Histogram(
            "rwkv_time_to_first_token_seconds",
            "From the request to the first token.",
            ["model"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._whole = Histogram(
            "rwkv_text_seconds",
            "From the request to the end of the text.",
            ["model"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._registry.register(_OfModels(models))

    def count_request(self, route: str, status: int) -> None:
        """Count a request that was answered."""
        self._requests.labels(route, str(status)).inc()

    def count_text(self, model: str, request: Request) -> None:
        """Count a text that has ended."""
        if request.started_at is None:
            return
        self._prompt.labels(model).inc(request.n_prompt_tokens)
        self._cached.labels(model).inc(request.n_cached_tokens)
        self._written.labels(model).inc(request.n_tokens)
        if request.first_token_at is not None:
            self._first.labels(model).observe(request.first_token_at - request.submitted_at)
        if request.finished_at is not None:
            self._whole.labels(model).observe(request.finished_at - request.submitted_at)

    def count_prompt(self, model: str, n_tokens: int) -> None:
        """Count tokens that were read for an embedding."""
        self._prompt.labels(model).inc(n_tokens)

    def write(self) -> bytes:
        """Return all of it, as Prometheus reads it."""
        return generate_latest(self._registry)


class _OfModels(Collector):
    """What is so now, for each loaded model."""

    def __init__(self, models: Models):
        self._models = models

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Look at the models."""
        running = GaugeMetricFamily("rwkv_running", "Texts being written.", labels=["model"])
        waiting = GaugeMetricFamily("rwkv_waiting", "Texts in the line.", labels=["model"])
        memory = GaugeMetricFamily("rwkv_weight_bytes", "Bytes of weights.", labels=["model"])
        states = GaugeMetricFamily("rwkv_cache_bytes", "Bytes of states kept.", labels=["model"])
        for served in self._models.loaded:
            running.add_metric([served.name], served.engine.n_running)
            waiting.add_metric([served.name], served.engine.n_waiting)
            memory.add_metric([served.name], served.model.info.weight_bytes)
            states.add_metric([served.name], served.cache.n_bytes)
        return [running, waiting, memory, states]
