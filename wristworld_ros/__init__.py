"""A virtual wrist camera for robot arms that have none: from anchor cameras, live, over ROS 2.

`VirtualWrist`, `load_model` and the types around them can be imported from here; each is loaded when it is asked for, so
that importing the package (its messages, its command line) brings in neither torch nor ROS.
"""

from importlib import import_module
from pkgutil import extend_path
from typing import TYPE_CHECKING

# The generated messages (`wristworld_ros.msg`) are installed beside this package; when the package is
# imported from a source tree, this finds them there.
__path__ = extend_path(__path__, __name__)
__version__ = '0.1.0'

_HOMES = {
    'VirtualWrist': 'pipeline.virtual_wrist',
    'load_model': 'pipeline.model_directory',
    'StreamSettings': 'settings',
    'UserError': 'errors',
    'AnchorSet': 'types',
    'Camera': 'types',
    'FrameStatus': 'types',
    'Geometry': 'types',
    'RobotPoints': 'types',
    'WristFrame': 'types',
}
__all__ = [
    'AnchorSet', 'Camera', 'FrameStatus', 'Geometry', 'RobotPoints', 'StreamSettings', 'UserError', 'VirtualWrist', 'WristFrame',
    'load_model',
]  # fmt: skip

if TYPE_CHECKING:
    from wristworld_ros.errors import UserError
    from wristworld_ros.pipeline.model_directory import load_model
    from wristworld_ros.pipeline.virtual_wrist import VirtualWrist
    from wristworld_ros.settings import StreamSettings
    from wristworld_ros.types import AnchorSet, Camera, FrameStatus, Geometry, RobotPoints, WristFrame


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(import_module(f'{__name__}.{_HOMES[name]}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
