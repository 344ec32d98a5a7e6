"""`wristworld bench`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from wristworld_ros.errors import UserError
from wristworld_ros.input_files import check_folder
from wristworld_ros.options import add_options, from_options
from wristworld_ros.setting import check
from wristworld_ros.settings import StreamSettings

SECTIONS = ('condition', 'parts', 'stream', 'topics', 'desk', 'offline')
# Size of the anchors, and whether what is known is used.
DESKS = (((240, 320), False), ((240, 320), True), ((480, 640), True))
DESK_HZ = 30.0
# A model with random weights exists in this process only, and streams of all combinations would take hours.
RANDOM_MODEL_SECTIONS = ('condition', 'parts')
DTYPES = ('bfloat16', 'float32')
HELP = (
    'condition: the condition map against a renderer that goes point by point. parts: each part of the model with its roofline, '
    'the stream, and the published pipeline. stream: rates and latency by anchors and chunk. topics: the same over ROS 2. '
    'desk: the simulated desk with depth, TF and arm over ROS 2. offline: recordings of that desk, by `wristworld augment`, beside the live node.'
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command; those of the stream come from `StreamSettings`."""
    parser.add_argument(
        '--only',
        nargs='+',
        choices=SECTIONS,
        help=f'What to measure. {HELP} Default: all; for a random model {" ".join(RANDOM_MODEL_SECTIONS)}.',
    )
    parser.add_argument(
        '--anchors',
        nargs='+',
        type=int,
        default=[1, 2, 3],
        metavar='N',
        help='Numbers of anchor cameras. Default: 1 2 3.',
    )
    parser.add_argument(
        '--chunks', nargs='+', type=int, default=[1, 2, 4], metavar='N', help='Chunk lengths. Default: 1 2 4.'
    )
    parser.add_argument('--frames', type=int, default=60, metavar='N', help='Frames per case without ROS. Default: 60.')
    parser.add_argument(
        '--rates', nargs='+', type=float, default=[10.0, 15.0], metavar='HZ', help='Camera rates. Default: 10 15.'
    )
    parser.add_argument(
        '--minutes',
        type=float,
        default=0.5,
        metavar='X',
        help='Minutes per rate over topics; 10 for a soak test. Default: 0.5.',
    )
    parser.add_argument(
        '--videos', nargs=2, type=Path, metavar='VIDEO', help='Played over the topics. Default: a moving pattern.'
    )
    parser.add_argument('--out', type=Path, help='Folder for bench.{txt,md,json}. Default: runs/bench-<time>.')
    parts = parser.add_argument_group('parts')
    parts.add_argument(
        '--wrist-size',
        nargs='+',
        type=read_size,
        metavar='HxW',
        help="Wrist sizes. Default: the model's own; for a random model 480x832 256x256 on a GPU, 64x64 on a CPU.",
    )
    parts.add_argument(
        '--anchor-size',
        type=read_size,
        metavar='HxW',
        help='Size of anchor images; a random model runs stage 1 at that width. Default: 294x518 for models of the published '
        'width, else 240x320; for a random model on a CPU 126x224.',
    )
    parts.add_argument(
        '--dtype', choices=DTYPES, default=DTYPES[0], help='Precision of a random model. Default: bfloat16.'
    )
    parts.add_argument(
        '--published-seconds',
        type=float,
        default=10.0,
        metavar='X',
        help='Phases of the published pipeline that take longer are measured once and multiplied. Default: 10.',
    )
    stream = parser.add_argument_group(
        'the stream',
        'The model may also be random:wristworld_1_3b: the published size with random weights, which takes the same time and 9 GB '
        'of memory; it is measured with 4 steps unless --steps is given.',
    )
    add_options(
        stream,
        StreamSettings,
        only=('model', 'device', 'precision', 'decoder', 'threads', 'graphs', 'steps', 'history'),
    )
    parser.set_defaults(steps=None)


def read_size(text: str) -> tuple[int, int]:
    """Height and width of `480x832`, for an option."""
    try:
        height, width = (int(part) for part in text.split('x'))
    except ValueError:
        height = width = 0
    if min(height, width) < 1:
        raise argparse.ArgumentTypeError(f'{text!r} is not a size; write height x width in pixels, as in 480x832.')
    return height, width


def run(args: argparse.Namespace) -> int:
    """Measure, print and write bench.{txt,md,json}."""
    import torch

    from wristworld_ros.apps.bench import cases, report
    from wristworld_ros.apps.bench.full_size import is_random
    from wristworld_ros.pipeline.memory_check import check_memory
    from wristworld_ros.runtime import machine

    random = is_random(args.model)
    if args.steps is None:
        args.steps = cases.TARGET_STEPS if random else StreamSettings.steps
    only = args.only or (RANDOM_MODEL_SECTIONS if random else SECTIONS)
    if random and {'topics', 'desk', 'offline'} & set(only):
        raise UserError(
            'A random model cannot be measured over topics, since the node loads models from directories',
            'leave topics, desk and offline out of --only',
        )
    settings = from_options(StreamSettings, args)
    check(settings)
    check_folder(args.out or 'runs')
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    results: dict = {'machine': machine.describe(settings.threads), 'model': settings.model, 'steps': settings.steps}
    print('\n'.join(f'{key}: {value}' for key, value in results['machine'].items()), flush=True)
    model, sizes = None, []
    if {'parts', 'stream', 'topics', 'desk', 'offline'} & set(only):
        if not random:
            check_memory(settings, max(args.anchors))
        model, sizes = _model(args, settings)  # so that a missing model is reported at once
    _measure(args, settings, only, model, sizes, results)
    folder = args.out or Path('runs') / f'bench-{time.strftime("%Y%m%d-%H%M%S")}'
    print(f'\n{report.write(results, folder)}\n\n{folder}')
    return 0


def _measure(
    args: argparse.Namespace, settings: StreamSettings, only: Sequence[str], model, sizes: list, results: dict
) -> None:
    """Add each section that is wanted to the results.

    Args:
        args: Of the command.
        settings: Of the stream.
        only: The sections.
        model: A `WristModel`; None where no section needs one.
        sizes: Of wrist images, pixels, for the section parts.
        results: By section.
    """
    from wristworld_ros.runtime.progress import ProgressBar

    if 'condition' in only:
        from wristworld_ros.apps.bench.reference_renderer import compare_renderers

        results['condition'] = compare_renderers()
    if 'stream' in only:
        from wristworld_ros.apps.bench.streams import run_stream

        bar = ProgressBar(
            [(views, chunk) for views in args.anchors for chunk in args.chunks], desc='stream', unit='case'
        )
        results['stream'] = [run_stream(model, settings, views, chunk, args.frames) for views, chunk in bar]
    if 'topics' in only:
        from wristworld_ros.apps.bench.streams import run_topics

        results['topics'] = [run_topics(settings, rate, args.minutes * 60, args.videos) for rate in args.rates]
    if 'desk' in only:
        from wristworld_ros.apps.bench.streams import run_desk

        results['desk'] = [run_desk(settings, DESK_HZ, args.minutes * 60, hw, known) for hw, known in DESKS]
    if 'offline' in only:
        from wristworld_ros.apps.bench.offline import run_offline
        from wristworld_ros.apps.bench.streams import DESK_MOMENTS, run_desk

        live = next((row for row in results.get('desk', []) if row['desk'] == 'RGB'), None)
        live = live or run_desk(settings, DESK_HZ, args.minutes * 60, (240, 320), False)
        results['live'] = live['frames_per_second']
        results['offline'] = run_offline(settings, live['frames_per_second'], DESK_MOMENTS)
    if 'parts' in only:  # last, since the published pipeline leaves its memory behind
        from wristworld_ros.apps.bench import cases
        from wristworld_ros.apps.bench.inputs import Shapes, anchor_size

        anchor_hw = args.anchor_size or anchor_size(model)
        assert settings.steps is not None  # set above where it was not given
        shapes = [Shapes(anchor_hw, hw, steps=settings.steps, history=settings.history) for hw in sizes]
        results['parts'] = [cases.run_case(model, settings, s, args.frames, args.published_seconds) for s in shapes]
        results['targets'] = cases.compare_targets(results['parts'])


def _model(args: argparse.Namespace, settings: StreamSettings):
    """The model, and the wrist sizes it is measured at."""
    import torch

    from wristworld_ros.apps.bench.full_size import is_random, random_model
    from wristworld_ros.pipeline.model_directory import choose_device, load_model

    if not is_random(settings.model):
        model = load_model(settings.model, settings.device, settings.precision, settings.decoder)
        return model, args.wrist_size or [model.config.wrist_hw]
    device = choose_device(settings.device)
    on_gpu = device.startswith('cuda')
    if args.anchor_size is None:
        args.anchor_size = (294, 518) if on_gpu else (126, 224)
    sizes = args.wrist_size or ([(480, 832), (256, 256)] if on_gpu else [(64, 64)])
    return random_model(settings.model, device, getattr(torch, args.dtype), args.anchor_size[1], sizes[0]), sizes
