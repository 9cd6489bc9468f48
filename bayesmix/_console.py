"""Around every command: outputs checked before the work, warnings and interrupts kept plain."""

import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import typer
from typer.exceptions import TyperException


class BadInputError(ValueError):
    """An argument that cannot be used."""


class InterruptedCommand(Exception):
    """An interrupt that leaves something: the message says what."""


def complain(kind: str, message: str) -> None:
    typer.echo(f"{kind}: {message}", err=True)


def with_value(error: TyperException, words: Sequence[str]) -> str:
    """What is wrong with a command, and what the option was given where that is not said."""
    said = error.format_message()
    names = [name for name in getattr(getattr(error, "param", None), "opts", []) if name[0] == "-"]
    for word, following in pairwise([*words, ""]):
        name, equals, value = word.partition("=")
        if name in names:
            value = value if equals else following
            return said if value in said else f"{said}: {name} {value}"
    return said


def check_out(out: Path, *inputs: Path) -> None:
    """Refuse an output that could not be written, before the work."""
    if out.is_dir():
        raise BadInputError(f"{out}: a directory, not a file")
    if any(out.exists() and path.exists() and out.samefile(path) for path in inputs):
        raise BadInputError(f"{out}: an input, which would be overwritten")
    _check_writable(out.parent)


def check_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise BadInputError(f"{out}: a file, not a directory")
    _check_writable(out if out.exists() else out.parent)


def _check_writable(folder: Path) -> None:
    if not folder.is_dir():
        raise BadInputError(f"{folder}: no such directory")
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise BadInputError(f"{folder}: cannot be written: {error.strerror}") from None


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Show warnings about tables as one line each; others as Python shows them."""
    from bayesmix.runs import RunsWarning

    with warnings.catch_warnings():
        warnings.simplefilter("always", RunsWarning)
        python_shows = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, RunsWarning):
                complain("warning", str(message))
            else:
                python_shows(message, category, *place, **more)

        warnings.showwarning = show
        yield


@contextmanager
def rows_done(total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar of rows on a terminal; what is given counts some as done."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("rows", total=total)
        yield lambda count: bar.advance(task, count)


@contextmanager
def leaving(said: str) -> Iterator[None]:
    """Have an interrupt say what it leaves."""
    try:
        yield
    except KeyboardInterrupt:
        raise InterruptedCommand(said) from None


@contextmanager
def interruptible() -> Iterator[None]:
    """Keep an interrupt an interrupt: the sampler answers one with the draws it has so far."""
    interrupted = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if interrupted:
            raise KeyboardInterrupt
