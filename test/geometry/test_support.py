"""The plane that objects stand on is found from points, and from two cameras that see it."""

import cv2
import numpy as np
import pytest

from wristworld_ros.geometry.poses import looking_at
from wristworld_ros.geometry.support import SupportSearch, lowest_over_support, support_height
from wristworld_ros.types import Camera

HW = (168, 224)
K = np.array([[220.0, 0, 111.5], [0, 220.0, 83.5], [0, 0, 1]])


def found(images, cameras, ceiling=np.inf):
    search = SupportSearch()
    search.add(images, cameras)
    return search.heights(ceiling=ceiling)


def anchors():
    places = (np.array([1.3, 0.6, 0.7]), np.array([1.4, -0.5, 0.6]))
    return tuple(Camera(K, np.linalg.inv(looking_at(p, np.array([0.55, 0.0, 0.0]))), HW[1], HW[0]) for p in places)


def pictures(height, cameras, exposure=(1.0, 0.6)):
    """What the cameras see of a textured plane; the second is darker."""
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.uniform(0, 255, (400, 400)).astype(np.float32), (0, 0), 4)
    texture = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX)
    images = []
    for camera, gain in zip(cameras, exposure, strict=True):
        v, u = np.meshgrid(np.arange(HW[0]), np.arange(HW[1]), indexing='ij')
        rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(camera.K).T @ camera.T_camera_world[:3, :3]
        centre = np.linalg.inv(camera.T_camera_world)[:3, 3]
        t = (height - centre[2]) / np.minimum(rays[..., 2], -1e-3)
        x, y = (centre[i] + t * rays[..., i] for i in (0, 1))
        gray = cv2.remap(texture, (200 * x).astype(np.float32), (200 * (y + 1)).astype(np.float32), cv2.INTER_LINEAR)
        images.append(np.repeat((gain * gray).astype(np.uint8)[..., None], 3, 2))
    return np.stack(images)


@pytest.mark.parametrize('height', [-0.112, 0.0, 0.073])
def test_two_cameras_agree_at_the_height_of_what_they_see(height):
    cameras = anchors()
    heights = found(pictures(height, cameras), cameras)
    assert heights[0] == pytest.approx(height, abs=0.003) and len(heights) <= 3


def test_cameras_that_see_nothing_in_common_find_nothing():
    cameras = anchors()
    away = np.linalg.inv(looking_at(np.array([1.3, 0.6, 0.7]), np.array([3.0, 3.0, 0.7])))
    cameras = (cameras[0], Camera(K, away, HW[1], HW[0]))
    assert found(pictures(0.0, anchors()), cameras) == []


def test_no_height_above_the_ceiling_is_found():
    cameras = anchors()
    assert max(found(pictures(0.05, cameras), cameras, ceiling=0.02), default=0.0) <= 0.02
    assert found(pictures(0.0, cameras), cameras, ceiling=0.02)[0] == pytest.approx(0.0, abs=0.003)


def test_parts_of_the_sweep_make_the_whole():
    cameras, parts, whole = anchors(), SupportSearch(), SupportSearch()
    images = pictures(0.03, cameras)
    whole.add(images, cameras)
    for place in range(20):
        parts.add(images, cameras, slice(place, None, 20))
    assert parts.heights() == whole.heights() != []
    assert parts.evidence == whole.evidence


def test_the_lowest_point_counts_over_the_table_alone():
    base, far = (0.05, 0.0, -0.3), (0.5, 0.9, -0.4)
    assert lowest_over_support(np.array([base, far, (0.5, 0.1, 0.2), (0.4, -0.3, 0.12)])) == 0.12
    assert lowest_over_support(np.array([base])) == np.inf


def test_most_points_lie_on_the_table():
    rng = np.random.default_rng(0)
    table = np.column_stack([rng.uniform(-1, 1, (3000, 2)), 0.05 + 0.002 * rng.standard_normal(3000)])
    clutter = rng.uniform(-1, 1, (2000, 3))
    points = np.concatenate([table, clutter, np.full((10, 3), np.nan)])
    assert support_height(points) == pytest.approx(0.05, abs=0.002)
    assert support_height(points + (5.0, 0, 0)) is None, 'out of reach'
    assert support_height(points[:100]) is None
