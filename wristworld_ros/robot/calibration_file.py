"""`calibration.yaml`: where cameras are, how well that is known, and the launch file that says it to TF.

    base_frame: fr3_link0
    anchors:
      left:
        xyz: [1.02, -0.41, 0.55]                   # of the camera (optical: z forward, x right, y down) in base_frame, metres
        quaternion: [-0.71, 0.24, -0.19, 0.63]     # x y z w
        camera: {width: 640, height: 480, K: [600, 0, 319.5, 0, 600, 239.5, 0, 0, 1]}
        quality: {method: robot, poses: 5, residual: 2.1, unit: mm, expected_mm: 1.9, expected_wrist_px: 2.4, date: '2025-05-01'}
    wrist: {hand_frame: fr3_hand, xyz: [...], quaternion: [...]}

What is a mistake (an unknown key, a quaternion that is none, a camera that no lens has) is refused with its place in the file.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
import yaml
from msgspec import Meta, Struct
from scipy.spatial.transform import Rotation

from wristworld_ros.errors import UserError
from wristworld_ros.input_files import Size, convert
from wristworld_ros.robot.board import Intrinsics
from wristworld_ros.robot.calibration_images import load_yaml
from wristworld_ros.runtime.files import write_text

FIX = 'correct it, or write it again with `wristworld calibrate`'
FARTHEST = 100.0  # metres from the base; beyond, millimetres were given
# A point in the middle of what a wrist camera sees, for errors in its pixels: metres from it, and the focal length in pixels of
# an image 480 rows high that sees 75 degrees.
WRIST_DISTANCE, WRIST_FOCAL = 0.25, 240 / math.tan(math.radians(75 / 2))

Frame = Annotated[str, Meta(pattern=r'^/*[^\s/]\S*$', max_length=256)]
_Number = Annotated[float, Meta(ge=0.0)]
_Numbers3 = Annotated[list[float], Meta(min_length=3, max_length=3)]
_Numbers4 = Annotated[list[float], Meta(min_length=4, max_length=4)]
_Numbers9 = Annotated[list[float], Meta(min_length=9, max_length=9)]


class Quality(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """How a place was found, and how good it is.

    method: 'board' or 'robot'. poses: of the arm that were used. residual: how far observations are from where the answer puts
    them (board: mean reprojection error; robot: median distance to the surface). unit: of residual. expected_mm: standard
    deviation of a point's place in the middle of the workspace. expected_wrist_px: the same in pixels of a wrist camera with 480
    rows, 75 degrees and 25 cm before it. date: as in '2025-05-01'. warnings: what the recording leaves uncertain.
    """

    method: Literal['board', 'robot']
    poses: Annotated[int, Meta(ge=1)]
    residual: _Number
    unit: Literal['px', 'mm']
    expected_mm: _Number
    expected_wrist_px: _Number
    date: str = ''
    warnings: list[str] = []


class CameraModel(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A pinhole camera. width, height: pixels. K: 9 numbers, row by row, pixels. distortion: 0, 4, 5 or 8, as OpenCV's."""

    width: Size
    height: Size
    K: _Numbers9
    distortion: list[float] = []

    def __post_init__(self):
        K = np.array(self.K).reshape(3, 3)
        if not np.isfinite(K).all() or K[0, 0] <= 0 or K[1, 1] <= 0 or K[1, 0] != 0 or list(K[2]) != [0, 0, 1]:
            raise UserError(f'K is {self.K}', 'give fx 0 cx 0 fy cy 0 0 1 in pixels')
        if len(self.distortion) not in (0, 4, 5, 8) or not np.isfinite(self.distortion).all():
            raise UserError(f'distortion is {self.distortion}', 'give 4, 5 or 8 finite numbers, or leave it out')

    @classmethod
    def of(cls, camera: Intrinsics) -> CameraModel:
        """What is written of a camera's intrinsics."""
        return cls(camera.width, camera.height, camera.K.ravel().tolist(), camera.distortion.ravel().tolist())

    @property
    def intrinsics(self) -> Intrinsics:
        """The same as arrays."""
        return Intrinsics(np.array(self.K).reshape(3, 3), np.array(self.distortion), self.width, self.height)


class PlacedCamera(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A camera (optical: z forward, x right, y down) in a frame.

    xyz: metres. quaternion: x y z w. frame: its own TF frame, where it has one. camera: its intrinsics, or None.
    quality: None where the place was not calibrated but given.
    """

    xyz: _Numbers3
    quaternion: _Numbers4
    frame: Frame | None = None
    camera: CameraModel | None = None
    quality: Quality | None = None

    def __post_init__(self):
        if not np.isfinite(self.xyz).all() or max(map(abs, self.xyz)) > FARTHEST:
            raise UserError(f'xyz is {self.xyz}', f'give metres, up to {FARTHEST:g}')
        if not abs(np.linalg.norm(self.quaternion) - 1) < 0.01:  # NaN too
            raise UserError(
                f'quaternion is {self.quaternion}, whose length is not 1', 'give x y z w of a unit quaternion'
            )

    @property
    def T(self) -> np.ndarray:
        """T_parent_camera, float64 [4, 4], metres."""
        T = np.eye(4)
        T[:3, :3] = Rotation.from_quat(self.quaternion).as_matrix()
        T[:3, 3] = self.xyz
        return T


class WristMount(PlacedCamera, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """The wrist camera in the hand. hand_frame: TF frame of the hand."""

    hand_frame: Frame


class Calibration(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A calibration file. base_frame: TF frame of the robot's base. anchors: by name, in base_frame. wrist: in the hand."""

    base_frame: Frame
    anchors: dict[str, PlacedCamera] = {}
    wrist: WristMount | None = None

    def __post_init__(self):
        if not self.anchors and self.wrist is None:
            raise UserError('there is neither an anchor nor a wrist camera', 'give anchors, wrist, or both')
        if wrong := [name for name in self.anchors if not re.fullmatch(r'[A-Za-z0-9_]+', name)]:
            raise UserError(
                f'an anchor is named {wrong[0]!r}', 'give letters, digits and underscores, as in the setting anchors'
            )


def place(T: np.ndarray) -> tuple[list[float], list[float]]:
    """xyz (metres) and quaternion x y z w of a pose [4, 4], as numbers for the file: to a micrometre."""
    quaternion = Rotation.from_matrix(T[:3, :3]).as_quat()
    quaternion *= 1.0 if quaternion[3] >= 0 else -1.0
    return [round(float(v), 6) for v in T[:3, 3]], [round(float(v), 8) for v in quaternion]


def wrist_pixels(metres: float) -> float:
    """An error in the scene as pixels of a wrist camera with 480 rows and 75 degrees, 25 cm before it."""
    return metres * WRIST_FOCAL / WRIST_DISTANCE


def read_calibration(path: str | Path) -> Calibration:
    """Read a calibration file.

    Raises:
        UserError: It is missing, is not YAML, or holds something else; the sentence names the place.
    """
    path = Path(path).expanduser()
    return convert(load_yaml(path, FIX), Calibration, str(path), FIX)


def write_calibration(path: str | Path, calibration: Calibration) -> None:
    """Write a calibration file, whole or not at all.

    Raises:
        UserError: The disk refuses it.
    """
    head = '# Places of cameras, for the setting calibration_file of virtual_wrist. Metres, quaternions x y z w.\n'
    text = yaml.safe_dump(msgspec.to_builtins(calibration), sort_keys=False, width=120, default_flow_style=None)
    write_text(Path(path), head + text)


def merged(old: Calibration | None, new: Calibration) -> Calibration:
    """Both: cameras of the new one replace those of the same name.

    Raises:
        UserError: Their base frames differ.
    """
    if old is None:
        return new
    if old.base_frame != new.base_frame:
        raise UserError(
            f'the calibration that is there already is in {old.base_frame}, and the new one in {new.base_frame}',
            'give the same base frame, or write into another folder',
        )
    return Calibration(base_frame=new.base_frame, anchors={**old.anchors, **new.anchors}, wrist=new.wrist or old.wrist)


def launch_text(calibration: Calibration) -> str:
    """A launch file with one static_transform_publisher for each camera: Python source."""
    edges = [
        (f'place_{name}', calibration.base_frame, camera.frame or f'anchor_{name}_optical_frame', camera)
        for name, camera in calibration.anchors.items()
    ]
    if (wrist := calibration.wrist) is not None:
        edges.append(('place_wrist', wrist.hand_frame, wrist.frame or 'wrist_optical_frame', wrist))
    nodes = ''.join(_node(*edge) for edge in edges)
    return (
        '"""Where the cameras are, as static transforms; written by `wristworld calibrate`."""\n\n'
        'from launch import LaunchDescription\nfrom launch_ros.actions import Node\n\n\n'
        f'def generate_launch_description():\n    return LaunchDescription([\n{nodes}    ])\n'
    )


def _node(name: str, parent: str, child: str, camera: PlacedCamera) -> str:
    values = zip(('x', 'y', 'z', 'qx', 'qy', 'qz', 'qw'), [*camera.xyz, *camera.quaternion])
    numbers = ', '.join(f"'--{key}', '{value:.8g}'" for key, value in values)
    return (
        f"        Node(\n            package='tf2_ros', executable='static_transform_publisher', name={name!r},\n"
        f'            arguments=[\n                {numbers},\n'
        f"                '--frame-id', {parent.lstrip('/')!r}, '--child-frame-id', {child.lstrip('/')!r},\n"
        '            ],\n        ),\n'
    )
