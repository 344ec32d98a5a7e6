"""A case of the benchmark of parts: a model at one size, its parts, its stream, and the release's way beside it."""

from __future__ import annotations

import gc
from dataclasses import replace

import torch
from tqdm import tqdm

from wristworld_ros.apps.bench import parts
from wristworld_ros.apps.bench import published_pipeline as published_pipeline
from wristworld_ros.apps.bench.full_size import resized, with_tiny_decoder
from wristworld_ros.apps.bench.roofline import measure_rates, model_dtypes
from wristworld_ros.apps.bench.shapes import Shapes
from wristworld_ros.apps.bench.stream import run_stream
from wristworld_ros.apps.bench.timing import peak_mib, reset_peak
from wristworld_ros.pipeline import VirtualWrist
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.settings import StreamSettings

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
    _check(model, shapes)
    settings = replace(settings, chunk=shapes.chunk, steps=shapes.steps, history=shapes.history)
    model = resized(model, shapes.wrist_hw)
    device = model.device
    VirtualWrist(model, settings)  # sets the threads as a stream does
    dtypes = model_dtypes(*_networks(model))
    rates = measure_rates(device, dtypes)
    with tqdm(
        total=_count(model, shapes), desc='{}x{}'.format(*shapes.wrist_hw), unit='part', disable=not progress
    ) as bar:
        part_rows = _parts(model, shapes, bar)
        rates = rates.fastest(measure_rates(device, dtypes))
        part_rows = [parts.with_roofline(row, rates) for row in part_rows]
        gc.collect()
        reset_peak(device)
        streams = _streams(model, settings, shapes, frames, bar)
        peak = peak_mib(device)
        reset_peak(device)
        release = _release(model, shapes, seconds, bar)
    return {
        'device': device.type, 'parameters': _parameters(model), 'threads': torch.get_num_threads(),
        'anchor_hw': list(shapes.anchor_hw), 'wrist_hw': list(shapes.wrist_hw), 'anchor_width': model.config.anchor_width,
        'anchors': shapes.anchors, 'chunk': shapes.chunk, 'steps': shapes.steps, 'history': shapes.history,
        'rates': {'operations': rates.operations, 'bandwidth': rates.bandwidth},
        'parts': part_rows, 'stream': streams, 'peak_mib': peak,
        'release': release | {
            'peak_mib': peak_mib(device),
            'speed_up': (streams[0]['overlapped_per_second'] or streams[0]['frames_per_second'])
            / release['frames_per_second'],
        },
    }  # fmt: skip


def _check(model: WristModel, shapes: Shapes) -> None:
    cell = model.autoencoder.spatial_stride * model.generator.settings.patch_size[1]
    if any(side % cell for side in shapes.wrist_hw):
        height, width = shapes.wrist_hw
        raise ValueError(
            f'The wrist size {height}x{width} does not divide into cells of {cell} pixels; give multiples of {cell}.'
        )


def _parts(model: WristModel, shapes: Shapes, bar: tqdm) -> list[dict]:
    rows = []
    for part in parts.parts_of(model, shapes):
        bar.set_postfix_str(part.name)
        rows.append(parts.measure(part, model.device))
        bar.update()
    return rows


def _streams(model: WristModel, settings: StreamSettings, shapes: Shapes, frames: int, bar: tqdm) -> list[dict]:
    """The stream without guidance, and with it or with a light decoder where the model can."""
    ways = {'without guidance': (model, replace(settings, guidance=1.0))}
    if parts.is_guided(model):
        ways['guided, one batch'] = model, replace(settings, guidance=0.0)
    if model.tiny_autoencoder:
        ways['without guidance, light decoder'] = with_tiny_decoder(model), replace(settings, guidance=1.0)
    amount = {'frames': frames}
    if model.device.type == 'cpu' and _parameters(model) >= BIG:
        amount = {'frames': 1, 'warm_chunks': 1}
    rows = []
    for way, (streamed, stream) in ways.items():
        bar.set_postfix_str(f'stream, {way}')
        figures = run_stream(streamed, stream, shapes.anchors, shapes.chunk, anchor_hw=shapes.anchor_hw, **amount)
        rows.append({'way': way} | figures)
        bar.update()
    return rows


def _release(model: WristModel, shapes: Shapes, seconds: float, bar: tqdm) -> dict:
    phases = []
    bar.set_postfix_str("the release's way")
    for row in published_pipeline.measure(model, shapes, seconds):
        phases.append(row)
        bar.update()
    latent_frames, frames = published_pipeline.clip_frames(model, shapes.anchors)
    return {
        'phases': phases, 'frames': frames, 'latent_frames': latent_frames, 'steps': published_pipeline.STEPS,
        'frames_per_second': frames / sum(row['ms'] for row in phases) * 1e3,
    }  # fmt: skip


def _networks(model: WristModel) -> tuple[torch.nn.Module, ...]:
    return model.stage1, model.generator, model.autoencoder


def _parameters(model: WristModel) -> int:
    return sum(p.numel() for network in _networks(model) for p in network.parameters())


def _count(model: WristModel, shapes: Shapes) -> int:
    """How many figures a case has, for the progress bar: both streams and the phases of the release's way among them."""
    guided, tokens, light = parts.is_guided(model), model.config.use_anchor_tokens, model.tiny_autoencoder is not None
    return len(shapes.views) + 4 + guided + tokens + light + 1 + guided + light + 5 + tokens
