"""`rwkv batch`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from ..batch import Journal, Lines, Outputs, Progress, name_of_work, work_through
from ..errors import InvalidArgumentError
from ..model import Model
from ..state_folder import StateFolder
from ..tokenizer import Tokenizer
from .ending import run_async
from .options import MODEL_HELP, AsJson, Opening, TokenizerOption, open_tokenizer, with_groups
from .output import progress_bar, show
from .sampling import sampling_options
from .streams import stderr

if TYPE_CHECKING:
    from ..server import Settings

_MB = 1 << 20
_FOR_EVER = 1e9  # seconds that a text may take: one that was cut by time would not come again


@sampling_options(lambda setting: "0" if setting.name == "seed" else "the chat format's")
@with_groups
def batch(
    *,
    requests: Annotated[
        Path, typer.Argument(metavar="IN.jsonl", help="Requests, one a line.", show_default=False)
    ],
    answers: Annotated[
        Path, typer.Argument(metavar="OUT.jsonl", help="Where answers go.", show_default=False)
    ],
    errors: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Where it is told of lines that failed, if any did.",
            show_default="OUT.errors.jsonl",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help=MODEL_HELP, show_default="the first that a line names"),
    ] = None,
    alias: Annotated[
        str | None,
        typer.Option(
            help="What lines call the model.", show_default="its file's name, or as it was given"
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace what other work has left there.", metavar=""),
    ] = False,
    format: Annotated[
        str | None,
        typer.Option(help="How chats are written.", show_default="the model file's, or world"),
    ] = None,
    max_running: Annotated[int, typer.Option(min=1, help="Texts that are written at once.")] = 32,
    max_prompt: Annotated[int, typer.Option(min=1, help="Tokens of a prompt.")] = 131072,
    max_output: Annotated[int, typer.Option(min=1, help="Tokens of a text.")] = 16384,
    max_line: Annotated[int, typer.Option(min=1, help="Megabytes of a line.")] = 16,
    cache: Annotated[
        int, typer.Option(min=0, help="Megabytes of states, for what lines begin with alike.")
    ] = 512,
    lookup: Annotated[
        bool,
        typer.Option(
            "--lookup",
            help="Guess what followed the same words before, where a line does not say: the same "
            "texts, faster where they repeat what was read.",
            metavar="",
        ),
    ] = False,
    tokenizer: TokenizerOption = None,
    as_json: AsJson = False,
    sampling: dict[str, Any],
    opening: Opening,
) -> None:
    """Answer a file of requests, in the form of OpenAI's Batch API.

    Interrupted by whatever it may be, the same command goes on where it was, and the output is the
    same to the byte. Lines that fail do not stop it. The options of sampling hold where a line
    gives none.
    """
    from ..server import Settings

    sampling.pop("stop", None)
    seed = sampling.pop("seed", 0)
    outputs = Outputs(
        answers, errors or answers.with_name(f"{answers.stem}.errors{answers.suffix}")
    )
    outputs.check_names(requests)
    settings = Settings(
        max_running=max_running,
        max_waiting=1 << 30,
        max_prompt_tokens=max_prompt,
        max_output_tokens=max_output,
        max_seconds=_FOR_EVER,
        max_stored=0,
        cache_bytes=cache * _MB,
        exact_cache=True,  # else what is found in it depends on what was read before
        chat_format=format,
        sampling=sampling,  # type: ignore[arg-type]
        speculate="lookup" if lookup else None,
    )
    vocabulary = open_tokenizer(tokenizer)
    with progress_bar("Looking at lines", "bytes") as told:
        lines = Lines(requests, max_bytes=max_line * _MB, progress=told)
    with lines:
        named = model or lines.model
        if named is None:
            raise InvalidArgumentError(
                f"{requests}: expected a line that names a model, got none", remedy="Try --model"
            )
        if alias is None:
            alias = Path(named).stem if model is not None and Path(named).exists() else named
        opened = opening.model(named)
        facts = {
            "input": lines.digest,
            "model": StateFolder.model_name(opened),
            "name of the model": alias,
            "tokenizer": tokenizer,
            "format": format,
            "seed": seed,
            "limits": [max_prompt, max_output, max_line],
            "sampling": {name: _plain(value) for name, value in sorted(sampling.items())},
        }
        begun = time.monotonic()
        journal = outputs.open_journal(facts, len(lines), force=force)
        n_tokens = 0
        if journal is not None:
            with journal:
                work = name_of_work(facts)
                n_tokens = _answer(lines, journal, work, alias, opened, settings, vocabulary, seed)
                outputs.write(journal, len(lines))
                journal.delete()
    seconds = None if journal is None else time.monotonic() - begun
    _summarise(outputs, n_tokens, seconds, as_json=as_json)


def _answer(
    lines: Lines,
    journal: Journal,
    work: str,
    name: str,
    model: Model,
    settings: Settings,
    tokenizer: Tokenizer | None,
    seed: int,
) -> int:
    """Answer what the journal does not know; return how many tokens that took."""
    from ..server.batch_answers import BatchAnswers
    from ..server.context import open_context

    async def answer(tell: Callable[[Progress], object]) -> None:
        opening = open_context(
            {name: Path(model.path)}, settings, open_model=lambda _: model, tokenizer=tokenizer
        )
        async with opening as context:
            answers = BatchAnswers(context, "", "", work, seed, 0)
            at_once = 2 * settings.max_running  # so that as many wait as are written
            await work_through(
                lines, journal, answers.answer, work=work, at_once=at_once, progress=tell
            )

    with _bar() as tell:
        run_async(answer(tell))
        return tell.n_tokens


class _Teller:
    """Shows how far the work is.

    Attributes:
        n_tokens: how many tokens it has taken.
    """

    def __init__(self, bar: Bar):
        self.n_tokens = 0
        self._bar = bar
        self._task = bar.add_task("Answering", total=None, told="")
        self._begun = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        """Show it."""
        self.n_tokens = progress.n_tokens
        if self._bar.disable:
            return
        rate = progress.n_tokens / max(time.monotonic() - self._begun, 1e-3)
        told = f"lines, {progress.n_failed:,} failed, {rate:,.0f} tokens/s"
        done, total = progress.n_done, progress.n_lines
        self._bar.update(self._task, completed=done, total=total, told=told)


@contextlib.contextmanager
def _bar() -> Iterator[_Teller]:
    bar = Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[told]}"),
        TimeRemainingColumn(),
        console=stderr,
        transient=True,
        disable=not stderr.is_terminal,
    )
    with bar:
        yield _Teller(bar)


def _plain(value: Any) -> Any:
    """Return a setting as JSON can hold it."""
    return sorted(map(list, value.items())) if isinstance(value, dict) else value


def _summarise(outputs: Outputs, n_tokens: int, seconds: float | None, *, as_json: bool) -> None:
    """Tell what there is now, and what was done for it in some seconds; None: nothing was left."""
    n_answered, n_failed = outputs.count()
    facts = {
        "answers": str(outputs.answers),
        "failures": str(outputs.failures) if n_failed else None,
        "n_answered": n_answered,
        "n_failed": n_failed,
        "n_tokens": n_tokens,
        "seconds": seconds or 0.0,
    }
    rows = [("answered", f"{_lines(n_answered)}, in {outputs.answers}")]
    if n_failed:
        rows.append(("failed", f"{_lines(n_failed)}, in {outputs.failures}"))
    told = "nothing was left to do"
    if seconds is not None:
        rate = n_tokens / max(seconds, 1e-9)
        told = f"{n_tokens:,} tokens in {seconds:.1f} s, {rate:,.0f} a second"
    rows.append(("now", told))
    show(facts, rows, as_json=as_json)


def _lines(n: int) -> str:
    return "1 line" if n == 1 else f"{n:,} lines"
