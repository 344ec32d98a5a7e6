"""`wristworld generate`."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path

from wristworld_ros.options import add_options, from_options
from wristworld_ros.setting import check, setting
from wristworld_ros.settings import StreamSettings, WindowSettings

# Settings of the stream that matter for a whole video; `steps` and the others are those of the windows here.
STREAM = ('model', 'device', 'precision', 'decoder', 'threads', 'near', 'wrist_fov', 'seed')


@dataclass(frozen=True)
class GenerateSettings:
    """What is read and written."""

    anchors: int | None = setting(
        None, 'Anchor cameras of an episode that the model sees, its first ones.', low=1, high=16, none='all'
    )
    episode: int | None = setting(
        None, 'Which episode of a data set, counted from 0.', low=0, high=10**9, none='the only one'
    )
    frames: int | None = setting(None, 'Frames at most.', low=1, high=10**9, none='all')
    name: str = setting('virtual_wrist', 'Name of the files: NAME.mp4 and NAME.json.')
    force: bool = setting(False, 'Replace files of that name that exist already.')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command; those of the model come from `StreamSettings`."""
    parser.add_argument(
        'recording', type=Path, nargs='+', metavar='EPISODE_OR_VIDEO',
        help='An episode, a data set (docs/datasets.md), or synchronised videos, one per anchor camera (the first is the reference frame).',
    )  # fmt: skip
    parser.add_argument(
        '--out', type=Path,
        help='Folder for NAME.mp4 and NAME.json; it may be the episode itself. Default: runs/generated-<time>.',
    )  # fmt: skip
    add_options(parser, GenerateSettings)
    add_options(parser.add_argument_group('the windows'), WindowSettings)
    add_options(parser.add_argument_group('the model'), StreamSettings, only=STREAM)


def run(args: argparse.Namespace) -> int:
    """Generate, and print where the files are."""
    stream = StreamSettings(**{name: getattr(args, name) for name in STREAM})
    windows, settings = from_options(WindowSettings, args), from_options(GenerateSettings, args)
    for record in (stream, windows, settings):
        check(record)
    import torch

    from wristworld_ros.apps.generate.generate import generate, output_paths
    from wristworld_ros.data.anchor_sources import open_recording
    from wristworld_ros.pipeline.memory_check import check_memory
    from wristworld_ros.pipeline.model_directory import load_model

    folder = args.out or Path('runs') / f'generated-{time.strftime("%Y%m%d-%H%M%S")}'
    paths = output_paths(folder, settings.name, settings.force)
    recording = open_recording(args.recording, settings.anchors, settings.frames, episode=settings.episode)
    # A window takes more than one chunk alone, which has no history.
    check_memory(replace(stream, history=0), len(recording.names))
    model = load_model(stream.model, stream.device, stream.precision, stream.decoder)
    if stream.threads is not None:
        torch.set_num_threads(stream.threads)
    generate(model, recording, *paths, windows, stream.seed, stream.near, stream.wrist_fov)
    print('\n' + '\n'.join([*recording.damage, *map(str, paths)]))
    return 0
