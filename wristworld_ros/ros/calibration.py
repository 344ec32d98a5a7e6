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
from wristworld_ros.robot.hand_frames import between_links
from wristworld_ros.ros.conversions import scale_intrinsics
from wristworld_ros.ros.names import normalized_frame
from wristworld_ros.ros.transforms import pose_matrix
from wristworld_ros.settings import NodeSettings


class NodeCalibration:
    """A calibration file as the settings use it; without one, whatever the settings themselves say.

    places: T_base_anchor, float64 [4, 4], metres, by anchor. cameras: intrinsics by anchor. mount: where the wrist
    camera is in the TF frame `mount_frame`, float64 [4, 4], metres; or None. T_hand_mount: of that frame in the
    hand's, as far as their names alone say it, else None. wrist_camera: intrinsics of the wrist camera, or None.

    Raises:
        UserError: The file is missing or wrong, is in another base frame, or names nothing that the node uses; or TF is not
            used, and nothing else says where the mount's frame is to the hand's.
    """

    def __init__(self, settings: NodeSettings):
        self.places: dict[str, np.ndarray] = {}
        self.cameras: dict[str, Intrinsics] = {}
        self.mount = None if settings.wrist_mount is None else pose_matrix(map(float, settings.wrist_mount.split()))
        self.mount_frame = normalized_frame(settings.wrist_mount_frame or settings.hand_frame)
        self.wrist_camera: Intrinsics | None = None
        if settings.calibration_file is not None:
            self._read(Path(settings.calibration_file).expanduser(), settings)
        self.T_hand_mount = between_links(normalized_frame(settings.hand_frame), self.mount_frame)
        if self.mount is not None and self.T_hand_mount is None and settings.use_tf == 'never':
            raise UserError(
                f'The wrist camera is mounted in {self.mount_frame}, hand_frame is {settings.hand_frame}, and use_tf is never, so that '
                'nothing says where one is to the other', 'give the mount in hand_frame, or let use_tf be auto',
            )  # fmt: skip

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
        if normalized_frame(found.base_frame) != normalized_frame(settings.base_frame):
            raise UserError(
                f'{path} says base_frame {found.base_frame}, and the setting base_frame is {settings.base_frame}',
                f'set base_frame to {found.base_frame}, or calibrate again',
            )
        if wrist is not None:
            self.mount, self.mount_frame = wrist.T, normalized_frame(wrist.hand_frame)
            self.wrist_camera = None if wrist.camera is None else wrist.camera.intrinsics
        self.places = {name: found.anchors[name].T for name in names}
        self.cameras = {name: camera.intrinsics for name in names if (camera := found.anchors[name].camera)}
