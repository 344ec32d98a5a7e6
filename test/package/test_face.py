"""The package's face: what can be imported from its top, and that nothing heavy comes with it."""

import subprocess
import sys

import pytest

import wristworld_ros


@pytest.mark.parametrize('name', wristworld_ros.__all__)
def test_every_name_of_the_face_is_there(name):
    assert getattr(wristworld_ros, name).__name__ == name and name in dir(wristworld_ros)


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match='no attribute'):
        _ = wristworld_ros.NoSuchThing


@pytest.mark.parametrize(
    'code', ['import wristworld_ros', 'import wristworld_ros.msg', 'import wristworld_ros.settings']
)
def test_importing_the_package_or_its_messages_loads_no_torch(code):
    program = f'{code}; import sys; assert "torch" not in sys.modules and "wristworld_ros.types" not in sys.modules'
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_example_of_the_readme_runs():
    import numpy as np

    from wristworld_ros import AnchorSet, StreamSettings, VirtualWrist, load_model

    wrist = VirtualWrist(load_model('sim_tiny'), StreamSettings(steps=1))
    images = np.zeros((2, 240, 320, 3), np.uint8)
    (frame,) = wrist.push(AnchorSet(stamp_ns=0, names=('left', 'right'), images=images))
    assert frame.image.shape == (128, 128, 3)
