"""SPC and the other losses: the public fixture, a loop over the pairs, points near the camera plane, wrong inputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from wristworld_ros.geometry import decode_pose, encode_pose, invert_rigid, transform_points
from wristworld_ros.models.vggt import (
    camera_loss,
    fov_loss,
    matches_from_tracks,
    sample_points,
    spc_loss,
    wrist_query_grid,
)
from wristworld_ros.models.vggt.losses import MIN_DEPTH

DATA = Path(__file__).parents[2] / 'fixtures'
NAMES = ('world_points', 'wrist_pose_enc', 'wrist_intrinsics', 'wrist_uv', 'anchor_uv', 'anchor_view', 'confidence')


def test_value_and_gradient_equal_the_public_fixture():
    with safe_open(DATA / 'spc_public.safetensors', 'pt') as file:
        data = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        config = json.loads(file.metadata()['config'])
    inputs = {name: data[f'input.{name}'] for name in NAMES}
    inputs['wrist_pose_enc'].requires_grad_()
    loss = spc_loss(**inputs, **(config | {'image_hw': tuple(config['image_hw'])}))
    loss.backward()
    assert loss.shape == ()
    torch.testing.assert_close(loss.detach(), data['output.loss'][0], rtol=1e-5, atol=0)
    wanted = data['output.grad_wrist_pose_enc']
    assert (inputs['wrist_pose_enc'].grad - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    kept = inputs['confidence'] > config['confidence_threshold']
    assert int(kept.sum()) == int(data['output.accepted_pairs'])


@st.composite
def scenes(draw):
    """Inputs of `spc_loss` and their image_hw: every view's points lie 0.3 to 2 m in front of the wrist camera or
    behind it, so that float32 and float64 agree; a point near the camera plane has tests of its own."""
    image_hw = draw(st.tuples(st.integers(2, 20), st.integers(2, 20)))
    sides = draw(st.lists(st.sampled_from([-1.0, 1.0]), min_size=1, max_size=4))
    return scene(draw(st.integers(0, 30)), sides, image_hw, draw(st.integers(0, 10**6))), image_hw


def scene(pairs, sides, image_hw, seed=0):
    """One view for each side: 1 where its points lie in front of the wrist camera, -1 where they lie behind."""
    generator = torch.Generator().manual_seed(seed)
    (height, width), views = image_hw, len(sides)
    size = torch.tensor([width, height], dtype=torch.float32)

    def rand(*shape):
        return torch.rand(*shape, generator=generator)

    quaternion = rand(4) - 0.5
    pose = torch.cat([rand(3) - 0.5, quaternion / quaternion.norm(), 0.5 + rand(2)]).view(1, 1, 9)
    extrinsics, intrinsics = decode_pose(pose[0], image_hw)
    z = (0.3 + 1.7 * rand(views, height, width)) * torch.tensor(sides)[:, None, None]
    camera = torch.stack([2 * rand(*z.shape) - 1, 2 * rand(*z.shape) - 1, z], -1)
    return {
        'world_points': transform_points(invert_rigid(extrinsics[0]), camera.flatten(0, 2)).view(1, *camera.shape),
        'wrist_pose_enc': pose,
        'wrist_intrinsics': intrinsics,
        'wrist_uv': rand(pairs, 2) * size,
        'anchor_uv': (rand(pairs, 2) * 1.4 - 0.2) * size,
        'anchor_view': torch.randint(0, views, (pairs,), generator=generator),
        'confidence': rand(pairs),
    }


def loop(world_points, wrist_pose_enc, wrist_intrinsics, wrist_uv, anchor_uv, anchor_view, confidence, image_hw):
    """The published form, one pair at a time in float64, with torch's own sampling."""
    height, width = image_hw
    extrinsics, _ = decode_pose(wrist_pose_enc[0, 0].double(), image_hw)
    terms = []
    for i in range(len(wrist_uv)):
        if confidence[i] <= 0.2:
            continue
        extent = torch.tensor([max(width - 1, 1), max(height - 1, 1)])
        position = (2 * anchor_uv[i] / extent - 1).view(1, 1, 1, 2).double()
        points = world_points[0, anchor_view[i]].movedim(-1, 0)[None].double()
        point = torch.nn.functional.grid_sample(points, position, padding_mode='border', align_corners=True).flatten()
        camera = extrinsics[:, :3] @ point + extrinsics[:, 3]
        if camera[2] > 0:
            uv = (wrist_intrinsics[0].double() @ (camera / camera[2]))[:2]
            terms.append(30 * ((uv - wrist_uv[i]) ** 2).mean() / (height**2 + width**2))
        else:
            terms.append(-camera[2])
    return torch.stack(terms).mean() if terms else torch.zeros((), dtype=torch.float64)


@settings(deadline=None, max_examples=50)
@given(scenes())
def test_equals_a_loop_over_the_pairs(drawn):
    inputs, image_hw = drawn
    found = spc_loss(**inputs, image_hw=image_hw).double()
    torch.testing.assert_close(found, loop(**inputs, image_hw=image_hw), rtol=1e-3, atol=1e-5)


def pair_at(z, x=0.2, y=-0.1):
    """One pair whose point is (x, y, z) in the wrist camera's frame: its value, gradient and published value."""
    at = torch.tensor([x, y, z], dtype=torch.float64)
    pose = torch.tensor([[[0, 0, 0, 0, 0, 0, 1, 1, 1]]], dtype=torch.float64)
    pose[..., :3] = at  # a point at the origin seen from there: the translation is the point
    pose.requires_grad_()
    inputs = {
        'world_points': torch.zeros(1, 1, 8, 10, 3, dtype=torch.float64),
        'wrist_pose_enc': pose,
        'wrist_intrinsics': torch.tensor([[[9, 0, 5], [0, 9, 4], [0, 0, 1.0]]], dtype=torch.float64),
        'wrist_uv': torch.tensor([[5.0, 4.0]], dtype=torch.float64),  # the principal point
        'anchor_uv': torch.zeros(1, 2, dtype=torch.float64),
        'anchor_view': torch.zeros(1, dtype=torch.int64),
        'confidence': torch.ones(1, dtype=torch.float64),
    }
    loss = spc_loss(**inputs, image_hw=(8, 10))
    loss.backward()
    return loss.item(), pose.grad[0, 0, :3], loop(**inputs, image_hw=(8, 10)).item()


@pytest.mark.parametrize('z', [MIN_DEPTH, 1.01 * MIN_DEPTH, 0.1, 1.0, 0.0, -1e-12, -MIN_DEPTH, -1.0])
def test_a_point_behind_or_from_the_minimal_depth_on_costs_what_was_published(z):
    value, _, published = pair_at(z)
    assert value == pytest.approx(published, rel=1e-9)


@pytest.mark.parametrize('z', [0.99 * MIN_DEPTH, 1e-3, 1e-6, 1e-12, 1e-30, 1e-100])
def test_a_point_a_hair_in_front_has_a_bounded_value_and_a_gradient_that_leads_forward_and_to_its_pixel(z):
    value, gradient, published = pair_at(z)
    edge, edge_gradient, _ = pair_at(MIN_DEPTH)
    assert edge <= value <= 4 * edge * (1 + 1e-9) and value <= published * (1 + 1e-9)
    assert gradient.isfinite().all() and (gradient.abs() <= 4 * edge_gradient.abs() * (1 + 1e-9)).all()
    assert gradient[2] < 0  # a step against the gradient moves the point away from the camera plane
    assert gradient[0] > 0 > gradient[1]  # and towards the pixel's ray, to the left and down


@pytest.mark.parametrize('z', [0.0, -1e-30, -1e-6])
def test_a_point_on_the_camera_plane_or_behind_is_pushed_forward_and_nowhere_else(z):
    value, gradient, _ = pair_at(z)
    assert value == -z and gradient.tolist() == [0, 0, -1]


def test_value_and_gradient_have_no_jump_at_the_minimal_depth():
    (below, gradient_below, _), (above, gradient_above, _) = (pair_at(MIN_DEPTH * (1 + e)) for e in (-1e-9, 1e-9))
    assert below == pytest.approx(above, rel=1e-6)
    torch.testing.assert_close(gradient_below, gradient_above, rtol=1e-6, atol=0)


@pytest.mark.parametrize('z', [1e-12, 1e-4, MIN_DEPTH, 2 * MIN_DEPTH, 3 * MIN_DEPTH, 0.0, -2 * MIN_DEPTH, 1e4, -1e4])
def test_value_and_gradient_are_finite_in_float32_at_every_depth(z):
    inputs = scene(4, [1.0], (8, 10))
    inputs['world_points'] = torch.tensor([0.5, -0.5, z]).expand(1, 1, 8, 10, 3)
    inputs['wrist_pose_enc'] = torch.tensor([[[0, 0, 0, 0, 0, 0, 1.0, 1, 1]]], requires_grad=True)
    inputs['confidence'] = torch.ones(4)
    loss = spc_loss(**inputs, image_hw=(8, 10))
    loss.backward()
    assert loss.isfinite() and inputs['wrist_pose_enc'].grad.isfinite().all()


def test_no_kept_pair_gives_zero_with_a_zero_gradient():
    for pairs in (0, 5):
        inputs = scene(pairs, [1.0, -1.0], (8, 10)) | {'confidence': torch.zeros(pairs)}
        inputs['wrist_pose_enc'].requires_grad_()
        loss = spc_loss(**inputs, image_hw=(8, 10))
        loss.backward()
        assert loss.item() == 0 and not inputs['wrist_pose_enc'].grad.any()


def test_points_on_the_camera_plane_leave_the_gradient_finite():
    inputs = scene(4, [1.0], (8, 10))
    inputs['world_points'] = torch.zeros(1, 1, 8, 10, 3)
    inputs['wrist_pose_enc'] = torch.tensor([[[0.1, 0, 0, 0, 0, 0, 1.0, 1, 1]]], requires_grad=True)
    inputs['confidence'] = torch.ones(4)
    spc_loss(**inputs, image_hw=(8, 10)).backward()
    assert inputs['wrist_pose_enc'].grad.isfinite().all()


def test_points_are_sampled_at_pixel_centres_and_clamped():
    points = torch.arange(2 * 3 * 4 * 3, dtype=torch.float32).view(2, 3, 4, 3)
    uv = torch.tensor([[1.0, 2.0], [-5.0, 0.0], [9.0, 9.0], [0.5, 0.5]])
    found = sample_points(points, uv, torch.tensor([1, 0, 0, 1]))
    wanted = torch.stack([points[1, 2, 1], points[0, 0, 0], points[0, 2, 3], points[1, :2, :2].mean((0, 1))])
    torch.testing.assert_close(found, wanted)


def test_pairs_need_visibility_and_confidence_in_both_views():
    track = torch.arange(3 * 4 * 2, dtype=torch.float32).view(3, 4, 2)  # wrist, two anchors; four queries
    visible = torch.full((3, 4), 0.9)
    confident = torch.full((3, 4), 0.8)
    visible[0, 0] = 0.5  # not above the threshold: query 0 is lost in both anchors
    visible[1, 1] = 0.1
    confident[2, 2] = 0.2
    confident[2, 3] = 0.3
    kept = matches_from_tracks(track, visible, confident)
    assert kept.anchor_view.tolist() == [0, 0, 1, 1] and kept.query.tolist() == [2, 3, 1, 3]
    assert torch.equal(kept.wrist_uv, track[0, kept.query])
    assert torch.equal(kept.anchor_uv, track[1 + kept.anchor_view, kept.query])
    torch.testing.assert_close(kept.confidence, torch.tensor([0.8, 0.8, 0.8, 0.3]))
    rounds = torch.stack([torch.zeros_like(track), track])[:, None]
    again = matches_from_tracks(rounds, visible[None], confident[None])
    assert torch.equal(again.anchor_uv, kept.anchor_uv)
    with pytest.raises(ValueError, match='one scene'):
        matches_from_tracks(rounds.expand(-1, 2, -1, -1, -1), visible.expand(2, 3, 4), confident.expand(2, 3, 4))


def test_the_query_grid_runs_from_margin_to_size_minus_margin():
    grid = wrist_query_grid((294, 518))
    assert grid.shape == (1, 1024, 2)
    assert grid.amin(1).tolist() == [[32, 32]] and grid.amax(1).tolist() == [[486, 262]]
    with pytest.raises(ValueError, match='smaller'):
        wrist_query_grid((64, 64))


def test_round_losses_weight_late_rounds_most_and_vanish_at_the_target():
    extrinsics = torch.eye(4)[:3].expand(2, 3, 3, 4)
    intrinsics = torch.tensor([[50.0, 0, 20], [0, 60.0, 12], [0, 0, 1]]).expand(2, 3, 3, 3)
    target = encode_pose(extrinsics, intrinsics, (24, 40))
    exact = target.expand(4, 2, 3, 9).clone()
    assert camera_loss(exact, target) == 0
    early, late = exact.clone(), exact.clone()
    early[0, ..., 0] += 1
    late[3, ..., 0] += 1
    torch.testing.assert_close(camera_loss(early, target), 0.6**3 * camera_loss(late, target))
    torch.testing.assert_close(camera_loss(late, target), torch.tensor(5 / 3 / 4))
    wrist = exact[:, :, :1]
    fov = target[:, :1, 7:]
    assert fov_loss(wrist, fov) == 0
    torch.testing.assert_close(fov_loss(wrist + 1, fov[:, 0]), torch.tensor(10 * (1 + 0.6 + 0.36 + 0.216) / 4))
    with pytest.raises(ValueError, match='must be'):
        camera_loss(exact, target[:, :2])
