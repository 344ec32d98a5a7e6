"""`wristworld generate`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from wristworld_ros.apps.generate.settings import GenerateSettings
from wristworld_ros.options import add_options, from_options
from wristworld_ros.settings import StreamSettings, WindowSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command; those of the model come from `StreamSettings`."""
    parser.add_argument(
        'recording', type=Path, nargs='+', metavar='EPISODE_OR_VIDEO',
        help='An episode directory, or synchronised videos, one for each anchor camera (the first is the reference).',
    )  # fmt: skip
    parser.add_argument(
        '--out', type=Path,
        help='Folder for NAME.mp4 and NAME.json; it may be the episode itself. Default: runs/generated-<time>.',
    )  # fmt: skip
    add_options(parser, GenerateSettings)
    add_options(parser.add_argument_group('the windows'), WindowSettings)
    add_options(
        parser.add_argument_group('the model'), StreamSettings,
        only=('model', 'device', 'precision', 'decoder', 'threads', 'near', 'wrist_fov', 'seed'),
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Generate, and say where the files lie."""
    from wristworld_ros.apps.generate.generate import generate

    folder = args.out or Path('runs') / f'generated-{time.strftime("%Y%m%d-%H%M%S")}'
    # `steps` is an option of the windows here; the stream's own, for chunks, stays at its default.
    stream = StreamSettings(
        **{
            k: getattr(args, k)
            for k in ('model', 'device', 'precision', 'decoder', 'threads', 'near', 'wrist_fov', 'seed')
        }
    )
    written = generate(
        args.recording, folder, None, stream, from_options(WindowSettings, args), from_options(GenerateSettings, args)
    )
    print('\n' + '\n'.join(str(path) for path in written))
    return 0
