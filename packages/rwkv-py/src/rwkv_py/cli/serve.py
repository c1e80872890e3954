"""`rwkv serve`."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InvalidArgumentError
from ..model import Model
from .options import MODEL_HELP, Opening, TokenizerOption, open_tokenizer, with_groups
from .sampling import sampling_options
from .streams import complain

if TYPE_CHECKING:
    pass

_KEYS = "RWKV_API_KEYS"
_MB = 1 << 20


@sampling_options(lambda setting: "the chat format's")
@with_groups
def serve(
    *,
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help=MODEL_HELP, show_default=False)
    ],
    alias: Annotated[
        list[str] | None,
        typer.Option(
            help="What clients call a model, in the order of MODEL.",
            show_default="its file's name, or its own",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 chooses one.")] = 8080,
    api_keys: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=f"Keys of which clients need one, a line each; also in the environment: {_KEYS}.",
        ),
    ] = None,
    no_key: Annotated[
        bool,
        typer.Option("--no-key", help="Let everybody ask, also where others can reach it."),
    ] = False,
    cors: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="A page that a browser lets ask; * for all."),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(help="How chats are written.", show_default="the model file's, or world"),
    ] = None,
    max_running: Annotated[
        int, typer.Option(min=1, help="Texts that a model writes at once.")
    ] = 32,
    max_waiting: Annotated[int, typer.Option(min=0, help="How many more wait in line.")] = 128,
    max_prompt: Annotated[int, typer.Option(min=1, help="Tokens of a prompt.")] = 131072,
    max_output: Annotated[int, typer.Option(min=1, help="Tokens of a text.")] = 16384,
    max_body: Annotated[int, typer.Option(min=1, help="Megabytes of a request.")] = 16,
    max_seconds: Annotated[
        float, typer.Option(min=0.001, help="How long writing a text may take.")
    ] = 600.0,
    cache: Annotated[
        int, typer.Option(min=0, help="Megabytes of states that each model keeps.")
    ] = 512,
    state_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="A folder where states, responses, files and batches outlive the server.",
            show_default="none does",
        ),
    ] = None,
    state_disk: Annotated[
        int, typer.Option(min=0, help="Megabytes of states in that folder, and of files.")
    ] = 8192,
    state_quota: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Megabytes of states that clients with one key may keep, and of files.",
            show_default="as much as there is",
        ),
    ] = None,
    memory: Annotated[
        int | None,
        typer.Option(
            min=1, help="Megabytes that loaded models may take.", show_default="any number"
        ),
    ] = None,
    idle: Annotated[
        float | None,
        typer.Option(
            min=0.001, help="Seconds after which an unused model is unloaded.", show_default="never"
        ),
    ] = None,
    drain: Annotated[
        int, typer.Option(min=0, help="Seconds to finish texts in when the server ends.")
    ] = 30,
    lookup: Annotated[
        bool,
        typer.Option(
            "--lookup",
            help="Guess what followed the same words before, where a client does not say: the same "
            "texts, faster where they repeat what was read.",
        ),
    ] = False,
    draft: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="A smaller model with the same tokens, which guesses, where a client does not say "
            "otherwise: the same texts, faster.",
            show_default=False,
        ),
    ] = None,
    no_page: Annotated[
        bool, typer.Option("--no-page", help="Leave out the page to talk on, at /.")
    ] = False,
    tokenizer: TokenizerOption = None,
    sampling: dict[str, Any],
    opening: Opening,
) -> None:
    """Serve models to clients of OpenAI's and Anthropic's protocols; end with Ctrl-C or SIGTERM.

    The options of sampling hold where a client gives none.
    """
    from ..server import Settings
    from ..server.listening import listen, run

    sampling.pop("stop", None)
    names = _names(models, alias or [])
    keys = _keys(api_keys)
    settings = Settings(
        api_keys=keys,
        cors_origins=tuple(cors or ()),
        max_running=max_running,
        max_waiting=max_waiting,
        max_prompt_tokens=max_prompt,
        max_output_tokens=max_output,
        max_body_bytes=max_body * _MB,
        max_seconds=max_seconds,
        cache_bytes=cache * _MB,
        state_dir=state_dir,
        state_disk_bytes=state_disk * _MB,
        state_quota_bytes=None if state_quota is None else state_quota * _MB,
        memory=None if memory is None else memory * _MB,
        idle_seconds=idle,
        chat_format=format,
        sampling=sampling,  # type: ignore[arg-type]
        speculate="+".join(["lookup"] * lookup + ["draft"] * (draft is not None)) or None,
        draft=None if draft is None else opening.model_file(draft),
        page=not no_page,
    )
    files = dict(zip(names, map(opening.model_file, models), strict=True))
    listening = listen(host, port, open_to_others=bool(keys) or no_key)
    run(
        files,
        settings,
        listening,
        open_model=functools.partial(Model, threads=opening.threads, ln_x_eps=opening.ln_x_eps),
        tokenizer=open_tokenizer(tokenizer),
        drain_seconds=drain,
        tell=complain,
    )


def _names(models: list[str], aliases: list[str]) -> list[str]:
    """Return what clients call the models."""
    if len(aliases) > len(models):
        raise typer.BadParameter(
            f"expected at most one for each of {len(models)} models, got {len(aliases)}",
            param_hint="--alias",
        )
    names = list(aliases)
    for model in models[len(aliases) :]:
        path = Path(model)
        names.append(path.stem if path.exists() else model)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise typer.BadParameter(
            f"expected another name for each model, got {twice} again", param_hint="--alias"
        )
    return names


def _keys(file: Path | None) -> tuple[str, ...]:
    """Return the keys of a file, else those of the environment."""
    if file is None:
        return tuple(os.environ.get(_KEYS, "").split())
    try:
        text = file.read_text(encoding="utf-8")
    except ValueError:
        raise InvalidArgumentError(f"{file}: expected keys in UTF-8, got other bytes") from None
    keys = tuple(text.split())
    if not keys:
        raise InvalidArgumentError(f"{file}: expected a key in each line, got none")
    return keys
