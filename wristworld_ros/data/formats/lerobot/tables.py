"""Parquet files: read column by column within an episode, and written as LeRobot's own reader wants them."""

from __future__ import annotations

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

    def array(self, name: str) -> np.ndarray:
        """A column of numbers, [T] or [T, ...] as it is nested; missing values become NaN.

        Raises:
            UserError: It holds no numbers, or vectors of different lengths.
        """
        column = self.content.column(name).combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
        shape = [len(column)]
        while (
            pa.types.is_list(column.type)
            or pa.types.is_fixed_size_list(column.type)
            or pa.types.is_large_list(column.type)
        ):
            inner = column.flatten()
            outer = int(np.prod(shape))
            if outer and (len(inner) % outer or not _equal_lengths(column, len(inner) // outer)):
                raise UserError(f"{self.path}: the vectors of column '{name}' differ in length", FIX)
            shape.append(len(inner) // outer if outer else 0)
            column = inner
        if not (
            pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_boolean(column.type)
        ):
            raise UserError(f"{self.path}: column '{name}' is {column.type}, and numbers are wanted", FIX)
        return column.to_numpy(zero_copy_only=False).reshape(shape)


def _equal_lengths(column: pa.Array, length: int) -> bool:
    if pa.types.is_fixed_size_list(column.type):
        return True
    return bool((np.diff(column.offsets.to_numpy()) == length).all())


def column_names(path: Path) -> list[str]:
    """Names of the columns of a file; errors as in `read_table`."""
    return _opened(path).schema_arrow.names


def read_table(
    path: Path, columns: list[str] | None = None, episode: int | None = None, skip_prefix: str | None = None
) -> Table:
    """Read a file.

    Args:
        path: The file.
        columns: Only these, as far as they are there; None takes all.
        episode: Only rows whose `episode_index` it is; row groups of other episodes are not read.
        skip_prefix: Leave out the columns that begin with it.

    Raises:
        UserError: There is no such file, or it is no Parquet file or damaged.
    """
    names = _opened(path).schema_arrow.names
    chosen = [
        name
        for name in names
        if (columns is None or name in columns) and not (skip_prefix and name.startswith(skip_prefix))
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


def _opened(path: Path) -> pq.ParquetFile:
    check_file(path, FIX)
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> UserError:
    reason = (str(error) or type(error).__name__).splitlines()[0].rstrip('.')
    return UserError(f'{path} cannot be read as a Parquet file ({reason})', FIX)
