"""Whether a model fits: what it needs against what is free, reported before its weights are loaded."""

from __future__ import annotations

from wristworld_ros.models.config import ModelConfig, ModelError, building
from wristworld_ros.pipeline.model_directory import choose_device, choose_precision, find_model
from wristworld_ros.runtime.machine import format_bytes, free_gpu, free_ram
from wristworld_ros.runtime.memory_estimate import IMAGE_HW, MemoryEstimate, estimate_memory
from wristworld_ros.settings import StreamSettings

MARGIN = 1.25  # times the estimate: less is tight, for it is an estimate and others use memory too
SAVINGS = 'use fewer anchors, a smaller chunk or history, precision bfloat16, or a smaller model'


def estimate_for(
    settings: StreamSettings, views: int, image_hw: tuple[int, int] = IMAGE_HW
) -> tuple[MemoryEstimate, str]:
    """What these settings need, and the device (as in 'cpu', 'cuda:0') they need it on; arguments as in
    `estimate_memory`.

    Raises:
        ModelError: There is no such model or device, or its configuration describes no model.
    """
    folder = find_model(settings.model)
    config = ModelConfig.read(folder / 'config.json')
    device = choose_device(settings.device)
    size = choose_precision(config, settings.precision, device).itemsize
    with building(folder):
        return estimate_memory(config, settings, views, image_hw, size), device


def check_memory(settings: StreamSettings, views: int, image_hw: tuple[int, int] = IMAGE_HW) -> str:
    """Raise ModelError where the free memory cannot suffice.

    Returns:
        '' where there is enough, and one sentence where it will be tight.
    """
    config = ModelConfig.read(find_model(settings.model) / 'config.json')
    if not (config.stage1 and config.generator):
        return ''  # loading it says what is wrong
    estimate, device = estimate_for(settings, views, image_hw)
    return check_estimate(settings.model, estimate, device)


def check_estimate(name: str, estimate: MemoryEstimate, device: str) -> str:
    """`check_memory` for a model with a known estimate on a device."""
    on_gpu = device.startswith('cuda')
    free = free_gpu() if on_gpu else free_ram()
    if not free:
        return ''
    kind, otherwise = ('GPU memory', ', or device cpu') if on_gpu else ('RAM', '')
    what = (
        f'{name} needs about {format_bytes(estimate.total)} of {kind} ({estimate}), and {format_bytes(free)} are free'
    )
    if free < estimate.total:
        raise ModelError(what, f'end other programs, or {SAVINGS}{otherwise}')
    if free < MARGIN * estimate.total:
        return f'{what}, which is tight; if it fails, {SAVINGS}{otherwise}.'
    return ''


def check_input(settings: StreamSettings, views: int, image_hw: tuple[int, int]) -> str:
    """What images of a size lack in memory, without a full stop; '' where there is enough.

    Args:
        settings: Of a stream that has already been made, for which `check_memory` found enough with images of `IMAGE_HW`.
        views: Anchor cameras.
        image_hw: Of their images, pixels.
    """
    try:
        estimate, device = estimate_for(settings, views, image_hw)
        usual, _ = estimate_for(settings, views)
    except ModelError:  # the model is loaded, and its files may be gone since
        return ''
    more, free = estimate.working - usual.working, free_gpu() if device.startswith('cuda') else free_ram()
    if not free or more <= free:
        return ''
    size = f'{image_hw[1]}x{image_hw[0]}'
    return f'{views} images of {size} take about {format_bytes(more)} more than usual ones, and {format_bytes(free)} are free'
