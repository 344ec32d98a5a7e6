"""Parquet files: read column by column within an episode, and written as LeRobot's own reader wants them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wristworld_ros.errors import UserError
from wristworld_ros.input_files import check_file

FIX = 'restore it from where it came'


@dataclass(frozen=True)
class Table:
    """A Parquet table in memory, and the names of all columns of its file, read or not."""

    path: Path
    content: pa.Table
    all_names: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """Columns that are here."""
        return self.content.column_names

    def __len__(self) -> int:
        return self.content.num_rows

    def arrow(self, name: str) -> pa.Array:
        """A column as one array of Arrow's."""
        chunks = self.content.column(name).chunks
        return chunks[0] if len(chunks) == 1 else pa.concat_arrays(chunks) if chunks else pa.array([], pa.float64())

    def array(self, name: str) -> np.ndarray:
        """A column of numbers, [T] or [T, ...] as it is nested; missing values become NaN.

        Raises:
            UserError: It holds no numbers, or vectors of different lengths.
        """
        return numbers(self.arrow(name), f"{self.path}: column '{name}'")


def numbers(array: pa.Array, source: str) -> np.ndarray:
    """An array of numbers or of equally nested numbers, [T] or [T, ...]; missing values become NaN.

    Args:
        array: T values.
        source: What to call it in messages.

    Raises:
        UserError: It holds no numbers, or vectors of different lengths.
    """
    shape = [len(array)]
    while pa.types.is_list(array.type) or pa.types.is_fixed_size_list(array.type) or pa.types.is_large_list(array.type):
        inner, outer = array.flatten(), len(array)
        width = len(inner) // outer if outer else 0
        if width * outer != len(inner) or not _equal_lengths(array, width):
            raise UserError(f'{source} holds vectors of different lengths', FIX)
        shape.append(width)
        array = inner
    kind = array.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise UserError(f'{source} is {kind}, and numbers are wanted', FIX)
    return array.to_numpy(zero_copy_only=False).reshape(shape)


def _equal_lengths(column: pa.Array, length: int) -> bool:
    if pa.types.is_fixed_size_list(column.type):
        return True
    return bool((np.diff(column.offsets.to_numpy()) == length).all())


def column_names(path: Path) -> list[str]:
    """Names of the columns of a file; errors as in `read_table`."""
    return _opened(path).schema_arrow.names


def read_table(
    path: Path,
    columns: list[str] | None = None,
    episode: int | None = None,
    skip_prefix: str | None = None,
    leave_out: Collection[str] = (),
) -> Table:
    """Read a file.

    Args:
        path: The file.
        columns: Only these, as far as they are there; None takes all.
        episode: Only rows whose `episode_index` it is; row groups of other episodes are not read.
        skip_prefix: Leave out the columns that begin with it.
        leave_out: Columns that are not read.

    Raises:
        UserError: There is no such file, or it is no Parquet file or damaged.
    """
    names = _opened(path).schema_arrow.names
    chosen = [
        name
        for name in names
        if (columns is None or name in columns)
        and name not in leave_out
        and not (skip_prefix and name.startswith(skip_prefix))
    ]
    by_episode = episode is not None and 'episode_index' in names
    try:
        content = pq.read_table(
            path, columns=chosen, filters=[('episode_index', '=', episode)] if by_episode else None, partitioning=None
        )
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    return Table(path, content, tuple(names))


def table_rows(table: Table) -> list[dict[str, Any]]:
    """A table as dictionaries, one a row."""
    return table.content.to_pylist()


def extend_table(
    source: Path,
    target: Path,
    more: Callable[[pa.Table], dict[str, pa.Array]],
    metadata: Callable[[dict[bytes, bytes]], dict[bytes, bytes]] = lambda found: found,
) -> None:
    """Write a file with columns more, row group by row group; what it held stays as it was, values, types and row groups.

    Args:
        source: The file.
        target: Where the other one goes.
        more: Given a row group, its further columns by name.
        metadata: Given the metadata of the schema, those of the new one.

    Raises:
        UserError: The source cannot be read.
    """
    writer = None
    try:
        with _opened(source) as file:
            groups = max(file.num_row_groups, 1)
            kind = file.metadata.row_group(0).column(0).compression if file.num_row_groups else 'SNAPPY'
            for group in range(groups):
                table = file.read_row_group(group) if file.num_row_groups else file.read()
                for name, array in more(table).items():
                    table = table.append_column(name, array)
                table = table.replace_schema_metadata(metadata(table.schema.metadata or {}))
                if writer is None:
                    kind = 'NONE' if kind == 'UNCOMPRESSED' else kind
                    writer = pq.ParquetWriter(target, table.schema, compression=kind)
                writer.write_table(table, row_group_size=max(len(table), 1))
    except pa.ArrowException as error:
        raise _unreadable(source, error) from None
    finally:
        if writer is not None:
            writer.close()


def _opened(path: Path) -> pq.ParquetFile:
    check_file(path, FIX)
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> UserError:
    reason = (str(error) or type(error).__name__).splitlines()[0].rstrip('.')
    return UserError(f'{path} cannot be read as a Parquet file ({reason})', FIX)
