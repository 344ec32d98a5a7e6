"""Data sets that can get a camera, whatever their format."""

from __future__ import annotations

from pathlib import Path

from wristworld_ros.apps.augment.source import AugmentSource
from wristworld_ros.data.formats.lerobot.layout import INFO
from wristworld_ros.data.formats.rosbag import is_bag
from wristworld_ros.data.formats.videos_mapping import MAPPING, is_video_set
from wristworld_ros.errors import UserError, require_package


def open_source(path: Path) -> AugmentSource:
    """Open a data set that is to get a camera.

    Raises:
        UserError: There is none, or it is of a format that gets none as it is.
    """
    if not path.exists():
        raise UserError(f'There is no {path}', 'give the path of a data set')
    if (path / INFO).is_file():
        from wristworld_ros.apps.augment.lerobot import LeRobotSource

        return LeRobotSource(path)
    if is_bag(path) or (path.is_dir() and any(map(is_bag, path.iterdir()))):
        require_package('rosbags', 'data', 'Augmenting a ROS 2 bag')
        from wristworld_ros.apps.augment.bags import BagSource

        return BagSource(path)
    if is_video_set(path):
        from wristworld_ros.apps.augment.folders import FolderSource

        return FolderSource(path)
    raise UserError(
        f'{path} is no LeRobot data set, ROS 2 bag or folder of videos',
        f'make one of it with `wristworld data convert`; of videos alone, {MAPPING} in their folder says which is which (docs/datasets.md)',
    )
