"""The files of a LeRobot data set while it is written: episodes are added one by one, and `finish` says what they are."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile
from typing import Any

import av
import pyarrow as pa
import pyarrow.parquet as pq

from wristworld_ros.data.formats.lerobot import layout
from wristworld_ros.data.formats.lerobot.features import Column, arrow_metadata
from wristworld_ros.data.formats.lerobot.layout import V21, V30
from wristworld_ros.data.formats.lerobot.stats import NAMES_V21, Stats, as_lists, combine
from wristworld_ros.data.video_copy import JoinedVideo
from wristworld_ros.errors import UserError
from wristworld_ros.input_files import json_text

_CHUNK = 1000  # files in a folder
_DATA_MB, _VIDEO_MB = 100, 200  # sizes at which a file is full
_MB = 1 << 20
_BATCH = 200  # episodes whose rows are written at once


@dataclass(frozen=True)
class AddedEpisode:
    """An episode, ready to be added: its number, that of its first frame, how many frames, its tasks, columns and statistics by
    key, and for each video the file that holds its frames and when they begin in it, seconds."""

    number: int
    first: int
    length: int
    tasks: tuple[str, ...]
    columns: dict[str, Column]
    videos: dict[str, tuple[Path, float]]
    stats: dict[str, Stats]


class Tree(ABC):
    """What both versions of the format have in common.

    Args:
        folder: The directory of the set.
        fps: Frames per second.
        columns: Entries of `features` for the columns.
        videos: Keys of the videos.
        robot_type: What the set says of the robot, or None.
    """

    version: str

    def __init__(
        self, folder: Path, fps: int, columns: dict[str, dict[str, Any]], videos: list[str], robot_type: str | None
    ):
        self._folder, self._fps, self._columns, self._videos = folder, fps, columns, videos
        self._robot_type = robot_type
        self._tasks: dict[str, int] = {}
        self._episodes = self._frames = 0
        self._stats: dict[str, list[Stats]] = {}
        (folder / 'meta').mkdir(parents=True)

    @abstractmethod
    def add(self, episode: AddedEpisode) -> None:
        """Add an episode; its files are copied or joined to others."""

    @abstractmethod
    def first_video(self, key: str) -> Path:
        """A file of this video, once `finish` was called or the file is full."""

    @abstractmethod
    def _close(self) -> None:
        """Finish the files that are open."""

    @abstractmethod
    def _finish(self, info: dict[str, Any]) -> dict[str, Any]:
        """Write the files of tasks and episodes; returns the head of the set with what this version adds."""

    def task_number(self, text: str) -> int:
        """The number of a task; one that is new gets the next."""
        return self._tasks.setdefault(text, len(self._tasks))

    def close(self) -> None:
        """Finish all files of data and videos."""
        self._close()

    def finish(self, videos: dict[str, dict[str, Any]]) -> None:
        """Write what says what the set holds.

        Args:
            videos: Entries of `features` for the videos.
        """
        info = {
            'codebase_version': self.version, 'robot_type': self._robot_type, 'total_episodes': self._episodes,
            'total_frames': self._frames, 'total_tasks': len(self._tasks), 'chunks_size': _CHUNK, 'fps': self._fps,
            'splits': {'train': f'0:{self._episodes}'},
        }  # fmt: skip
        info = self._finish(info) | {'features': {**videos, **self._columns}}
        (self._folder / layout.INFO).write_text(json_text(info, 4))

    def _table(self, episode: AddedEpisode) -> pa.Table:
        table = pa.table({key: episode.columns[key].values for key in self._columns})
        return table.replace_schema_metadata(arrow_metadata(self._columns, self.version))

    def _count(self, episode: AddedEpisode) -> None:
        self._episodes, self._frames = self._episodes + 1, self._frames + episode.length
        for key, stats in episode.stats.items():
            self._stats.setdefault(key, []).append(stats)


class TreeV21(Tree):
    """v2.1: every episode has files of its own."""

    version = V21

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._lines: dict[str, list[dict[str, Any]]] = {layout.EPISODES_V21: [], layout.STATS_V21: []}

    def add(self, episode: AddedEpisode) -> None:
        """See `Tree.add`."""
        values = {'episode_chunk': episode.number // _CHUNK, 'episode_index': episode.number}
        data = self._folder / layout.DATA_PATH_V21.format(**values)
        data.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(self._table(episode), data, compression='snappy')
        for key, (path, start) in episode.videos.items():
            target = self._folder / layout.VIDEO_PATH_V21.format(video_key=key, **values)
            _write_part(target, self._fps, path, start, episode.length)
        self._lines[layout.EPISODES_V21].append(
            {'episode_index': episode.number, 'tasks': list(episode.tasks), 'length': episode.length}
        )
        stats = {key: as_lists(entry, NAMES_V21) for key, entry in episode.stats.items()}
        self._lines[layout.STATS_V21].append({'episode_index': episode.number, 'stats': stats})
        self._count(episode)

    def first_video(self, key: str) -> Path:
        """See `Tree.first_video`."""
        return self._folder / layout.VIDEO_PATH_V21.format(video_key=key, episode_chunk=0, episode_index=0)

    def _close(self) -> None:
        pass

    def _finish(self, info: dict[str, Any]) -> dict[str, Any]:
        tasks = [{'task_index': number, 'task': text} for text, number in self._tasks.items()]
        for name, lines in (self._lines | {layout.TASKS_V21: tasks}).items():
            (self._folder / name).write_text(''.join(json_text(line, None) for line in lines))
        chunks = -(-self._episodes // _CHUNK)
        return info | {
            'total_videos': self._episodes * len(self._videos), 'total_chunks': chunks,
            'data_path': layout.DATA_PATH_V21, 'video_path': layout.VIDEO_PATH_V21,
        }  # fmt: skip


class TreeV30(Tree):
    """v3.0: episodes share files up to a size."""

    version = V30

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._data = _Numbered(self._folder, layout.DATA_PATH)
        self._data_file: pq.ParquetWriter | None = None
        self._numbered = {key: _Numbered(self._folder, layout.VIDEO_PATH, key) for key in self._videos}
        self._joined: dict[str, JoinedVideo] = {}
        self._rows: list[dict[str, Any]] = []
        self._episodes_file: pq.ParquetWriter | None = None

    def add(self, episode: AddedEpisode) -> None:
        """See `Tree.add`."""
        row = {'episode_index': episode.number, 'tasks': list(episode.tasks), 'length': episode.length}
        table = self._table(episode)
        if self._data_file is None or self._data.bytes + table.nbytes >= _DATA_MB * _MB:
            if self._data_file is not None:
                self._data_file.close()
            self._data_file = pq.ParquetWriter(self._data.next(), table.schema, compression='snappy')
        self._data_file.write_table(table, row_group_size=max(len(table), 1))
        self._data.bytes += table.nbytes
        row |= {'data/chunk_index': self._data.chunk, 'data/file_index': self._data.file}
        row |= {'dataset_from_index': episode.first, 'dataset_to_index': episode.first + episode.length}
        for key, (path, start) in episode.videos.items():
            row |= self._join(key, path, start, episode.length)
        for key, stats in episode.stats.items():
            row |= {f'stats/{key}/{name}': value for name, value in as_lists(stats).items()}
        self._rows.append(row | {'meta/episodes/chunk_index': 0, 'meta/episodes/file_index': 0})
        if len(self._rows) >= _BATCH:
            self._write_rows()
        self._count(episode)

    def first_video(self, key: str) -> Path:
        """See `Tree.first_video`."""
        return self._folder / layout.VIDEO_PATH.format(video_key=key, chunk_index=0, file_index=0)

    def _join(self, key: str, path: Path, start: float, length: int) -> dict[str, Any]:
        joined, place = self._joined.get(key), self._numbered[key]
        if (
            joined is None
            or joined.size + path.stat().st_size >= _VIDEO_MB * _MB
            or not joined.append(path, start, length)
        ):
            if joined is not None:
                joined.close()
            joined = self._joined[key] = JoinedVideo(place.next(), self._fps)
            if not joined.append(path, start, length):
                raise UserError(f'{path} cannot be joined to a video', 'write the set with another codec')
        begin = joined.frames - length
        return {
            f'videos/{key}/chunk_index': place.chunk, f'videos/{key}/file_index': place.file,
            f'videos/{key}/from_timestamp': begin / self._fps, f'videos/{key}/to_timestamp': joined.frames / self._fps,
        }  # fmt: skip

    def _close(self) -> None:
        for joined in self._joined.values():
            joined.close()
        if self._data_file is not None:
            self._data_file.close()
        self._write_rows()
        if self._episodes_file is not None:
            self._episodes_file.close()

    def _write_rows(self) -> None:
        if not self._rows:
            return
        table = pa.Table.from_pylist(self._rows, schema=episodes_schema(self._rows[0]))
        if self._episodes_file is None:
            target = self._folder / layout.EPISODES_PATH.format(chunk_index=0, file_index=0)
            target.parent.mkdir(parents=True)
            self._episodes_file = pq.ParquetWriter(target, table.schema, compression='snappy')
        self._episodes_file.write_table(table)
        self._rows = []

    def _finish(self, info: dict[str, Any]) -> dict[str, Any]:
        tasks = pa.table(
            {'task_index': pa.array(self._tasks.values(), pa.int64()), 'task': pa.array(self._tasks, pa.string())}
        )
        pq.write_table(tasks.replace_schema_metadata({'pandas': _PANDAS}), self._folder / layout.TASKS)
        stats = {key: as_lists(combine(entries)) for key, entries in self._stats.items()}
        (self._folder / layout.STATS).write_text(json_text(stats, 4))
        return info | {
            'data_files_size_in_mb': _DATA_MB, 'video_files_size_in_mb': _VIDEO_MB, 'data_path': layout.DATA_PATH,
            'video_path': layout.VIDEO_PATH,
        }  # fmt: skip


class _Numbered:
    """Files that are numbered through in folders of `_CHUNK`: the latest one, and how many bytes it holds."""

    def __init__(self, folder: Path, template: str, key: str = ''):
        self._folder, self._template, self._key = folder, template, key
        self.chunk, self.file, self.bytes = 0, -1, 0

    def next(self) -> Path:
        """The path of the next file, whose folder exists."""
        self.file, self.bytes = self.file + 1, 0
        if self.file == _CHUNK:
            self.chunk, self.file = self.chunk + 1, 0
        path = self._folder / self._template.format(video_key=self._key, chunk_index=self.chunk, file_index=self.file)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def _write_part(target: Path, fps: int, path: Path, start: float, length: int) -> None:
    """An episode's own video: the file itself where it holds nothing else, or the part of it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path)) as file:
        whole = file.streams.video[0].frames == length and start == 0.0 and path.suffix == '.mp4'
    if whole:
        copyfile(path, target)
        return
    joined = JoinedVideo(target, fps)
    fits = joined.append(path, start, length)
    joined.close()
    if not fits:
        raise UserError(f'{path} cannot be copied in part', 'write the set with another codec')


def episodes_schema(row: dict[str, Any]) -> pa.Schema:
    """Types of the columns of the episodes' table, by their names and the nesting of what they hold."""
    fields = []
    for name, value in row.items():
        if name == 'tasks':
            kind: pa.DataType = pa.list_(pa.string())
        elif name.endswith('_timestamp') and name.startswith('videos/'):
            kind = pa.float64()
        elif name.startswith('stats/'):
            kind = pa.int64() if name.endswith('/count') else pa.float64()
            while isinstance(value, list):
                kind, value = pa.list_(kind), value[0]
        else:
            kind = pa.int64()
        fields.append(pa.field(name, kind))
    return pa.schema(fields)


# pandas finds the task in the index of its frame.
_PANDAS = json.dumps(
    {
        'index_columns': ['task'],
        'column_indexes': [
            {'name': None, 'field_name': None, 'pandas_type': 'unicode', 'numpy_type': 'object', 'metadata': {'encoding': 'UTF-8'}}
        ],
        'columns': [
            {'name': name, 'field_name': name, 'pandas_type': kind, 'numpy_type': numpy, 'metadata': None}
            for name, kind, numpy in (('task_index', 'int64', 'int64'), ('task', 'unicode', 'object'))
        ],
        'attributes': {}, 'creator': {'library': 'pyarrow', 'version': pa.__version__}, 'pandas_version': '2.2.0',
    }
)  # fmt: skip
