"""Anchor images in which nothing can be seen, that come from one camera, or that stand still are named."""

import numpy as np
import pytest

from wristworld_ros.pipeline.anchor_checks import AnchorChecks, RegistrationCheck
from wristworld_ros.types import AnchorSet, FrameStatus

HZ = 10
FROZEN, STILL = 2.0, 30.0


def noise(seed, hw=(48, 64)):
    return np.random.default_rng(seed).integers(0, 256, (*hw, 3), dtype=np.uint8)


def judge(checks, i, *images):
    names = ('left', 'right', 'top')[: len(images)]
    return checks.judge(AnchorSet(i * 10**9 // HZ, names, np.stack(images)), FROZEN, STILL)


def statuses(sets):
    checks = AnchorChecks()
    return [judge(checks, i, *images).status for i, images in enumerate(sets)]


def test_different_changing_images_are_valid():
    assert set(statuses([(noise(i), noise(1000 + i)) for i in range(50)])) == {FrameStatus.VALID}


@pytest.mark.parametrize('color', [(0, 0, 0), (255, 255, 255), (40, 90, 200)])
def test_an_image_of_one_colour_is_named_even_with_the_noise_of_a_covered_lens(color):
    rng = np.random.default_rng(0)
    covered = np.clip(np.array(color) + rng.normal(0, 2, (48, 64, 3)), 0, 255).astype(np.uint8)
    covered[5, 5] = 255 - covered[5, 5]  # a hot pixel
    verdict = judge(AnchorChecks(), 0, noise(1), covered)
    assert verdict.status is FrameStatus.UNIFORM_ANCHOR
    assert 'right' in verdict.reason and '% of its pixels' in verdict.reason
    assert ('black' in verdict.reason) == (sum(color) == 0)


def test_a_dark_image_in_which_something_can_be_seen_is_not_uniform():
    dark = np.full((48, 64, 3), 5, np.uint8)
    dark[20:28, 20:30] = 40  # 2.6 % of the pixels
    assert judge(AnchorChecks(), 0, dark, noise(1)).status is FrameStatus.VALID


def test_two_anchors_with_one_image_are_named():
    verdict = judge(AnchorChecks(), 0, noise(1), noise(2), noise(1))
    assert verdict.status is FrameStatus.IDENTICAL_ANCHORS
    assert 'left and top' in verdict.reason and '100%' in verdict.reason
    almost = noise(1)
    almost[-1, -1, -1] ^= 1
    assert judge(AnchorChecks(), 0, noise(1), almost).status is FrameStatus.VALID


def test_an_anchor_that_stands_still_while_another_changes_is_frozen_after_a_while_and_named():
    checks = AnchorChecks()
    verdicts = [judge(checks, i, noise(i), noise(1000)) for i in range(50)]
    frozen = [v.status is FrameStatus.FROZEN_ANCHOR for v in verdicts]
    # The first set in which the other had changed is number 1, and two seconds are twenty sets.
    assert frozen == [i >= 21 for i in range(50)]
    assert (
        'Anchor right' in verdicts[21].reason
        and '2.1 s' in verdicts[21].reason
        and 'frozen_after is 2 s' in verdicts[21].reason
    )
    assert judge(checks, 50, noise(50), noise(2000)).status is FrameStatus.VALID


def test_a_simulated_scene_at_rest_is_valid_and_its_first_motion_too():
    """All stand still, then the arm moves in one camera's view a moment before it does in the other's."""
    still = [(noise(0), noise(1))] * 100
    moves = [(noise(10 + i), noise(1) if i < 5 else noise(20 + i)) for i in range(30)]
    assert set(statuses(still + moves)) == {FrameStatus.VALID}


@pytest.mark.parametrize('views', [1, 2])
def test_when_all_stand_still_for_very_long_they_are_frozen(views):
    checks = AnchorChecks()
    images = [noise(view) for view in range(views)]
    verdicts = [judge(checks, i, *images) for i in range(400)]
    assert [v.status is FrameStatus.FROZEN_ANCHOR for v in verdicts] == [i >= 300 for i in range(400)]
    assert ('Anchor left' if views == 1 else 'All anchors') in verdicts[-1].reason


def test_never_switches_both_off():
    checks = AnchorChecks()
    sets = [AnchorSet(i * 10**8, ('left', 'right'), np.stack([noise(i), noise(0)])) for i in range(1, 900)]
    assert all(checks.judge(s, None, None).status is FrameStatus.VALID for s in sets)
    checks.reset()
    still = [AnchorSet(i * 10**9, ('left',), noise(0)[None]) for i in range(100)]
    assert all(checks.judge(s, None, None).status is FrameStatus.VALID for s in still)


def test_a_reset_forgets_how_long_an_anchor_stood_still():
    checks = AnchorChecks()
    for i in range(30):
        judge(checks, i, noise(i), noise(1000))
    checks.reset()
    assert judge(checks, 30, noise(30), noise(1000)).status is FrameStatus.VALID


def test_repeated_frames_of_a_slower_camera_are_not_frozen():
    assert set(statuses([(noise(i), noise(1000 + i // 10)) for i in range(100)])) == {FrameStatus.VALID}


# Where the robot is seen


def moved(residuals, most=0.03):
    """Sets at 10 Hz in which one anchor has these residuals, millimetres: the numbers of those judged moved."""
    check = RegistrationCheck()
    verdicts = [check.judge(i * 10**8, ('left',), np.array([mm * 1e-3]), most) for i, mm in enumerate(residuals)]
    return [i for i, verdict in enumerate(verdicts) if verdict.status is FrameStatus.ANCHOR_MOVED]


def test_residuals_that_rise_and_stay_so_mean_that_the_camera_moved():
    assert moved([1.5] * 50 + [8] * 50) == list(range(75, 100))
    assert moved([6] * 50 + [18] * 50) == list(range(75, 100))


def test_residuals_that_rise_for_a_moment_are_usual():
    assert moved(([1.5] * 30 + [12] * 20) * 3) == []


def test_a_camera_that_moved_stays_so_until_it_is_calibrated_again():
    assert moved([1.5] * 50 + [8] * 600 + [1.5] * 10) == list(range(75, 650))


def test_unknown_residuals_prove_nothing():
    assert moved([np.nan] * 100) == []
    assert moved([1.5] * 50 + [8, np.nan] * 25 + [1.5]) == list(range(75, 100))


def test_a_large_residual_is_judged_without_anything_before_it_and_never_switches_it_off():
    assert moved([40] * 20) == list(range(4, 20))
    assert moved([40] * 20, most=None) == []
