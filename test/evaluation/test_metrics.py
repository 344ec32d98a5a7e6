import numpy as np
import pytest
import torch

from wristworld_ros.evaluation import metrics


def images(seed=0, frames=3, size=32):
    coarse = np.random.default_rng(seed).integers(0, 256, (frames, size // 4, size // 4, 3), dtype=np.uint8)
    return coarse.repeat(4, 1).repeat(4, 2)


def rotation(axis, angle):
    x, y, z = np.asarray(axis, float) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def camera(axis, angle, centre):
    T = np.eye(4)
    T[:3, :3] = rotation(axis, angle)
    T[:3, 3] = -T[:3, :3] @ np.asarray(centre, float)
    return T


def test_psnr_is_that_of_a_known_error_and_capped_where_there_is_none():
    truth = np.full((2, 16, 16, 3), 100, np.uint8)
    off = truth + np.array([10, 0], np.uint8)[:, None, None, None]
    value = metrics.psnr(off, truth)
    assert value[0] == pytest.approx(20 * np.log10(25.5))
    assert value[1] == 100


def test_ssim_agrees_with_torchmetrics_away_from_the_border():
    from torchmetrics.functional.image import structural_similarity_index_measure

    truth = images()
    noisy = np.clip(truth + np.random.default_rng(1).normal(0, 25, truth.shape), 0, 255).astype(np.uint8)
    planes = [torch.from_numpy(x).permute(0, 3, 1, 2).float() for x in (noisy, truth)]
    _, full = structural_similarity_index_measure(*planes, data_range=255.0, return_full_image=True)
    theirs = full[..., 5:-5, 5:-5].mean((1, 2, 3)).numpy()
    assert metrics.ssim(noisy, truth) == pytest.approx(theirs, abs=1e-4)
    assert metrics.ssim(truth, truth) == pytest.approx(1)


def test_sharpness_is_one_for_the_truth_and_falls_with_blur():
    import cv2

    truth = images()
    blurred = np.stack([cv2.GaussianBlur(i, (0, 0), 3) for i in truth])
    assert metrics.sharpness(truth, truth) == pytest.approx(1)
    assert metrics.sharpness(blurred, truth) < 0.6


def test_frame_change_is_the_mean_absolute_difference_in_grey_levels():
    video = np.stack([np.full((4, 4, 3), v, np.uint8) for v in (10, 13, 8)])
    assert metrics.frame_change(video) == pytest.approx(4)
    assert np.isnan(metrics.frame_change(video[:1]))


def test_images_of_another_shape_than_the_truth_are_refused_in_a_sentence():
    with pytest.raises(ValueError, match='must both be uint8'):
        metrics.psnr(images(size=32), images(size=16))


def wrists(count=12):
    return np.stack([camera((1, t, 2), 0.3 + 0.1 * t, (0.1 * t, 0.05 * t**1.5, 0.4 - 0.02 * t)) for t in range(count)])


ANCHORS = np.stack([camera((0, 1, 0), 0.4, (1, 0, 0.5)), camera((1, 1, 0), -0.7, (-0.2, 1.1, 0.6))])


def in_another_world(T_camera_world, scale=2.0):
    """The same cameras seen from a world that is turned, shifted and scaled."""
    T_world_other = np.linalg.inv(camera((1, 2, 3), 0.8, (0.4, -0.3, 0.2)))
    moved = T_camera_world @ T_world_other
    moved[..., :3, 3] *= scale
    return moved


def test_wrist_pose_errors_are_zero_for_the_truth_in_another_world():
    true_anchors = np.repeat(ANCHORS[None], 12, 0)
    own_anchors, own_wrists = in_another_world(true_anchors, 1.0), in_another_world(wrists(), 1.0)
    errors = metrics.wrist_pose_errors(own_anchors, own_wrists, true_anchors, wrists())
    assert errors.rotation_deg.max() < 1e-4 and errors.position_m.max() < 1e-9
    assert errors.aligned_rotation_deg.max() < 1e-4 and errors.aligned_position_m.max() < 1e-9
    assert errors.scale_error == pytest.approx(0)


def test_a_wrong_scale_is_reported_by_itself_and_in_the_unaligned_position():
    """30 % too large: TF is off by 30 % of the wrist's distance, and only the aligned columns may say zero."""
    true_anchors = np.repeat(ANCHORS[None], 12, 0)
    own_anchors, own_wrists = in_another_world(true_anchors, 1.3), in_another_world(wrists(), 1.3)
    errors = metrics.wrist_pose_errors(own_anchors, own_wrists, true_anchors, wrists())
    distance = np.linalg.norm(centres(wrists()) - centres(ANCHORS[:1]), axis=-1)
    assert errors.scale_error == pytest.approx(0.3)
    assert errors.position_m == pytest.approx(0.3 * distance)
    assert errors.aligned_position_m.max() < 1e-9 and errors.rotation_deg.max() < 1e-4


def test_the_alignment_does_not_use_the_wrist():
    """One constant offset of the wrist is the wrist's error, whole; an alignment over all cameras would share it out."""
    true_anchors = np.repeat(ANCHORS[None], 12, 0)
    own = wrists()
    own[:, :3, 3] += [0.1, 0, 0]  # in each wrist camera's own axes
    errors = metrics.wrist_pose_errors(true_anchors, own, true_anchors, wrists())
    assert errors.aligned_position_m == pytest.approx(0.1) and errors.position_m == pytest.approx(0.1)


def test_wrist_pose_errors_find_one_frame_that_is_rotated():
    true_anchors = np.repeat(ANCHORS[None], 12, 0)
    own = wrists()
    turn = np.eye(4)
    turn[:3, :3] = rotation((0, 0, 1), np.deg2rad(10))
    own[5] = turn @ own[5]
    errors = metrics.wrist_pose_errors(in_another_world(true_anchors), in_another_world(own), true_anchors, wrists())
    for degrees in (errors.rotation_deg, errors.aligned_rotation_deg):
        assert degrees[5] == pytest.approx(10, abs=1)
        assert np.delete(degrees, 5).max() < 1


def test_one_anchor_says_nothing_of_scale():
    true_anchors = np.repeat(ANCHORS[None, :1], 12, 0)
    errors = metrics.wrist_pose_errors(true_anchors, wrists(), true_anchors, wrists())
    assert np.isnan(errors.scale_error) and errors.aligned_position_m.max() < 1e-9


def centres(T_camera_world):
    return -np.einsum('...ji,...j->...i', T_camera_world[..., :3, :3], T_camera_world[..., :3, 3])


def plane_scene(size=64):
    """A wrist camera above a tilted plane, and an anchor that sees the same plane."""
    K = np.array([[60.0, 0, size / 2 - 0.5], [0, 60.0, size / 2 - 0.5], [0, 0, 1]])
    T_wrist, T_anchor = camera((1, 0, 0), 0.1, (0, 0, 0)), camera((0, 1, 0), 0.15, (0.1, 0, -0.2))
    normal, offset = np.array([0.1, 0.2, 1.0]), 0.6

    def depth(T):
        rows, columns = np.mgrid[:size, :size].astype(float)
        rays = np.stack([columns, rows, np.ones_like(rows)], -1) @ np.linalg.inv(K).T
        world = rays @ T[:3, :3]  # directions in the world; z in the camera stays 1
        centre = -T[:3, :3].T @ T[:3, 3]
        return ((offset - normal @ centre) / (world @ normal)).astype(np.float32)

    rows, columns = np.mgrid[:size, :size].astype(float)
    rays = np.stack([columns, rows, np.ones_like(rows)], -1) @ np.linalg.inv(K).T
    anchor_depth = depth(T_anchor)
    points = (rays * anchor_depth[..., None] - T_anchor[:3, 3]) @ T_anchor[:3, :3]
    return K, T_wrist, T_anchor, depth(T_wrist), anchor_depth, points


def test_own_cloud_error_is_below_half_a_pixel_for_the_true_cloud_and_camera():
    K, T_wrist, T_anchor, wrist_depth, anchor_depth, points = plane_scene()
    errors = metrics.own_cloud_errors(
        points[None], K, T_wrist, anchor_depth[None], K[None], T_anchor[None], wrist_depth, K, T_wrist
    )
    assert len(errors) > 10 and errors.max() < 0.5


def test_own_cloud_error_is_the_shift_of_a_camera_that_is_off():
    K, T_wrist, T_anchor, wrist_depth, anchor_depth, points = plane_scene()
    shifted = K.copy()
    shifted[0, 2] += 3
    errors = metrics.own_cloud_errors(
        points[None], shifted, T_wrist, anchor_depth[None], K[None], T_anchor[None], wrist_depth, K, T_wrist
    )
    assert np.median(errors) == pytest.approx(3, abs=0.2)


def test_own_cloud_error_of_points_behind_the_camera_is_the_diagonal():
    K, T_wrist, T_anchor, wrist_depth, anchor_depth, points = plane_scene()
    errors = metrics.own_cloud_errors(
        points[None] * [1, 1, -1], K, T_wrist, anchor_depth[None], K[None], T_anchor[None], wrist_depth, K, T_wrist
    )
    assert errors.min() == pytest.approx(np.hypot(64, 64))


def test_points_that_the_anchor_does_not_truly_see_do_not_count():
    K, T_wrist, T_anchor, wrist_depth, anchor_depth, points = plane_scene()
    errors = metrics.own_cloud_errors(
        points[None], K, T_wrist, anchor_depth[None] - 0.1, K[None], T_anchor[None], wrist_depth, K, T_wrist
    )
    assert len(errors) == 0


def test_frechet_distance_is_zero_for_equal_sets_and_the_squared_shift_of_moved_ones():
    features = np.random.default_rng(0).normal(size=(200, 4))
    assert metrics.frechet_distance(features, features) == pytest.approx(0, abs=1e-6)
    assert metrics.frechet_distance(features, features + np.array([3, 0, 0, 0])) == pytest.approx(9, abs=1e-6)


def test_the_seam_ratio_is_the_change_at_joins_by_the_change_elsewhere():
    tones = np.array([0, 2, 4, 10, 12, 14], np.uint8)
    video = np.broadcast_to(tones[:, None, None, None], (6, 4, 4, 3))
    assert metrics.seam_ratio(video, [3]) == pytest.approx(3)
    assert metrics.seam_ratio(video, [1]) == pytest.approx(2 / 3)
    assert np.isnan(metrics.seam_ratio(video, [])) and np.isnan(metrics.seam_ratio(video, range(1, 6)))
    with pytest.raises(ValueError, match='give 1 to 5'):
        metrics.seam_ratio(video, [6])
