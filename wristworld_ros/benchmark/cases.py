"""A case of the benchmark of parts: a model at one size, its parts, its stream, and the release's way beside it."""

from __future__ import annotations

import gc
from dataclasses import replace

import torch
from tqdm import tqdm

from wristworld_ros.benchmark import parts, release_way
from wristworld_ros.benchmark.floor import Rates, measure_rates, model_dtypes
from wristworld_ros.benchmark.full_size import resized
from wristworld_ros.benchmark.shapes import Shapes
from wristworld_ros.benchmark.stream import run_stream
from wristworld_ros.benchmark.timing import peak_mib, reset_peak
from wristworld_ros.settings import StreamSettings
from wristworld_ros.streaming import VirtualWrist
from wristworld_ros.streaming.model import WristModel

# A model this big streams one chunk on a CPU, to show that it runs.
BIG = 200_000_000


def run_case(
    model: WristModel, settings: StreamSettings, shapes: Shapes, frames: int, seconds: float, progress: bool = True
) -> dict:
    """Measure a model at one size; everything that the report shows of it, ready for JSON.

    settings: of the stream; shapes decide over chunk, steps and history. frames: wrist frames of the stream, but one chunk
    for a big model on a CPU. seconds: phases of the release's way that would take longer are measured once and multiplied.
    Raises ValueError, one sentence, for a wrist size that the model cannot make.
    """
    cell = model.autoencoder.spatial_stride * model.generator.settings.patch_size[1]
    if any(side % cell for side in shapes.wrist_hw):
        height, width = shapes.wrist_hw
        raise ValueError(
            f'The wrist size {height}x{width} does not divide into cells of {cell} pixels; give multiples of {cell}.'
        )
    settings = replace(settings, chunk=shapes.chunk, steps=shapes.steps, history=shapes.history)
    model = resized(model, shapes.wrist_hw)
    VirtualWrist(model, settings)  # sets the threads as a stream does
    networks = (model.stage1, model.generator, model.autoencoder)
    rates = measure_rates(model.device, model_dtypes(*networks))
    one_chunk = model.device.type == 'cpu' and _parameters(model) >= BIG
    plan = parts.parts_of(model, shapes)
    streams = _streams(model)
    bar = tqdm(
        total=len(plan) + len(streams) + 6, desc='{}x{}'.format(*shapes.wrist_hw), unit='part', disable=not progress
    )
    with bar:
        rows = []
        for part in plan:
            bar.set_postfix_str(part.name)
            rows.append(parts.measure(part, model.device, rates))
            bar.update()
        del plan, part
        gc.collect()
        reset_peak(model.device)
        stream_rows = []
        for name, streamed in streams.items():
            bar.set_postfix_str(f'stream, {name}')
            amount = {'frames': 1, 'warm_chunks': 1} if one_chunk else {'frames': frames}
            figures = run_stream(streamed, settings, shapes.anchors, shapes.chunk, anchor_hw=shapes.anchor_hw, **amount)
            stream_rows.append({'way': name} | figures)
            bar.update()
        peak = peak_mib(model.device)
        reset_peak(model.device)
        phases = []
        for row in release_way.measure(model, shapes, seconds):
            phases.append(row)
            bar.set_postfix_str(f"release's way: {row['phase']}")
            bar.update()
    clip = release_way.clip_frames(model, shapes.anchors)
    release_rate = clip[1] / (sum(row['ms'] for row in phases) / 1e3)
    return {
        'device': model.device.type, 'parameters': _parameters(model), 'anchor_hw': list(shapes.anchor_hw),
        'wrist_hw': list(shapes.wrist_hw), 'anchor_width': model.config.anchor_width, 'anchors': shapes.anchors,
        'chunk': shapes.chunk, 'steps': shapes.steps, 'history': shapes.history, 'rates': _rates(rates), 'parts': rows,
        'stream': stream_rows, 'peak_mib': peak, 'threads': torch.get_num_threads(),
        'release': {
            'phases': phases, 'frames': clip[1], 'latent_frames': clip[0], 'steps': release_way.STEPS,
            'frames_per_second': release_rate, 'peak_mib': peak_mib(model.device),
            'speed_up': stream_rows[0]['frames_per_second'] / release_rate,
        },
    }  # fmt: skip


def _streams(model: WristModel) -> dict[str, WristModel]:
    """How a model is streamed: as it is configured, and without guidance where that is with it."""
    s = model.generator.settings
    if s.text != 'stored' or s.cfg_scale == 1.0:
        return {'without guidance': model}
    return {
        'guided, one batch': model,
        'without guidance': resized(model, model.config.wrist_hw, guided=False),
    }


def _parameters(model: WristModel) -> int:
    networks = (model.stage1, model.generator, model.autoencoder)
    return sum(p.numel() for network in networks if isinstance(network, torch.nn.Module) for p in network.parameters())


def _rates(rates: Rates) -> dict:
    return {'operations': rates.operations, 'bandwidth': rates.bandwidth}
