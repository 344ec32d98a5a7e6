"""Gaps of surfaces that were drawn as points are closed, and nothing else changes."""

import torch

from wristworld_ros.geometry.surfaces import close_gaps, nearest_of
from wristworld_ros.types import ConditionMap


def seen(depth, color=100, origin=4):
    depth = torch.as_tensor(depth, dtype=torch.float32)
    hit = depth > 0
    return ConditionMap(
        torch.where(hit[..., None], color, 0).expand(*depth.shape, 3).to(torch.uint8),
        depth,
        torch.where(hit, origin, 0).to(torch.uint8),
        hit.float(),
    )


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
