"""Anchor sets that know more than images: each part alone and all together, on a scene whose truth is a formula."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from wristworld_ros import (
    AnchorSet,
    Camera,
    FrameStatus,
    Geometry,
    RobotPoints,
    StreamSettings,
    UserError,
    VirtualWrist,
)
from wristworld_ros.pipeline.composite import composite, filled
from wristworld_ros.pipeline.generate import ChunkGenerator
from wristworld_ros.pipeline.model import WristModel, tiny_random_model
from wristworld_ros.types import ConditionMap, PixelOrigin

HW = (180, 240)
BALL, RADIUS = np.array([0.45, 0.0, 0.25]), 0.08  # the robot: a ball above the table


@pytest.fixture(scope='module')
def model():
    return tiny_random_model()


def looking_at(position, target) -> np.ndarray:
    """T_camera_base of a camera at position that faces target."""
    z = np.subtract(target, position) / np.linalg.norm(np.subtract(target, position))
    x = np.cross(z, [0.1, 0.2, 1.0])
    x /= np.linalg.norm(x)
    T = np.eye(4)
    T[:3, :3] = np.stack([x, np.cross(z, x), z])
    T[:3, 3] = -T[:3, :3] @ position
    return T


def camera(position, target, hw=HW, focal=210.0) -> Camera:
    K = np.array([[focal, 0, hw[1] / 2 - 0.5], [0, focal, hw[0] / 2 - 0.5], [0, 0, 1]])
    return Camera(K, looking_at(position, target), hw[1], hw[0])


ANCHORS = [camera((1.1, 0.5, 0.6), (0.45, 0, 0)), camera((1.1, -0.5, 0.6), (0.45, 0, 0))]
WRIST = camera((0.45, 0.0, 0.45), (0.5, 0, 0), (32, 32), 30.0)


def seen(view: Camera, ball: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Image and depth of a table at z = 0, coloured by place, and of a red ball."""
    v, u = np.mgrid[: view.height, : view.width].astype(float)
    rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(view.K).T
    T = np.linalg.inv(view.T_camera_world)
    directions, centre = rays @ T[:3, :3].T, T[:3, 3]
    depth = -centre[2] / directions[..., 2]
    place = centre + directions * depth[..., None]
    image = np.stack([120 + 60 * np.sin(9 * place[..., 0]), 120 + 60 * np.sin(9 * place[..., 1]), 90 + 0 * depth], -1)
    if ball is not None:
        a, b = (directions**2).sum(-1), directions @ (centre - ball)
        root = b**2 - a * (((centre - ball) ** 2).sum() - RADIUS**2)
        hit = root > 0
        near = np.where(hit, (-b - np.sqrt(np.maximum(root, 0))) / a, np.inf)
        image[near < depth] = 200, 30, 30
        depth = np.minimum(depth, near)
    return image.round().astype(np.uint8), depth.astype(np.float32)


def robot(ball: np.ndarray) -> RobotPoints:
    i = np.arange(6000) + 0.5
    polar, around = np.arccos(1 - 2 * i / 6000), np.pi * (1 + 5**0.5) * i
    normals = np.stack([np.cos(around) * np.sin(polar), np.sin(around) * np.sin(polar), np.cos(polar)], 1)
    colors = np.tile(np.uint8([200, 30, 30]), (6000, 1))
    points = (ball + RADIUS * normals).astype(np.float32)
    return RobotPoints(points, colors, np.full(6000, 'ball'), normals.astype(np.float32))


def anchor_set(stamp=1, ball=None, with_robot=False, **changes) -> AnchorSet:
    views = [seen(view, ball) for view in ANCHORS]
    known = {
        'intrinsics': np.stack([view.K for view in ANCHORS]),
        'T_base_anchor': np.stack([np.linalg.inv(view.T_camera_world) for view in ANCHORS]),
        'depth': np.stack([depth for _, depth in views]),
        'wrist': WRIST,
        'robot_points': robot(ball) if with_robot else None,
    }
    return AnchorSet(stamp, ('left', 'right'), np.stack([image for image, _ in views]), **(known | changes))


def only(**parts) -> AnchorSet:
    unknown = dict.fromkeys(('intrinsics', 'T_base_anchor', 'depth', 'wrist', 'robot_points'))
    return replace(anchor_set(), **(unknown | parts))


def stream(model, **settings) -> VirtualWrist:
    return VirtualWrist(model, StreamSettings(check_anchors=False, min_coverage=0, min_confidence=0, **settings))


def test_with_everything_known_the_wrist_sees_what_is_there_and_stage_1_does_not_run(model, monkeypatch):
    wrist = stream(model)
    monkeypatch.setattr(wrist._reconstruction._reconstructor, 'scene', None)
    (frame,) = wrist.push(anchor_set())
    assert frame.geometry is Geometry.RGBD and frame.reconstruction.world == 'base' and frame.reconstruction.metric
    np.testing.assert_array_equal(frame.camera.T_camera_world, WRIST.T_camera_world)
    truth, _ = seen(WRIST)
    hit = frame.condition.any(-1)
    assert hit.mean() > 0.98 and frame.coverage > 0.98
    assert np.abs(frame.condition.astype(int) - truth)[hit].mean() < 3
    assert np.abs(frame.image.astype(int) - truth)[hit].mean() < 4  # measured pixels lie over the generated ones


def test_without_depth_the_known_cameras_stand(model):
    (frame,) = stream(model).push(replace(anchor_set(), depth=None))
    assert (
        frame.geometry is Geometry.CALIBRATED and frame.reconstruction.world == 'base' and frame.reconstruction.metric
    )
    np.testing.assert_array_equal(frame.camera.T_camera_world, WRIST.T_camera_world)
    for found, known in zip(frame.reconstruction.anchors, ANCHORS, strict=True):
        np.testing.assert_allclose(found.T_camera_world, known.T_camera_world, atol=1e-12)


@pytest.mark.parametrize('part', ['intrinsics', 'T_base_anchor', 'depth', 'wrist'])
def test_each_part_alone_is_used(model, part):
    (frame,) = stream(model).push(only(**{part: getattr(anchor_set(), part)}))
    (plain,) = stream(model).push(only())
    assert frame.geometry is Geometry.RGB
    assert not frame.verdict.status.is_blank
    assert frame.reconstruction.world == ('base' if part == 'T_base_anchor' else 'anchor')
    if part == 'depth':
        assert frame.reconstruction.metric
        T = frame.reconstruction.anchors[0].T_camera_world
        found = frame.reconstruction.points[0].numpy() @ T[2, :3] + T[2, 3]
        np.testing.assert_allclose(found, anchor_set().depth[0], rtol=1e-4)
        assert (frame.image == plain.image).mean() < 1
    elif part == 'wrist':
        np.testing.assert_allclose(frame.camera.K, WRIST.K)
    elif part == 'T_base_anchor':
        np.testing.assert_allclose(
            frame.reconstruction.anchors[1].T_camera_world, ANCHORS[1].T_camera_world, atol=1e-12
        )
    else:
        ratio = frame.reconstruction.anchors[0].K[0, 0] / frame.reconstruction.anchors[0].width
        np.testing.assert_allclose(ratio, ANCHORS[0].K[0, 0] / HW[1])
    assert plain.reconstruction.world == 'anchor' and not plain.reconstruction.metric


def test_what_is_unknown_of_one_view_is_filled_for_it_alone(model):
    given = anchor_set()
    depth = given.depth.copy()
    depth[1] = 0
    T = given.T_base_anchor.copy()
    T[1] = np.nan
    (frame,) = stream(model).push(replace(given, depth=depth, T_base_anchor=T))
    assert frame.geometry is Geometry.RGBD
    assert (
        torch.isinf(frame.reconstruction.confidence[0]).all()
        and torch.isfinite(frame.reconstruction.confidence[1]).all()
    )
    assert np.isfinite(frame.reconstruction.anchors[1].T_camera_world).all()


def test_nothing_known_is_the_published_method_to_the_bit(model):
    first, second = stream(model), stream(model, scene_memory=True, composite=False)
    for stamp in range(1, 4):
        (one,), (two,) = (s.push(replace(only(), stamp_ns=stamp)) for s in (first, second))
        np.testing.assert_array_equal(one.image, two.image)
        np.testing.assert_array_equal(one.condition, two.condition)


def test_the_robots_own_points_replace_the_measured_ones(model):
    wrist = stream(model)
    observation = wrist.reconstruct(anchor_set(ball=BALL, with_robot=True))
    truth, depth = seen(WRIST, BALL)
    red = truth[..., 0] == 200
    origin = observation.condition.origin.numpy()
    assert (origin[red] == PixelOrigin.ROBOT).mean() > 0.8
    beside = cv2.dilate(red.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    assert (origin[~beside] == PixelOrigin.ROBOT).mean() < 0.02  # its outline grows by two pixels of 32 at most
    error = np.abs(observation.condition.depth.numpy() - depth)[red & (origin == PixelOrigin.ROBOT)]
    assert np.median(error) < 0.008  # a pixel is 4 mm wide there
    assert np.nanmax(observation.residuals) < 0.001


def test_what_the_robot_hides_now_is_remembered_and_forgotten_after_a_reset(model):
    behind = np.array([0.75, 0.22, 0.28])  # hides a part of the table from the left anchor

    def remembered(settings, reset=False):
        wrist = stream(model, **settings)
        wrist.reconstruct(anchor_set(1, ball=BALL + (0, 0, 5), with_robot=True))
        if reset:
            wrist.reset()
        left = wrist.reconstruct(anchor_set(2, ball=behind, with_robot=True))
        return int((left.condition.origin == PixelOrigin.MEMORY).sum())

    def blind(anchors):  # the right anchor alone would see what the ball hides from the left one
        depth = anchors.depth.copy()
        depth[1, 1:] = 0
        return replace(anchors, depth=depth)

    wrist = stream(model, scene_memory=True)
    wrist.reconstruct(blind(anchor_set(1, ball=BALL + (0, 0, 5), with_robot=True)))
    shown = wrist.reconstruct(blind(anchor_set(2, ball=behind, with_robot=True)))
    memory = shown.condition.origin == PixelOrigin.MEMORY
    assert int(memory.sum()) > 10
    truth, _ = seen(WRIST)
    error = np.abs(shown.condition.image.numpy().astype(int) - truth)[memory.numpy()]
    assert np.median(error) < 5
    assert remembered({'scene_memory': True}) > 0 == remembered({})
    assert remembered({'scene_memory': True}, reset=True) == 0


def off_by(anchors: AnchorSet, view: int, metres, degrees=(0, 0, 0)) -> AnchorSet:
    """The set with the place of one anchor wrong by a motion of that camera."""
    T = anchors.T_base_anchor.copy()
    move = np.eye(4)
    move[:3, :3] = Rotation.from_euler('xyz', degrees, degrees=True).as_matrix()
    move[:3, 3] = metres
    T[view] = T[view] @ move
    return replace(anchors, T_base_anchor=T)


def test_an_anchor_that_sees_the_robot_elsewhere_is_named_with_the_limit(model):
    wrist = stream(model, scene_memory=False)
    for stamp in range(1, 11):
        (frame,) = wrist.push(off_by(anchor_set(stamp, ball=BALL, with_robot=True), 1, (0, 0.06, 0.06)))
    assert frame.verdict.status is FrameStatus.ANCHOR_MOVED and frame.residuals[0] < 0.001 < 0.03 < frame.residuals[1]
    assert 'Anchor right' in frame.reason and 'max_residual is 30 mm' in frame.reason and 'calibrate' in frame.reason


@pytest.mark.parametrize(
    'metres, degrees', [((0.02, 0, 0), (0, 2, 0)), ((0, 0, 0.02), (2, 0, 0)), ((0.012, 0.012, 0.01), (0, -2, 0))]
)
def test_a_camera_that_was_bumped_by_2_cm_and_2_degrees_is_named_within_5_seconds(model, metres, degrees):
    wrist = stream(model, scene_memory=False)
    verdicts = []
    for i in range(80):
        anchors = anchor_set(1 + i * 10**8, ball=BALL, with_robot=True)
        observation = wrist.reconstruct(off_by(anchors, 1, metres, degrees) if i >= 30 else anchors)
        verdicts.append(observation.anchor_verdict)
    assert all(v.status is FrameStatus.VALID for v in verdicts[:30])
    assert all(v.status is FrameStatus.ANCHOR_MOVED and 'Anchor right' in v.reason for v in verdicts[60:])


def test_depth_that_is_not_finite_counts_as_unknown(model):
    given = anchor_set()
    depth = given.depth.copy()
    depth[:, :60] = np.nan
    (frame,) = stream(model).push(replace(given, depth=depth))
    assert frame.geometry is Geometry.RGBD and not frame.verdict.status.is_blank


@pytest.mark.parametrize('name, value', [
    ('intrinsics', np.eye(3)), ('T_base_anchor', np.eye(4)), ('depth', np.zeros((2, 5, 5), np.float32)),
])  # fmt: skip
def test_wrong_shapes_are_refused_with_the_right_one(name, value):
    with pytest.raises(UserError, match=rf'AnchorSet.{name} has shape .*give \['):
        replace(anchor_set(), **{name: value})


def test_only_trusted_pixels_are_laid_over_the_generated_image():
    image = np.full((16, 16, 3), 10, np.uint8)
    origin = torch.zeros(16, 16, dtype=torch.uint8)
    origin[:, :8] = PixelOrigin.MEASURED
    origin[:, 8:12] = PixelOrigin.PREDICTED
    shown = torch.full((16, 16, 3), 200, dtype=torch.uint8)
    condition = ConditionMap(shown, torch.ones(16, 16), origin, torch.ones(16, 16))
    mixed = composite(image, condition)
    assert (mixed[:, :5] == 200).all() and (mixed[:, 8:] == 10).all()
    assert composite(image, ConditionMap(shown, torch.ones(16, 16))) is image


def test_the_generator_does_not_run_where_nearly_all_is_trusted(model, monkeypatch):
    calls = []
    blank = np.zeros((*model.config.wrist_hw, 3), np.uint8)
    monkeypatch.setattr(ChunkGenerator, '__call__', lambda *_: calls.append(1) or [blank])
    anchors = anchor_set()
    (frame,) = stream(model).push(anchors)
    assert frame.geometry is Geometry.RGBD and frame.valid and not calls
    shown = (frame.condition > 0).any(-1)
    assert shown.mean() > 0.9 and (frame.image > 0).all()
    assert (np.abs(frame.image.astype(int) - frame.condition)[shown] <= 1).all()
    stream(model, fill_from=None).push(anchors)
    stream(model, composite=False).push(anchors)
    stream(model).push(only(wrist=WRIST))
    assert len(calls) == 3


@pytest.mark.parametrize(('metres', 'degrees', 'generated'), [(0.0, 0, 1), (0.02, 6, 1), (0.05, 0, 0), (0.0, 20, 0)])
def test_a_generator_that_learnt_the_hand_from_elsewhere_does_not_run(model, monkeypatch, metres, degrees, generated):
    calls = []
    blank = np.zeros((*model.config.wrist_hw, 3), np.uint8)
    monkeypatch.setattr(ChunkGenerator, '__call__', lambda *_: calls.append(1) or [blank])
    learnt = tuple(map(tuple, np.eye(4)))
    model = WristModel(replace(model.config, mount=learnt), model.stage1, model.generator, 'cpu')
    mount = np.eye(4)
    mount[:3, :3] = Rotation.from_euler('y', degrees, degrees=True).as_matrix()
    mount[0, 3] = metres
    mounted = replace(WRIST, T_camera_world=np.linalg.inv(mount))
    (frame,) = stream(model).push(only(mounted=mounted, wrist=WRIST))
    assert len(calls) == generated and not frame.verdict.status.is_blank
    stream(model, fill_from=None).push(only(mounted=mounted, wrist=WRIST))
    stream(model).push(only(wrist=WRIST))
    assert len(calls) == generated + 2


def test_small_gaps_of_a_composite_are_filled_and_large_ones_generated():
    shown = ConditionMap(
        torch.full((64, 64, 3), 200, dtype=torch.uint8), torch.ones(64, 64),
        torch.full((64, 64), int(PixelOrigin.MEASURED), dtype=torch.uint8), torch.ones(64, 64),
    )  # fmt: skip
    for rows, columns in ((slice(10, 13), slice(10, 13)), (slice(30, 60), slice(30, 60))):
        shown.image[rows, columns], shown.depth[rows, columns] = 0, 0
        shown.origin[rows, columns], shown.confidence[rows, columns] = 0, 0
    mixed = composite(np.full((64, 64, 3), 40, np.uint8), shown)
    assert (mixed[10:13, 10:13] > 190).all()
    assert (mixed[40:50, 40:50] == 40).all() and (mixed[:5] == 200).all()


def test_what_the_robot_hides_is_filled_from_the_scene_and_not_from_the_robot():
    origin = torch.full((64, 64), int(PixelOrigin.MEASURED), dtype=torch.uint8)
    origin[40:] = PixelOrigin.ROBOT
    image = torch.full((64, 64, 3), 200, dtype=torch.uint8)
    image[40:] = 20
    depth, confidence = torch.ones(64, 64), torch.ones(64, 64)
    for hole in (
        slice(30, 40),
        slice(38, 40),
    ):  # beside the robot; a small one is composited, a large one left to the generator
        rows = torch.zeros(64, dtype=torch.bool)
        rows[hole] = True
        shown = ConditionMap(
            image.clone(), depth * ~rows[:, None], torch.where(rows[:, None], 0, origin).to(torch.uint8), confidence
        )
        shown.image[rows] = 0
        found = filled(shown)
        assert (found[hole] > 190).all() and (found[40:] == 20).all() and (found[:30] == 200).all()
    mixed = composite(np.full((64, 64, 3), 90, np.uint8), shown)
    assert (mixed[38:40] > 150).all()


def test_a_map_of_the_robot_alone_is_filled_from_the_robot():
    origin = torch.zeros(16, 16, dtype=torch.uint8)
    origin[8:] = PixelOrigin.ROBOT
    shown = ConditionMap(
        torch.full((16, 16, 3), 50, dtype=torch.uint8), (origin > 0).float(), origin, torch.ones(16, 16)
    )
    assert (filled(shown) == 50).all()


def test_a_wrist_that_looks_away_from_all_that_is_measured_sees_nothing(model):
    away = camera((0.45, 0.0, 0.45), (0.45, 0.0, 5.0), (32, 32), 30.0)
    observation = stream(model).reconstruct(anchor_set(wrist=away))
    assert int((observation.condition.depth > 0).sum()) == 0 and observation.coverage == 0
