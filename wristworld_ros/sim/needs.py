"""The simulator's packages, or the command that installs them."""

from __future__ import annotations

import logging
from types import SimpleNamespace

_INSTALL = "The simulator needs {name}, which is not installed; run: pip install 'wristworld-ros[sim]'"

try:
    import mujoco as mujoco
except ImportError as error:
    raise ImportError(_INSTALL.format(name='mujoco')) from error


def robosuite_parts() -> SimpleNamespace:
    """The robosuite classes that the scene is built of."""
    logging.getLogger('robosuite_logs').setLevel(logging.ERROR)
    try:
        from robosuite.models.arenas import TableArena
        from robosuite.models.bases import robot_base_factory
        from robosuite.models.grippers import gripper_factory
        from robosuite.models.objects import BreadObject, CanObject, CerealObject, MilkObject
        from robosuite.models.robots import Panda
        from robosuite.models.tasks import ManipulationTask
    except ImportError as error:
        raise ImportError(_INSTALL.format(name='robosuite')) from error
    return SimpleNamespace(
        TableArena=TableArena,
        robot_base_factory=robot_base_factory,
        gripper_factory=gripper_factory,
        BreadObject=BreadObject,
        CanObject=CanObject,
        CerealObject=CerealObject,
        MilkObject=MilkObject,
        Panda=Panda,
        ManipulationTask=ManipulationTask,
    )
