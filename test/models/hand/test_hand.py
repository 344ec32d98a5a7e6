"""Crops face the hand, and a correction that says what is wrong gives the true pose."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wristworld_ros.geometry.poses import looking_at
from wristworld_ros.models.hand import Correction, HandConfig, HandNetwork, corrected, hand_crops, refine_pose
from wristworld_ros.models.hand.crop import HALF_WIDTH, MIDDLE
from wristworld_ros.models.hand.network import rotation_of

K = torch.tensor([[200.0, 0, 111.5], [0, 200.0, 83.5], [0, 0, 1]], dtype=torch.float64)


def pose(azimuth=0.4, distance=1.1, height=0.6):
    """T_anchor_wrist of a hand that looks down before an anchor."""
    anchor = looking_at(
        np.array([0.5 + distance * np.cos(azimuth), distance * np.sin(azimuth), height]), np.array([0.5, 0, 0.15])
    )
    wrist = looking_at(np.array([0.45, 0.05, 0.3]), np.array([0.5, 0.02, 0.0]))
    return torch.from_numpy(np.linalg.inv(anchor) @ wrist)


def middle(T):
    return (T[..., :3, :3] @ T.new_tensor(MIDDLE)[:, None])[..., 0] + T[..., :3, 3]


@given(st.floats(-1.0, 1.0), st.floats(0.7, 1.6), st.lists(st.floats(-0.2, 0.2), min_size=6, max_size=6))
def test_the_right_correction_gives_the_true_pose(azimuth, distance, wrong):
    truth = pose(azimuth, distance)
    guess = truth.clone()
    guess[:3, :3] = rotation_of(truth[None, :3, :2] + torch.tensor(wrong, dtype=torch.float64).reshape(1, 3, 2))[0]
    guess[:3, 3] += 0.3 * torch.tensor(wrong[3:], dtype=torch.float64)
    crops = hand_crops(torch.zeros(1, 3, 168, 224, dtype=torch.float64), K[None], guess[None], 32)
    wanted = crops.T_crop_anchor[0] @ truth
    place = middle(wanted)
    correction = Correction(
        (wanted[:3, :2] - crops.T_crop_wrist[0, :3, :2])[None],
        (place[:2] / place[2] / (HALF_WIDTH / crops.distance))[None],
        (place[2] / crops.distance).log(),
        torch.zeros(1),
    )
    assert torch.allclose(corrected(crops, correction)[0], truth, atol=1e-6)


def test_a_crop_shows_the_hand_in_its_middle_whatever_the_camera():
    truth = pose()
    uv = K @ middle(truth)
    uv = uv[:2] / uv[2]
    image = torch.zeros(1, 3, 168, 224, dtype=torch.float64)
    rows, columns = torch.meshgrid(torch.arange(168.0), torch.arange(224.0), indexing='ij')
    image[0] = torch.exp(-((columns - uv[0]) ** 2 + (rows - uv[1]) ** 2) / 18)
    crop = hand_crops(image, K[None], truth[None], 64).image[0, 0] + 0.5
    row, column = divmod(int(crop.argmax()), 64)
    assert abs(row - 31.5) <= 1 and abs(column - 31.5) <= 1


def test_a_hand_outside_the_image_gives_an_empty_crop_and_finite_poses():
    truth = pose()
    truth[0, 3] += 5.0
    torch.manual_seed(0)
    network = HandNetwork(HandConfig(size=32, widths=(8, 8, 8), dense=16)).eval()
    T, scale = refine_pose(network, torch.rand(1, 3, 168, 224), K[None].float(), truth[None].float())
    assert bool(torch.isfinite(T).all()) and bool((scale > 0).all())
    assert torch.allclose(T[0, :3, :3] @ T[0, :3, :3].T, torch.eye(3), atol=1e-5)


@pytest.mark.parametrize('rounds', [0, 2])
def test_a_network_that_finds_nothing_wrong_leaves_the_guess(rounds):
    network = HandNetwork(HandConfig(size=32, widths=(8, 8, 8), dense=16)).eval()  # its last layer starts at zero
    guess = pose()[None].float()
    T, _ = refine_pose(network, torch.rand(1, 3, 168, 224), K[None].float(), guess, rounds)
    place = middle(guess)
    assert torch.allclose(T, guess, atol=1e-4), place
