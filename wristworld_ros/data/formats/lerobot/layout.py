"""The files of a LeRobot data set, and where the parts of an episode lie in them, for v3.0 and v2.1 alike."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from wristworld_ros.data.formats.lerobot.tables import read_table, table_rows
from wristworld_ros.errors import UserError
from wristworld_ros.input_files import convert, read_json, read_json_lines

V30: Final = 'v3.0'
V21: Final = 'v2.1'
V20: Final = 'v2.0'  # v2.1 but for the statistics, which are of the whole set; it is read, and not written
INFO, STATS = 'meta/info.json', 'meta/stats.json'
TASKS, EPISODES = 'meta/tasks.parquet', 'meta/episodes'
TASKS_V21, EPISODES_V21, STATS_V21 = 'meta/tasks.jsonl', 'meta/episodes.jsonl', 'meta/episodes_stats.jsonl'
DATA_PATH = 'data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet'
VIDEO_PATH = 'videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4'
EPISODES_PATH = 'meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet'
DATA_PATH_V21 = 'data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet'
VIDEO_PATH_V21 = 'videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4'
# Columns that every set has beside its features, and their types.
INDEX_COLUMNS = {
    'timestamp': 'float32', 'frame_index': 'int64', 'episode_index': 'int64', 'index': 'int64', 'task_index': 'int64',
}  # fmt: skip
FLOAT32_STEP = 1.2e-7  # of a time's own size, which is as exact as the format stores it
VIDEO_COLUMNS = ('chunk_index', 'file_index', 'from_timestamp', 'to_timestamp')
FIX = 'restore it from where it came, or record it again'
_FIELD = re.compile(r'\{(\w+)(?::0?\d{1,2}d)?\}')
_Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]


@dataclass(frozen=True)
class Feature:
    """One entry of `features`: what a column or a video holds."""

    dtype: str
    shape: tuple[_Count, ...] = (1,)
    names: Any = None
    info: dict[str, Any] | None = None
    video_info: dict[str, Any] | None = None  # its name in older sets

    @property
    def is_image(self) -> bool:
        """Whether it is a camera: a video, or images within the table."""
        return self.dtype in ('video', 'image')

    @property
    def details(self) -> dict[str, Any]:
        """What is said of a video."""
        return self.info or self.video_info or {}

    @property
    def is_depth(self) -> bool:
        """Whether a camera's images are depth."""
        return self.is_image and bool(self.details.get('is_depth_map') or self.details.get('video.is_depth_map'))

    @property
    def image_hw(self) -> tuple[int, int]:
        """Height and width of a camera's images, whichever way round the shape is."""
        shape = self.shape if len(self.shape) == 3 else (*self.shape, 1, 1, 1)[:3]
        names = [name.lower() for name in self.labels_of_shape]
        if 'height' in names and 'width' in names:
            return shape[names.index('height')], shape[names.index('width')]
        return (shape[1], shape[2]) if shape[0] in (1, 3) and shape[2] not in (1, 3) else (shape[0], shape[1])

    @property
    def labels_of_shape(self) -> list[str]:
        """Names of the axes of an image; empty where they are not given."""
        return [str(name) for name in self.names] if isinstance(self.names, list) and len(self.names) == 3 else []

    @property
    def labels(self) -> list[str]:
        """Names of a vector's entries; empty where there are none, or as many as the vector has not."""
        names = self.names
        while isinstance(names, dict) and names:
            names = next(iter(names.values()))
        if not isinstance(names, list) or len(names) != (self.shape[0] if self.shape else 0):
            return []
        return [str(name) for name in names]


@dataclass(frozen=True)
class Info:
    """`meta/info.json`; keys that are not here are left alone."""

    codebase_version: str
    fps: Annotated[float, msgspec.Meta(gt=0.0, le=1000.0)]
    features: dict[str, Feature]
    total_episodes: _Count
    total_frames: _Count
    total_tasks: _Count = 0
    data_path: str = ''
    video_path: str | None = None
    chunks_size: Annotated[int, msgspec.Meta(ge=1, le=1 << 30)] = 1000
    robot_type: str | None = None
    splits: dict[str, Any] = field(default_factory=dict)

    @property
    def cameras(self) -> list[str]:
        """Keys of the features that are images in colour, in order."""
        return [key for key, feature in self.features.items() if feature.is_image and not feature.is_depth]

    @property
    def depth_videos(self) -> list[str]:
        """Keys of the features that are depth videos, in order."""
        return [key for key, feature in self.features.items() if feature.is_depth and feature.dtype == 'video']

    @property
    def videos(self) -> list[str]:
        """Keys of the features that are videos, in order."""
        return [key for key, feature in self.features.items() if feature.dtype == 'video']

    @property
    def columns(self) -> list[str]:
        """Keys of the features that are columns of the data files, in order."""
        return [key for key, feature in self.features.items() if feature.dtype != 'video']


@dataclass(frozen=True)
class VideoPart:
    """Where an episode lies in a video file: relative path, and seconds in the file (`end` None: up to its end)."""

    file: str
    start: float = 0.0
    end: float | None = None


@dataclass(frozen=True)
class EpisodeRow:
    """One episode as the set's tables have it.

    index: its number. data_file: relative path. first: number of its first frame in the whole set, or None. videos: by key; a key is
    missing where the tables do not say where its video is. stats: keys of the features whose statistics there are.
    """

    index: int
    length: int
    tasks: tuple[str, ...]
    data_file: str
    first: int | None
    videos: dict[str, VideoPart]
    stats: frozenset[str] = frozenset()


def read_info(root: Path) -> Info:
    """The head of a set.

    Raises:
        UserError: It is missing, is damaged, or is of a version that is not read.
    """
    path = root / INFO
    raw = read_json(path, dict[str, Any], FIX)
    version = raw.get('codebase_version')
    if version not in (V30, V21, V20):
        raise UserError(
            f'{path} has codebase_version {version!r}, and {V30}, {V21} and {V20} are read',
            "convert the set with lerobot's own scripts",
        )
    return convert(raw, Info, str(path), FIX, other_keys=True)


def read_rows(root: Path, info: Info) -> list[EpisodeRow]:
    """All episodes of a set, in order of their number.

    Raises:
        UserError: The tables cannot be read, or lack a column that nothing works without.
    """
    return _rows_v30(root, info) if info.codebase_version == V30 else _rows_v21(root, info)


def path_in_set(template: str, source: Path, **values: int | str) -> str:
    """Fill a path template of `info.json`; only its plain fields are known, and it stays in the set's directory.

    Raises:
        UserError: The template has other fields, or leads out of the directory.
    """
    rest = _FIELD.sub('', template)
    if '{' in rest or '}' in rest or not set(_FIELD.findall(template)) <= set(values):
        raise UserError(f'{source} has the path {template!r}', f'use the fields {", ".join(sorted(values))} only')
    try:
        path = template.format(**values)
    except ValueError:
        raise UserError(f'{source} has the path {template!r}', 'give numbers their format only, as in :03d') from None
    if path.startswith(('/', '~')) or '..' in Path(path).parts or '\0' in path:
        raise UserError(f'{source} has the path {path!r}', 'keep the files of a set in its directory')
    return path


def episode_files(root: Path) -> list[Path]:
    """The Parquet files of a v3.0 set's episodes, in order."""
    return sorted((root / EPISODES).glob('chunk-*/file-*.parquet'))


def _rows_v30(root: Path, info: Info) -> list[EpisodeRow]:
    files = episode_files(root)
    if not files:
        raise UserError(f'{root / EPISODES} holds no Parquet file', FIX)
    rows = [row for path in files for row in _rows_of_file(path, root, info)]
    return sorted(rows, key=lambda row: row.index)


def _rows_of_file(path: Path, root: Path, info: Info) -> list[EpisodeRow]:
    needed = ('episode_index', 'length', 'data/chunk_index', 'data/file_index')
    table = read_table(path, skip_prefix='stats/')
    stats = frozenset(
        name.removeprefix('stats/').rpartition('/')[0] for name in table.all_names if name.startswith('stats/')
    )
    lacking = [name for name in needed if name not in table.names]
    if lacking:
        raise UserError(f'{path} lacks the column {", ".join(lacking)}', FIX)
    source, rows = root / INFO, []
    for entry in table_rows(table):
        videos = {}
        for key in info.videos:
            chunk, file, start, end = (entry.get(f'videos/{key}/{name}') for name in VIDEO_COLUMNS)
            if chunk is not None and file is not None and start is not None:
                template = info.video_path or VIDEO_PATH
                name = path_in_set(template, source, video_key=key, chunk_index=int(chunk), file_index=int(file))
                videos[key] = VideoPart(name, float(start), None if end is None else float(end))
        data = path_in_set(
            info.data_path or DATA_PATH,
            source,
            chunk_index=int(entry['data/chunk_index']),
            file_index=int(entry['data/file_index']),
        )
        rows.append(
            EpisodeRow(
                index=int(entry['episode_index']),
                length=int(entry['length']),
                tasks=tuple(map(str, entry.get('tasks') or ())),
                data_file=data,
                first=entry.get('dataset_from_index'),
                videos=videos,
                stats=stats,
            )
        )
    return rows


@dataclass(frozen=True)
class _Line:
    """A line of v2.1's `episodes.jsonl`."""

    episode_index: _Count
    length: _Count
    tasks: tuple[str, ...] = ()


@dataclass(frozen=True)
class _StatsLine:
    """A line of v2.1's `episodes_stats.jsonl`."""

    episode_index: _Count
    stats: dict[str, Any]


def _rows_v21(root: Path, info: Info) -> list[EpisodeRow]:
    path = root / EPISODES_V21
    lines, cut = read_json_lines(path, _Line, FIX)
    if not lines or cut:
        raise UserError(f'{path} {"ends in the middle of a line" if cut else "holds no episode"}', FIX)
    stats = {
        line.episode_index: frozenset(line.stats) for line in read_json_lines(root / STATS_V21, _StatsLine, FIX)[0]
    }
    source, rows, first = root / INFO, [], 0
    for line in sorted(lines, key=lambda line: line.episode_index):
        values = {'episode_chunk': line.episode_index // info.chunks_size, 'episode_index': line.episode_index}
        template = info.video_path or VIDEO_PATH_V21
        videos = {key: VideoPart(path_in_set(template, source, video_key=key, **values)) for key in info.videos}
        data = path_in_set(info.data_path or DATA_PATH_V21, source, **values)
        found = stats.get(line.episode_index, frozenset())
        rows.append(EpisodeRow(line.episode_index, line.length, line.tasks, data, first, videos, found))
        first += line.length
    return rows


def read_tasks(root: Path, info: Info) -> dict[int, str]:
    """Texts of the tasks by their number.

    Raises:
        UserError: The file is missing or damaged.
    """
    if info.codebase_version != V30:
        entries: Sequence[dict] = read_json_lines(root / TASKS_V21, dict[str, Any], FIX)[0]
    else:
        entries = table_rows(read_table(root / TASKS))
    # The text is the index of a pandas frame in v3.0, which may be stored without a name.
    names = ('task', '__index_level_0__')
    found = {}
    for entry in entries:
        text = next((entry[name] for name in names if name in entry), None)
        if text is None or not isinstance(entry.get('task_index'), int):
            raise UserError(
                f'{root / (TASKS if info.codebase_version == V30 else TASKS_V21)} lacks task or task_index', FIX
            )
        found[entry['task_index']] = str(text)
    return found
