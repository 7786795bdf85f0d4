"""The options that describe a cleaning, declared once for the commands that take one."""

# No `from __future__ import annotations`: the annotations of `cleaning_in` are handed on as they are.
import inspect
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from apbatch.camera.cleaning_rule import Cleaning

#: Of the parameter that `takes_cleaning` fills in.
CleaningOptions = Annotated["Cleaning | None", typer.Option(help="Described by the options of `cleaning_in`.")]
_RULE = "rule"


def cleaning_in(
    cleaning: Annotated[
        str | None, typer.Option("--cleaning", metavar="NAME", help="A preset, a name as tailcuts-14-7, or a method.")
    ] = None,
    picture: Annotated[
        str | None, typer.Option("--picture", metavar="LEVEL", help="Of pixels of the picture: '14 pe', '4 sigma'.")
    ] = None,
    boundary: Annotated[
        str | None, typer.Option("--boundary", metavar="LEVEL", help="Of pixels beside them: '7 pe', '2 sigma'.")
    ] = None,
    min_neighbours: Annotated[
        int | None, typer.Option("--min-neighbours", help="Neighbours of a picture pixel in the picture.")
    ] = None,
    keep_isolated: Annotated[
        bool, typer.Option("--keep-isolated", help="Keep picture pixels that stand alone.")
    ] = False,
    time_limit: Annotated[
        str | None, typer.Option("--time-limit", metavar="TIME", help="To a kept neighbour, such as '5 ns'.")
    ] = None,
    time_neighbours: Annotated[
        int | None, typer.Option("--time-neighbours", help="Such neighbours that a pixel needs; else 1.")
    ] = None,
    largest_island: Annotated[bool, typer.Option("--largest-island", help="Keep the largest island only.")] = False,
) -> "Cleaning | None":
    """Return the cleaning that the options describe, None without any of them; see `apbatch.camera.cleaning_words`.

    Raises
    ------
    NotFoundError, UsageError
        As `apbatch.camera.cleaning_words.cleaning_of`.
    """
    words = dict(locals())
    from apbatch.camera.cleaning_words import cleaning_of

    words = {word: value for word, value in words.items() if value not in (None, False)}
    return cleaning_of(**words) if words else None


def takes_cleaning(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a cleaning where it has the parameter ``rule``, which gets the cleaning."""
    options = inspect.signature(cleaning_in).parameters

    @wraps(command)
    def with_options(**values: Any) -> None:
        words = {name: values.pop(name) for name in options}
        command(**values, **{_RULE: cleaning_in(**words)})

    own = inspect.signature(command, eval_str=True).parameters.values()
    both = [one for parameter in own for one in (options.values() if parameter.name == _RULE else [parameter])]
    with_options.__signature__ = inspect.Signature(both)  # type: ignore[attr-defined]
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in both}
    return with_options
