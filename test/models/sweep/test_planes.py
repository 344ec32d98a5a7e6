"""A sweep's geometry is that of rays, planes and pinhole cameras."""

import numpy as np
import torch

from wristworld_ros.geometry.poses import looking_at
from wristworld_ros.models.sweep.planes import sample_views, sweep_views

HEIGHTS = torch.tensor([-0.02, 0.0, 0.05])
WRIST_HW, ANCHOR_HW = (24, 32), (30, 40)
K_WRIST = torch.tensor([[28.0, 0, 15.5], [0, 28.0, 11.5], [0, 0, 1]])
K_ANCHOR = torch.tensor([[36.0, 0, 19.5], [0, 36.0, 14.5], [0, 0, 1]])


def camera(position, target=(0.5, 0.0, 0.0)):
    return torch.from_numpy(np.linalg.inv(looking_at(np.array(position), np.array(target)))).float()


def scene(hw=WRIST_HW):
    """A wrist above a level plane at 0.1 m, and two anchors; all cameras look at about the same place."""
    T_wrist = camera((0.52, 0.03, 0.35))
    T_anchors = torch.stack([camera((1.3, 0.5, 0.8)), camera((1.2, -0.7, 0.6))])
    relative = T_anchors @ torch.linalg.inv(T_wrist)
    plane = torch.tensor([0.0, 0.0, 1.0, 0.1])
    views = sweep_views(
        K_WRIST[None], T_wrist[None], K_ANCHOR.expand(1, 2, 3, 3), relative[None], plane[None], HEIGHTS, hw, WRIST_HW,
        ANCHOR_HW,
    )  # fmt: skip
    return T_wrist, T_anchors, views


def test_points_lie_on_their_planes_and_are_seen_where_the_anchors_project_them():
    T_wrist, T_anchors, views = scene()
    v, u = torch.meshgrid(torch.arange(24.0), torch.arange(32.0), indexing='ij')
    rays = torch.stack([u, v, torch.ones_like(u)], -1) @ torch.linalg.inv(K_WRIST).T
    local = rays * views.depth[0, ..., None]
    world = (local - T_wrist[:3, 3]) @ T_wrist[:3, :3]
    assert bool((views.depth > 0).all())
    for height, points in zip(HEIGHTS, world, strict=True):
        assert torch.allclose(points[..., 2], 0.1 + height, atol=1e-4)
    for T, uv, valid in zip(T_anchors, views.uv[0], views.valid[0], strict=True):
        pixel = (world @ T[:3, :3].T + T[:3, 3]) @ K_ANCHOR.T
        pixel = pixel[..., :2] / pixel[..., 2:]
        assert valid.any() and torch.allclose(uv[valid], pixel[valid], atol=2e-2)
        inside = ((pixel > -0.5) & (pixel < torch.tensor([39.5, 29.5]))).all(-1)
        assert torch.equal(valid, inside)


def test_a_plane_behind_the_camera_or_beside_its_rays_is_not_met():
    T_wrist = camera((0.5, 0.0, 0.06), (1.5, 0.0, 0.06))  # level: rays above the horizon go up
    plane = torch.tensor([0.0, 0.0, 1.0, 0.0])
    views = sweep_views(
        K_WRIST[None], T_wrist[None], K_ANCHOR.expand(1, 1, 3, 3), torch.eye(4).expand(1, 1, 4, 4), plane[None],
        torch.tensor([0.0, 0.2]), WRIST_HW, WRIST_HW, ANCHOR_HW,
    )  # fmt: skip
    assert bool((views.depth[0, 0, :12] == 0).all()) and bool((views.depth[0, 0, 13:] > 0).any())
    assert bool((views.depth[0, 1, 12:] == 0).all())
    assert not views.valid[0, 0][views.depth[0] == 0].any()


def test_half_the_size_samples_the_middles_of_two_by_two_pixels():
    full, half = scene()[2], scene((12, 16))[2]
    middle = full.uv.unflatten(-2, (16, 2)).mean(-2).unflatten(-3, (12, 2)).mean(-3)
    assert torch.allclose(half.uv, middle, atol=0.05)


def test_sampling_reads_pixel_values_at_pixel_centres_and_nothing_outside():
    views = scene()[2]
    ramp = torch.stack(torch.meshgrid(torch.arange(30.0), torch.arange(40.0), indexing='ij')[::-1])
    sampled = sample_views(ramp.expand(1, 2, 2, 30, 40), views)
    clamped = views.uv.movedim(-1, 3).clamp(min=0).minimum(torch.tensor([39.0, 29.0])[:, None, None])
    valid = views.valid[:, :, :, None].expand_as(sampled)
    assert torch.allclose(sampled[valid], clamped[valid], atol=1e-3)
    assert bool((sampled[~valid] == 0).all())
