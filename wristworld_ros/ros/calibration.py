"""What the node takes from a calibration file: places and intrinsics of its anchors, and the mount of the wrist camera.

The file was named on purpose: for the anchors that it names, its places win over TF. Its intrinsics stand in where no
camera_info does, its wrist mount where neither wrist_mount nor wrist_camera_frame is set.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wristworld_ros.errors import UserError
from wristworld_ros.robot.board import Intrinsics
from wristworld_ros.robot.calibration_file import read_calibration
from wristworld_ros.ros.conversions import scale_intrinsics
from wristworld_ros.ros.names import normalized_frame
from wristworld_ros.ros.transforms import pose_matrix
from wristworld_ros.settings import NodeSettings


class NodeCalibration:
    """A calibration file as the settings use it; without one, whatever the settings themselves say.

    places: T_base_anchor, float64 [4, 4], metres, by anchor. cameras: intrinsics by anchor. mount: T_hand_wrist, or None.
    wrist_camera: intrinsics of the wrist camera, or None.

    Raises:
        UserError: The file is missing or wrong, is in another base or hand frame, or names nothing that the node uses.
    """

    def __init__(self, settings: NodeSettings):
        self.places: dict[str, np.ndarray] = {}
        self.cameras: dict[str, Intrinsics] = {}
        self.mount = None if settings.wrist_mount is None else pose_matrix(map(float, settings.wrist_mount.split()))
        self.wrist_camera: Intrinsics | None = None
        if settings.calibration_file is not None:
            self._read(Path(settings.calibration_file).expanduser(), settings)

    def intrinsics(self, anchor: str, width: int, height: int) -> np.ndarray | None:
        """K [3, 3] for images of that size, pixels; None where the file has none of this anchor."""
        camera = self.cameras.get(anchor)
        return None if camera is None else scale_intrinsics(camera.K, (camera.width, camera.height), (width, height))

    def _read(self, path: Path, settings: NodeSettings) -> None:
        found = read_calibration(path)
        names = [name for name in found.anchors if name in settings.anchors]
        wrist = found.wrist if settings.wrist_mount is None and settings.wrist_camera_frame is None else None
        if not names and found.wrist is None:
            raise UserError(
                f'{path} has the anchors {", ".join(found.anchors)}, and none of them is in the setting anchors '
                f'({", ".join(settings.anchors)})',
                'give the anchors the same names',
            )
        _check_frame(path, 'base_frame', found.base_frame, settings.base_frame)
        if wrist is not None:
            _check_frame(path, 'hand_frame', wrist.hand_frame, settings.hand_frame)
            self.mount = wrist.T
            self.wrist_camera = None if wrist.camera is None else wrist.camera.intrinsics
        self.places = {name: found.anchors[name].T for name in names}
        self.cameras = {name: camera.intrinsics for name in names if (camera := found.anchors[name].camera)}


def _check_frame(path: Path, setting: str, found: str, wanted: str) -> None:
    if normalized_frame(found) != normalized_frame(wanted):
        raise UserError(
            f'{path} says {setting} {found}, and the setting {setting} is {wanted}',
            f'set {setting} to {found}, or calibrate again',
        )
