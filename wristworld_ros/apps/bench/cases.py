"""A case of the benchmark: a model at one size, its parts, its stream, the published pipeline, and targets for a GPU."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from wristworld_ros.apps.bench import parts, published_pipeline
from wristworld_ros.apps.bench.full_size import resized, with_tiny_decoder
from wristworld_ros.apps.bench.inputs import PUBLISHED_ANCHOR, Shapes
from wristworld_ros.apps.bench.roofline import measure_rates, model_dtypes, peak_mib, reset_peak
from wristworld_ros.apps.bench.streams import run_stream
from wristworld_ros.errors import UserError
from wristworld_ros.pipeline.model import WristModel
from wristworld_ros.runtime.progress import ProgressBar
from wristworld_ros.settings import StreamSettings

BIG = 200_000_000  # parameters; such a model streams a single chunk on a CPU, to show that it runs
FULL_SIZE = 1_000_000_000  # parameters; targets are for models from this size on
TARGET_STEPS = 4
NOT_MEASURED = 'not measured'
RATE = 'overlapped_per_second'


def run_case(
    model: WristModel, settings: StreamSettings, shapes: Shapes, frames: int, seconds: float, progress: bool = True
) -> dict:
    """Measure a model at one size; everything that the report shows of it, ready for JSON.

    Args:
        model: The model.
        settings: Of the stream; chunk, steps and history are those of the shapes.
        shapes: Sizes.
        frames: Wrist frames of the stream; one chunk for a big model on a CPU.
        seconds: Phases of the published pipeline that would take longer are measured once and multiplied.
        progress: Whether a bar is shown.

    Raises:
        UserError: The model cannot generate this wrist size.
    """
    _check_wrist_size(model, shapes)
    settings = replace(settings, chunk=shapes.chunk, steps=shapes.steps, history=shapes.history)
    model = resized(model, shapes.wrist_hw)
    device = model.device
    model.configure_process(settings.threads)
    dtypes = model_dtypes(*model.networks)
    rates = measure_rates(device, dtypes)
    with ProgressBar(
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
        published = _published(model, shapes, seconds, bar)
        published_peak = peak_mib(device)
    rate = streams[0]['overlapped_per_second'] or streams[0]['frames_per_second']
    return {
        'device': device.type, 'parameters': _parameters(model), 'threads': torch.get_num_threads(),
        'anchor_hw': list(shapes.anchor_hw), 'wrist_hw': list(shapes.wrist_hw), 'anchor_width': model.config.anchor_width,
        'anchors': shapes.anchors, 'chunk': shapes.chunk, 'steps': shapes.steps, 'history': shapes.history,
        'rates': {'flops': rates.flops, 'bandwidth': rates.bandwidth},
        'parts': part_rows, 'stream': streams, 'peak_mib': peak,
        'published': published | {'peak_mib': published_peak, 'speed_up': rate / published['frames_per_second']},
    }  # fmt: skip


def _check_wrist_size(model: WristModel, shapes: Shapes) -> None:
    cell = model.autoencoder.spatial_stride * model.generator.settings.patch_size[1]
    if any(side % cell for side in shapes.wrist_hw):
        height, width = shapes.wrist_hw
        raise UserError(
            f'The wrist size {height}x{width} does not divide into cells of {cell} pixels', f'give multiples of {cell}'
        )


def _parts(model: WristModel, shapes: Shapes, bar: ProgressBar) -> list[dict]:
    rows = []
    for part in parts.parts_of(model, shapes):
        bar.set_postfix_str(part.name)
        rows.append(parts.measure(part, model.device))
        bar.update()
    return rows


def _streams(model: WristModel, settings: StreamSettings, shapes: Shapes, frames: int, bar: ProgressBar) -> list[dict]:
    """The stream without guidance, and with guidance or the tiny decoder where the model has them."""
    variants = {'without guidance': (model, replace(settings, guidance=1.0))}
    if parts.is_guided(model):
        variants['guided, one batch'] = model, replace(settings, guidance=None)
    if model.tiny_autoencoder:
        variants['without guidance, tiny decoder'] = with_tiny_decoder(model), replace(settings, guidance=1.0)
    amount = {'frames': frames}
    if model.device.type == 'cpu' and _parameters(model) >= BIG:
        amount = {'frames': 1, 'warm_chunks': 1}
    rows = []
    for variant, (streamed, stream) in variants.items():
        bar.set_postfix_str(f'stream, {variant}')
        figures = run_stream(streamed, stream, shapes.anchors, shapes.chunk, anchor_hw=shapes.anchor_hw, **amount)
        rows.append({'variant': variant} | figures)
        bar.update()
    return rows


def _published(model: WristModel, shapes: Shapes, seconds: float, bar: ProgressBar) -> dict:
    phases = []
    bar.set_postfix_str('published pipeline')
    for row in published_pipeline.measure(model, shapes, seconds):
        phases.append(row)
        bar.update()
    latent_frames, frames = published_pipeline.clip_frames(model, shapes.anchors)
    return {
        'phases': phases, 'frames': frames, 'latent_frames': latent_frames, 'steps': published_pipeline.STEPS,
        'frames_per_second': frames / sum(row['ms'] for row in phases) * 1e3,
    }  # fmt: skip


def _parameters(model: WristModel) -> int:
    return sum(p.numel() for network in model.networks for p in network.parameters())


def _count(model: WristModel, shapes: Shapes) -> int:
    """How many parts, streams and phases a case has, for the progress bar."""
    guided, tokens, tiny = parts.is_guided(model), model.config.use_anchor_tokens, model.tiny_autoencoder is not None
    part_count = len(shapes.views) + 4 + guided + tokens + tiny
    stream_count, phase_count = 1 + guided + tiny, 5 + tokens
    return part_count + stream_count + phase_count


@dataclass(frozen=True)
class Target:
    """A figure that the published size should reach on a GPU.

    read: takes the figure out of a case; None where the case does not have it. least: whether the limit is a lower bound.
    """

    name: str
    limit: float
    unit: str
    read: Callable[[dict], float | None]
    least: bool = False

    def row(self, cases: list[dict]) -> dict:
        """name, target, measured (or 'not measured'), met (or None)."""
        found = [value for case in cases if _counts(case) if (value := self.read(case)) is not None]
        bound = f'{"at least" if self.least else "at most"} {self.limit:g} {self.unit}'
        if not found:
            return {'name': self.name, 'target': bound, 'measured': NOT_MEASURED, 'met': None}
        worst = min(found) if self.least else max(found)
        met = worst >= self.limit if self.least else worst <= self.limit
        return {'name': self.name, 'target': bound, 'measured': f'{worst:.3g} {self.unit}', 'met': met}


def _counts(case: dict) -> bool:
    return case['device'] == 'cuda' and case['parameters'] >= FULL_SIZE


def _part(name: str) -> Callable[[dict], float | None]:
    """Reads the milliseconds of a part with anchors of the published size."""

    def read(case: dict) -> float | None:
        if case['anchor_hw'] != list(PUBLISHED_ANCHOR):
            return None
        return next((row['ms'] for row in case['parts'] if row['part'] == name), None)

    return read


def _stream(key: str, wrist_hw: tuple[int, int] | None = None) -> Callable[[dict], float | None]:
    """Reads a figure of the stream of one-latent chunks in four steps from two views; the slowest of all measured counts."""

    def read(case: dict) -> float | None:
        matches = case['chunk'] == 1 and case['steps'] == TARGET_STEPS and case['anchor_hw'] == list(PUBLISHED_ANCHOR)
        if not matches or (wrist_hw and case['wrist_hw'] != list(wrist_hw)):
            return None
        figures = case['stream'][0]
        if key == RATE and figures[key] is None:
            return figures['frames_per_second']
        return figures[key]

    return read


TARGETS = (
    Target('stage 1, two 518x294 views, wrist pose and points', 40, 'ms', _part('stage 1, 2 views')),
    Target('condition map of two 518x294 views', 1, 'ms', _part('condition map')),
    Target('wrist frames, 4 steps, 480x832', 20, '/s', _stream(RATE, (480, 832)), least=True),
    Target('wrist frames, 4 steps, 256x256', 45, '/s', _stream(RATE, (256, 256)), least=True),
    Target('anchors pushed to frame ready, p95, chunk of one latent frame', 500, 'ms', _stream('latency_p95_ms')),
    Target('peak memory', 20_000, 'MB', lambda case: case['peak_mib'] * 2**20 / 1e6),
    Target('goal: wrist frames, 480x832', 30, '/s', _stream(RATE, (480, 832)), least=True),
    Target('goal: anchors pushed to frame ready, p95, 480x832', 250, 'ms', _stream('latency_p95_ms', (480, 832))),
)


def compare_targets(cases: list[dict]) -> list[dict]:
    """A row for each target; a target that is missed is reported, and fails nothing."""
    return [target.row(cases) for target in TARGETS]
