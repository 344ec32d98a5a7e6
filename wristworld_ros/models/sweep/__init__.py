"""Plane sweep: what the wrist camera sees of a scene whose cameras are known, found by comparing the anchors.

Anchor images, cameras and the plane that objects stand on come in; colours, depth and confidence of the wrist's view go out.
Not part of the published system, whose point cloud puts an object where its predicted depth says. Tensors only, no state.
"""

from wristworld_ros.models.sweep.network import SweepConfig, SweepNetwork, SweepOutput
from wristworld_ros.models.sweep.planes import SweepViews, sweep_views

__all__ = ['SweepConfig', 'SweepNetwork', 'SweepOutput', 'SweepViews', 'sweep_views']
