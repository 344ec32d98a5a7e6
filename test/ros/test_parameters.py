"""Settings as ROS parameters: words for None, numbers, lists, what is refused, and who hears of a change."""

from dataclasses import fields

import pytest
import rclpy
from rclpy.node import Node
from rclpy.parameter import Parameter

from wristworld_ros.errors import UserError
from wristworld_ros.ros.parameters import Parameters
from wristworld_ros.setting import shown
from wristworld_ros.settings import NodeSettings


class Owner(Node):
    """A node with the settings of `virtual_wrist` that records what it is given."""

    def __init__(self, context, configured=False, **values):
        overrides = [Parameter(name, value=value) for name, value in values.items()]
        super().__init__('owner', context=context, parameter_overrides=overrides)
        self.is_configured, self.applied = configured, []
        self.parameters = Parameters(self, self, NodeSettings())

    def apply_settings(self, settings):
        self.applied.append(settings)

    def change(self, **values):
        results = self.set_parameters([Parameter(name, value=value) for name, value in values.items()])
        return '; '.join(result.reason for result in results if not result.successful)


@pytest.fixture
def owner():
    """Makes owners and destroys them."""
    context, made = rclpy.Context(), []
    rclpy.init(args=[], context=context)

    def make(**values):
        made.append(Owner(context, **values))
        return made[-1]

    yield make
    for node in made:
        node.destroy_node()
    rclpy.shutdown(context=context)


def test_every_default_comes_back_from_its_parameter(owner):
    node = owner()
    assert node.parameters.settings == NodeSettings()
    for f in fields(NodeSettings):
        value = node.get_parameter(f.name).value
        assert value == shown(f, getattr(NodeSettings(), f.name)), f.name


def test_a_change_is_passed_on_once_and_with_its_new_value(owner):
    node = owner(configured=True)
    assert not node.change(min_coverage=0.5)
    assert [s.min_coverage for s in node.applied] == [0.5] and node.parameters.settings is node.applied[0]


@pytest.mark.parametrize(
    ('name', 'value', 'taken'),
    [
        ('guidance', 'auto', None),
        ('guidance', 5, 5.0),
        ('guidance', 5.5, 5.5),
        ('max_rate', 'unlimited', None),
        ('max_rate', 7, 7.0),
        ('reanchor', 'never', None),
        ('reanchor', 3, 3),
        ('points_stride', 'never', None),
        ('threads', 'auto', None),
        ('anchor_frame', 'auto', None),
        ('anchor_frame', 'cam', 'cam'),
        ('on_out_of_memory', [], []),
        ('anchors', ['a'], ['a']),
    ],
)
def test_a_word_or_a_number_is_taken_at_the_start_and_later(owner, name, value, taken):
    for settings in (owner(**{name: value}).parameters.settings, _changed(owner(), name, value)):
        assert getattr(settings, name) == taken and type(getattr(settings, name)) is type(taken)


def _changed(node, name, value):
    assert not node.change(**{name: value})
    return node.parameters.settings


@pytest.mark.parametrize(
    ('name', 'value', 'words'),
    [
        ('guidance', 'much', 'or auto'),
        ('near', 99.0, 'near'),
        ('near', 99, 'near'),
        ('reanchor', 0, 'reanchor'),
        ('reanchor', 1.5, 'or never'),
        ('anchors', 'left', 'list of words'),
        ('anchors', [1, 2], 'list of words'),
        ('transport', 'pigeon', 'raw, compressed'),
        ('min_coverage', float('nan'), 'min_coverage'),
        ('chunk', 17, 'chunk'),
    ],
)
def test_what_is_not_allowed_is_refused_at_the_start_and_later(owner, name, value, words):
    with pytest.raises(UserError, match=words):
        owner(**{name: value})
    node = owner()
    reason = node.change(**{name: value})
    assert reason and '\n' not in reason
    assert node.applied == [] and node.parameters.settings == NodeSettings()


def test_only_live_settings_change_while_configured(owner):
    node = owner(configured=True)
    assert 'not configured' in node.change(chunk=2)
    assert not node.change(max_rate=3.0)
    assert node.parameters.settings.chunk == 1 and node.parameters.settings.max_rate == 3.0
