"""The server as an application of Ray Serve: replicas with the model, and a door before them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve.config import RequestRouterConfig

from .._arguments import StrPath, as_count
from ..server import Settings
from .cluster import cpus_of_machines, everywhere, threads_of_machine
from .door import Door
from .replica import Replica
from .routing import ConversationRouter

__all__ = ["app", "build"]

# The replicas themselves say when they have too much to do; Serve is not to say it before them.
_MAX_ONGOING = 100_000


def app(
    models: Mapping[str, StrPath] | StrPath,
    *,
    replicas: int = 1,
    threads: int | None = None,
    doors: int = 1,
    settings: Settings | None = None,
    tokenizer: StrPath | None = None,
) -> serve.Application:
    """Return the server of `rwkv serve` as an application, for `ray.serve.run`.

    Each replica is that server, with all of its paths. Requests of one conversation go to the same
    replica, which has its state: those that begin with the same first message of a user, and those
    that name what a replica holds (`previous_response_id`, `state`). If that replica is lost, they
    go to another, which reads the conversation again; a request that it had not begun to answer is
    asked again there. One that is told to wait by its replica is asked at another.

    Args:
        models: model files by the names that clients call them, or one, at paths where every
            machine has them; or names, as for `rwkv run`, under which each machine fetches them.
        replicas: how many; each loads the models.
        threads: how many CPUs each has, and threads that compute. None: those of the smallest
            machine but one.
        doors: how many processes pass requests on; one is enough for several replicas.
        settings: of each replica: who may ask, and how much. In its `state_dir` each has a folder
            of its own, which the replica takes over that is started for one that was lost: if it
            finds it, on the same machine or on a disk that all share.
        tokenizer: a name, or a file that every machine has; None: what each model says.

    Raises:
        InvalidArgumentError: an argument is out of range.
    """
    if not isinstance(models, Mapping):
        models = {Path(models).stem if os.path.exists(models) else os.fspath(models): models}
    files = {name: everywhere(path) for name, path in models.items()}
    replicas = as_count("replicas", replicas, at_least=1)
    doors = as_count("doors", doors, at_least=1)
    settings = settings or Settings()
    if settings.state_dir is not None:  # replicas have another working directory
        settings = dataclasses.replace(settings, state_dir=settings.state_dir.absolute())
    if settings.draft is not None:
        settings = dataclasses.replace(settings, draft=Path(everywhere(settings.draft)))
    if threads is None:
        threads = threads_of_machine(cpus_of_machines())
    threads = as_count("threads", threads, at_least=1)
    routing = RequestRouterConfig(
        request_router_class=ConversationRouter,
        request_router_kwargs={"num_fallback_replicas": replicas},
    )
    replica = serve.deployment(
        Replica,
        num_replicas=replicas,
        max_ongoing_requests=_MAX_ONGOING,
        ray_actor_options={"num_cpus": threads},
        request_router_config=routing,
        graceful_shutdown_timeout_s=30,
    )
    door = serve.deployment(
        Door,
        num_replicas=doors,
        max_ongoing_requests=_MAX_ONGOING,
        ray_actor_options={"num_cpus": 0},
    )
    own = None if tokenizer is None else everywhere(tokenizer)
    return door.bind(
        replica.bind(files, settings, replicas, threads, own), replicas, settings.max_body_bytes
    )


def build(args: dict[str, Any]) -> serve.Application:
    """Return the application for a configuration file of Ray Serve: `rwkv_py.ray:build`.

    Args:
        args: the arguments of `app`; `settings` are those of `rwkv_py.server.Settings`.
    """
    given = dict(args.pop("settings", {}))
    for name in ("api_keys", "cors_origins"):
        if name in given:
            given[name] = tuple(given[name])
    for name in ("state_dir", "draft"):
        if given.get(name) is not None:
            given[name] = Path(given[name])
    return app(**args, settings=Settings(**given))
