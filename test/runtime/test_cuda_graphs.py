"""What can be told of replaying without a GPU; the rest is in test_cuda.py."""

import logging

import pytest
import torch

from wristworld_ros.runtime.cuda_graphs import CudaGraphRunner


def on_a_gpu(monkeypatch, error):
    """A function that is to be captured where capturing raises an error."""
    double = CudaGraphRunner(lambda x: (2 * x,), enabled=False)
    double.enabled = True

    def capture(inputs):
        raise error

    monkeypatch.setattr(double, '_capture', capture)
    return double


def test_what_cannot_be_captured_runs_directly_and_the_log_says_so_once(monkeypatch, caplog):
    double = on_a_gpu(monkeypatch, RuntimeError('operation not permitted when stream is capturing\nadvice'))
    with caplog.at_level(logging.WARNING):
        for value in (1.0, 2.0):
            (found,) = double(torch.tensor([value]))
            assert found.item() == 2 * value
    (record,) = caplog.records
    assert 'when stream is capturing' in record.getMessage() and 'advice' not in record.getMessage()


@pytest.mark.parametrize(
    'error', [torch.OutOfMemoryError('CUDA out of memory.'), RuntimeError('CUDA error: unspecified launch failure')]
)
def test_memory_that_runs_out_and_a_lost_gpu_are_not_taken_for_that(monkeypatch, error):
    double = on_a_gpu(monkeypatch, error)
    with pytest.raises(RuntimeError):
        double(torch.ones(1))
    assert double.enabled
