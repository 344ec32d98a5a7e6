"""What LeRobot, openpi and Octo take: keys, sizes, types; the adapters and their examples agree, and import none of the three."""

import subprocess
import sys
import threading

import numpy as np
import pytest

from wristworld_ros.errors import UserError
from wristworld_ros.policy import StaleFrameError, lerobot, octo, openpi
from wristworld_ros.policy.fitting import letterbox, stretch
from wristworld_ros.policy.frames import FrameReader


def form(tree):
    """Keys, types and shapes of an observation."""
    if isinstance(tree, dict):
        return {key: form(value) for key, value in tree.items()}
    return (tree.dtype, tree.shape) if isinstance(tree, np.ndarray) else type(tree)


def test_the_adapters_import_none_of_the_packages_that_they_serve():
    code = (
        'import sys\nfrom wristworld_ros.policy import lerobot, octo, openpi\n'
        'for module in (lerobot, octo, openpi): module.make_example()\n'
        'print(sorted({"lerobot", "openpi", "openpi_client", "octo", "jax", "tensorflow", "rclpy"} & set(sys.modules)))'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout.strip() == '[]', done.stderr


@pytest.mark.parametrize('module', [lerobot, octo, openpi])
def test_an_example_is_the_same_for_one_seed_and_another_for_another(module):
    first, again, other = module.make_example(3), module.make_example(3), module.make_example(4)
    assert form(first) == form(again) == form(other)
    for key, value in first.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, again[key])
    assert any(isinstance(v, np.ndarray) and (v != other[k]).any() for k, v in first.items())


# openpi


def test_openpi_gets_its_keys_and_letterboxed_images(make_wrist, make_pattern):
    wrist, exterior = make_wrist(96, 128), make_pattern(180, 320)
    made = openpi.observation(wrist, exterior, np.arange(7.0), 0.5, 'pick up the cup')
    assert form(made) == form(openpi.make_example())
    assert set(made) == {
        'observation/exterior_image_1_left', 'observation/wrist_image_left', 'observation/joint_position',
        'observation/gripper_position', 'prompt',
    }  # fmt: skip
    np.testing.assert_array_equal(made['observation/wrist_image_left'], letterbox(wrist.image, 224, 224))
    np.testing.assert_array_equal(made['observation/exterior_image_1_left'], letterbox(exterior, 224, 224))
    np.testing.assert_array_equal(made['observation/joint_position'], np.arange(7.0))
    assert made['observation/gripper_position'].tolist() == [0.5] and made['prompt'] == 'pick up the cup'


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'exterior': np.zeros((180, 320, 4), np.uint8)}, 'The exterior image is uint8'),
        ({'joint_position': np.zeros(8)}, r'joint_position is float64 \[8\].*give 7 finite numbers'),
        ({'joint_position': [np.nan] * 7}, 'joint_position is'),
        ({'gripper_position': 'open'}, "gripper_position is 'open'; give 1 finite number"),
        ({'prompt': '  '}, "The prompt is '  '"),
    ],
)
def test_openpi_refuses_what_its_policy_does_not_take(change, words, make_wrist, make_pattern):
    given = {'exterior': make_pattern(180, 320), 'joint_position': np.zeros(7), 'gripper_position': 0.0, 'prompt': 'go'}
    with pytest.raises(UserError, match=words):
        openpi.observation(make_wrist(), **given | change)


# Octo


def test_octo_gets_two_moments_with_masks(make_wrist, make_pattern):
    window, wrist, primary = octo.OctoObservation(), make_wrist(96, 128), make_pattern(180, 320)
    first = window.add(wrist, primary)
    assert form(first) == form(octo.make_example())
    assert first['timestep_pad_mask'].tolist() == [[False, True]]
    second = window.add(wrist, primary)
    assert second['timestep_pad_mask'].tolist() == [[True, True]]
    np.testing.assert_array_equal(second['image_wrist'][0, 1], stretch(wrist.image, 128, 128))
    np.testing.assert_array_equal(second['image_primary'][0, 0], stretch(primary, 256, 256))
    window.reset()
    assert window.add(wrist, primary)['timestep_pad_mask'].tolist() == [[False, True]]


def test_octo_is_told_which_moment_has_no_wrist_image(make_wrist, make_pattern):
    window, primary = octo.OctoObservation(), make_pattern(256, 256)
    window.add(None, primary)
    made = window.add(make_wrist(), primary)
    assert made['pad_mask_dict']['image_wrist'].tolist() == [[False, True]]
    assert made['pad_mask_dict']['image_primary'].tolist() == [[True, True]]
    assert not made['image_wrist'][0, 0].any() and made['image_wrist'][0, 1].any()
    made = window.add(None, primary)
    assert made['pad_mask_dict']['image_wrist'].tolist() == [[True, False]]


def test_octo_may_see_one_moment_alone(make_wrist, make_pattern):
    made = octo.OctoObservation(window=1).add(make_wrist(), make_pattern(256, 256))
    assert made['image_wrist'].shape == (1, 1, 128, 128, 3) and made['timestep_pad_mask'].tolist() == [[True]]
    with pytest.raises(UserError, match='window is 3'):
        octo.OctoObservation(3)
    with pytest.raises(UserError, match='The primary image is'):
        octo.OctoObservation().add(make_wrist(), np.zeros((256, 256), np.uint8))


# LeRobot


def test_lerobot_gets_its_keys_and_arrays_that_torch_takes_without_warning(make_wrist, make_pattern):
    import torch

    wrist = make_wrist()
    wrist.image.flags.writeable = False
    made = lerobot.observation(wrist, {'left': make_pattern(480, 640)}, range(8))
    assert set(made) == {'observation.images.left', 'observation.images.wrist_virtual', 'observation.state'}
    assert made['observation.state'].dtype == np.float32 and made['observation.state'].shape == (8,)
    np.testing.assert_array_equal(made['observation.images.wrist_virtual'], wrist.image)
    for value in made.values():
        torch.from_numpy(value)  # warns, and warnings are errors, where memory may not be written to
    example = lerobot.make_example()
    assert {k: v.dtype for k, v in made.items()} == {k: v.dtype for k, v in example.items()}


def test_lerobot_refuses_two_cameras_of_one_name_and_what_is_no_image(make_wrist, make_pattern):
    with pytest.raises(UserError, match="images has a camera 'wrist_virtual' already"):
        lerobot.observation(make_wrist(), {'wrist_virtual': make_pattern(48, 64)}, np.zeros(8))
    with pytest.raises(UserError, match='The image of left is float64'):
        lerobot.observation(make_wrist(), {'left': np.zeros((48, 64, 3))}, np.zeros(8))


def test_lerobot_s_camera_keeps_the_promises_in_milliseconds(source):
    camera = lerobot.LeRobotCamera(FrameReader(source), fps=15)
    source.put()
    image = camera.async_read(timeout_ms=0)
    assert image.shape == (96, 128, 3) and image.flags.writeable
    np.testing.assert_array_equal(camera.read_latest(max_age_ms=500), image)
    source.time_ns += 100_000_000
    with pytest.raises(TimeoutError):
        camera.read_latest(max_age_ms=50)
    with pytest.raises(TimeoutError):
        camera.async_read(timeout_ms=1)
    assert (camera.fps, camera.height, camera.width, camera.is_connected) == (15, None, None, True)


def test_lerobot_s_camera_connects_with_a_first_image(source, monkeypatch):
    monkeypatch.setattr(lerobot, 'FIRST_S', 0.01)
    camera = lerobot.LeRobotCamera(FrameReader(source))
    with pytest.raises(TimeoutError):
        camera.connect()
    camera.connect(warmup=False)
    monkeypatch.setattr(lerobot, 'FIRST_S', 20.0)
    timer = threading.Timer(0.05, source.put)
    timer.start()
    with camera:
        assert camera.is_connected and camera.read_latest().shape == (96, 128, 3)
    timer.join()


def test_lerobot_s_camera_resizes_to_the_data_set_and_closes_what_it_reads(source):
    class Closing(FrameReader):
        closed = False

        def close(self):
            self.closed = True

    reader = Closing(source)
    camera = lerobot.LeRobotCamera(reader, height=240, width=320)
    source.put()
    assert camera.read_latest().shape == (240, 320, 3)
    camera.disconnect()
    assert reader.closed and not camera.is_connected
    with pytest.raises(UserError, match='One of height and width'):
        lerobot.LeRobotCamera(reader, height=240)


def test_a_stale_image_reaches_no_policy(source):
    source.put()
    source.time_ns += 10**9
    with pytest.raises(StaleFrameError):
        lerobot.LeRobotCamera(FrameReader(source)).read_latest(max_age_ms=500)
