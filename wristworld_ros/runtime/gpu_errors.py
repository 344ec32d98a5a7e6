"""What an exception of torch or its libraries means: memory that ran out, or a GPU that is gone."""

from __future__ import annotations

import re

import torch

# torch's own words for memory that could not be had, on the GPU and on the CPU, and those of the libraries below it.
_MEMORY = re.compile(
    r'out of memory|DefaultCPUAllocator: (?:can\'t allocate|not enough) memory|CUBLAS_STATUS_ALLOC_FAILED'
    r'|CUDNN_STATUS_ALLOC_FAILED|Insufficient memory',
    re.IGNORECASE,
)
_ASKED = re.compile(r'[Tt]ried to allocate ([\d.]+ [KMGT]?i?B|\d+ bytes)')

# Errors after which every call on the GPU fails until the process ends: the driver has lost the device, or a kernel has
# broken its context. cuDNN and cuBLAS pass the same on under their own names.
_LOST = re.compile(
    r'CUDA error|CUDA driver error|CUDA_ERROR_|cuda runtime error|device-side assert|unspecified launch failure'
    r'|illegal memory access|illegal instruction|misaligned address|no CUDA-capable device|uncorrectable ECC'
    r'|GPU is lost|fallen off the bus|CUDA[- ]?context|NVML_|nvml\w*\(?\)? (?:failed|error)|NVML (?:error|failed)'
    r'|CUDNN_STATUS_EXECUTION_FAILED|CUDNN_STATUS_INTERNAL_ERROR|CUBLAS_STATUS_EXECUTION_FAILED'
    r'|CUBLAS_STATUS_INTERNAL_ERROR|No CUDA GPUs are available',
    re.IGNORECASE,
)
# Said of one call that asked for what the device cannot do; the next call works.
_OF_ONE_CALL = re.compile(
    r'invalid argument|invalid configuration argument|no kernel image|invalid device function|invalid resource handle'
    r'|too many resources|operation not (?:permitted|supported)|not supported|when stream is capturing|stream capture',
    re.IGNORECASE,
)
_MACHINE = (RuntimeError, getattr(torch, 'AcceleratorError', RuntimeError))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of the GPU or of the machine."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    from_library = isinstance(error, _MACHINE) or type(error).__module__.startswith('cv2')
    return from_library and bool(_MEMORY.search(str(error)))


def is_device_lost(error: BaseException) -> bool:
    """Whether the GPU is gone for this process: no call on it can succeed any more.

    Memory that ran out is none, and neither is an error of one call (a shape that a kernel cannot do).
    """
    text = str(error)
    if is_out_of_memory(error) or not isinstance(error, _MACHINE):
        return False
    return bool(_LOST.search(text)) and not _OF_ONE_CALL.search(text)


def asked_bytes(error: BaseException) -> str:
    """How much was asked for when memory ran out, in the error's words ('2.00 GiB'), or ''."""
    found = _ASKED.search(str(error))
    return found[1] if found else ''


def first_sentence(error: BaseException) -> str:
    """What an error says without the advice on debugging that torch appends: its first line, no full stop."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].strip().rstrip('.')
