"""Depth maps seen from elsewhere; gaps of surfaces that were drawn as points are closed, and nothing else changes."""

import torch

from wristworld_ros.geometry.surfaces import SurfaceMaps, close_gaps, nearest_of, render_points, sample_surfaces
from wristworld_ros.types import ConditionMap, PixelOrigin


def seen(depth, color=100, origin=4):
    depth = torch.as_tensor(depth, dtype=torch.float32)
    hit = depth > 0
    return ConditionMap(
        torch.where(hit[..., None], color, 0).expand(*depth.shape, 3).to(torch.uint8),
        depth,
        torch.where(hit, origin, 0).to(torch.uint8),
        hit.float(),
    )


K = torch.tensor([[40.0, 0, 15.5], [0, 40.0, 15.5], [0, 0, 1]], dtype=torch.float64)


def rendered(depth, image, T_map, T_view, near=0.02):
    """What a camera at T_view sees of one map [32, 32] and image of a camera at T_map."""
    origin = torch.where(depth > 0, int(PixelOrigin.MEASURED), 0).to(torch.uint8)[None]
    maps = SurfaceMaps(depth[None], image[None], origin, torch.ones_like(depth)[None], K[None], T_map[None])
    sampled = sample_surfaces(maps, 0.1, K, T_view, (32, 32), near)
    return render_points(sampled, K, T_view, (32, 32), near)


def noise_image():
    return torch.randint(1, 256, (32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_a_camera_that_stands_where_the_map_was_made_sees_its_image():
    T, ramp = torch.eye(4, dtype=torch.float64), 4 * torch.arange(32, dtype=torch.uint8)
    T[:3, 3] = torch.tensor([0.2, -0.1, 0.3])
    image = torch.stack([ramp.expand(32, 32), ramp[:, None].expand(32, 32), torch.full((32, 32), 77)], -1).to(
        torch.uint8
    )
    shown = rendered(torch.full((32, 32), 0.7), image, T, T)
    off = (shown.image.int() - image.int()).abs()[:-1, :-1]  # the last row and column begin no quad
    assert off.max() <= 2  # half a pixel of the ramp
    torch.testing.assert_close(shown.depth[:-1, :-1], torch.full((31, 31), 0.7))


def test_a_camera_twice_as_near_sees_no_gaps():
    T, nearer = torch.eye(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    nearer[2, 3] = -0.35
    shown = rendered(torch.full((32, 32), 0.7), noise_image(), T, nearer)
    assert (shown.depth > 0).all()
    torch.testing.assert_close(shown.depth, torch.full((32, 32), 0.35))


def test_what_lies_between_an_object_and_the_wall_behind_it_is_not_made_up():
    T, beside = torch.eye(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    beside[0, 3] = 0.1
    depth = torch.full((32, 32), 0.7)
    depth[10:20, 10:20] = 0.4
    shown = rendered(depth, noise_image(), T, beside)
    hit = shown.depth[shown.depth > 0]
    assert bool(((hit - 0.7).abs() < 1e-4).logical_or((hit - 0.4).abs() < 1e-4).all()) and (shown.depth == 0).any()


def test_what_the_gripper_holds_is_seen_unless_the_near_plane_deletes_it():
    T, image = torch.eye(4, dtype=torch.float64), torch.full((32, 32, 3), 200, dtype=torch.uint8)
    depth = torch.full((32, 32), 0.5)
    image[10:20, 10:20], depth[10:20, 10:20] = 50, 0.05
    assert (rendered(depth, image, T, T).image[10:19, 10:19] == 50).all()
    assert not (rendered(depth, image, T, T, near=0.1).image[10:19, 10:19] == 50).any()


def board(rows=slice(4, 28), columns=slice(6, 26)):
    """A board at 0.1 m in an empty view."""
    depth = torch.zeros(32, 32)
    depth[rows, columns] = 0.1
    return depth


def test_gaps_get_the_surface_around_them_and_the_outline_stays():
    whole = board()
    dotted = whole.clone()
    dotted[5:27:3, 7:25:3] = 0
    closed = close_gaps(seen(dotted), 2)
    torch.testing.assert_close(closed.depth, whole)
    assert (closed.image[whole > 0] == 100).all() and (closed.origin[whole > 0] == 4).all()
    assert (closed.image[whole == 0] == 0).all() and (closed.confidence == (whole > 0)).all()


def test_the_far_side_is_not_seen_through_the_near_one():
    depth = torch.full((32, 32), 0.3)
    near = board() > 0
    near[5:27:3, 7:25:3] = False
    closed = close_gaps(seen(torch.where(near, 0.1, depth)), 2)
    torch.testing.assert_close(closed.depth, torch.where(board() > 0, 0.1, 0.3))


def test_a_slanted_surface_is_left_as_it_is():
    depth = 0.1 + 0.002 * torch.arange(32.0).expand(32, 32)
    closed = close_gaps(seen(depth), 3)
    torch.testing.assert_close(closed.depth, depth)


def test_a_gap_wider_than_the_window_stays_open():
    depth = board()
    depth[10:20, 10:20] = 0
    torch.testing.assert_close(close_gaps(seen(depth), 2).depth, depth)
    assert close_gaps(seen(depth), 0).depth is not None


def test_the_nearer_of_two_maps_is_shown_and_the_first_of_equally_near_ones():
    first, second = seen(board(), 10, 1), seen(torch.full((32, 32), 0.1), 20, 2)
    both = nearest_of(first, second)
    inside = board() > 0
    assert (both.image[inside] == 10).all() and (both.image[~inside] == 20).all()
    assert (both.origin[inside] == 1).all() and (both.origin[~inside] == 2).all()
    assert (nearest_of(first, seen(board() * 0.5, 30)).image[inside] == 30).all()
