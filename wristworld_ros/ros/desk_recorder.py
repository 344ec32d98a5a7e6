"""What a desk knows of every wrist frame, for a recording: calibrations and places of the anchors, the wrist camera, joint positions."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, JointState
from tf2_msgs.msg import TFMessage

from wristworld_ros.data.recording import DeskRecord
from wristworld_ros.msg import WristView
from wristworld_ros.ros.conversions import to_intrinsics, to_ns
from wristworld_ros.ros.qos import TF_DEPTH, best_effort, latched
from wristworld_ros.ros.transforms import TransformBuffer, TransformError, pose_matrix

JOINT_STATES = 600  # that are kept until the wrist frame of their time comes


class DeskRecorder:
    """Listens beside a recorder, and says at a wrist frame what was known at its stamp. The desk's joint states carry the very
    stamps of its images; those of others are not matched."""

    def __init__(self, node: Node, anchors: tuple[str, ...]):
        self._infos: dict[str, CameraInfo] = {}
        self._transforms = TransformBuffer()
        self._joints: OrderedDict[int, dict[str, float]] = OrderedDict()
        for name in anchors:
            node.create_subscription(CameraInfo, f'anchor_{name}/camera_info', self._infos_of(name), best_effort(50))
        node.create_subscription(TFMessage, '/tf_static', self._on_static, latched(TF_DEPTH))
        node.create_subscription(JointState, '/joint_states', self._on_joints, best_effort(50))

    def record(self, msg: WristView) -> DeskRecord | None:
        """What was known; None where the wrist camera was not, so that the frame is one of images alone."""
        if msg.geometry == WristView.RGB:
            return None
        stamp_ns, p, q = to_ns(msg.header.stamp), msg.pose.pose.position, msg.pose.pose.orientation
        T_base_wrist = pose_matrix((p.x, p.y, p.z, q.x, q.y, q.z, q.w))
        if T_base_wrist is None:
            return None
        intrinsics, places = {}, {}
        for name, info in self._infos.items():
            K = to_intrinsics(info, info.width, info.height)
            try:
                T = self._transforms.lookup(msg.pose.header.frame_id, info.header.frame_id, stamp_ns)
            except TransformError:
                continue
            if K is not None:
                intrinsics[name], places[name] = K.ravel().tolist(), T.ravel().tolist()
        info = msg.camera_info
        return DeskRecord(
            stamp_ns=stamp_ns, intrinsics=intrinsics, T_base_anchor=places, joints=self._joints.get(stamp_ns, {}),
            wrist_K=[float(v) for v in info.k], T_wrist_base=np.linalg.inv(T_base_wrist).ravel().tolist(),
            wrist_size=[info.width, info.height],
        )  # fmt: skip

    def _infos_of(self, name: str):
        def take(msg: CameraInfo) -> None:
            self._infos[name] = msg

        return take

    def _on_static(self, msg: TFMessage) -> None:
        self._transforms.add(msg.transforms, static=True)

    def _on_joints(self, msg: JointState) -> None:
        self._joints[to_ns(msg.header.stamp)] = dict(zip(msg.name, msg.position, strict=False))
        while len(self._joints) > JOINT_STATES:
            self._joints.popitem(last=False)
