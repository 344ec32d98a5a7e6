"""The camera node's simulator runs at the rate that is asked for, in its own time."""

import itertools

import pytest

from wristworld_ros.errors import UserError
from wristworld_ros.ros.camera_sources import Prerendered, Simulator
from wristworld_ros.settings import CameraSettings

# 15 Hz took the nearest divisor of 20: the images came at 15 Hz and showed an arm that moved at 0.75 times its speed.


@pytest.mark.parametrize('rate', [1.0, 15.0, 30.0])
def test_a_frame_advances_the_simulation_by_its_own_period(rate):
    pytest.importorskip('robosuite')
    simulator = Simulator(CameraSettings(rate=rate, width=32, height=24))
    moments = simulator.moments(rate)
    next(moments)
    start = simulator._stream.env.data.time
    for _ in range(3):
        next(moments)
    assert simulator._stream.env.data.time - start == pytest.approx(3 / rate)
    simulator.close()


@pytest.mark.parametrize('rate', [0.5, 7.5])
def test_a_rate_that_no_number_of_control_periods_makes_is_refused(rate):
    with pytest.raises(UserError, match=rf'rate is {rate}, .*give rate as 1 to 240'):
        Simulator(CameraSettings(rate=rate))


def test_moments_that_were_rendered_before_go_to_and_fro():
    class Counting:
        rate, base, damage = 10.0, 'fr3_link0', ()

        def moments(self, rate):
            for number in itertools.count():
                made.append(number)
                yield number

    made = []
    played = Prerendered(Counting(), 4).moments(30.0)
    assert list(itertools.islice(played, 10)) == [0, 1, 2, 3, 2, 1, 0, 1, 2, 3]
    assert made == [0, 1, 2, 3]
