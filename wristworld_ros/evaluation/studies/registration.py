"""How well is a camera found by the arm that it sees? `python -m wristworld_ros.evaluation.studies.registration`.

The simulated arm in random poses before one depth camera, with the noise and the holes of a sensor; the guess is off by a known
amount. For each case: errors of the camera, of a point at the arm, and what the calibration itself expects there.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from wristworld_ros.errors import UserError
from wristworld_ros.evaluation.table import markdown
from wristworld_ros.robot.board import Intrinsics
from wristworld_ros.robot.description import RobotModel
from wristworld_ros.robot.register import register_arm
from wristworld_ros.runtime.progress import ProgressBar
from wristworld_ros.sim.arm_poses import SETTINGS, record_arm_poses, wrong_guess
from wristworld_ros.sim.robot_description import BASE_FRAME, robot_description
from wristworld_ros.sim.stream import SimulatorStream

# name -> poses, noise of depth, metres and degrees of the guess, degrees of joint offsets
CASES = {
    'as a sensor has it': (5, 0.005, 0.1, 10.0, 0.0),
    'exact depth': (5, 0.0, 0.1, 10.0, 0.0),
    'twice the noise': (5, 0.01, 0.1, 10.0, 0.0),
    '3 poses': (3, 0.005, 0.1, 10.0, 0.0),
    '10 poses': (10, 0.005, 0.1, 10.0, 0.0),
    'guess off by 20 cm and 20 degrees': (5, 0.005, 0.2, 20.0, 0.0),
    'joints off by 0.2 degrees': (5, 0.005, 0.1, 10.0, 0.2),
}


class Study:
    """Registers simulated recordings whose truth is known."""

    def __init__(self):
        self.stream = SimulatorStream(SETTINGS, 0)
        self._meshes = tempfile.TemporaryDirectory()
        self.robot = RobotModel.from_urdf(robot_description(self.stream.env.model, Path(self._meshes.name)))

    def run(
        self, seed: int, poses: int, noise: float, metres: float, degrees: float, joint_degrees: float
    ) -> tuple[float, float, float, float, float]:
        """Errors of the camera (mm, degrees), of a point at the arm and what was expected of it (mm), and seconds.

        Raises:
            UserError: The registration gave up.
        """
        record = record_arm_poses(self.stream, seed, poses, noise)
        truth = np.linalg.inv(record.camera.T_camera_world)
        offsets = np.random.default_rng([seed, 3]).normal(0, np.radians(joint_degrees), 7)
        shift = {f'fr3_joint{i + 1}': offset for i, offset in enumerate(offsets)}
        surfaces = [
            self.robot.surface({name: value + shift.get(name, 0.0) for name, value in positions.items()}, BASE_FRAME)
            for positions in record.joints
        ]
        camera = Intrinsics(record.camera.K, np.empty(0), record.camera.width, record.camera.height)
        started = time.perf_counter()
        found = register_arm(record.depth, camera, surfaces, wrong_guess(truth, seed, metres, degrees))
        seconds = time.perf_counter() - started
        error = np.linalg.inv(truth) @ found.T_base_camera
        at_arm = error[:3, :3] @ found.center + error[:3, 3] - found.center
        turn = float(np.degrees(Rotation.from_matrix(error[:3, :3]).magnitude()))
        lengths = 1e3 * np.array([np.linalg.norm(error[:3, 3]), np.linalg.norm(at_arm), found.expected_error])
        return float(lengths[0]), turn, float(lengths[1]), float(lengths[2]), seconds

    def close(self) -> None:
        """Free the renderer."""
        self.stream.close()
        self._meshes.cleanup()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog='python -m wristworld_ros.evaluation.studies.registration', description=__doc__
    )
    parser.add_argument('--seeds', type=int, default=20, help='Recordings of each case.')
    parser.add_argument('--cases', nargs='*', default=list(CASES), choices=list(CASES))
    args = parser.parse_args()
    study, rows = Study(), []
    for case in args.cases:
        results, refused = [], 0
        for seed in ProgressBar(range(args.seeds), desc=case, unit='seed'):
            try:
                results.append(study.run(seed, *CASES[case]))
            except UserError as error:
                refused += 1
                ProgressBar.write(f'{case}, seed {seed}: {error}')
        rows.append([case, *_cells(np.array(results).reshape(-1, 5)), str(refused)])
        ProgressBar.write(' | '.join(rows[-1]))
    study.close()
    heads = ['case', 'camera, mm', 'camera, degrees', 'at the arm, mm', 'expected there, mm', 'seconds', 'refused']
    print(f'{markdown(heads, rows)}\n\nMedian, and the largest in brackets, of {args.seeds} recordings.')


def _cells(values: np.ndarray) -> list[str]:
    """Of results [N, 5], in the order of `Study.run`."""
    if not len(values):
        return ['-'] * 5
    median, worst = np.median(values, 0), values.max(0)
    spread = [f'{median[i]:.{digits}f} ({worst[i]:.{digits}f})' for i, digits in enumerate((1, 2, 1))]
    return [*spread, f'{median[3]:.1f}', f'{median[4]:.0f}']


if __name__ == '__main__':
    main()
