"""`apbatch events`: searching events."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Annotated

import typer

from apbatch.cli.output import (
    ColumnsOption,
    Format,
    FormatOption,
    column_named,
    columns_named,
    or_reason,
    show,
    show_text,
)

#: What fits a terminal.
_USUAL = ("run", "event", "cleaning", "size", "length", "width", "alpha")
_PAIR = ("a_experiment", "a_run", "a_event", "b_experiment", "b_run", "b_event", "time_difference", "angle")
_EVENTS = "Such as \"experiment = 'TAIGA' and cleaning = 'tailcuts-14-7' and size > 200 pe\"."


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("events")(events)
    app.command("check-events")(check_events)
    app.command("coincidences")(coincidences)


def events(
    query: Annotated[str, typer.Argument(help=_EVENTS)] = "",
    format: FormatOption = Format.TABLE,
    columns: ColumnsOption = "",
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many rows.")] = None,
    by: Annotated[str, typer.Option(help="Count by the values of this attribute, such as night.")] = "",
    explain: Annotated[bool, typer.Option("--explain", help="Say how the query would be answered.")] = False,
) -> None:
    """List events by their parameters, one row a cleaning."""
    from apbatch.client.client import connect

    with connect() as catalogue:
        if explain:
            show_text(catalogue.explain(query, events=True))
            return
        attributes = catalogue.attributes(events=True)
        if by.strip():
            by = column_named(by, attributes)
            counts = catalogue.count(query, by, events=True)
            show(({by: value, "events": number} for value, number in counts.items()), format, (by, "events"))
            return
        fields = columns_named(columns, attributes)
        rows = or_reason(
            catalogue.events(query, fields or None, limit),
            format,
            lambda: catalogue.nothing_because(query, events=True),
        )
        show(rows, format, list(attributes), few=_USUAL, subset=columns)


def check_events(
    forget: Annotated[
        bool,
        typer.Option("--forget", help="Leave out parts that are gone or damaged, so that they can be loaded again."),
    ] = False,
    format: FormatOption = Format.TABLE,
) -> int:
    """Compare all stored events with their checksums, and join small parts; status 1 if some parts are bad."""
    from apbatch.config import load_settings
    from apbatch.index.events.upgrade import events_of

    with events_of(load_settings()) as store:
        faults = store.check(forget=forget)
        if not faults:
            store.compact()
    show(
        ({"part": fault.where, "fault": fault.what, "forgotten": forget} for fault in faults),
        format,
        ("part", "fault", "forgotten"),
    )
    return 1 if faults and not forget else 0


def coincidences(
    first: Annotated[str, typer.Argument(help="Name of an experiment, or a query of events.")],
    second: Annotated[str, typer.Argument(help="The same of the other experiment.")],
    within: Annotated[
        str, typer.Option("--within", help="Largest difference of the times, such as 1ms; in ns without a unit.")
    ],
    angle: Annotated[str, typer.Option("--angle", help="Largest angle between the directions, such as 2deg.")] = "",
    frame: Annotated[
        str, typer.Option("--frame", help="Of the directions: horizon (zenith, azimuth) or sky (right ascension).")
    ] = "horizon",
    nearest: Annotated[
        bool, typer.Option("--nearest", help="Of each event of the first, only the pair that is nearest in time.")
    ] = False,
    spark: Annotated[bool, typer.Option("--spark", help="Search on Spark, over the same Parquet parts.")] = False,
    output: Annotated[str, typer.Option("--output", help="Parquet file to write instead of a table.")] = "",
    columns: ColumnsOption = "",
    format: FormatOption = Format.TABLE,
) -> None:
    """Find events of two experiments within a time and an angle; times are UTC, compared to the nanosecond."""
    from apbatch.client.client import connect
    from apbatch.config import load_settings
    from apbatch.index.events import coincidences as pairs
    from apbatch.index.events.upgrade import events_of
    from apbatch.index.query import written
    from apbatch.units import parse_quantity

    widest = parse_quantity(angle, "deg") if angle else None
    window = pairs.Window(round(parse_quantity(within, "ns")), widest, frame, nearest)  # type: ignore[arg-type]
    reasons: Iterator[str | None] = iter(())
    with ExitStack() as stack:
        if spark:
            settings = load_settings()
            store = stack.enter_context(events_of(settings))
            from apbatch.spark.connect.session import close, session
            from apbatch.spark.inputs.event_search import coincident_pairs

            started = session(settings.spark, "apbatch coincidences")
            stack.callback(close, started)
            pairs_frame = coincident_pairs(started, store, first, second, window)
            batches = iter(pairs_frame.toArrow().cast(pairs.SCHEMA).to_batches())
        else:
            catalogue = stack.enter_context(connect())
            batches = catalogue.coincidences(first, second, window).batches()
            attributes = catalogue.attributes(events=True)
            reasons = (
                catalogue.nothing_because(written(pairs.side(text, attributes)), events=True)
                for text in (first, second)
            )
        if output:
            number = pairs.write(batches, output)
            show([{"pairs": number, "output": output}], format, ("pairs", "output"))
            return
        rows = or_reason(
            (row for batch in batches for row in batch.to_pylist()),
            format,
            lambda: next(filter(None, reasons), None),
        )
        show(rows, format, pairs.COLUMNS, few=_PAIR, subset=columns)
