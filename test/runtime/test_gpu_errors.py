"""torch's own exceptions, sorted: memory, a GPU that is gone, and all else."""

import pytest
import torch

from wristworld_ros.runtime.gpu_errors import asked_bytes, first_sentence, is_device_lost, is_out_of_memory

ACCELERATOR = getattr(torch, 'AcceleratorError', RuntimeError)
ADVICE = (
    '\nCUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be '
    'incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1\nCompile with `TORCH_USE_CUDA_DSA` to enable '
    'device-side assertions.\n'
)


def accelerator(text):
    """As torch raises it; its constructor takes more than a text in some versions."""
    try:
        return ACCELERATOR(text)
    except TypeError:
        return RuntimeError(text)


MEMORY = [
    torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.1 GiB'),
    accelerator('CUDA error: out of memory' + ADVICE),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
                 'allocate 400000000000 bytes. Error code 12 (Cannot allocate memory)'),
    RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`'),
    RuntimeError('cuDNN error: CUDNN_STATUS_ALLOC_FAILED'),
    MemoryError(),
]  # fmt: skip
LOST = [
    accelerator('CUDA error: unspecified launch failure' + ADVICE),
    accelerator('CUDA error: device-side assert triggered' + ADVICE),
    accelerator('CUDA error: an illegal memory access was encountered' + ADVICE),
    accelerator('CUDA error: uncorrectable ECC error encountered' + ADVICE),
    RuntimeError('CUDA error: no CUDA-capable device is detected' + ADVICE),
    RuntimeError('CUDA error: unknown error' + ADVICE),
    RuntimeError('CUDA driver error: device not ready'),
    RuntimeError('Unable to determine the device handle for GPU 0000:01:00.0: GPU is lost.  Reboot the system to recover this GPU'),
    RuntimeError('NVML_SUCCESS == r INTERNAL ASSERT FAILED at "CUDACachingAllocator.cpp":1131, please report a bug to PyTorch.'),
    RuntimeError('cuDNN error: CUDNN_STATUS_EXECUTION_FAILED'),
    RuntimeError('CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm( handle, opa, opb)`'),
]  # fmt: skip
NEITHER = [
    RuntimeError('mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)'),
    RuntimeError('Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!'),
    RuntimeError('CUDA error: invalid configuration argument' + ADVICE),
    RuntimeError('CUDA error: operation not permitted when stream is capturing' + ADVICE),
    RuntimeError('CUDA error: no kernel image is available for execution on the device' + ADVICE),
    ValueError('the CUDA error: unspecified launch failure is only told of'),
    ArithmeticError('NaN'),
]


@pytest.mark.parametrize('error', MEMORY, ids=str)
def test_memory_that_ran_out(error):
    assert is_out_of_memory(error) and not is_device_lost(error)


@pytest.mark.parametrize('error', LOST, ids=str)
def test_a_gpu_that_is_gone(error):
    assert is_device_lost(error) and not is_out_of_memory(error)
    assert '\n' not in first_sentence(error) and 'CUDA_LAUNCH_BLOCKING' not in first_sentence(error)


@pytest.mark.parametrize('error', NEITHER, ids=str)
def test_an_error_of_one_call_is_neither(error):
    assert not is_device_lost(error) and not is_out_of_memory(error)


def test_torch_on_this_machine_says_it_in_these_words():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**58, dtype=torch.uint8)
    assert is_out_of_memory(caught.value) and asked_bytes(caught.value) == f'{2**58} bytes'


def test_how_much_was_asked_for():
    assert [asked_bytes(e) for e in (MEMORY[0], MEMORY[-1])] == ['20.00 MiB', '']
