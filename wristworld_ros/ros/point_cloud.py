"""Coloured points as PointCloud2."""

from __future__ import annotations

import numpy as np
from sensor_msgs.msg import PointCloud2, PointField

from wristworld_ros.ros.image_conversion import buffer

POINT = np.dtype([('xyz', '<f4', 3), ('bgr0', 'u1', 4)])  # rgb as rviz reads it: 0x00RRGGBB, little endian
FIELDS = [
    PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
    for i, name in enumerate(('x', 'y', 'z', 'rgb'))
]


def to_cloud(points, colors, header, stride: int = 1) -> PointCloud2:
    """points: float32 [V, H, W, 3] in header's frame, metres; colors: uint8 [V, H, W, 3]; torch tensors on any device.

    Every stride-th point of each row and column is taken; points that are not finite are left out.
    """
    xyz = points[:, ::stride, ::stride].reshape(-1, 3).detach().float().cpu().numpy()
    rgb = colors[:, ::stride, ::stride].reshape(-1, 3).cpu().numpy()
    keep = np.isfinite(xyz).all(-1)
    cloud = np.zeros(int(keep.sum()), POINT)
    cloud['xyz'] = xyz[keep]
    cloud['bgr0'][:, :3] = rgb[keep][:, ::-1]
    return PointCloud2(
        header=header,
        height=1,
        width=len(cloud),
        fields=FIELDS,
        is_bigendian=False,
        point_step=POINT.itemsize,
        row_step=POINT.itemsize * len(cloud),
        data=buffer(cloud.view(np.uint8)),
        is_dense=True,
    )
