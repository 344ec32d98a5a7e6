"""Clips of DROID's kind: what is read belongs together, and what does not is one sentence."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from wristworld_ros.data.real_clips import ANCHORS, BASELINE, intrinsics_of, list_clips, read_clip, wrist_mount
from wristworld_ros.errors import UserError

FRAMES = 4


def test_frames_and_states_belong_together(write_clip, tmp_path):
    record = write_clip(tmp_path)
    write_clip(tmp_path, 'train/1')
    assert list_clips(tmp_path) == ['train/1', 'val/7']
    clip = read_clip(tmp_path, 'val/7')
    assert (
        len(clip) == FRAMES and clip.images.shape == (2, FRAMES, 36, 64, 3) and clip.wrist.shape == (FRAMES, 36, 64, 3)
    )
    for view, images in enumerate((*clip.images, clip.wrist)):
        np.testing.assert_allclose(images.mean((1, 2, 3)), 20 + 60 * view + 8 * np.arange(FRAMES), atol=3)
    np.testing.assert_array_equal(clip.joints[:, 0], [0, 3, 6, 9])
    np.testing.assert_allclose(clip.gripper, np.array(record['observation.state.gripper_position'])[::3])
    np.testing.assert_allclose(clip.T_base_hand[2, :3, 3], [0.4, 0, 0.06])
    np.testing.assert_allclose(Rotation.from_matrix(clip.T_base_hand[1, :3, :3]).as_euler('xyz'), [3.1, 0.1, 0.2])
    anchors = clip.anchor_set(1)
    assert anchors.names == ANCHORS and anchors.stamp_ns == 200_000_000 and not anchors.is_known


def test_fewer_frames_are_spread_over_the_clip(write_clip, tmp_path):
    write_clip(tmp_path, frames=7)
    clip = read_clip(tmp_path, 'val/7', 3)
    np.testing.assert_array_equal(clip.joints[:, 0], [0, 9, 18])
    np.testing.assert_array_equal(clip.stamps_ns, [0, 600_000_000, 1_200_000_000])


def test_the_wrist_camera_looks_along_the_fingers(write_clip, tmp_path):
    write_clip(tmp_path)
    clip = read_clip(tmp_path, 'val/7')
    camera = clip.wrist_camera(0, wrist_mount(), (128, 128))
    tip = clip.T_base_hand[0] @ [0, 0, 0.17, 1]
    local = camera.T_camera_world @ tip
    pixel = (camera.K @ local[:3])[:2] / local[2]
    assert (
        0 < local[2] < 0.3 and abs(pixel[0] - 63.5) < 30 and 63.5 < pixel[1] < 160
    )  # between the fingers, low in the image


def test_a_wrist_camera_that_is_upside_down_sees_the_fingers_above_and_looks_the_same_way(write_clip, tmp_path):
    write_clip(tmp_path)
    clip, turned = read_clip(tmp_path, 'val/7'), wrist_mount(turned=True)
    camera = clip.wrist_camera(0, turned, (128, 128))
    local = camera.T_camera_world @ clip.T_base_hand[0] @ [0, 0, 0.17, 1]
    pixel = (camera.K @ local[:3])[:2] / local[2]
    assert 0 < local[2] < 0.3 and abs(pixel[0] - 63.5) < 30 and -40 < pixel[1] < 63.5
    np.testing.assert_allclose(turned[:3, :3] @ turned[:3, :3].T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(turned[:3, 2], wrist_mount()[:3, 2])
    middles = [T @ [BASELINE / 2, 0, 0, 1] for T in (turned, wrist_mount())]
    np.testing.assert_allclose(*middles, atol=1e-12)


def test_stretched_pixels_have_two_focal_lengths():
    K = intrinsics_of(0.5, (192, 320))
    np.testing.assert_allclose(K, [[160, 0, 159.5], [0, 160 * 192 / 180, 95.5], [0, 0, 1]])


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (lambda folder, record: (folder / 'videos/val/7/1.mp4').unlink(), '1.mp4'),
        (lambda folder, record: record.pop('observation.state.joint_position'), 'observation.state.joint_position'),
        (lambda folder, record: record['observation.state.joint_position'].__delitem__(slice(5, None)), '5 rows for 4 video'),
        (lambda folder, record: record['observation.state.cartesian_position'][3].pop(), 'does not have 6 numbers'),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_sentence(write_clip, tmp_path, change, words):
    record = write_clip(tmp_path)
    change(tmp_path, record)
    (tmp_path / 'annotation/val/7.json').write_text(json.dumps(record))
    with pytest.raises(UserError, match=words):
        read_clip(tmp_path, 'val/7')


def test_a_folder_without_clips_is_refused(tmp_path):
    with pytest.raises(UserError, match='holds no clips'):
        list_clips(tmp_path)


def test_real_clips_are_read():
    if not (data := os.environ.get('WRISTWORLD_DATA')):
        pytest.skip('WRISTWORLD_DATA names no folder of recordings')
    folder = Path(data) / 'droid_real'
    names = list_clips(folder)
    clip = read_clip(folder, names[0], 2)
    assert len(names) == 11 and clip.images.shape == (2, 2, 192, 320, 3)
