"""The losses of stage 1 are zero at the truth and grow away from it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from wristworld_ros.geometry import encode_pose, unproject_depth
from wristworld_ros.models.vggt.model import ReconstructionOutput
from wristworld_ros.training.stage1 import losses as stage1_loss
from wristworld_ros.training.stage1.losses import Stage1Weights, stage1_losses, true_matches


def looking_at(eye, target):
    z = (target - eye) / np.linalg.norm(target - eye)
    x = np.cross(z, [0.0, 0.0, 1.0])
    x /= np.linalg.norm(x)
    T = np.eye(4)
    T[:3, :3] = np.stack([x, np.cross(z, x), z])
    T[:3, 3] = -T[:3, :3] @ eye
    return T


def table_depth(K, T, hw):
    """Depth of the plane z = 0 seen by a camera above it."""
    rays = unproject_depth(torch.ones(hw, dtype=torch.float64), torch.from_numpy(K)).numpy()
    normal = T[:3, 2]
    offset = T[:3, 3] @ normal
    return offset / np.clip(rays @ normal, None, -1e-3)


@pytest.fixture
def scene():
    """Two anchors and a wrist camera over a table; the batch, and outputs that say the truth."""
    hw, wrist_hw = (48, 64), (32, 32)
    K = np.array([[70.0, 0, 31.5], [0, 70.0, 23.5], [0, 0, 1]])
    wrist_K = np.array([[30.0, 0, 15.5], [0, 30.0, 15.5], [0, 0, 1]])
    anchors = [looking_at(np.array(e), np.zeros(3)) for e in ([0.8, 0.5, 0.9], [0.8, -0.5, 0.8])]
    wrist = looking_at(np.array([0.05, 0.02, 0.3]), np.array([0.0, 0.0, 0.0]))
    to_first = np.linalg.inv(anchors[0])

    def tensor(x):
        return torch.from_numpy(np.asarray(x)).float()[None]

    batch = {
        'depth': tensor([table_depth(K, T, hw) for T in anchors]),
        'K': tensor([K, K]),
        'T_camera_anchor': tensor([T @ to_first for T in anchors]),
        'T_anchor_base': tensor(anchors[0]),
        'wrist_K': tensor(wrist_K),
        'T_wrist_anchor': tensor(wrist @ to_first),
        'wrist_depth': tensor(table_depth(wrist_K, wrist, wrist_hw)),
    }
    cameras = encode_pose(batch['T_camera_anchor'], batch['K'], hw)
    wrist_enc = encode_pose(batch['T_wrist_anchor'], batch['wrist_K'], wrist_hw)[:, None]
    out = ReconstructionOutput(
        camera_pose_enc=cameras[None].repeat(4, 1, 1, 1),
        wrist_pose_enc=wrist_enc[None].repeat(4, 1, 1, 1),
        depth=batch['depth'][..., None],
        depth_conf=torch.full_like(batch['depth'], 2.0),
    )
    return batch, out


def losses(out, batch):
    truth = stage1_loss.world_points(batch)
    target, _ = stage1_loss.token_targets(batch, truth, batch['depth'] > 0, 16)
    return stage1_losses(replace(out, scene_coordinates=target), batch, Stage1Weights(), 16)


def test_the_truth_costs_nothing(scene):
    batch, out = scene
    terms = losses(out, batch)
    for name in ('depth', 'points', 'camera', 'wrist', 'tokens'):
        assert float(terms[name]) == pytest.approx(0, abs=1e-4), name
    assert float(terms['spc_px']) < 0.05
    assert float(terms['wrist_deg']) < 0.1 and float(terms['points_m']) < 1e-4


@pytest.mark.parametrize('entry', [0, 1, 2, 4])
def test_a_moved_wrist_costs_in_pose_and_in_spc(scene, entry):
    batch, out = scene
    moved = out.wrist_pose_enc.clone()
    moved[..., entry] += 0.05
    terms = losses(ReconstructionOutput(**{**vars(out), 'wrist_pose_enc': moved}), batch)
    assert float(terms['wrist']) > 0.005
    assert float(terms['spc_px']) > 0.5


def test_matches_are_pixels_of_one_world_point(scene):
    batch, _ = scene
    wrist_uv, anchor_uv, seen = true_matches(batch)
    assert seen.float().mean() > 0.5
    truth = stage1_loss.world_points(batch)
    pose = encode_pose(batch['T_wrist_anchor'], batch['wrist_K'], (32, 32))
    error, z = stage1_loss.reprojection_errors(truth, anchor_uv, pose, batch['wrist_K'], wrist_uv)
    assert (z[seen] > 0).all()
    assert error.norm(dim=-1)[seen].max() < 0.3


def test_what_the_wrist_is_near_to_counts_most(scene):
    batch, _ = scene
    truth, valid = stage1_loss.world_points(batch), batch['depth'] > 0
    valid[:, :, 0] = False
    weight = stage1_loss.importance(truth, valid, batch['T_wrist_anchor'], 0.6)
    assert weight.shape == valid.shape and not weight[:, :, 0].any()
    distance = (truth - torch.linalg.inv(batch['T_wrist_anchor'])[:, None, None, None, :3, 3]).norm(dim=-1)
    assert weight[valid & (distance < 0.35)].min() > 0.7
    assert weight[valid & (distance > 0.9)].max() < 0.25
