"""What lies where in a folder of videos: the mapping, as the folder has it or as Ctrl-World's examples are laid out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import msgspec
import yaml

from wristworld_ros.data.episode import GripperUnit, Role
from wristworld_ros.errors import UserError
from wristworld_ros.input_files import convert, read_bytes

MAPPING = 'wristworld_videos.yaml'


@dataclass(frozen=True)
class VideoCamera:
    """One camera. video: its file below the root, with {stem} and {folder} of the episode's file or directory. role: where it is;
    None takes it from the name. depth: a video of 16 bits in millimetres, image by image of the other. data: a JSON file, see
    `CameraData`."""

    video: str
    role: Role | None = None
    depth: str | None = None
    data: str | None = None


@dataclass(frozen=True)
class VideoMapping:
    """What lies where.

    cameras: by name; the first one is the clock. annotations: pattern of the episodes' JSON files below the root; or episodes:
    of their directories. stride: rows of numbers per image of the first camera. The rest are keys of the JSON files: stamps
    [rows], nanoseconds, in place of the times of the first video; joints [rows, J]; gripper [rows], in gripper_unit; hand_pose
    [rows, 6 or 7] (position, and roll, pitch, yaw or quaternion) of hand_link; gripper_link as of `Episode`; actions, one key
    or several that are put side by side; language, a text or a list; success; meta, a map of whatever else there is.
    """

    cameras: dict[str, VideoCamera]
    annotations: str | None = None
    episodes: str | None = None
    root: str | None = None
    stride: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1
    joints: str | None = None
    gripper: str | None = None
    gripper_unit: GripperUnit = 'unknown'
    hand_pose: str | None = None
    hand_link: str = ''
    gripper_link: str = ''
    actions: tuple[str, ...] = ()
    language: str | None = None
    success: str | None = None
    stamps: str | None = None
    meta: str | None = None


CTRL_WORLD = VideoMapping(
    cameras={
        'exterior_1': VideoCamera('videos/{folder}/{stem}/0.mp4', 'anchor'),
        'exterior_2': VideoCamera('videos/{folder}/{stem}/1.mp4', 'anchor'),
        'wrist': VideoCamera('videos/{folder}/{stem}/2.mp4', 'wrist'),
    },
    annotations='annotation/*/*.json',
    stride=3,
    joints='observation.state.joint_position',
    gripper='observation.state.gripper_position',
    gripper_unit='closed',
    hand_pose='observation.state.cartesian_position',
    hand_link='panda_link8',
    gripper_link='panda_link8',
    actions=('action.joint_position', 'action.gripper_position'),
    language='texts',
    success='success',
)


def is_video_set(path: Path) -> bool:
    """Whether a path is a mapping, or a folder with one or in the layout of Ctrl-World."""
    if path.is_file():
        return path.suffix in ('.yaml', '.yml') and b'cameras' in read_bytes(path)
    return (path / MAPPING).is_file() or any(path.glob('annotation/*/*.json'))


def read_mapping(path: Path) -> tuple[VideoMapping, Path]:
    """The mapping of a folder, or one by itself; and the root that its files lie below.

    Raises:
        UserError: It is no YAML, says something else than a mapping does, or its root is no folder.
    """
    file = path if path.is_file() else path / MAPPING
    if not file.is_file():
        return CTRL_WORLD, path
    try:
        raw = yaml.safe_load(read_bytes(file))
    except yaml.YAMLError as error:
        raise UserError(f'{file} is not YAML ({str(error).splitlines()[0]})', 'see docs/datasets.md') from None
    mapping = convert(raw, VideoMapping, str(file), 'see docs/datasets.md')
    root = file.parent if mapping.root is None else file.parent / Path(mapping.root).expanduser()
    if not root.is_dir():
        raise UserError(f'{file} has the root {root}, which is no folder', 'correct it')
    return replace(mapping, root=str(root)), root
