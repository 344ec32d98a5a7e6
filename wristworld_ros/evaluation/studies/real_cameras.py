"""Where the exterior cameras of real clips are, by the arm alone: `python -m wristworld_ros.evaluation.studies.real_cameras CLIPS --out FOLDER`.

Every exterior camera is searched by the outline of the arm in many poses (`robot.outline`), without a guess. What is trusted goes into
`<out>/<clip>/calibration.yaml`, which `wristworld evaluate --real CLIPS --calibrations FOLDER` reads; what is not is said. Beside
it, `<out>/<clip>/exterior_1.png` shows the robot's outline over four of the frames: whether a camera is right is to be seen there.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from wristworld_ros.data.images import write_image
from wristworld_ros.data.real_clips import ANCHORS, RealClip, intrinsics_of, list_clips, read_clip, wrist_mount
from wristworld_ros.errors import UserError
from wristworld_ros.evaluation.real import CALIBRATION
from wristworld_ros.input_files import json_text
from wristworld_ros.robot.board import Intrinsics
from wristworld_ros.robot.calibration_file import (
    Calibration,
    CameraModel,
    PlacedCamera,
    WristMount,
    place,
    write_calibration,
)
from wristworld_ros.robot.description import RobotModel
from wristworld_ros.robot.outline import OutlineFit, find_camera
from wristworld_ros.robot.outline_picture import outline_over
from wristworld_ros.runtime.files import write_text
from wristworld_ros.sim.droid_robot import droid_description, droid_positions
from wristworld_ros.types import RobotPoints

# ZED 2, as DROID's exterior cameras are: its makers state 110 x 70 degrees for the whole sensor; at 1280x720 it sees 101 degrees.
FOCAL, FOCAL_ERROR = 0.4125, 0.03  # of the width; standard deviation as a share
SURFACE_SPACING = 0.012  # metres
SHOWN = (0.1, 0.4, 0.65, 0.9)  # of the clip
TURNED = ('train/6',)  # clips whose wrist camera is upside down: the gripper enters their wrist videos from above


def main() -> None:
    """Search every exterior camera and write what was found."""
    parser = argparse.ArgumentParser(
        prog='python -m wristworld_ros.evaluation.studies.real_cameras', description=__doc__
    )
    parser.add_argument('clips', type=Path, help='Folder of clips.')
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--only', nargs='*', help='Names of clips; all by default.')
    parser.add_argument('--turned', nargs='*', default=TURNED, help='Clips whose wrist camera is upside down.')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        robots = {
            turned: RobotModel.from_urdf(droid_description(Path(folder) / str(turned), turned), SURFACE_SPACING)
            for turned in (False, True)
        }
    for name in args.only or list_clips(args.clips):
        clip, turned = read_clip(args.clips, name), name in args.turned
        surfaces = [robots[turned].surface(droid_positions(q, g)) for q, g in zip(clip.joints, clip.gripper)]
        placed = {}
        for view, anchor in enumerate(ANCHORS):
            camera = _find(clip, view, surfaces, args.out / name / anchor)
            if camera is not None:
                placed[anchor] = camera
        if placed:
            xyz, quaternion = place(wrist_mount(turned))
            wrist = WristMount(xyz=xyz, quaternion=quaternion, hand_frame='panda_link8')
            calibration = Calibration(base_frame='panda_link0', anchors=placed, wrist=wrist)
            write_calibration(args.out / name / CALIBRATION, calibration)


def _find(clip: RealClip, view: int, surfaces: list[RobotPoints], path: Path) -> PlacedCamera | None:
    """The camera where it is trusted; picture and numbers are written in any case."""
    started, images = time.process_time(), clip.images[view]
    hw = images.shape[1:3]
    try:
        fit = find_camera(images, surfaces, intrinsics_of(FOCAL, hw), FOCAL_ERROR)
    except UserError as error:
        print(f'{clip.name} {ANCHORS[view]}: refused, {error.what}', flush=True)
        return None
    seconds = time.process_time() - started
    frames = [int(share * len(clip)) for share in SHOWN]
    pictures = [outline_over(images[i], surfaces[i], fit.K, fit.T_base_camera) for i in frames]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path.with_suffix('.png'), np.concatenate(pictures, 1))
    write_text(path.with_suffix('.json'), json_text(_numbers(fit) | {'seconds': seconds}))
    print(f'{clip.name} {ANCHORS[view]}: {fit.summary}', flush=True)
    if fit.doubt:
        return None
    xyz, quaternion = place(fit.T_base_camera)
    model = CameraModel.of(Intrinsics(fit.K, np.empty(0), hw[1], hw[0]))
    return PlacedCamera(xyz=xyz, quaternion=quaternion, camera=model)


def _numbers(fit: OutlineFit) -> dict:
    return {
        'T_base_camera': fit.T_base_camera.tolist(), 'K': fit.K.tolist(), 'residual': fit.residual, 'apart': fit.apart,
        'apart_m': fit.apart_m, 'explained': fit.explained, 'score': fit.score, 'ahead': fit.ahead, 'doubt': fit.doubt,
    }  # fmt: skip


if __name__ == '__main__':
    main()
