"""Depth of a depth-estimation model, made metric by the robot's own surface, on a scene whose truth is a formula."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from wristworld_ros import AnchorSet, Camera, Geometry, RobotPoints, StreamSettings, UserError, VirtualWrist
from wristworld_ros.pipeline.known_geometry import Prediction
from wristworld_ros.pipeline.model import tiny_random_model
from wristworld_ros.robot.depth_model import DepthModel
from wristworld_ros.types import PixelOrigin

HW = (180, 240)
BALL, RADIUS = np.array([0.3, 0.1, 0.2]), 0.15  # the robot


@pytest.fixture(scope='module')
def model():
    return tiny_random_model()


def camera(position, target, hw=HW, focal=210.0) -> Camera:
    z = np.subtract(target, position) / np.linalg.norm(np.subtract(target, position))
    x = np.cross(z, [0.1, 0.2, 1.0])
    x /= np.linalg.norm(x)
    T = np.eye(4)
    T[:3, :3] = np.stack([x, np.cross(z, x), z])
    T[:3, 3] = -T[:3, :3] @ position
    return Camera(np.array([[focal, 0, hw[1] / 2 - 0.5], [0, focal, hw[0] / 2 - 0.5], [0, 0, 1]]), T, hw[1], hw[0])


ANCHORS = [camera((1.1, 0.5, 0.6), (0.45, 0, 0)), camera((1.1, -0.5, 0.6), (0.45, 0, 0))]
WRIST = camera((0.55, 0.0, 0.45), (0.6, 0, 0), (32, 32), 30.0)


def seen(view: Camera, ball: np.ndarray = BALL) -> tuple[np.ndarray, np.ndarray]:
    """Image and depth of a table at z = 0, coloured by place, and of a red ball."""
    v, u = np.mgrid[: view.height, : view.width].astype(float)
    T = np.linalg.inv(view.T_camera_world)
    directions = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(view.K).T @ T[:3, :3].T
    centre = T[:3, 3]
    depth = -centre[2] / directions[..., 2]
    place = centre + directions * depth[..., None]
    image = np.stack([120 + 60 * np.sin(9 * place[..., 0]), 120 + 60 * np.sin(9 * place[..., 1]), 90 + 0 * depth], -1)
    a, b = (directions**2).sum(-1), directions @ (centre - ball)
    root = b**2 - a * (((centre - ball) ** 2).sum() - RADIUS**2)
    near = np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, np.inf)
    image[near < depth] = 200, 30, 30
    return image.round().astype(np.uint8), np.minimum(depth, near).astype(np.float32)


def robot(ball: np.ndarray = BALL) -> RobotPoints:
    i = np.arange(8000) + 0.5
    polar, around = np.arccos(1 - 2 * i / 8000), np.pi * (1 + 5**0.5) * i
    normals = np.stack([np.cos(around) * np.sin(polar), np.sin(around) * np.sin(polar), np.cos(polar)], 1)
    colors = np.tile(np.uint8([200, 30, 30]), (8000, 1))
    points = (ball + RADIUS * normals).astype(np.float32)
    return RobotPoints(points, colors, np.full(8000, 'ball'), normals.astype(np.float32))


def anchor_set(**changes) -> AnchorSet:
    known = {
        'intrinsics': np.stack([view.K for view in ANCHORS]),
        'T_base_anchor': np.stack([np.linalg.inv(view.T_camera_world) for view in ANCHORS]),
        'wrist': WRIST,
        'robot_points': robot(),
    }
    return AnchorSet(1, ('left', 'right'), np.stack([seen(view)[0] for view in ANCHORS]), **(known | changes))


def stream(model, source=None, **settings) -> VirtualWrist:
    settings = {'check_anchors': False, 'min_coverage': 0, 'min_confidence': 0.0, 'place_anchors': False} | settings
    return VirtualWrist(model, StreamSettings(**settings), source)


def true_depth() -> np.ndarray:
    return np.stack([seen(view)[1] for view in ANCHORS])


def affine(inverse: bool, scales=(3.0, 0.4), shifts=(-0.7, 2.0), noise=0.0):
    """A source that knows true depth (or its inverse) up to a scale and shift of each image."""
    rng = np.random.default_rng(0)

    def source(images: np.ndarray) -> np.ndarray:
        assert images.shape == (2, *HW, 3) and images.dtype == np.uint8
        depth = true_depth() * (1 + noise * rng.normal(size=(2, *HW)))
        value = 1 / depth if inverse else depth
        return (np.array(scales)[:, None, None] * value + np.array(shifts)[:, None, None]).astype(np.float32)

    return source


@pytest.mark.parametrize('inverse', [False, True])
def test_the_condition_map_is_that_of_true_depth(model, inverse, monkeypatch):
    wrist = stream(model, affine(inverse))
    monkeypatch.setattr(wrist._reconstruction._reconstructor, 'scene', None)  # stage 1 takes no part
    found = wrist.reconstruct(anchor_set())
    truth = stream(model, scene_memory=False).reconstruct(anchor_set(depth=true_depth()))
    assert (
        found.geometry is Geometry.CALIBRATED and found.reconstruction.world == 'base' and found.reconstruction.metric
    )
    assert found.missing == ()
    depth, wanted = found.condition.depth.numpy(), truth.condition.depth.numpy()
    both = (depth > 0) & (wanted > 0)
    assert both.mean() > 0.95
    assert np.median(np.abs(depth - wanted)[both]) < 0.005
    difference = np.abs(found.condition.image.numpy().astype(int) - truth.condition.image.numpy())[both]
    assert np.median(difference) <= 2 and difference.mean() < 6
    origins = found.condition.origin.numpy()
    assert (origins == PixelOrigin.PREDICTED).mean() > 0.9 and not (origins == PixelOrigin.MEASURED).any()
    assert found.coverage > 0.95


def test_noise_of_the_source_costs_confidence(model):
    exact = stream(model, affine(True)).reconstruct(anchor_set())
    noisy = stream(model, affine(True, noise=0.05)).reconstruct(anchor_set())
    assert 0 < noisy.confidence < exact.confidence


def test_what_is_measured_stands_and_the_model_fills_the_rest(model):
    depth = true_depth()
    depth[:, 20:] = 0
    found = stream(model, affine(False)).reconstruct(anchor_set(depth=depth, robot_points=None))
    points = found.reconstruction.points[0].numpy() @ ANCHORS[0].T_camera_world[2, :3] + ANCHORS[0].T_camera_world[2, 3]
    np.testing.assert_allclose(points, true_depth()[0], atol=0.01)
    assert torch.isinf(found.reconstruction.confidence[0, :20]).all()


@pytest.mark.parametrize('changes, words', [
    ({'robot_points': None}, "the robot's surface is unknown"),
    ({'wrist': None}, 'the place of the wrist camera is unknown'),
    ({'T_base_anchor': None}, 'the place of anchor_left is unknown'),
    ({'intrinsics': np.stack([np.full((3, 3), np.nan), ANCHORS[1].K])}, 'the calibration of anchor_left is unknown'),
])  # fmt: skip
def test_what_it_needs_and_does_not_have_is_said_and_stage_1_goes_on(model, changes, words):
    (frame,) = stream(model, affine(False)).push(anchor_set(**changes))
    (plain,) = stream(model).push(anchor_set(**changes))
    (sentence,) = frame.missing
    assert words in sentence and sentence.startswith('geometry_model') and plain.missing == ()
    np.testing.assert_array_equal(frame.image, plain.image)


def test_images_alone_stay_the_published_method_and_say_what_is_missing(model):
    unknown = dict.fromkeys(('intrinsics', 'T_base_anchor', 'wrist', 'robot_points'))
    (frame,), (plain,) = (s.push(anchor_set(**unknown)) for s in (stream(model, affine(False)), stream(model)))
    np.testing.assert_array_equal(frame.image, plain.image)
    assert 'unknown' in frame.missing[0]


def test_a_view_that_shows_too_little_of_the_robot_is_named_and_has_no_depth(model):
    T = anchor_set().T_base_anchor
    away = camera((1.1, -0.5, 0.6), (1.6, -0.9, 0.0))
    T[1] = np.linalg.inv(away.T_camera_world)
    found = stream(model, affine(False)).reconstruct(anchor_set(T_base_anchor=T))
    (sentence,) = found.missing
    assert 'anchor_right' in sentence and 'pixels, of which 216 are needed' in sentence
    assert np.isnan(found.reconstruction.points[1].numpy()).all()
    assert np.isfinite(found.reconstruction.points[0].numpy()).all()


def test_a_model_that_does_not_follow_the_robot_is_not_believed(model):
    found = stream(model, lambda images: np.ones(images.shape[:3], np.float32)).reconstruct(anchor_set())
    assert len(found.missing) == 2 and all('does not vary' in sentence for sentence in found.missing)
    noise = stream(model, lambda images: np.random.default_rng(0).normal(size=images.shape[:3]).astype(np.float32))
    assert noise.reconstruct(anchor_set()).confidence < stream(model, affine(True)).reconstruct(anchor_set()).confidence


def test_a_model_of_transformers_runs_through_the_stream(model, depth_model_folder, monkeypatch):
    wrist = stream(model, geometry_model=str(depth_model_folder))
    given, run = [], DepthModel.__call__
    monkeypatch.setattr(DepthModel, '__call__', lambda self, images: given.append(images.shape) or run(self, images))
    frames = [frame for stamp in (1, 2) for frame in wrist.push(replace(anchor_set(), stamp_ns=stamp))]
    assert given == [(2, *HW, 3)] * 2 and len(frames) == 2
    assert all(not frame.verdict.status.is_blank for frame in frames)


def test_a_bad_folder_is_one_sentence(model, tmp_path):
    with pytest.raises(UserError, match='There is no folder'):
        stream(model, geometry_model=str(tmp_path / 'none'))
    with pytest.raises(UserError, match=r'has no config\.json'):
        stream(model, geometry_model=str(tmp_path))


@pytest.mark.parametrize('robot_points, right', [(robot(), True), (None, False)])
def test_predicted_depth_is_scaled_so_that_the_robot_is_where_it_must_be(model, monkeypatch, robot_points, right):
    wrist, off = stream(model), np.array([0.6, 1.5])  # the model's depth over the true one, in each view
    depth = torch.from_numpy((true_depth() * off[:, None, None]).astype(np.float32))
    K = np.stack([view.K for view in (WRIST, *ANCHORS)])
    T = np.stack([view.T_camera_world for view in (WRIST, *ANCHORS)]) @ np.linalg.inv(ANCHORS[0].T_camera_world)
    monkeypatch.setattr(
        wrist._reconstruction, '_prediction', lambda anchors: Prediction(K, T, depth, torch.full_like(depth, 5.0))
    )
    found = wrist.reconstruct(anchor_set(robot_points=robot_points))
    for view, (camera, points) in enumerate(zip(ANCHORS, found.reconstruction.points, strict=True)):
        z = points.numpy() @ camera.T_camera_world[2, :3] + camera.T_camera_world[2, 3]
        ratio = np.nanmedian(z / true_depth()[view])
        assert (abs(ratio - 1) < 0.02) == right
