"""Anchors that nobody calibrated, through the stream: placed by the wrist's known path once it has moved enough."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from wristworld_ros import AnchorSet, Camera, FrameStatus, Geometry, RobotPoints, StreamSettings, VirtualWrist
from wristworld_ros.geometry.poses import looking_at
from wristworld_ros.pipeline.known_geometry import Prediction
from wristworld_ros.pipeline.model import tiny_random_model

HW, SECOND, SCALE = (90, 120), 1_000_000_000, 0.8  # SCALE: metres to one unit of the model
K = np.array([[100.0, 0, 59.5], [0, 100, 44.5], [0, 0, 1]])


@pytest.fixture(scope='module')
def model():
    return tiny_random_model()


def facing(position):
    """T_base_anchor of a camera at a position that looks at the table."""
    return looking_at(np.array(position), np.array([0.5, 0, 0.2]))


ANCHORS = np.stack([facing((1.2, 0.6, 0.6)), facing((1.1, -0.7, 0.5))])
MOVED = np.stack([facing((0.4, 1.1, 0.6)), ANCHORS[1]])


def hand(frame):
    """T_base_wrist at 5 Hz."""
    t, T = frame / 5, np.eye(4)
    T[:3, 3] = 0.5 + 0.15 * np.sin(0.7 * t), 0.15 * np.sin(0.45 * t + 1), 0.35 + 0.1 * np.sin(0.9 * t + 2)
    angles = 180 + 15 * np.sin(0.5 * t), 15 * np.sin(0.8 * t), 50 * np.sin(0.3 * t)
    T[:3, :3] = Rotation.from_euler('xyz', angles, degrees=True).as_matrix()
    return T


def robot() -> RobotPoints:
    i = np.arange(4000) + 0.5
    polar, around = np.arccos(1 - 2 * i / 4000), np.pi * (1 + 5**0.5) * i
    normals = np.stack([np.cos(around) * np.sin(polar), np.sin(around) * np.sin(polar), np.cos(polar)], 1)
    points = np.array([0.4, 0, 0.25]) + 0.12 * normals
    return RobotPoints(
        points.astype(np.float32), np.full((4000, 3), 150, np.uint8), np.full(4000, 'ball'), normals.astype(np.float32)
    )


ROBOT = robot()
IMAGES = np.random.default_rng(0).integers(0, 256, (2, *HW, 3), np.uint8)


class Desk:
    """A stream whose stage 1 knows the truth in a scale of its own, and nothing of the base."""

    def __init__(self, model, **settings):
        given = {'check_anchors': False, 'min_coverage': 0, 'min_confidence': 0.0} | settings
        self.wrist = VirtualWrist(model, StreamSettings(**given))
        self.anchors, self.frame, self.moves = ANCHORS, 0, True
        self.wrist._reconstruction._prediction = self.prediction

    def prediction(self, anchors):
        T_base_wrist = np.linalg.inv(anchors.wrist.T_camera_world)
        poses = np.concatenate([T_base_wrist[None], self.anchors])
        T = np.linalg.inv(np.linalg.inv(self.anchors[0]) @ poses)
        T[:, :3, 3] /= SCALE
        cameras = np.stack([anchors.wrist.K, K, K])
        return Prediction(cameras, T, torch.full((2, 45, 60), 1.0 / SCALE), torch.full((2, 45, 60), 5.0))

    def push(self, count=1, **changes):
        """Sets, one every 0.2 s; the last observation."""
        for _ in range(count):
            wrist = Camera(
                np.array([[30.0, 0, 15.5], [0, 30, 15.5], [0, 0, 1]]), np.linalg.inv(hand(self.frame if self.moves else 0)), 32, 32
            )  # fmt: skip
            known = {'intrinsics': np.stack([K, K]), 'wrist': wrist, 'robot_points': ROBOT}
            stamp = 1 + self.frame * SECOND // 5
            observation = self.wrist.reconstruct(AnchorSet(stamp, ('left', 'right'), IMAGES, **(known | changes)))
            self.frame += 1
        return observation


def errors(reconstruction, anchors=ANCHORS):
    """Worst error of the anchors, metres and degrees."""
    found = np.linalg.inv([camera.T_camera_world for camera in reconstruction.anchors])
    away = np.linalg.norm(found[:, :3, 3] - anchors[:, :3, 3], axis=1).max()
    turned = Rotation.from_matrix(np.swapaxes(found[:, :3, :3], 1, 2) @ anchors[:, :3, :3]).magnitude().max()
    return away, np.rad2deg(turned)


def test_the_world_becomes_the_base_once_the_wrist_has_moved_enough(model):
    desk = Desk(model)
    before = desk.push(30)
    assert before.geometry is Geometry.RGB and before.reconstruction.world == 'anchor'
    assert not before.placement.used and before.placement.reason in before.missing[0]
    after = desk.push(120)
    assert (
        after.geometry is Geometry.CALIBRATED and after.reconstruction.world == 'base' and after.reconstruction.metric
    )
    assert after.placement.used and after.placement.residual < 0.01 and after.placement.observability > 0.06
    away, turned = errors(after.reconstruction)
    assert away < 0.01 and turned < 0.5
    (sentence,) = after.missing
    assert 'calibrate' in sentence and 'samples' in sentence
    np.testing.assert_array_equal(after.reconstruction.wrist.T_camera_world, after.anchors.wrist.T_camera_world)
    (frame,) = desk.wrist.generate(after)
    assert frame.placement is after.placement and frame.missing == after.missing
    assert frame.verdict.status is FrameStatus.VALID


def test_predicted_depth_becomes_metres(model):
    found = Desk(model).push(150, robot_points=None)
    T = found.reconstruction.anchors[1].T_camera_world
    depth = found.reconstruction.points[1].numpy() @ T[2, :3] + T[2, 3]
    np.testing.assert_allclose(depth, 1.0, rtol=0.02)


def test_a_wrist_at_rest_places_nothing(model):
    desk = Desk(model)
    desk.moves = False
    found = desk.push(100)
    assert found.reconstruction.world == 'anchor' and not found.placement.used
    assert 'of which 60 are needed' in found.missing[0]


def test_it_is_not_tried_where_the_setting_says_so_or_the_wrist_is_unknown(model):
    found = Desk(model, place_anchors=False).push(2)
    assert found.placement is None and found.missing == ()
    desk = Desk(model)
    del desk.wrist._reconstruction._prediction  # the model's own, which asks for no wrist
    found = desk.push(2, wrist=None)
    assert found.placement is None and found.missing == ()


def test_known_places_are_not_touched(model):
    desk = Desk(model)
    found = desk.push(100, T_base_anchor=MOVED)
    assert found.placement is None and found.missing == ()
    away, _ = errors(found.reconstruction, MOVED)
    assert away < 1e-9


@pytest.mark.parametrize('how', ['reset', 'clock', 'cameras'])
def test_a_new_stream_starts_over(model, how):
    desk = Desk(model)
    assert desk.push(120).placement.used
    if how == 'reset':
        desk.wrist.reset()
    elif how == 'clock':
        desk.frame = 0
    else:
        changed = desk.push().anchors
        wider = replace(
            changed, stamp_ns=changed.stamp_ns + SECOND, images=np.pad(IMAGES, ((0, 0), (0, 0), (0, 8), (0, 0)))
        )
        assert desk.wrist.reconstruct(replace(wider, T_base_anchor=None)).placement.count == 1
        return
    found = desk.push()
    assert found.placement.count == 1 and found.reconstruction.world == 'anchor'


def test_a_moved_anchor_is_placed_anew(model):
    desk = Desk(model)
    assert desk.push(110).placement.used
    desk.anchors = MOVED
    found = desk.push(150)
    away, turned = errors(found.reconstruction, MOVED)
    assert found.placement.used and away < 0.02 and turned < 1


def test_measured_depth_far_from_the_estimated_arm_does_not_make_frames_invalid(model):
    desk = Desk(model)
    desk.push(150)
    for _ in range(25):
        found = desk.push(depth=np.full((2, *HW), 0.7, np.float32))
    assert found.geometry is Geometry.RGBD and found.reconstruction.world == 'base'
    (frame,) = desk.wrist.generate(found)
    assert frame.verdict.status is FrameStatus.VALID
