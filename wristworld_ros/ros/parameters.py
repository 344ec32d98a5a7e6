"""Settings records as ROS parameters: declared with type, default, range and description, checked when they change."""

from __future__ import annotations

import array
from dataclasses import Field, fields, replace
from typing import Any, Protocol

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, ParameterType, SetParametersResult
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from wristworld_ros.errors import UserError
from wristworld_ros.setting import allowed, check, kind_of, parsed, shown

TYPES = {
    'bool': ParameterType.PARAMETER_BOOL,
    'int': ParameterType.PARAMETER_INTEGER,
    'float': ParameterType.PARAMETER_DOUBLE,
    'str': ParameterType.PARAMETER_STRING,
    'list': ParameterType.PARAMETER_STRING_ARRAY,
}


class SettingsOwner(Protocol):
    """A node whose parameters are a settings record."""

    @property
    def is_configured(self) -> bool:
        """Whether settings that are not live may not change now."""
        ...

    def apply_settings(self, settings: Any) -> None:
        """Take a checked record whose live settings have changed. It is the one place that passes a change on."""
        ...


class Parameters:
    """The settings of one node as its ROS parameters.

    Args:
        node: Where they are declared.
        owner: The same node, as the one that uses them.
        defaults: The settings record.

    Raises:
        UserError: A value given at the start (command line, YAML) is wrong.
    """

    def __init__(self, node: Node, owner: SettingsOwner, defaults: Any):
        self._owner = owner
        self._fields = {f.name: f for f in fields(defaults)}
        values = {name: self._declare(node, f, getattr(defaults, name)) for name, f in self._fields.items()}
        self.settings = replace(defaults, **values)
        check(self.settings)
        node.add_on_set_parameters_callback(self._on_set)
        # rclpy calls these newest first, so a second one, of the node, would see the settings before they change here.
        node.add_post_set_parameters_callback(self._on_changed)

    @staticmethod
    def _declare(node: Node, f: Field, default: Any) -> Any:
        try:
            value = node.declare_parameter(f.name, shown(f, default), descriptor(f)).value
        except InvalidParameterTypeException as error:
            hint = ', written with a point' if kind_of(f) == 'float' else ''
            raise UserError(f'Parameter {f.name} is of another type ({error})', f'give a {kind_of(f)}{hint}') from error
        except InvalidParameterValueException as error:
            raise UserError(f'Parameter {f.name} is out of its range ({error})', f'give {allowed(f)}') from error
        return from_ros(f, value)

    def _changed(self, parameters: list[Parameter]) -> Any:
        changes = {p.name: from_ros(self._fields[p.name], p.value) for p in parameters if p.name in self._fields}
        return replace(self.settings, **changes)

    def _on_set(self, parameters: list[Parameter]) -> SetParametersResult:
        for p in parameters:
            f = self._fields.get(p.name)
            if f is None or f.metadata['live'] or not self._owner.is_configured:
                continue
            # A value that stays the same is no change: `ros2 param load` sends a whole file.
            if from_ros(f, p.value) != getattr(self.settings, f.name):
                reason = f'{p.name} may change only while the node is not configured; clean it up first.'
                return SetParametersResult(successful=False, reason=reason)
        try:
            check(self._changed(parameters))
        except UserError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _on_changed(self, parameters: list[Parameter]) -> None:
        self.settings = self._changed(parameters)
        self._owner.apply_settings(self.settings)


def descriptor(f: Field) -> ParameterDescriptor:
    """What `ros2 param describe` shows of one setting."""
    m, kind = f.metadata, kind_of(f)
    notes = [f'Allowed: {allowed(f)}.'] if allowed(f) else []
    notes.append('May change at any time.' if m['live'] else 'May change only while the node is not configured.')
    out = ParameterDescriptor(
        name=f.name, type=TYPES[kind], description=m['doc'], additional_constraints=' '.join(notes)
    )
    # A number or a word, and an empty list, which rclpy takes for bytes: `check` looks at the type instead.
    out.dynamic_typing = bool(m['none']) or kind == 'list'
    if m['low'] is not None and m['high'] is not None:
        if kind == 'int':
            out.integer_range = [IntegerRange(from_value=m['low'], to_value=m['high'], step=0)]
        else:
            out.floating_point_range = [
                FloatingPointRange(from_value=float(m['low']), to_value=float(m['high']), step=0.0)
            ]
    return out


def from_ros(f: Field, value: Any) -> Any:
    """The value of a parameter as the settings record holds it; what is of the wrong type is left to `setting.check`."""
    if kind_of(f) == 'list' and (value is None or isinstance(value, list | tuple | bytes | array.array)):
        return list(value or [])
    return parsed(f, value)
