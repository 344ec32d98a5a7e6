"""A camera without depth is found by the arm's outline; what does not fit the arm is doubted."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from wristworld_ros import cli
from wristworld_ros.data.formats.native import CameraTrack, NativeSet, write_episode
from wristworld_ros.data.formats.native_writer import write_native
from wristworld_ros.errors import UserError
from wristworld_ros.geometry.poses import looking_at
from wristworld_ros.robot.arm_motion import ChangeModel, FeatureMotion, spread_frames
from wristworld_ros.robot.arm_recording import ArmRecordingWriter
from wristworld_ros.robot.board import Intrinsics
from wristworld_ros.robot.calibration_file import read_calibration
from wristworld_ros.robot.description import RobotModel
from wristworld_ros.robot.outline import OutlineFit, find_camera, judge_camera
from wristworld_ros.robot.outline_picture import outline_over
from wristworld_ros.types import RobotPoints

pytest.importorskip('yourdfpy')

FRAMES, WIDTH, HEIGHT = 16, 160, 120
K = np.array([[140.0, 0, (WIDTH - 1) / 2], [0, 140, (HEIGHT - 1) / 2], [0, 0, 1]])
DEGREES, METRES = (
    0.6,
    0.025,
)  # seen over four seeds of the search, with and without a guess: 0.23 degrees and 9 mm at most
TRUTH = looking_at(np.array([1.3, -0.8, 0.7]), np.array([0.25, 0.0, 0.35]))
ARM = (
    ('0 0 0', '0 0 1', 0.3, 0.12),
    ('0 0 0.3', '0 1 0', 0.35, 0.1),
    ('0 0 0.35', '0 1 0', 0.3, 0.08),
    ('0 0 0.3', '1 0 0', 0.15, 0.13),
)


def description() -> str:
    """Four boxes, one upon the other, each turned by a joint."""
    text = '<link name="l0"/>'
    for i, (xyz, axis, length, width) in enumerate(ARM, 1):
        text += (
            f'<link name="l{i}"><visual><origin xyz="0 0 {length / 2}"/><geometry><box size="{width} {width} {length}"/></geometry>'
            f'</visual></link><joint name="j{i}" type="revolute"><parent link="l{i - 1}"/><child link="l{i}"/><origin xyz="{xyz}"/>'
            f'<axis xyz="{axis}"/><limit lower="-3" upper="3" effort="1" velocity="1"/></joint>'
        )
    return f'<robot name="arm">{text}</robot>'


def angles() -> list[dict[str, float]]:
    """Joint positions of every frame."""
    t = np.linspace(0, 2 * np.pi, FRAMES)
    joints = np.stack(
        [0.9 * np.sin(t), 0.5 + 0.4 * np.cos(1.3 * t), 0.9 + 0.5 * np.sin(1.7 * t), 0.8 * np.sin(2 * t)], 1
    )
    return [{f'j{i + 1}': float(q) for i, q in enumerate(row)} for row in joints]


def painted(surface: RobotPoints, colors: np.ndarray, background: np.ndarray) -> np.ndarray:
    """The arm over a background, as the camera TRUTH sees it; painted four times as large, so that its outline is not wider than it is."""
    local = (surface.points - TRUTH[:3, 3]) @ TRUTH[:3, :3]
    order = np.argsort(-local[:, 2])
    pixels = 4 * (local[order, :2] / local[order, 2:] * 140 + K[:2, 2]) + 1.5
    image = np.repeat(np.repeat(background, 4, 0), 4, 1)
    for shift in ((0, 0), (1, 0), (0, 1), (1, 1)):
        x, y = np.floor(pixels + shift).astype(int).T
        inside = (x >= 0) & (y >= 0) & (x < 4 * WIDTH) & (y < 4 * HEIGHT)
        image[y[inside], x[inside]] = colors[order][inside]
    return cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)


@pytest.fixture(scope='module')
def recording():
    """Images uint8 [T, H, W, 3], and the arm's surface at each."""
    rng, robot = np.random.default_rng(3), RobotModel.from_urdf(description(), spacing=0.008)
    surfaces = [robot.surface(joints) for joints in angles()]
    dense = RobotModel.from_urdf(description(), spacing=0.004)
    noise = rng.normal(size=(HEIGHT // 8, WIDTH // 8, 3)).astype(np.float32)
    background = (
        (110 + 25 * cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)).clip(0, 255).astype(np.uint8)
    )
    rest = dense.surface(angles()[0]).points
    patches = rng.integers(0, 2, (64,)) * 70 + 160
    cell = np.floor(rest / 0.05).astype(int) @ [1, 7, 19] % 64
    colors = np.repeat(patches[cell][:, None], 3, 1).astype(np.uint8)
    images = np.stack([painted(dense.surface(joints), colors, background) for joints in angles()])
    return (images + rng.normal(0, 2, images.shape)).clip(0, 255).astype(np.uint8), surfaces


def errors(T: np.ndarray) -> tuple[float, float]:
    """Degrees and metres."""
    E = np.linalg.inv(TRUTH) @ T
    return float(np.degrees(Rotation.from_matrix(E[:3, :3]).magnitude())), float(np.linalg.norm(E[:3, 3]))


def moved(T: np.ndarray, degrees: float, metres: float) -> np.ndarray:
    wrong = T.copy()
    wrong[:3, :3] = T[:3, :3] @ Rotation.from_rotvec(np.radians(degrees) * np.array([0.6, -0.64, 0.48])).as_matrix()
    wrong[:3, 3] += metres * np.array([0.48, 0.6, -0.64])
    return wrong


def points_of(surfaces) -> tuple[np.ndarray, np.ndarray]:
    return tuple(
        np.stack([getattr(s, name)[::5] for s in surfaces]).astype(np.float64) for name in ('points', 'normals')
    )


def test_the_true_outline_is_the_likeliest(recording):
    images, surfaces = recording
    points, _ = points_of(surfaces)
    model = ChangeModel(images, points, 80)

    def score(T):
        return model.judge(model.render(np.linalg.inv(T), K).mask)[0]

    true = score(TRUTH)
    assert true > 0
    for degrees, metres in ((4, 0), (-4, 0), (0, 0.1), (0, -0.1)):
        assert score(moved(TRUTH, degrees, metres)) < true


def test_pixels_that_the_arm_truly_covers_would_gain(recording):
    images, surfaces = recording
    model = ChangeModel(images, points_of(surfaces)[0], 80)
    mask = model.render(np.linalg.inv(TRUTH), K).mask
    _, gain = model.judge(mask)
    moving = mask.mean(0) < 0.6
    assert gain[(mask == 1) & moving].mean() > 0.2 > 0 > gain[mask == 0].mean()


def test_the_arm_explains_features_from_the_true_camera_alone(recording):
    images, surfaces = recording
    motion = FeatureMotion(images, *points_of(surfaces))
    assert motion.count > 50
    true = motion.explained(np.linalg.inv(TRUTH), K)
    opposite = looking_at(TRUTH[:3, 3] * [-1, -1, 1], np.array([0.25, 0.0, 0.35]))
    assert true > 0.45 and true > motion.explained(np.linalg.inv(opposite), K) + 0.2  # 0.52 and 0.09


def test_frames_that_are_chosen_differ(recording):
    points, _ = points_of(recording[1])
    twice = np.concatenate([points, points])
    chosen = spread_frames(twice, 8)
    assert len(set(chosen % FRAMES)) == 8 and (np.diff(chosen) > 0).all()


def test_a_camera_is_found_from_a_poor_guess(recording):
    images, surfaces = recording
    fit = find_camera(images, surfaces, K, 0.0, moved(TRUTH, 10, 0.15))
    degrees, metres = errors(fit.T_base_camera)
    assert degrees < DEGREES and metres < METRES
    assert fit.doubt == '' and fit.residual < 2 and fit.expected_error > metres
    np.testing.assert_allclose(fit.K, K)


def test_a_camera_is_found_without_a_guess_and_with_a_wrong_focal_length(recording):
    images, surfaces = recording
    wrong = K * [[1.04], [1.04], [1]] + [[0, 0, -0.04 * K[0, 2]], [0, 0, -0.04 * K[1, 2]], [0, 0, 0]]
    fit = find_camera(images, surfaces, wrong, 0.04)
    degrees, metres = errors(fit.T_base_camera)
    assert degrees < DEGREES and metres < METRES and fit.doubt == ''


def test_joints_of_another_time_are_doubted(recording):
    images, surfaces = recording
    others = [surfaces[i] for i in np.random.default_rng(1).permutation(FRAMES)]
    assert find_camera(images, others, K).doubt


def test_doubt_says_what_is_wrong(recording):
    fit = OutlineFit(np.eye(4), K, 1.0, 2.0, 0.01, 0.8, 3.0, 1.0, (0,), 0.005)
    assert fit.doubt == '' and 'trusted' in fit.summary
    assert 'explains 20%' in replace(fit, explained=0.2).doubt
    assert 'pixels apart' in replace(fit, apart=50.0).doubt
    assert 'another camera' in replace(fit, ahead=0.0).doubt
    assert fit.expected_error == pytest.approx(0.03)


def test_halves_that_agree_do_not_make_an_answer_exact():
    fit = OutlineFit(np.eye(4), K, 1.0, 0.1, 0.0005, 0.8, 3.0, 1.0, (0,), 0.005)
    assert fit.expected_error == pytest.approx(0.0225)


def test_too_little_is_refused(recording):
    images, surfaces = recording
    with pytest.raises(UserError, match='in 3 images'):
        find_camera(images[:3], surfaces[:3], K)
    with pytest.raises(UserError, match='16 arm poses for 15 images'):
        find_camera(images[1:], surfaces, K)
    with pytest.raises(UserError, match='features move'):
        find_camera(np.repeat(images[:1], FRAMES, 0), surfaces, K)


def arm_folder(folder, images):
    writer = ArmRecordingWriter(folder)
    for image, joints in zip(images, angles()):
        writer.add(image, None, joints)
    writer.write_camera(Intrinsics(K, np.empty(0), WIDTH, HEIGHT))
    writer.write_robot(description())
    writer.write_pose('guess.txt', moved(TRUTH, 5, 0.06))
    writer.write_pose('truth.txt', TRUTH)
    return ['calibrate', 'robot', str(folder), '--base-frame', 'l0', '--name', 'side', '--out', str(folder / 'out')]


def test_the_command_places_a_camera_without_depth(recording, tmp_path, capsys):
    assert cli.main(arm_folder(tmp_path, recording[0])) == 0
    side = read_calibration(tmp_path / 'out/calibration.yaml').anchors['side']
    degrees, metres = errors(side.T)
    assert degrees < DEGREES and metres < METRES and side.quality.unit == 'px'
    assert side.quality.expected_mm > 1e3 * metres
    printed = capsys.readouterr().out
    assert 'by the outline of the arm' in printed and 'look at the pictures' in printed
    assert (tmp_path / 'out/calibration_side.html').read_text().count('data:image/jpeg') >= 6


def test_the_command_refuses_what_is_not_the_arm(recording, tmp_path, capsys):
    images = recording[0][np.random.default_rng(1).permutation(FRAMES)]
    assert cli.main(arm_folder(tmp_path, images)) == 2
    message = capsys.readouterr().err
    assert 'does not tell where the camera is' in message and message.count('\n') == 1
    assert not (tmp_path / 'out').exists()


def test_the_outline_lies_on_the_arm(recording):
    images, surfaces = recording
    picture = outline_over(images[3], surfaces[3], K, TRUTH)
    assert picture.shape == (2 * HEIGHT, 2 * WIDTH, 3)
    plain = cv2.resize(images[3], (2 * WIDTH, 2 * HEIGHT), interpolation=cv2.INTER_CUBIC)
    drawn = (np.abs(picture.astype(int) - plain).sum(-1) > 60).sum()
    assert 100 < drawn < 5000


def test_a_claimed_camera_is_believed_where_it_fits_the_arm_and_doubted_where_it_does_not(recording):
    images, surfaces = recording
    good = judge_camera(images, surfaces, TRUTH, K)
    assert good.doubt == '' and good.residual < 1.5 and good.shift < 4
    guessed = judge_camera(images, surfaces, TRUTH, None)
    assert guessed.doubt == '' and abs(guessed.K[0, 0] / K[0, 0] - 1) < 0.15
    wrong = judge_camera(images, surfaces, moved(TRUTH, 25, 0.3), K)
    assert wrong.doubt and wrong.explained < good.explained
    away = judge_camera(images, surfaces, looking_at(np.array([1.3, -0.8, 0.7]), np.array([3.0, -2.0, 0.7])), K)
    assert away.doubt == 'the arm is out of its view'


def test_inspect_checks_what_a_set_claims_and_lists_the_episodes_that_do_not_fit(recording, tmp_path, capsys):
    images, _ = recording
    joints = np.array([list(row.values()) for row in angles()])
    robot = RobotModel.from_urdf(description())
    hand = np.stack([robot.link_poses(row)['l4'] for row in angles()])
    for number, claim in enumerate((TRUTH, moved(TRUTH, 25, 0.3))):
        T = np.tile(np.linalg.inv(claim), (FRAMES, 1, 1))
        wrist = np.tile(np.eye(4), (FRAMES, 1, 1))
        cameras = [CameraTrack('left', 'anchor', images, np.tile(K, (FRAMES, 1, 1)), T)]
        cameras.append(CameraTrack('wrist', 'wrist', images, np.tile(K, (FRAMES, 1, 1)), wrist))
        write_episode(
            tmp_path / f'source/{number}', task='', seed=0, fps=5, success=True, stamps_ns=np.arange(FRAMES) * 200_000_000,
            cameras=cameras, tracks={'joints': joints, 'T_base_hand': hand},
        )  # fmt: skip
    data = NativeSet(tmp_path / 'source')
    write_native(tmp_path / 'set', [lambda i=i: replace(data.episode(i), hand_link='l4') for i in range(2)])
    (tmp_path / 'arm.urdf').write_text(description())
    assert cli.main(['data', 'inspect', str(tmp_path / 'set')]) == 0
    assert 'Calibration of left is told and not checked by the arm: give --urdf' in capsys.readouterr().out
    assert cli.main(['data', 'inspect', str(tmp_path / 'set'), '--urdf', str(tmp_path / 'arm.urdf')]) == 0
    told = capsys.readouterr().out
    assert 'episode 0, left: fits' in told and 'episode 0, hand: fits (the hand is 0.00 mm' in told
    assert 'episode 1, left: ' in told and 'episode 1, left: fits' not in told
    assert told.rstrip().endswith('Do not use the calibration of episodes: 1')
