"""Settings records as ROS parameters: declared with type, default, range and description, checked when they change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import Field, fields, replace
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, ParameterType, SetParametersResult
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.parameter import Parameter

from wristworld_ros.settings import check

TYPES = {
    'bool': ParameterType.PARAMETER_BOOL,
    'int': ParameterType.PARAMETER_INTEGER,
    'float': ParameterType.PARAMETER_DOUBLE,
    'str': ParameterType.PARAMETER_STRING,
    'list': ParameterType.PARAMETER_STRING_ARRAY,
}


def descriptor(f: Field) -> ParameterDescriptor:
    """What `ros2 param describe` shows of one setting."""
    m = f.metadata
    notes = []
    if m['choices']:
        notes.append('One of: ' + ', '.join(m['choices']) + '.')
    notes.append('May change at any time.' if m['live'] else 'May change only while the node is not configured.')
    out = ParameterDescriptor(
        name=f.name, type=TYPES[str(f.type)], description=m['doc'], additional_constraints=' '.join(notes)
    )
    # rclpy takes an empty list for bytes, whatever the descriptor says; `check` looks at the type instead.
    out.dynamic_typing = f.type == 'list'
    if m['low'] is not None and f.type == 'int':
        out.integer_range = [IntegerRange(from_value=m['low'], to_value=m['high'], step=0)]
    elif m['low'] is not None:
        out.floating_point_range = [FloatingPointRange(from_value=float(m['low']), to_value=float(m['high']), step=0.0)]
    return out


class Parameters:
    """The settings of one node as its ROS parameters; `settings` is always a checked record.

    fixed: says whether settings that are not live may not change now. Raises ValueError with one sentence when a value given
    at the start (command line, YAML) is wrong.
    """

    def __init__(self, node, defaults: Any, fixed: Callable[[], bool]):
        self._node, self._fixed = node, fixed
        self._fields = {f.name: f for f in fields(defaults)}
        values = {}
        for f in self._fields.values():
            try:
                value = node.declare_parameter(f.name, getattr(defaults, f.name), descriptor(f)).value
            except (InvalidParameterTypeException, InvalidParameterValueException) as error:
                hint = ', written with a point,' if f.type == 'float' else ''
                raise ValueError(f'Parameter {f.name} takes a {f.type}{hint}: {f.metadata["doc"]} ({error})') from error
            values[f.name] = list(value or []) if f.type == 'list' else value
        self.settings = replace(defaults, **values)
        check(self.settings)
        node.add_on_set_parameters_callback(self._allow)
        node.add_post_set_parameters_callback(self._take)

    def _changed(self, parameters: list[Parameter]) -> Any:
        changes = {p.name: p.value for p in parameters if p.name in self._fields}
        for name, value in changes.items():
            if self._fields[name].type == 'list':
                changes[name] = list(value or [])
        return replace(self.settings, **changes)

    def _allow(self, parameters: list[Parameter]) -> SetParametersResult:
        for p in parameters:
            f = self._fields.get(p.name)
            if f is not None and not f.metadata['live'] and self._fixed():
                reason = f'{p.name} may change only while the node is not configured; clean it up first.'
                return SetParametersResult(successful=False, reason=reason)
        try:
            check(self._changed(parameters))
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _take(self, parameters: list[Parameter]) -> None:
        self.settings = self._changed(parameters)
