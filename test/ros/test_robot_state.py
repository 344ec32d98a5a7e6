"""The robot's surface from its topics: joints at the time of an image, and every reason why it is not known."""

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from sensor_msgs.msg import JointState
from std_msgs.msg import Header, String

from wristworld_ros.errors import UserError
from wristworld_ros.ros.conversions import to_stamp
from wristworld_ros.ros.robot_state import RobotError, RobotFault, RobotState
from wristworld_ros.settings import NodeSettings
from wristworld_ros.types import RobotPoints

MS, S = 1_000_000, 1_000_000_000


class Slider:
    """A robot of two joints, one point at their positions."""

    joint_names = ('a', 'b')
    link_names = ('base', 'tip')
    root = 'base'
    missing_meshes = ()

    def surface(self, joints, base=None):
        point = np.array([[joints['a'], joints['b'], 0]], np.float32)
        return RobotPoints(point, np.zeros((1, 3), np.uint8), np.array(['tip']))


def state(load=lambda text: Slider(), text='<robot/>', **settings):
    robot = RobotState(SimpleNamespace(), NodeSettings(**settings), load)
    if text is not None:
        robot.take_description(String(data=text))
        wait_loaded(robot)
    return robot


def wait_loaded(robot):
    end = time.monotonic() + 5
    while robot._loading:
        assert time.monotonic() < end
        time.sleep(0.005)


def joints(stamp_ns, **positions):
    return JointState(
        header=Header(stamp=to_stamp(stamp_ns)), name=list(positions), position=[float(p) for p in positions.values()]
    )


def surface(robot, stamp_ns=S, wait=0.0):
    return robot.surface(stamp_ns, 'base', time.monotonic() + wait)


def fault(robot, stamp_ns=S, **kwargs):
    with pytest.raises(RobotError) as error:
        surface(robot, stamp_ns, **kwargs)
    return error.value


def test_joints_are_interpolated_at_the_image_also_where_messages_hold_some_of_them():
    robot = state()
    for stamp, a, b in ((0, 0, 10), (2 * S, 2, 30)):
        robot.take_joints(joints(stamp, a=a))
        robot.take_joints(joints(stamp, b=b))
    points, frame = surface(robot, S)
    np.testing.assert_allclose(points.points, [[1, 20, 0]])
    assert frame == 'base'


def test_nothing_is_extrapolated():
    robot = state()
    robot.take_joints(joints(S, a=0, b=0))
    for stamp in (S - MS, S + MS):
        assert fault(robot, stamp).kind is RobotFault.TIME


def test_late_joint_states_are_waited_for():
    robot = state()
    robot.take_joints(joints(S, a=0, b=0))
    timer = threading.Timer(0.05, robot.take_joints, [joints(3 * S, a=2, b=2)])
    timer.start()
    np.testing.assert_allclose(surface(robot, 2 * S, wait=5.0)[0].points, [[1, 1, 0]])
    timer.join()


def test_silent_joint_states_are_said():
    robot = state(freshness=60.0)
    assert fault(robot).kind is RobotFault.SILENT
    robot.take_joints(joints(S, a=0, b=0))
    surface(robot)
    robot.settings = NodeSettings(freshness=0.05)  # live
    time.sleep(0.08)
    error = fault(robot, S + MS, wait=5.0)
    assert error.kind is RobotFault.SILENT and 'silent' in error.what


def test_a_joint_that_is_never_published_is_named():
    robot = state()
    robot.take_joints(joints(S, a=0))
    error = fault(robot)
    assert error.kind is RobotFault.NO_JOINTS and ' b,' in error.what


def test_no_description_is_said():
    assert fault(state(text=None)).kind is RobotFault.NO_DESCRIPTION


@pytest.mark.parametrize('error', [UserError('it is no XML', 'repair it'), KeyError('link')])
def test_a_description_that_does_not_parse_is_one_sentence(error):
    def load(text):
        raise error

    said = fault(state(load))
    assert said.kind is RobotFault.DESCRIPTION and str(said).startswith('/robot_description cannot be used')


def test_a_description_loads_beside_the_node_and_the_newest_counts():
    gate = threading.Event()

    def load(text):
        if text == 'slow':
            gate.wait(5)
            raise UserError('slow', 'fix')
        return Slider()

    robot = state(load, text=None)
    began = time.monotonic()
    robot.take_description(String(data='slow'))
    assert time.monotonic() - began < 1 and fault(robot).kind is RobotFault.LOADING
    robot.take_description(String(data='new'))
    wait_loaded(robot)
    gate.set()
    time.sleep(0.05)
    robot.take_joints(joints(S, a=0, b=0))
    surface(robot)


def test_missing_meshes_are_named_and_the_rest_is_used():
    def load(text):
        model = Slider()
        model.missing_meshes = ('package://franka_description/hand.dae',)
        return model

    robot = state(load)
    robot.take_joints(joints(S, a=0, b=0))
    surface(robot)
    assert 'hand.dae' in robot.hint and 'install' in robot.hint
