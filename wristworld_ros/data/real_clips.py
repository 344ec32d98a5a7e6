"""Real clips of DROID's kind: two exterior videos and the wrist camera's own, with joints and the hand's pose.

A folder of clips holds ``annotation/<split>/<id>.json`` and ``videos/<split>/<id>/{0,1,2}.mp4``: exterior 1, exterior 2, wrist. The
annotation has three rows of states for every video frame; frame i belongs to row 3 i. There is neither depth nor a calibration.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from scipy.spatial.transform import Rotation

from wristworld_ros.data.video import read_frames
from wristworld_ros.errors import UserError
from wristworld_ros.input_files import read_json
from wristworld_ros.types import AnchorSet, Camera

ANCHORS = ('exterior_1', 'exterior_2')
ROWS = 3  # of states for a video frame
FPS = 5
FIX = 'give clips as in annotation/<split>/<id>.json and videos/<split>/<id>/{0,1,2}.mp4'
# The wrist camera (left eye of a ZED mini) in panda_link8: median over the clips at hand of what makes matched features of the
# wrist video agree with the hand's known motion (epipolar distance, robust). Fitted alone, nine clips of eleven come within 5
# degrees of it, with a translation up to 4.5 cm off; one did not converge. One rig carries the camera upside down (`turned`):
# epipolar geometry does not tell that, but with it features on its table are tracked to 4 pixels of 320, and the gripper enters
# from above, as it does. The focal length is 0.567 widths, a field of view of 83 x 53 degrees; the principal point is taken to
# be in the middle.
MOUNT_XYZ = (-0.074, 0.032, 0.022)  # metres
MOUNT_RPY = (-19.2, 0.7, -90.1)  # degrees, about fixed x, y, z
FOCAL = 0.567  # of the width of an image whose pixels are square
BASELINE = 0.063  # metres between the eyes of a ZED mini
ASPECT = 16 / 9  # of the camera's own images; stored ones may be stretched


class _Annotation(msgspec.Struct):
    joints: list[list[float]] = msgspec.field(name='observation.state.joint_position')
    hand: list[list[float]] = msgspec.field(name='observation.state.cartesian_position')
    gripper: list[float] = msgspec.field(name='observation.state.gripper_position')


@dataclass(frozen=True)
class RealClip:
    """One clip of T frames.

    name: as in 'val/199'. stamps_ns: int64 [T], nanoseconds after the first frame. images: uint8 [2, T, H, W, 3], the exterior
    cameras. wrist: uint8 [T, h, w, 3]. joints: float64 [T, 7], radians. gripper: [T], 0 open to 1 closed. T_base_hand:
    [T, 4, 4], panda_link8 in panda_link0, metres.
    """

    name: str
    stamps_ns: np.ndarray
    images: np.ndarray
    wrist: np.ndarray
    joints: np.ndarray
    gripper: np.ndarray
    T_base_hand: np.ndarray

    def __len__(self) -> int:
        return len(self.wrist)

    def anchor_set(self, frame: int) -> AnchorSet:
        """What a model may see of one frame: only the images."""
        return AnchorSet(int(self.stamps_ns[frame]), ANCHORS, np.ascontiguousarray(self.images[:, frame]))

    def wrist_camera(self, frame: int, T_hand_wrist: np.ndarray, hw: tuple[int, int]) -> Camera:
        """The wrist camera by kinematics.

        Args:
            frame: Its number.
            T_hand_wrist: The camera (optical) in the hand, [4, 4], metres.
            hw: Height and width to which its image is resized, pixels.
        """
        T = np.linalg.inv(self.T_base_hand[frame] @ T_hand_wrist)
        return Camera(intrinsics_of(FOCAL, hw), T, hw[1], hw[0])


def mounted_camera(T_flange_wrist: np.ndarray, hw: tuple[int, int]) -> Camera:
    """The wrist camera on the gripper (`AnchorSet.mounted`), which DROID has straight on the flange, from its place there."""
    return Camera(intrinsics_of(FOCAL, hw), np.linalg.inv(T_flange_wrist), hw[1], hw[0])


def intrinsics_of(focal: float, hw: tuple[int, int]) -> np.ndarray:
    """K [3, 3], pixels, of an image of ASPECT that was stretched to hw.

    Args:
        focal: In widths of the image.
        hw: Height and width, pixels.
    """
    height, width = hw
    return np.array([
        [focal * width, 0, (width - 1) / 2], [0, focal * ASPECT * height, (height - 1) / 2], [0, 0, 1.0],
    ])  # fmt: skip


def wrist_mount(turned: bool = False) -> np.ndarray:
    """DROID's wrist camera (optical) in panda_link8, float64 [4, 4], metres; `turned`: upside down, in the same place."""
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler('xyz', MOUNT_RPY, degrees=True).as_matrix()
    T[:3, 3] = MOUNT_XYZ
    upside_down = np.diag([-1.0, -1, 1, 1])  # about the middle between the eyes, of which the left one counts
    upside_down[0, 3] = BASELINE
    return T @ upside_down if turned else T


def list_clips(folder: str | Path) -> list[str]:
    """Names of the clips in a folder, in order.

    Raises:
        UserError: It holds none.
    """
    names = [f'{path.parent.name}/{path.stem}' for path in Path(folder).glob('annotation/*/*.json') if path.is_file()]
    if not names:
        raise UserError(f'{folder} holds no clips', FIX)
    return sorted(names)


def read_clip(folder: str | Path, name: str, most: int | None = None) -> RealClip:
    """Decode a clip.

    Args:
        folder: That holds `annotation` and `videos`.
        name: As `list_clips` gives it.
        most: Frames at most, spread evenly over the clip; None takes all.

    Raises:
        UserError: A file is missing or cannot be read, or videos and states do not belong together.
    """
    folder = Path(folder)
    path = folder / 'annotation' / f'{name}.json'
    record = read_json(path, _Annotation, FIX)
    videos = [read_frames(folder / 'videos' / name / f'{view}.mp4') for view in range(3)]
    frames = len(videos[0])
    if any(len(video) != frames for video in videos):
        raise UserError(
            f'{folder / "videos" / name} has videos of {", ".join(str(len(v)) for v in videos)} frames', FIX
        )
    if videos[0].shape != videos[1].shape:
        raise UserError(f'{folder / "videos" / name} has exterior videos of two sizes', 'give both of one size')
    joints = _table(record.joints, 7, path, 'joint_position', frames)
    hand = _table(record.hand, 6, path, 'cartesian_position', frames)
    gripper = _table([[value] for value in record.gripper], 1, path, 'gripper_position', frames)[:, 0]
    T = np.tile(np.eye(4), (frames, 1, 1))
    T[:, :3, :3] = Rotation.from_euler('xyz', hand[:, 3:]).as_matrix()
    T[:, :3, 3] = hand[:, :3]
    taken = np.arange(frames)
    if most is not None and most < frames:
        taken = np.unique(np.rint(np.linspace(0, frames - 1, most)).astype(int))
    stamps = taken.astype(np.int64) * (1_000_000_000 // FPS)
    images = np.stack([video[taken] for video in videos[:2]])
    return RealClip(name, stamps, images, videos[2][taken], joints[taken], gripper[taken], T[taken])


def _table(rows: list[list[float]], columns: int, path: Path, key: str, frames: int) -> np.ndarray:
    """The rows of the video frames, float64 [frames, columns]."""
    if any(len(row) != columns for row in rows):
        raise UserError(f'{path}, {key}: a row does not have {columns} numbers', FIX)
    needed = ROWS * (frames - 1) + 1
    if len(rows) < needed:
        raise UserError(
            f'{path}, {key}: there are {len(rows)} rows for {frames} video frames', f'give {needed} or more'
        )
    values = np.array(rows, np.float64).reshape(-1, columns)[: ROWS * frames : ROWS]
    if not np.isfinite(values).all():
        raise UserError(f'{path}, {key}: a number is not finite', FIX)
    return values
