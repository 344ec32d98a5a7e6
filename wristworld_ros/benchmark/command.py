"""`wristworld bench`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from wristworld_ros.options import add_options, from_options
from wristworld_ros.settings import StreamSettings

PARTS = ('condition', 'stream', 'topics')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command; those of the stream come from `StreamSettings`."""
    parser.add_argument('--only', nargs='+', choices=PARTS, default=PARTS, help='Parts to measure. Default: all.')
    parser.add_argument(
        '--anchors', nargs='+', type=int, default=[1, 2, 3], metavar='N', help='Numbers of anchors. Default: 1 2 3.'
    )
    parser.add_argument(
        '--chunks', nargs='+', type=int, default=[1, 2, 4], metavar='N', help='Chunk lengths. Default: 1 2 4.'
    )
    parser.add_argument('--frames', type=int, default=60, metavar='N', help='Frames a case without ROS. Default: 60.')
    parser.add_argument(
        '--rates', nargs='+', type=float, default=[10.0, 15.0], metavar='HZ', help='Camera rates. Default: 10 15.'
    )
    parser.add_argument(
        '--minutes',
        type=float,
        default=0.5,
        metavar='X',
        help='Minutes a rate over topics; 10 for a soak test. Default: 0.5.',
    )
    parser.add_argument(
        '--videos', nargs=2, type=Path, metavar='VIDEO', help='Played over the topics. Default: a moving pattern.'
    )
    parser.add_argument('--out', type=Path, help='Folder for bench.{txt,md,json}. Default: runs/bench-<time>.')
    add_options(
        parser.add_argument_group('the stream'), StreamSettings, only=('model', 'device', 'threads', 'steps', 'history')
    )


def run(args: argparse.Namespace) -> int:
    """Measure, print and write."""
    from tqdm import tqdm

    from wristworld_ros.benchmark import machine, report

    settings = from_options(StreamSettings, args)
    results: dict = {'machine': machine.describe(settings.threads), 'model': settings.model, 'steps': settings.steps}
    print('\n'.join(f'{key}: {value}' for key, value in results['machine'].items()), flush=True)
    if 'stream' in args.only or 'topics' in args.only:
        from wristworld_ros.streaming import load_model
        from wristworld_ros.streaming.room import require_room

        require_room(settings, max(args.anchors))
        model = load_model(
            settings.model, settings.device, settings.precision
        )  # so that a missing model is told at once
    if 'condition' in args.only:
        from wristworld_ros.benchmark.condition import compare

        results['condition'] = compare()
    if 'stream' in args.only:
        from wristworld_ros.benchmark.stream import run_stream

        cases = [(views, chunk) for views in args.anchors for chunk in args.chunks]
        bar = tqdm(cases, desc='stream', unit='case')
        results['stream'] = [run_stream(model, settings, views, chunk, args.frames) for views, chunk in bar]
    if 'topics' in args.only:
        from wristworld_ros.benchmark.topics import run_topics

        results['topics'] = [run_topics(settings, rate, args.minutes * 60, args.videos) for rate in args.rates]
    folder = args.out or Path('runs') / f'bench-{time.strftime("%Y%m%d-%H%M%S")}'
    print(f'\n{report.write(results, folder)}\n\n{folder}')
    return 0
