"""What a program decides for its process."""

import subprocess
import sys

import pytest

KEPT = """
import ctypes, sys
import torch
from wristworld_ros.runtime.process import keep_freed_memory

class Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in
                ('arena', 'ordblks', 'smblks', 'hblks', 'hblkhd', 'usmblks', 'fsmblks', 'uordblks', 'fordblks', 'keepcost')]

if sys.argv[1] == 'keep' and not keep_freed_memory():
    sys.exit(77)
try:
    mallinfo = ctypes.CDLL(None).mallinfo2
except AttributeError:
    sys.exit(77)
mallinfo.restype = Mallinfo2
for _ in range(3):
    tensors = [torch.ones(6 << 20) for _ in range(3)]  # 24 MiB each
    del tensors
print(mallinfo().fordblks)
"""


def bytes_kept_after_freeing(how):
    done = subprocess.run([sys.executable, '-c', KEPT, how], capture_output=True, text=True)
    if done.returncode == 77:
        pytest.skip('the C library is not glibc 2.33 or newer')
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_freed_memory_stays_with_the_process_and_by_default_does_not():
    assert bytes_kept_after_freeing('give back') < 72 << 20 <= bytes_kept_after_freeing('keep')


CONFIGURED = """
import torch
from wristworld_ros.pipeline import VirtualWrist, tiny_random_model
from wristworld_ros.settings import StreamSettings

torch.set_num_threads(2)
model = tiny_random_model()
VirtualWrist(model, StreamSettings(threads=1))
print(torch.get_num_threads(), torch.get_float32_matmul_precision())
model.configure_process()
print(torch.get_num_threads())
model.configure_process(2)
print(torch.get_num_threads())
"""


def test_only_the_program_itself_changes_its_threads():
    done = subprocess.run([sys.executable, '-c', CONFIGURED], capture_output=True, text=True)
    assert done.stdout.split() == ['2', 'highest', '1', '2'], done.stderr
