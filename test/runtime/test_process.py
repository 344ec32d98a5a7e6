"""Freed memory stays with the process."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import torch
from wristworld_ros.runtime.process import keep_freed_memory
if sys.argv[1] == 'keep' and not keep_freed_memory():
    sys.exit(77)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def work():
    a, b = torch.ones(1 << 21), torch.ones(1 << 22)  # 8 and 16 MiB
    a.add(1), b.add(1)
for _ in range(3):
    work()
before = faults()
for _ in range(10):
    work()
print(faults() - before)
"""


def page_faults(how):
    done = subprocess.run([sys.executable, '-c', SCRIPT, how], capture_output=True, text=True)
    if done.returncode == 77:
        pytest.skip('the C library is not glibc')
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_the_same_tensors_again_cost_few_new_pages():
    assert page_faults('keep') < 0.3 * page_faults('give back')
