"""`wristworld data inspect|convert|check`."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wristworld_ros.errors import UserError
from wristworld_ros.options import add_options, from_options
from wristworld_ros.setting import check, setting

if TYPE_CHECKING:
    from wristworld_ros.data.writing import WriteReport

# Formats of copies -> versions of LeRobot's; the names with a v are the older ones.
LEROBOT = {'lerobot-3.0': 'v3.0', 'lerobot-2.1': 'v2.1', 'lerobot-v3.0': 'v3.0', 'lerobot-v2.1': 'v2.1'}
TARGETS = (*LEROBOT, 'bag', 'videos', 'native')
_PATH = 'A data set, or one episode, of any format that docs/datasets.md lists.'


@dataclass(frozen=True)
class InspectSettings:
    """How much is looked at."""

    episodes: int = setting(20, 'Episodes that are opened, evenly spread.', low=1, high=10**6)
    rows: int = setting(3, 'Episodes on the contact sheet.', low=1, high=20)
    columns: int = setting(6, 'Images of each camera on the contact sheet.', low=1, high=30)
    urdf: str | None = setting(
        None, 'Robot description by which the calibration that the set claims is checked: the arm in the images, and the pose of the hand.', none='none'
    )  # fmt: skip
    base_link: str | None = setting(None, "Link of it that is the robot's base; auto is its root.", none='auto')

    def check_together(self) -> None:
        """Raise UserError where a link is named of a robot description that is not given."""
        if self.urdf is None and self.base_link is not None:
            raise UserError('base_link is given without a robot description', 'give --urdf as well')


@dataclass(frozen=True)
class ConvertSettings:
    """What is written."""

    to: str = setting('lerobot-3.0', 'Format of the copy.', choices=TARGETS)
    codec: str = setting(
        'keep', 'Codec of colour videos; keep takes coded images as they are where that is possible (LeRobot to LeRobot), and else h264.',
        choices=('keep', 'h264', 'av1'),
    )  # fmt: skip
    storage: str = setting('mcap', 'Storage of bags.', choices=('mcap', 'sqlite3'))
    packing: str = setting('raw', 'Images in bags.', choices=('raw', 'png', 'jpeg'))
    crf: int | None = setting(None, 'Quality of coded images, 0 is best.', low=0, high=63, none='auto')
    fps: int | None = setting(
        None, 'Frames per second; images are repeated or left out.', low=1, high=1000, none='as recorded'
    )
    robot_type: str = setting('', 'What the set says of the robot; empty takes what the source says.')
    force: bool = setting(False, 'Replace an older data set in this place.')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    ways = parser.add_subparsers(dest='way', metavar='inspect|convert|check', required=True)
    inspect = ways.add_parser('inspect', help='what is in it, with a contact sheet')
    inspect.add_argument('path', type=Path, help=_PATH)
    inspect.add_argument(
        '--sheet', type=Path, metavar='PNG', help='Where the contact sheet goes. Default: there is none.'
    )
    inspect.add_argument('--json', action='store_true', help='Print the same as JSON.')
    add_options(inspect, InspectSettings)
    convert = ways.add_parser('convert', help='the same in another format')
    convert.add_argument('path', type=Path, help=_PATH)
    convert.add_argument('target', type=Path, help='Directory of the copy.')
    convert.add_argument(
        '--episodes', type=int, nargs='+', metavar='N', help='Only these episodes, counted from 0. Default: all.'
    )
    add_options(convert, ConvertSettings)
    examine = ways.add_parser(
        'check', help='decode every image, look at every number, and name what is wrong',
        epilog='Exit status: 0 when nothing is wrong, 1 when something is, 2 when it is no data set.',
    )  # fmt: skip
    examine.add_argument('path', type=Path, help=_PATH)
    examine.add_argument('--no-frames', action='store_true', help='Read heads and tables only; no image is decoded.')
    examine.add_argument('--json', action='store_true', help='Print the faults as JSON.')


def run(args: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    os.environ.setdefault('SVT_LOG', '1')  # the AV1 encoder's own chatter: errors alone
    return {'inspect': _inspect, 'convert': _convert, 'check': _check}[args.way](args)


def _inspect(args: argparse.Namespace) -> int:
    from wristworld_ros.apps.data.summary import summarise
    from wristworld_ros.data.sets import open_data_set

    settings = from_options(InspectSettings, args)
    check(settings)
    if args.sheet and args.sheet.suffix.lower() not in ('.png', '.jpg'):
        raise UserError(f'--sheet is {args.sheet}', 'give a path that ends in .png or .jpg')
    data = open_data_set(args.path)
    kinematics = None
    if settings.urdf is not None:
        from wristworld_ros.robot.episode_kinematics import read_kinematics

        kinematics = read_kinematics(settings.urdf, settings.base_link)
    summary = summarise(data, settings.episodes, kinematics)
    print(json.dumps(asdict(summary), indent=2) if args.json else summary.text())
    if args.sheet:
        from wristworld_ros.apps.data.sheet import write_sheet

        write_sheet(data, args.sheet, settings.rows, settings.columns)
        if not args.json:
            print(args.sheet)
    return 0


def _convert(args: argparse.Namespace) -> int:
    from functools import partial

    from wristworld_ros.data.sets import open_data_set
    from wristworld_ros.runtime.files import check_apart
    from wristworld_ros.runtime.progress import ProgressBar

    settings = from_options(ConvertSettings, args)
    check(settings)
    write = _writer(settings)
    data = open_data_set(args.path)
    for place in (args.path, data.root):
        check_apart(place, args.target)
    chosen = range(len(data)) if args.episodes is None else args.episodes
    for index in chosen:
        if not 0 <= index < len(data):
            raise UserError(f'--episodes has {index}, and {args.path} holds {len(data)} episodes', 'count from 0')
    with ProgressBar(total=len(chosen), desc='converting', unit='episode') as bar:
        report = write(
            args.target, [partial(data.episode, i) for i in chosen], replace=settings.force, on_episode=bar.update
        )
    for sentence in (*report.notes, *report.left_out):
        print(sentence)
    print(f'{args.target}: {report.episodes} episodes, {report.frames} frames.')
    return 1 if report.left_out else 0


def _writer(settings: ConvertSettings) -> Callable[..., WriteReport]:
    """What writes the format that is asked for; it takes a path, episodes, `replace` and `on_episode`.

    Raises:
        UserError: A library that it needs is missing, or a setting is given that the format does not know.
    """
    from functools import partial

    from wristworld_ros.errors import require_package

    if settings.fps is not None and settings.to not in LEROBOT:
        raise UserError(f'--fps is {settings.fps}, and {settings.to} keeps the times of the recording', 'leave it out')
    if settings.to in LEROBOT:
        require_package('pyarrow', 'data', 'Writing a LeRobot data set')
        from wristworld_ros.data.formats.lerobot.writer import WriteSettings, write_lerobot

        write = WriteSettings(
            LEROBOT[settings.to], settings.fps, settings.codec, settings.crf, settings.robot_type or None  # type: ignore[arg-type]
        )  # fmt: skip
        return partial(write_lerobot, settings=write)
    codec = 'h264' if settings.codec == 'keep' else settings.codec
    if settings.to == 'bag':
        require_package('rosbags', 'data', 'Writing a ROS 2 bag')
        from wristworld_ros.data.formats.rosbag.writer import write_bags

        return partial(write_bags, storage=settings.storage, packing=settings.packing)
    if settings.to == 'videos':
        from wristworld_ros.data.formats.videos_writer import write_videos

        return partial(write_videos, codec=codec, crf=settings.crf)
    if codec != 'h264':
        raise UserError(f'--codec is {codec}, and episodes of our own are h264', 'leave it out')
    from wristworld_ros.data.formats.native_writer import CRF, write_native

    return partial(write_native, crf=CRF if settings.crf is None else settings.crf)


def _check(args: argparse.Namespace) -> int:
    from wristworld_ros.data.check import Problem, check_episode_at
    from wristworld_ros.data.sets import open_data_set
    from wristworld_ros.runtime.progress import ProgressBar

    data, count = open_data_set(args.path), 0
    found = []

    def tell(problem: Problem) -> None:
        found.append(problem)
        if not args.json:
            ProgressBar.write(problem.what)

    for sentence in data.problems():
        tell(Problem(sentence))
    for index in ProgressBar(range(len(data)), desc='checking', unit='episode', leave=False, disable=None):
        count += 1
        for problem in check_episode_at(data, index, not args.no_frames):
            tell(problem)
    if args.json:
        print(json.dumps([asdict(problem) for problem in found], indent=2))
    elif found:
        own = [problem.episode for problem in found if problem.episode is not None]
        where = [f'{len(found) - len(own)} of the set as a whole'] if len(own) < len(found) else []
        where += [f'{len(own)} in {len(set(own))} of {count} episodes'] if own else []
        print(f'{len(found)} fault{"s" * (len(found) > 1)}: {", ".join(where)}.')
    else:
        print(f'Nothing is wrong: {data.format}, {count} episodes.')
    return 1 if found else 0
