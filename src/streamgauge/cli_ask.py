"""The commands that ask what is stored. Each imports what it needs when it runs."""

from __future__ import annotations

from typing import Any

import click

from streamgauge.cli_options import Folder, access_options


@click.command(
    short_help="Evaluate a PromQL expression.",
    epilog="""\b
T is Unix seconds, RFC 3339 or a time before now:
  1767225600, 2026-01-01T00:00:00Z, -5m, now
Put -- before an EXPRESSION that begins with a minus.
""",
)
@click.argument("expression")
@click.option("--server", metavar="URL", help="Server to ask. Also STREAMGAUGE_SERVER.")
@click.option("--data", type=Folder(), help="Data folder to read, through the server that holds it if one does.")
@click.option("--time", "time_", metavar="T", help="Moment of an instant query. Default: now.")
@click.option("--start", metavar="T", help="First moment of a range query. Default: an hour before its end.")
@click.option("--end", metavar="T", help="Last moment of a range query. Default: now.")
@click.option(
    "--step", metavar="D", help="Distance of a range query's points, such as 15s. Default: for about 200 points."
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["table", "json", "csv", "graph"]),
    help="Form of the answer. Default: table, or json where the output is no terminal. graph is a range query.",
)
@access_options
def query(expression: str, format_: str | None, time_: str | None, **options: Any) -> None:
    """Evaluate the PromQL EXPRESSION on a server, or straight from a data folder that no server holds.

    Without --server and --data, ./streamgauge-data is read if it is there; else http://127.0.0.1:4318 is asked.
    """
    from streamgauge.commands.query import run_query

    run_query(expression, format_, time_, **options)


@click.command(
    short_help="Answer a SELECT over events and samples.",
    epilog="""\b
Views: events, logs, spans, streams, series, samples, metrics; DESCRIBE events
shows the columns of one. QUERY is - to read it from standard input.
  streamgauge sql "SELECT time, severity, message FROM logs LIMIT 20"
  streamgauge sql "SELECT payload.path, count(*) FROM events GROUP BY 1"
""",
)
@click.argument("query", metavar="QUERY")
@click.option("--server", metavar="URL", help="Server to ask. Also STREAMGAUGE_SERVER.")
@click.option("--data", type=Folder(), help="Data folder to read, through the server that holds it if one does.")
@click.option(
    "--param", "parameters", multiple=True, metavar="VALUE", help="Value of $1; given again of $2, and so on."
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["table", "json", "ndjson", "csv", "arrow", "parquet"]),
    help="Form of the answer. Default: table, or ndjson where the output is no terminal.",
)
@click.option("--output", type=click.Path(dir_okay=False), metavar="FILE", help="Write to FILE.")
@access_options
def sql(query: str, format_: str | None, **options: Any) -> None:
    """Answer the SELECT that QUERY is, from a server, or straight from a data folder that no server holds.

    Without --server and --data, ./streamgauge-data is read if it is there; else http://127.0.0.1:4318 is asked.
    """
    from streamgauge.commands.sql import run_sql

    run_sql(query, format_, **options)


@click.command(
    short_help="Write events or samples to a file.",
    epilog="""\b
T is Unix seconds, RFC 3339 or a time before now:
  1767225600, 2026-01-01T00:00:00Z, -5m, now
""",
)
@click.argument("kind", type=click.Choice(["events", "samples"]))
@click.argument("selectors", nargs=-1, metavar="[SELECTOR]...")
@click.option("--where", metavar="CONDITION", help="As SQL has it after WHERE, over the view events, or metrics.")
@click.option("--start", metavar="T", help="First moment: of events, when they were received. Default: the first.")
@click.option("--end", metavar="T", help="Last moment. Default: the last there is.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["parquet", "csv", "ndjson"]),
    help="Default: as FILE ends, .parquet, .csv, .ndjson or .jsonl.",
)
@click.option("--output", type=click.Path(dir_okay=False), required=True, metavar="FILE", help="What to write.")
@click.option("--server", metavar="URL", help="Server to ask. Also STREAMGAUGE_SERVER.")
@click.option("--data", type=Folder(), help="Data folder to read, through the server that holds it if one does.")
@access_options
def export(kind: str, selectors: tuple[str, ...], **options: Any) -> None:
    """Write all events, or the samples of the series that any SELECTOR selects, to a FILE, which appears when it is
    whole.

    Without --server and --data, ./streamgauge-data is read if it is there; else http://127.0.0.1:4318 is asked.
    """
    from streamgauge.commands.exporting import run_export

    run_export(kind, selectors, **options)


@click.command(
    short_help="Follow events or samples as they are stored.",
    epilog="""\b
A FILTER is one of these; all of them must hold:
  level=ERROR          a field of the event: = != < <= > >= ~ !~
  'http.status>=500'   ~ and !~ are RE2, found anywhere in the value
  stream=12            a stream, by its number or name
  text=timeout         what the event's JSON has in it; also timeout alone
  'up{job="api"}'      with --kind samples: a selector of series
Where standard input is a terminal, space pauses and goes on.
""",
)
@click.argument("filters", nargs=-1, metavar="[FILTER]...")
@click.option("--since", metavar="T", help="Begin in the past: a duration such as 5m, or a time.")
@click.option("--kind", type=click.Choice(["events", "samples"]), default="events", show_default=True)
@click.option("--server", metavar="URL", help="Server to follow. Also STREAMGAUGE_SERVER.")
@click.option("--json", "as_json", is_flag=True, help="Lines of JSON, as the server sends them.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="End after N of them.")
@access_options
def tail(filters: tuple[str, ...], **options: Any) -> None:
    """Show events as they are stored, a line each, coloured by level; with --kind samples, samples.

    Ends with Ctrl-C. When the server goes away it is asked again until it is back, and nothing is missed. Without
    --server the one that holds ./streamgauge-data is followed if it is there; else http://127.0.0.1:4318.
    """
    from streamgauge.commands.tail import run_tail

    run_tail(filters, **options)


@click.command(short_help="Show which series there are, and which are new.")
@click.argument("selectors", nargs=-1, metavar="[SELECTOR]...")
@click.option("--server", metavar="URL", help="Server to ask. Also STREAMGAUGE_SERVER.")
@click.option("--data", type=Folder(), help="Data folder to read, through the server that holds it if one does.")
@click.option(
    "--by",
    default="metric",
    show_default=True,
    help="What to count for: metric, label (its values), pair (label=value), or names of labels, such as job,instance.",
)
@click.option("--since", metavar="D", default="1h", show_default=True, help="How far back to look for what is new.")
@click.option("--end", metavar="T", help="Moment to look back from. Default: now.")
@click.option(
    "--order",
    type=click.Choice(["series", "active", "created", "ended"]),
    default="created",
    show_default=True,
    help="What to show the largest of.",
)
@click.option("--limit", type=click.IntRange(1, 10_000), default=10, show_default=True, help="Rows of the table.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["table", "json"]),
    help="Form of the answer. Default: table, or json where the output is no terminal.",
)
@access_options
def cardinality(selectors: tuple[str, ...], format_: str | None, **options: Any) -> None:
    """Show how many series there are, which grew, since when and from where: of all, or of those that match a SELECTOR.

    Without --server and --data, ./streamgauge-data is read if it is there; else http://127.0.0.1:4318 is asked.
    """
    from streamgauge.commands.cardinality import run_cardinality

    run_cardinality(selectors, format_, **options)
