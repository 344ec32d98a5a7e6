"""Where everything is known exactly, everything lies where the simulator has it: the robot in anchors and wrist, and the cloud."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

pytest.importorskip('mujoco')
pytest.importorskip('robosuite')
pytest.importorskip('yourdfpy')

from wristworld_ros import AnchorSet, Camera, Geometry, StreamSettings, VirtualWrist
from wristworld_ros.pipeline.model import tiny_random_model
from wristworld_ros.robot.description import RobotModel
from wristworld_ros.robot.known_cameras import resized_camera
from wristworld_ros.sim.robot_description import BASE_FRAME, joint_positions, robot_description
from wristworld_ros.sim.stream import LIVE_SETTINGS, SimulatorStream
from wristworld_ros.types import PixelOrigin, RobotPoints

FINGERS = ('fr3_leftfinger', 'fr3_rightfinger')


class Moment:
    """What the simulator knows of one moment: images, depth and cameras by name, and the robot's surface."""

    def __init__(self, stream: SimulatorStream, robot: RobotModel):
        env = stream.env
        self.stamp_ns = stream.stamp_ns
        self.cameras = stream.cameras()
        shown = {name: env.renderer.render(camera) for name, camera in stream._cameras().items()}
        self.images = {name: image for name, (image, _) in shown.items()}
        self.depth = {name: depth for name, (_, depth) in shown.items()}
        self.robot = robot.surface(joint_positions(env.model, env.data), BASE_FRAME)
        self.anchors = [name for name in self.cameras if name != 'wrist']

    def anchor_set(self, off: np.ndarray | None = None) -> AnchorSet:
        """Everything; the anchors' places wrong by a motion of the camera [4, 4] where one is given."""
        off = np.eye(4) if off is None else off
        cameras = [self.cameras[name] for name in self.anchors]
        return AnchorSet(
            1 + self.stamp_ns,
            tuple(self.anchors),
            np.stack([self.images[name] for name in self.anchors]),
            np.stack([camera.K for camera in cameras]),
            np.stack([self.depth[name] for name in self.anchors]),
            np.stack([np.linalg.inv(camera.T_camera_world) @ off for camera in cameras]),
            self.cameras['wrist'],
            self.robot,
        )


@pytest.fixture(scope='module')
def moments(tmp_path_factory):
    """Three moments with nothing in the gripper, half a second apart."""
    stream = SimulatorStream(LIVE_SETTINGS, 1)
    robot = RobotModel.from_urdf(robot_description(stream.env.model, tmp_path_factory.mktemp('meshes')))
    found = []
    for _ in range(3):
        for _ in range(5):
            stream.step()
        assert stream.gripper > 0.07
        found.append(Moment(stream, robot))
    stream.close()
    return found


@pytest.fixture(scope='module')
def model():
    return tiny_random_model()


def visible(camera: Camera, robot: RobotPoints, depth: np.ndarray, least: float, cell: int = 1):
    """Which surface points a camera sees, by the points alone, and how far from them the surface is measured.

    Args:
        camera: The camera.
        robot: The points.
        depth: What it measures, [H, W], metres.
        least: Cosine of the angle to the ray from which on a point counts as turned to the camera.
        cell: Pixels along each side of a square in which the nearest point hides those more than 3 mm behind it.

    Returns:
        Indices of the points and their z minus the measured one, metres, [N] each.
    """
    R, t = camera.T_camera_world[:3, :3], camera.T_camera_world[:3, 3]
    local, outward = robot.points @ R.T + t, robot.normals @ R.T
    pixels = local @ camera.K.T
    column, row = (np.round(pixels[:, i] / np.maximum(pixels[:, 2], 1e-6)).astype(int) for i in (0, 1))
    z = local[:, 2]
    inside = (z > 0.02) & (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height)
    nearest = np.full((-(-camera.height // cell), -(-camera.width // cell)), np.inf)
    np.minimum.at(nearest, (row[inside] // cell, column[inside] // cell), z[inside])
    facing = -(local * outward).sum(1) > least * np.linalg.norm(local, axis=1)
    seen = np.flatnonzero(inside & facing)
    seen = seen[z[seen] < nearest[row[seen] // cell, column[seen] // cell] + 0.003]
    return seen, z[seen] - depth[row[seen], column[seen]]


def condition_points(condition, camera: Camera) -> np.ndarray:
    """Base-frame points of a condition map's pixels, [h, w, 3], metres."""
    height, width = condition.depth.shape
    camera = resized_camera(camera, (height, width))
    v, u = np.mgrid[:height, :width]
    local = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(camera.K).T * condition.depth.numpy()[..., None]
    T = np.linalg.inv(camera.T_camera_world)
    return local @ T[:3, :3].T + T[:3, 3]


def test_anchors_measure_the_robot_where_its_surface_is(moments):
    for moment in moments:
        for name in moment.anchors:
            seen, error = visible(moment.cameras[name], moment.robot, moment.depth[name], 0.4)
            assert len(seen) > 500 and np.median(np.abs(error)) < 0.003


@pytest.mark.parametrize('finger', FINGERS)
def test_the_wrist_camera_sees_the_fingers_where_their_points_are(moments, finger):
    for moment in moments:
        seen, error = visible(moment.cameras['wrist'], moment.robot, moment.depth['wrist'], 0.2, cell=12)
        error = error[moment.robot.links[seen] == finger]
        assert len(error) > 20 and np.median(np.abs(error)) < 0.003


def test_the_wrist_is_exact_and_so_are_residuals(moments, model):
    wrist = VirtualWrist(model, StreamSettings(check_anchors=False))
    for moment in moments:
        observation = wrist.reconstruct(moment.anchor_set())
        assert observation.geometry is Geometry.RGBD and (observation.residuals < 0.001).all()
        found, truth = observation.reconstruction.wrist.T_camera_world, moment.cameras['wrist'].T_camera_world
        np.testing.assert_allclose(found, truth, atol=1e-9)


def test_the_condition_map_has_the_wrists_own_depth(moments, model):
    wrist = VirtualWrist(model, StreamSettings(check_anchors=False))
    for moment in moments:
        condition = wrist.reconstruct(moment.anchor_set()).condition
        size = condition.depth.shape[0]
        step = moment.depth['wrist'].shape[0] // size
        truth = moment.depth['wrist'].reshape(size, step, size, step)
        low, high = truth.min((1, 3)), truth.max((1, 3))
        flat = (condition.depth.numpy() > 0) & (high - low < 0.01)  # no edge of depth in the pixel
        error = np.abs(condition.depth.numpy() - (low + high) / 2)[flat]
        assert flat.mean() > 0.3 and np.median(error) < 0.003


def test_the_fingers_are_the_robots_own_pixels(moments, model):
    moment = moments[0]
    condition = VirtualWrist(model, StreamSettings(check_anchors=False)).reconstruct(moment.anchor_set()).condition
    places = condition_points(condition, moment.cameras['wrist'])[condition.origin.numpy() == PixelOrigin.ROBOT]
    distance, nearest = cKDTree(moment.robot.points).query(places)
    assert len(places) > 50 and np.median(distance) < 0.005
    assert set(FINGERS) <= set(moment.robot.links[nearest])


@pytest.mark.parametrize('millimetres', [0, 5])
def test_no_measured_point_lies_inside_the_robot(moments, model, millimetres):
    off = np.eye(4)
    off[:3, 3] = 0, 0, millimetres * 1e-3  # the arm is measured that far behind its surface
    for moment in moments:
        condition = (
            VirtualWrist(model, StreamSettings(check_anchors=False)).reconstruct(moment.anchor_set(off)).condition
        )
        places = condition_points(condition, moment.cameras['wrist'])
        distance, nearest = cKDTree(moment.robot.points).query(places)
        depth_inside = -((places - moment.robot.points[nearest]) * moment.robot.normals[nearest]).sum(-1)
        measured = condition.origin.numpy() == PixelOrigin.MEASURED
        assert measured.sum() > 100 and ((depth_inside > 0.002) & (distance < 0.03))[measured].mean() < 0.01
