from pathlib import Path

import pytest
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='session')
def typestore():
    """rosbags' types with ours, parsed from the .msg files of this tree."""
    store = get_typestore(Stores.ROS2_JAZZY)
    types = {}
    for path in sorted((ROOT / 'msg').glob('*.msg')):
        types |= get_types_from_msg(path.read_text(), f'wristworld_ros/msg/{path.stem}')
    store.register(types)
    return store
