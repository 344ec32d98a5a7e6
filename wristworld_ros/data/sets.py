"""Opens whatever recordings a path holds: the one place that knows all formats."""

from __future__ import annotations

from pathlib import Path

from wristworld_ros.data.episode import DataSet, Episode
from wristworld_ros.data.formats import calvin, droid, native, videos
from wristworld_ros.data.formats.rosbag import is_bag
from wristworld_ros.data.formats.videos_mapping import MAPPING, is_video_set
from wristworld_ros.errors import UserError, require_package

_LEROBOT = 'meta/info.json'


def open_data_set(path: str | Path | DataSet) -> DataSet:
    """Open a set of episodes, whatever its format; what it is shows in its files.

    Args:
        path: A directory or file of a format that docs/datasets.md lists; a set that is open already is returned as it is.

    Raises:
        UserError: There is nothing, it is of no known format, or its head is damaged.
    """
    if isinstance(path, DataSet):
        return path
    path = Path(path).expanduser()
    if not path.exists():
        raise UserError(f'There is no {path}', 'give the path of a data set')
    if (path / _LEROBOT).is_file():
        require_package('pyarrow', 'data', 'Reading a LeRobot data set')
        from wristworld_ros.data.formats.lerobot.reader import LeRobotSet

        return LeRobotSet(path)
    if path.is_dir() and (native.is_episode(path) or native.list_episodes(path)):
        return native.NativeSet(path)
    if is_bag(path) or (path.is_dir() and any(map(is_bag, path.iterdir()))):
        require_package('rosbags', 'data', 'Reading a ROS 2 bag')
        from wristworld_ros.data.formats.rosbag.reader import BagSet

        return BagSet(path)
    if calvin.is_calvin(path):
        return calvin.CalvinSet(path)
    if droid.is_droid(path):
        return droid.DroidSet(path)
    if is_video_set(path):
        return videos.VideoSet(path)
    raise UserError(
        f'{path} holds no data set of a known format',
        f'give one that docs/datasets.md lists; of videos alone, {MAPPING} in their folder says which is which',
    )


def open_episode(path: str | Path, index: int | None = None) -> Episode:
    """Open one episode of a set.

    Args:
        path: As `open_data_set` takes it.
        index: The episode's place in the set; None where the set has one alone.

    Raises:
        UserError: As in `open_data_set`; or there is no such episode, or several and no index.
    """
    data_set = open_data_set(path)
    if index is None and len(data_set) != 1:
        raise UserError(f'{path} holds {len(data_set)} episodes', 'say which one, counted from 0')
    if not 0 <= (index or 0) < len(data_set):
        raise UserError(f'{path} holds {len(data_set)} episodes, and number {index} is asked for', 'counted from 0')
    return data_set.episode(index or 0)
