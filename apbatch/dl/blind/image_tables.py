"""Datasets of images, image parameters and truth as tables, put side by side by their keys.

What has another type than it must have, or no value where one is needed, is an error that names the dataset.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from apbatch.datasets.dataset import is_complete, part_files, read_table
from apbatch.errors import FormatError, NotFoundError, nearest_word
from apbatch.formats.images import IMAGE_KEY
from apbatch.formats.parquet import open_parquet, reading
from apbatch.storage.backends import open_store


def read_truth(url: str) -> pa.Table:
    """Read a dataset, or a plain folder of Parquet files, as which a Monte Carlo leaves its truth.

    Raises
    ------
    NotFoundError, FormatError
        If there are no such files, or one is damaged.
    """
    if is_complete(url):
        return read_table(url)
    store = open_store(url)
    tables = []
    for name in part_files(url):
        with store.open(name) as stream, reading(store.url_of(name)):
            tables.append(open_parquet(stream, store.url_of(name)).read().replace_schema_metadata(None))
    if not tables:
        raise NotFoundError("there are no Parquet files of the truth", where=url)
    return pa.concat_tables(tables, promote_options="permissive")


def need(table: pa.Table, where: str, columns: tuple[str, ...]) -> None:
    """Raise a FormatError with the nearest name if a column is missing.

    Parameters
    ----------
    table : pa.Table
    where : str
        URL of the dataset, for the message.
    columns : tuple of str
    """
    for name in columns:
        if name not in table.column_names:
            raise FormatError(
                f"there is no column '{name}'", where=where, nearest=nearest_word(name, table.column_names)
            )


def numbers(table: pa.Table, name: str, where: str) -> npt.NDArray[np.float64]:
    """Return a column of numbers, NaN where there is none; another column is a FormatError.

    Parameters
    ----------
    table : pa.Table
    name : str
    where : str
        URL of the dataset, for the message.
    """
    return np.asarray(converted(table[name], pa.float64(), name, where).to_numpy(), np.float64)


def converted(column: pa.ChunkedArray, to: pa.DataType, name: str, where: str) -> pa.ChunkedArray:
    """Return a column with another type; a FormatError if its values are none of that type.

    Parameters
    ----------
    column : pa.ChunkedArray
    to : pa.DataType
    name : str
        Of the column, for the message.
    where : str
        URL of the dataset, for the message.
    """
    try:
        return column.cast(to)
    except pa.ArrowException as error:
        reason = str(error).split("\n", 1)[0][:120]
        raise FormatError(f"the column '{name}' is of {column.type}, not of {to}: {reason}", where=where) from error


def words(table: pa.Table, name: str, where: str) -> pa.ChunkedArray:
    """Return a column of text; one of another type is a FormatError.

    Parameters
    ----------
    table : pa.Table
    name : str
    where : str
        URL of the dataset, for the message.
    """
    column = table[name]
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
        raise FormatError(f"the column '{name}' is of {kind}, not of text", where=where)
    return column.cast(pa.string())


def no_gaps(table: pa.Table, where: str, columns: tuple[str, ...]) -> None:
    """Raise a FormatError if a value is missing in a column.

    Parameters
    ----------
    table : pa.Table
    where : str
        URL of the dataset, for the message.
    columns : tuple of str
    """
    for name in columns:
        if missing := table[name].null_count:
            raise FormatError(f"{missing} of {table.num_rows} images have no '{name}'", where=where)


def in_order(table: pa.Table, where: str, columns: tuple[str, ...]) -> pa.Table:
    """Order a table by the key of an image; an image that occurs twice would count twice, so it is an error.

    Parameters
    ----------
    table : pa.Table
    where : str
        URL of the dataset, for the message.
    columns : tuple of str
        That must be there beside the key.

    Raises
    ------
    FormatError
        Also for a key with a part that is missing, or has no order.
    """
    need(table, where, (*IMAGE_KEY, *columns))
    no_gaps(table, where, IMAGE_KEY)
    for name in IMAGE_KEY:
        kind = table[name].type
        if pa.types.is_dictionary(kind):
            plain = table[name].cast(kind.value_type)
            table = table.set_column(table.column_names.index(name), name, plain)
        elif pa.types.is_nested(kind):
            raise FormatError(f"the column '{name}' is of {kind}, which is no key", where=where)
    order = pc.sort_indices(table.select(IMAGE_KEY), sort_keys=[(key, "ascending") for key in IMAGE_KEY])
    table = table.take(order)
    if table.num_rows > 1:
        keys = table.select(IMAGE_KEY)
        same = np.ones(table.num_rows - 1, bool)
        for key in IMAGE_KEY:
            column = keys[key].combine_chunks()
            same &= pc.equal(column[1:], column[:-1]).to_numpy(zero_copy_only=False)
        if same.any():
            row = {key: keys[key][int(np.flatnonzero(same)[0])].as_py() for key in IMAGE_KEY}
            raise FormatError(f"{int(same.sum())} images occur twice, the first is {row}", where=where)
    return table


def match(first: pa.Table, others: list[tuple[pa.Table, str]]) -> tuple[pa.Table, list[pa.Table]]:
    """Keep the images that occur in every table; all come back in the order of the first.

    Parameters
    ----------
    first : pa.Table
        With the key of an image, whose types count.
    others : list of (pa.Table, str)
        Each with the URL of its dataset, for messages.

    Raises
    ------
    FormatError
        If keys are none of the types that the first table has.
    """
    joined = first.select(IMAGE_KEY).append_column("row_first", pa.array(np.arange(first.num_rows)))
    for number, (other, where) in enumerate(others):
        keys = {key: converted(other[key], first.schema.field(key).type, key, where) for key in IMAGE_KEY}
        rows = pa.table({**keys, f"row_{number}": pa.array(np.arange(other.num_rows))})
        joined = joined.join(rows, list(IMAGE_KEY), join_type="inner")
    joined = joined.sort_by("row_first")
    return (
        first.take(joined["row_first"]),
        [other.take(joined[f"row_{number}"]) for number, (other, _) in enumerate(others)],
    )
