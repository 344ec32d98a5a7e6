"""From anchor sets to wrist frames, live (`VirtualWrist`) and for whole recordings (`offline`), without ROS.

In come `AnchorSet`s and a `WristModel` of `model_directory`; out go `WristFrame`s with a verdict. A model is shared and
only read; all state of a video lies in its stream.
"""

from wristworld_ros.pipeline.model import WristModel, tiny_random_model
from wristworld_ros.pipeline.model_directory import load_model
from wristworld_ros.pipeline.model_saving import save_model
from wristworld_ros.pipeline.virtual_wrist import VirtualWrist

__all__ = ['VirtualWrist', 'WristModel', 'load_model', 'save_model', 'tiny_random_model']
