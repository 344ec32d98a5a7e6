"""From point maps to condition maps."""

import numpy as np
import pytest
import torch

from wristworld_ros.errors import UserError
from wristworld_ros.geometry import unproject_depth
from wristworld_ros.geometry.cloud import CloudSettings, dense_cloud, render_camera
from wristworld_ros.types import Camera


def camera(hw=(48, 64), focal=60.0):
    K = np.array([[focal, 0, (hw[1] - 1) / 2], [0, focal, (hw[0] - 1) / 2], [0, 0, 1]])
    return Camera(K, np.eye(4), hw[1], hw[0])


def test_a_cloud_seen_from_its_own_camera_is_its_image():
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    depth = torch.from_numpy(rng.uniform(0.9, 1.1, (48, 64)))
    view = camera()
    points = unproject_depth(depth, torch.from_numpy(view.K)).reshape(-1, 3).float()
    condition = render_camera(points, image.reshape(-1, 3), view, CloudSettings(radius=0))
    assert torch.equal(condition.image, image)
    assert torch.allclose(condition.depth, depth.float(), atol=1e-6)
    assert condition.coverage == 1.0


def test_points_between_an_object_and_its_background_are_dropped():
    points = torch.zeros(1, 8, 8, 3)
    points[..., 2] = 1.0
    points[..., 4:, 2] = 2.0
    images = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    kept, _ = dense_cloud(points, images, CloudSettings(edge=0.06))
    assert kept.isfinite().all(1).sum() == 8 * 6  # the column on either side of the step is gone
    assert dense_cloud(points, images, CloudSettings())[0].isfinite().all()


def test_upsampling_multiplies_points_and_takes_colours_from_the_fine_image():
    points = torch.rand(2, 6, 8, 3) * 0.01 + torch.tensor([0.0, 0.0, 1.0])
    images = torch.randint(0, 256, (2, 12, 16, 3), dtype=torch.uint8)
    cloud, colors = dense_cloud(points, images, CloudSettings(upsample=2))
    assert cloud.shape == (2 * 12 * 16, 3)
    assert torch.equal(colors, images.reshape(-1, 3))


def test_a_cloud_out_of_view_has_no_coverage():
    behind = torch.tensor([[0.0, 0.0, -1.0]])
    condition = render_camera(behind, torch.full((1, 3), 255, dtype=torch.uint8), camera(), CloudSettings())
    assert condition.coverage == 0.0 and not condition.image.any()


def test_a_map_is_rendered_at_its_render_size_and_then_resized():
    rng = np.random.default_rng(0)
    points = torch.from_numpy(rng.uniform(-0.5, 0.5, (500, 3))).float() + torch.tensor([0.0, 0.0, 1.5])
    colors = torch.from_numpy(rng.integers(0, 256, (500, 3), dtype=np.uint8))
    small, large = camera((24, 32), 30.0), camera((48, 64), 60.0)
    K = large.K.copy()
    K[:2, 2] = (K[:2, 2] + 0.5) / 2 - 0.5  # the same view at half the size: the first pixel's centre moves
    K[:2, :2] /= 2
    small = Camera(K, small.T_camera_world, 32, 24)
    rendered = render_camera(points, colors, small, CloudSettings(radius=1))
    resized = render_camera(points, colors, large, CloudSettings(radius=1, render_size=[24, 32]))
    assert resized.image.shape == (48, 64, 3) and resized.image.dtype == torch.uint8
    assert torch.equal(resized.depth, rendered.depth.repeat_interleave(2, 0).repeat_interleave(2, 1))
    difference = rendered.image.float().mean((0, 1)) - resized.image.float().mean((0, 1))
    assert difference.abs().max() < 1.0


def test_a_render_size_is_a_tuple_whatever_sequence_it_is_given_as():
    assert CloudSettings(render_size=[24, 32]) == CloudSettings(render_size=(24, 32))


@pytest.mark.parametrize(
    'wrong', [{'upsample': 0}, {'edge': -0.1}, {'radius': -1}, {'near': float('nan')}, {'render_size': [0, 4]}]
)
def test_a_wrong_setting_is_named(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        CloudSettings(**wrong)
