"""Folders of arm poses that a camera saw, for a calibration without a board.

A folder holds
- ``joints.csv`` with the header ``depth,color,<joint>,<joint>,...``, one row per arm pose: files, and joint positions in radians
  and metres. The column ``color`` may be left out; a camera without depth has no column ``depth``, and its
  pictures are in the order in which they were taken, some in a second while the arm moves.
- the depth images: PNG of 16 bits in millimetres, or ``.npy`` in metres, 0 where unknown; along the optical axis. Pictures, where
  they are named, have the same size.
- ``camera_info.yaml``, as ROS camera calibration writes it, or as ``ros2 topic echo --once`` prints the message;
- ``robot.urdf``, the robot description; meshes by package://, file:// or plain paths;
- ``guess.txt``, if wanted: x y z qx qy qz qw of the camera (optical) in the robot's base, about.
File names are relative to the folder.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from wristworld_ros.data.images import read_image
from wristworld_ros.errors import UserError
from wristworld_ros.input_files import MAX_IMAGE, read_bytes
from wristworld_ros.robot.board import Intrinsics
from wristworld_ros.robot.calibration_file import place
from wristworld_ros.robot.calibration_images import POSE_COLUMNS, read_intrinsics, read_table
from wristworld_ros.robot.description import RobotModel
from wristworld_ros.runtime.files import write_atomically, write_text
from wristworld_ros.types import RobotPoints

JOINTS, POSES, CAMERA, ROBOT = 'joints.csv', 'poses.csv', 'camera_info.yaml', 'robot.urdf'
GUESS, TRUTH = 'guess.txt', 'truth.txt'
NEAREST, FARTHEST = 0.1, 20.0  # metres, within which the median of a depth image lies
MAX_URDF = 16 << 20
SEVEN = 'write x y z qx qy qz qw: metres, and a quaternion of length 1'


@dataclass(frozen=True)
class ArmRecording:
    """What a folder holds. depth: float32 [P, H, W], metres, 0 unknown; None of a camera without depth. pictures: P images
    uint8 [H, W, 3], or none.

    names: of the depth files, or of the pictures. joints: positions by joint, of each pose. guess: T_base_camera [4, 4], or
    None. truth: the same where the simulator wrote it.
    """

    folder: Path
    names: tuple[str, ...]
    depth: np.ndarray | None
    pictures: tuple[np.ndarray, ...]
    joints: tuple[dict[str, float], ...]
    camera: Intrinsics
    guess: np.ndarray | None
    truth: np.ndarray | None

    def surfaces(self, urdf: Path | None, base: str) -> list[RobotPoints]:
        """The robot's surface at each pose in the link `base`.

        Args:
            urdf: The robot description; None takes the folder's.
            base: A link of it.

        Raises:
            UserError: The description cannot be read, has no surface or no such link, or a joint has no position.
        """
        path = urdf or self.folder / ROBOT
        robot = RobotModel.from_urdf(
            read_bytes(path, 'give the robot description with --urdf', MAX_URDF).decode('utf-8', 'replace')
        )
        if missing := [name for name in robot.joint_names if name not in self.joints[0]]:
            raise UserError(f'{self.folder / JOINTS} has no column {missing[0]}, a joint of {path}', 'add it')
        found = [robot.surface(positions, base) for positions in self.joints]
        if not len(found[0].points):
            lost = f' ({robot.missing_meshes[0]} is missing)' if robot.missing_meshes else ''
            raise UserError(
                f'{path} gives the robot no surface{lost}',
                'source the workspace that has its meshes, or give them by file',
            )
        return found


def read_arm_recording(folder: Path) -> ArmRecording:
    """Read a folder.

    Raises:
        UserError: Something is missing or is not what it must be; the sentence names file and place.
    """
    folder = Path(folder)
    table = folder / JOINTS
    rows = read_table(table, ())
    if not {'depth', 'color'} & set(rows[0]):
        raise UserError(
            f'{table} has neither a column depth nor a column color', 'give a header as in depth,color,joint1,joint2'
        )
    source = 'depth' if 'depth' in rows[0] else 'color'
    names = [name for name in rows[0] if name not in ('depth', 'color')]
    joints = tuple({name: _number(row[name], table, i, name) for name in names} for i, row in enumerate(rows, 2))
    camera = read_intrinsics(folder)
    depth = np.stack([_read_depth(folder / row['depth'], camera) for row in rows]) if source == 'depth' else None
    pictures = tuple(read_image(folder / row['color']) for row in rows) if rows[0].get('color') else ()
    for row, picture in zip(rows, pictures):
        if picture.shape[:2] != (camera.height, camera.width):
            raise UserError(
                f'{folder / row["color"]} is {picture.shape[1]}x{picture.shape[0]}, and {CAMERA} says '
                f'{camera.width}x{camera.height}',
                'give pictures to which depth is registered, or leave out the column color',
            )
    return ArmRecording(
        folder, tuple(row[source] for row in rows), depth, pictures, joints, camera, _read_pose(folder / GUESS),
        _read_pose(folder / TRUTH),
    )  # fmt: skip


class ArmRecordingWriter:
    """Writes a folder pose by pose; whatever is there after each is a whole recording, and one that exists goes on.

    count: poses in the folder. `poses.csv` is that of `calibration_images`, so that the same folder serves a board.
    """

    def __init__(self, folder: Path):
        self._folder = Path(folder)
        self._tables = {}
        for name in (JOINTS, POSES):
            path = self._folder / name
            self._tables[name] = path.read_text().splitlines() if path.exists() else []
        self.count = max(
            (int(path.stem) + 1 for path in self._folder.glob('color/*.png') if path.stem.isdigit()), default=0
        )

    def add(
        self,
        color: np.ndarray,
        depth: np.ndarray | None = None,
        joints: dict[str, float] | None = None,
        T_base_hand: np.ndarray | None = None,
    ) -> None:
        """Write one pose.

        Args:
            color: Uint8 [H, W, 3].
            depth: Float32 [H, W], metres, 0 unknown; goes into the table with `joints` only.
            joints: Positions by joint; the same joints each time. Without depth they go into a table of colours alone.
            T_base_hand: Float64 [4, 4], metres.

        Raises:
            UserError: The joints are others than before, or the disk refuses a file.
        """
        for name in ('depth', 'color'):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        files = f'depth/{self.count:03d}.png', f'color/{self.count:03d}.png'
        if joints is not None:
            kinds, named = (['color'], files[1:]) if depth is None else (['depth', 'color'], files)
            header = ','.join([*kinds, *joints])
            self._check_header(header)
            if depth is not None:
                self._write(files[0], np.round(depth * 1000).clip(0, 65535).astype(np.uint16))
            self._append(JOINTS, header, [*named, *(f'{value:.9g}' for value in joints.values())])
        if T_base_hand is not None:
            xyz, quaternion = place(T_base_hand)
            self._append(POSES, ','.join(POSE_COLUMNS), [files[1], *(f'{value:.9g}' for value in [*xyz, *quaternion])])
        self._write(files[1], color[..., ::-1])
        self.count += 1

    def write_camera(self, camera: Intrinsics) -> None:
        """Write camera_info.yaml."""
        numbers = {'camera_matrix': camera.K, 'distortion_coefficients': camera.distortion}
        lines = [f'image_width: {camera.width}', f'image_height: {camera.height}']
        if camera.distortion.size == 8:
            lines.append('distortion_model: rational_polynomial')
        lines += [
            f'{name}: {{data: [{", ".join(f"{v:.9g}" for v in values.ravel())}]}}'
            for name, values in numbers.items()
            if values.size
        ]
        write_text(self._folder / CAMERA, '\n'.join(lines) + '\n')

    def write_robot(self, urdf: str) -> None:
        """Write robot.urdf."""
        write_text(self._folder / ROBOT, urdf)

    def write_pose(self, name: str, T: np.ndarray) -> None:
        """Write guess.txt or truth.txt."""
        xyz, quaternion = place(T)
        write_text(self._folder / name, ' '.join(f'{value:.9g}' for value in [*xyz, *quaternion]) + '\n')

    def _check_header(self, header: str) -> None:
        lines = self._tables[JOINTS]
        if lines and lines[0] != header:
            raise UserError(
                f'{self._folder / JOINTS} has the columns {lines[0]}, and this pose {header}',
                'record into a new folder',
            )

    def _append(self, name: str, header: str, cells: list[str]) -> None:
        lines = self._tables[name] or [header]
        self._tables[name] = [*lines, ','.join(cells)]
        write_text(self._folder / name, '\n'.join(self._tables[name]) + '\n')

    def _write(self, name: str, values: np.ndarray) -> None:
        with write_atomically(self._folder / name) as path:
            path.write_bytes(cv2.imencode('.png', values)[1].tobytes())


def pose_of(numbers: list[float], source: str) -> np.ndarray:
    """x y z qx qy qz qw as T, float64 [4, 4]; UserError, which begins with `source`, where they are not."""
    values = np.array(numbers, np.float64)
    if values.shape != (7,) or not np.isfinite(values).all() or abs(np.linalg.norm(values[3:]) - 1) > 0.02:
        raise UserError(f'{source} is {" ".join(f"{v:g}" for v in numbers) or "empty"}', SEVEN)
    T = np.eye(4)
    T[:3, :3] = Rotation.from_quat(values[3:]).as_matrix()
    T[:3, 3] = values[:3]
    return T


def _read_pose(path: Path) -> np.ndarray | None:
    if not path.exists():
        return None
    words = read_bytes(path, SEVEN, 1 << 12).decode('utf-8', 'replace').split()
    try:
        return pose_of([float(word) for word in words], str(path))
    except ValueError as error:
        raise error if isinstance(error, UserError) else UserError(f'{path} is {" ".join(words)!r}', SEVEN) from None


def _read_depth(path: Path, camera: Intrinsics) -> np.ndarray:
    """Float32 [H, W], metres."""
    fix = 'give a PNG of 16 bits in millimetres, or .npy in metres'
    data = read_bytes(path, fix, MAX_IMAGE)
    try:
        if path.suffix == '.npy':
            values = np.load(io.BytesIO(data), allow_pickle=False)
        else:
            values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except (ValueError, OSError, cv2.error):
        values = None
    floats = path.suffix == '.npy'
    if values is None or values.ndim != 2 or (values.dtype.kind != 'f' if floats else values.dtype != np.uint16):
        kind = 'not an image' if values is None else f'{values.dtype} {list(values.shape)}'
        raise UserError(f'{path} is {kind}', fix)
    if values.shape != (camera.height, camera.width):
        raise UserError(
            f'{path} is {values.shape[1]}x{values.shape[0]}, and {CAMERA} says {camera.width}x{camera.height}',
            'give the camera_info of the depth images',
        )
    depth = np.nan_to_num(values.astype(np.float32) * (1.0 if floats else 0.001), nan=0.0, posinf=0.0, neginf=0.0).clip(
        0
    )
    known = depth[depth > 0]
    if not len(known):
        raise UserError(f'{path} is zero everywhere', 'record it again, or remove its row')
    if not NEAREST < (middle := float(np.median(known))) < FARTHEST:
        raise UserError(f'{path} has a median depth of {middle:g} m', fix)
    return depth


def _number(text: str, path: Path, line: int, column: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f'{path}, line {line}, {column}: {text!r} is not a number', 'correct it')
    return value
