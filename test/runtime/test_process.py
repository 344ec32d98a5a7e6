"""What a program decides for its process."""

import subprocess
import sys

import pytest

KEPT = """
import resource, sys
import torch
from wristworld_ros.runtime.process import keep_freed_memory

def new_pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if not keep_freed_memory():
    sys.exit(77)
torch.set_num_threads(1)
rounds = []
for _ in range(12):
    before = new_pages()
    tensors = [torch.ones(5 << 20) for _ in range(8)]  # 20 MiB each
    del tensors
    rounds.append(new_pages() - before)
print(*rounds)
"""


def test_the_same_tensors_again_cost_no_new_pages():
    done = subprocess.run([sys.executable, '-c', KEPT], capture_output=True, text=True)
    if done.returncode == 77:
        pytest.skip('the C library is not glibc')
    rounds = [int(word) for word in done.stdout.split()]
    assert rounds[0] > 8 * 5000 and max(rounds[6:]) < 100, done.stderr or rounds


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
