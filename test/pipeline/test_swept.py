"""The stream with a plane sweep: which sets it serves, and what its condition maps say of themselves."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from wristworld_ros.geometry.poses import looking_at
from wristworld_ros.geometry.support import SupportSearch
from wristworld_ros.models.sweep import SweepConfig, SweepNetwork
from wristworld_ros.pipeline import VirtualWrist, tiny_random_model
from wristworld_ros.pipeline.swept import PlaneSweep
from wristworld_ros.settings import StreamSettings
from wristworld_ros.types import AnchorSet, Camera, FrameStatus, Geometry, PixelOrigin

HW = (96, 128)
K = np.array([[120.0, 0, 63.5], [0, 120.0, 47.5], [0, 0, 1]])
TABLE = 0.05  # metres over the robot's base
PLACES = (np.array([1.3, 0.6, 0.7]), np.array([1.4, -0.5, 0.6]), np.array([1.5, 0.1, 0.9]))


@pytest.fixture(scope='module')
def model():
    made = tiny_random_model()
    torch.manual_seed(0)
    made.sweep = (
        SweepNetwork(SweepConfig(features=8, matched=8, widths=(16, 16), anchor_width=128)).eval().requires_grad_(False)
    )
    return made


def picture(camera):
    """What a camera sees of a table of noise."""
    texture = cv2.GaussianBlur(np.random.default_rng(0).uniform(0, 255, (500, 500, 3)).astype(np.float32), (0, 0), 5)
    texture = cv2.normalize(texture, None, 20, 235, cv2.NORM_MINMAX)
    v, u = np.meshgrid(np.arange(HW[0]), np.arange(HW[1]), indexing='ij')
    rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(camera.K).T @ camera.T_camera_world[:3, :3]
    centre = np.linalg.inv(camera.T_camera_world)[:3, 3]
    t = (TABLE - centre[2]) / np.minimum(rays[..., 2], -1e-3)
    x, y = (centre[i] + t * rays[..., i] for i in (0, 1))
    return cv2.remap(texture, (200 * x + 50).astype(np.float32), (200 * (y + 1.2)).astype(np.float32), cv2.INTER_LINEAR)


def anchor_set(views=2, stamp=0, wrist_at=(0.52, 0.02, 0.3), wrist_to=(0.52, 0.03, 0.0)):
    anchors = [
        Camera(K, np.linalg.inv(looking_at(p, np.array([0.55, 0.0, TABLE]))), HW[1], HW[0]) for p in PLACES[:views]
    ]
    wrist = Camera(
        np.array([[30.0, 0, 15.5], [0, 30.0, 15.5], [0, 0, 1]]),
        np.linalg.inv(looking_at(np.array(wrist_at), np.array(wrist_to))), 32, 32,
    )  # fmt: skip
    return AnchorSet(
        stamp, tuple('abc'[:views]), np.stack([picture(c) for c in anchors]).astype(np.uint8),
        intrinsics=np.stack([K] * views), T_base_anchor=np.stack([np.linalg.inv(c.T_camera_world) for c in anchors]),
        wrist=wrist,
    )  # fmt: skip


def stream(model, **settings):
    return VirtualWrist(model, StreamSettings(chunk=1, check_anchors=False, **settings))


def test_known_cameras_without_depth_are_swept(model):
    wrist = stream(model)
    observation = wrist.reconstruct(anchor_set())
    condition = observation.condition
    assert observation.geometry is Geometry.CALIBRATED
    assert set(np.unique(condition.origin.numpy())) <= {PixelOrigin.EMPTY, PixelOrigin.PREDICTED}
    hit = condition.depth > 0
    assert float(hit.float().mean()) > 0.9
    assert bool(((condition.confidence > 0) == hit).all())
    assert np.isfinite(observation.agreements).all() and observation.agreements.shape == (2,)
    (frame,) = wrist.generate(observation)
    assert frame.image.shape == (32, 32, 3)


def cameras_of(sets):
    return tuple(
        Camera(k, np.linalg.inv(T), HW[1], HW[0]) for k, T in zip(sets.intrinsics, sets.T_base_anchor, strict=True)
    )


@pytest.mark.parametrize('given', [None, 0.09])
def test_the_table_is_found_unless_it_is_given(model, given):
    sets = anchor_set()
    sweep = PlaneSweep(model.sweep, torch.device('cpu'), given)
    assert sweep(sets.images, cameras_of(sets), sets.wrist) is not None
    assert sweep.height == pytest.approx(TABLE if given is None else given, abs=0.005)


def test_one_anchor_takes_the_height_of_predicted_points_and_none_without_any(model):
    sets = anchor_set(1)
    sweep = PlaneSweep(model.sweep, torch.device('cpu'))
    assert sweep(sets.images, cameras_of(sets), sets.wrist) is None
    assert sweep(sets.images, cameras_of(sets), sets.wrist, guess=0.1) is not None and sweep.height == 0.1
    sweep.reset()
    assert sweep.height is None


def test_of_several_levels_that_is_taken_whose_views_are_the_most_believable(model, monkeypatch):
    sets, sweep = anchor_set(), PlaneSweep(model.sweep, torch.device('cpu'))
    monkeypatch.setattr(SupportSearch, 'heights', lambda *_: [0.3, TABLE])
    shown, view_at = {}, PlaneSweep._view

    def noted(self, images, anchors, wrist, height):
        view = view_at(self, images, anchors, wrist, height)
        shown[id(view)] = height
        return view

    monkeypatch.setattr(PlaneSweep, '_view', noted)
    believable = {0.3: 0.2, TABLE: 0.8}
    monkeypatch.setattr(
        'wristworld_ros.pipeline.swept.SweptView.quality', property(lambda view: believable[shown[id(view)]])
    )
    sweep(sets.images, cameras_of(sets), sets.wrist)
    assert sweep.height == TABLE


def test_a_height_that_the_arm_has_been_below_is_left(model, monkeypatch):
    sets, sweep = anchor_set(), PlaneSweep(model.sweep, torch.device('cpu'))
    heights = SupportSearch.heights
    monkeypatch.setattr(SupportSearch, 'heights', lambda *_: [0.15])  # the tops of things, over a plain table
    sweep(sets.images, cameras_of(sets), sets.wrist, lowest=0.2)
    assert sweep.height == 0.15
    monkeypatch.setattr(SupportSearch, 'heights', heights)
    for _ in range(10):
        sweep(sets.images, cameras_of(sets), sets.wrist, lowest=0.2)
    sweep(sets.images, cameras_of(sets), sets.wrist, lowest=TABLE + 0.02)
    assert sweep.height == pytest.approx(TABLE, abs=0.005)


@pytest.fixture
def shares(monkeypatch):
    """How many heights each set is compared at."""
    compared, add = [], SupportSearch.add

    def counted(self, images, anchors, part=slice(None)):
        compared.append(len(range(*part.indices(80))))
        return add(self, images, anchors, part)

    monkeypatch.setattr(SupportSearch, 'add', counted)
    return compared


def test_later_sets_share_the_search_and_take_longer_when_there_is_evidence(model, shares, monkeypatch):
    sets, sweep = anchor_set(), PlaneSweep(model.sweep, torch.device('cpu'))
    monkeypatch.setattr(SupportSearch, 'evidence', property(lambda _: 0.1))
    for _ in range(6 + 20):
        sweep(sets.images, cameras_of(sets), sets.wrist)
    assert shares == [80] * 6 + [4] * 20
    monkeypatch.setattr(SupportSearch, 'evidence', property(lambda _: 2.0))
    for _ in range(20 + 100):
        sweep(sets.images, cameras_of(sets), sets.wrist)
    assert shares[26:] == [4] * 20 + [1] * 80 + [0] * 20
    assert sweep.height == pytest.approx(TABLE, abs=0.005)


def test_a_rival_is_tried_beside_the_chosen_height_and_takes_its_place_when_its_views_are_better(model, monkeypatch):
    sets, sweep = anchor_set(), PlaneSweep(model.sweep, torch.device('cpu'))
    monkeypatch.setattr(SupportSearch, 'heights', lambda *_: [0.01])
    believable, made, view_at = {0.01: 0.5, TABLE: 0.8, 0.13: 0.4}, [], PlaneSweep._view

    def noted(self, images, anchors, wrist, height):
        made.append(height)
        return view_at(self, images, anchors, wrist, height)

    monkeypatch.setattr(PlaneSweep, '_view', noted)
    monkeypatch.setattr('wristworld_ros.pipeline.swept.SweptView.quality', property(lambda _: believable[made[-1]]))
    for _ in range(6 + 19):
        sweep(sets.images, cameras_of(sets), sets.wrist)
    monkeypatch.setattr(SupportSearch, 'heights', lambda *_: [0.13, TABLE])
    made.clear()
    sweep(sets.images, cameras_of(sets), sets.wrist)
    assert made == [0.01, 0.13] and sweep.height == 0.01
    sweep(sets.images, cameras_of(sets), sets.wrist)
    assert made[2:] == [0.01, TABLE] and sweep.height == TABLE
    sweep(sets.images, cameras_of(sets), sets.wrist)
    assert made[4:] == [TABLE]


def test_measured_depth_is_never_replaced_by_a_sweep(model):
    known = anchor_set()
    depth = np.full((2, *HW), 1.2, np.float32)
    observation = stream(model).reconstruct(replace(known, depth=depth))
    assert observation.geometry is Geometry.RGBD
    assert bool((observation.condition.origin == PixelOrigin.MEASURED).any())


def test_a_wrist_that_looks_at_no_plane_sees_nothing_and_its_frame_is_invalid(model):
    up = anchor_set(wrist_at=(0.5, 0.0, 0.5), wrist_to=(0.5, 0.01, 2.0))
    wrist = stream(model, table_height=TABLE)
    observation = wrist.reconstruct(up)
    assert not bool((observation.condition.depth > 0).any()) and observation.coverage == 0
    (frame,) = wrist.generate(observation)
    assert frame.verdict.status is FrameStatus.LOW_COVERAGE


def test_images_of_another_size_show_the_same(model):
    sets = anchor_set()
    cameras = cameras_of(sets)
    sweep = PlaneSweep(model.sweep, torch.device('cpu'), TABLE)
    one = sweep(sets.images, cameras, sets.wrist).condition
    large = np.stack([cv2.resize(image, (256, 192), interpolation=cv2.INTER_LINEAR) for image in sets.images])
    double = np.array([[2.0, 0, 0.5], [0, 2.0, 0.5], [0, 0, 1]])
    larger = tuple(Camera(double @ K, c.T_camera_world, 256, 192) for c in cameras)
    other = sweep(large, larger, sets.wrist).condition
    difference = (one.image.float() - other.image.float()).abs().mean()
    assert float(difference) < 4 and torch.allclose(one.depth, other.depth, atol=0.02)
