"""The end of a node whose GPU is gone. Nothing in the process can bring it back."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.lifecycle import LifecycleNode

from wristworld_ros.runtime.gpu_errors import first_sentence, is_device_lost

STATUS = 3  # of a process that ends for this


class GpuLoss:
    """Notices in the model's threads that the GPU is gone, and has the executor act on it.

    act: called once by the executor. why: one sentence, '' as long as there is a GPU.
    """

    def __init__(self, node: LifecycleNode, act: Callable[[], None]):
        self.why = ''
        self._guard = node.create_guard_condition(act)

    def caused(self, error: BaseException) -> bool:
        """Whether an error means that, or comes of it. May be called from any thread."""
        if not is_device_lost(error):
            return False
        if not self.why:
            self.why = (
                f'The GPU is lost ({first_sentence(error)}), which no process survives; start the node again, and see '
                'nvidia-smi and the kernel log if it happens again.'
            )
            self._guard.trigger()
        return True
