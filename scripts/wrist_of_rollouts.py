"""Wrist videos of a world model's roll-outs: anchors that were generated, one view or more, in; a wrist video of each roll-out out.

    python scripts/wrist_of_rollouts.py OUT --rollouts DIR --model MODEL    # DIR/<roll-out>/<view>.mp4
    python scripts/wrist_of_rollouts.py OUT                                 # two episodes of the simulator in place of roll-outs

OUT becomes a folder of videos (docs/datasets.md): the roll-outs as they were, and `wrist_virtual`. See docs/world_models.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import yaml

from wristworld_ros.cli import main as wristworld
from wristworld_ros.data.formats.videos_mapping import MAPPING
from wristworld_ros.data.sets import open_data_set
from wristworld_ros.errors import UserError
from wristworld_ros.runtime.files import check_apart

VIDEOS = ('.mp4', '.mkv', '.mov', '.avi', '.webm')
ROLLOUTS = 'rollouts'


def main() -> int:
    """Make the wrist videos that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out', type=Path, help='folder that appears')
    parser.add_argument('--rollouts', type=Path, help='folder of roll-outs, each a folder with a video per view')
    parser.add_argument('--views', nargs='+', help='names of the views, the reference first; without it all, by name')
    args, more = parser.parse_known_args()  # the rest is for `wristworld augment`, e.g. --model
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / 'source'
        (source / ROLLOUTS).mkdir(parents=True)
        try:
            if args.rollouts is not None:
                check_apart(args.rollouts, args.out)
            folders = simulated(Path(scratch)) if args.rollouts is None else rollouts_in(args.rollouts)
            views = args.views or views_of(folders[0])
            for folder in folders:
                take(folder, source / ROLLOUTS / folder.name, views)
        except UserError as error:
            print(error, file=sys.stderr)
            return 2
        cameras = {view: {'video': f'{ROLLOUTS}/{{stem}}/{view}.mp4', 'role': 'anchor'} for view in views}
        mapping = {'episodes': f'{ROLLOUTS}/*', 'cameras': cameras}
        (source / MAPPING).write_text(yaml.safe_dump(mapping, sort_keys=False))
        status = wristworld(['augment', str(source), str(args.out), *more])
    if status in (0, 1):
        for folder in folders:
            print(args.out / 'wrist_virtual' / ROLLOUTS / f'{folder.name}.mp4')
    return status


def rollouts_in(folder: Path) -> list[Path]:
    """The folders of the roll-outs.

    Raises:
        UserError: There is none.
    """
    found = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if not found:
        raise UserError(
            f'{folder} holds no folder with a roll-out', 'give each roll-out a folder with a video per view'
        )
    return found


def views_of(folder: Path) -> list[str]:
    """Names of the views of a roll-out.

    Raises:
        UserError: There is none.
    """
    found = sorted(path.stem for path in folder.iterdir() if path.suffix.lower() in VIDEOS)
    if not found:
        raise UserError(f'{folder} holds no video', f'give one per view, of the kinds {", ".join(VIDEOS)}')
    return found


def take(folder: Path, target: Path, views: list[str]) -> None:
    """Link the videos of one roll-out, by view.

    Raises:
        UserError: One is missing.
    """
    target.mkdir()
    for view in views:
        files = [path for path in sorted(folder.iterdir()) if path.stem == view and path.suffix.lower() in VIDEOS]
        if not files:
            raise UserError(f'{folder} has no video {view}', 'give every roll-out the same views')
        (target / f'{view}.mp4').symlink_to(files[0].absolute())


def simulated(scratch: Path) -> list[Path]:
    """Folders with the anchor videos of two episodes of the simulator.

    Raises:
        UserError: The simulator cannot run.
    """
    if wristworld(['simulate', str(scratch / 'simulated'), '--episodes', '2']):
        raise UserError('The simulator made no episode', 'see above; or give roll-outs of your own with --rollouts')
    data, folders = open_data_set(scratch / 'simulated'), []
    for number in range(len(data)):
        episode = data.episode(number)
        folder = scratch / 'anchors' / f'{number:06d}'
        folder.mkdir(parents=True)
        for name in episode.names('anchor'):
            (folder / f'{name}.mp4').symlink_to((episode.path / f'{name}.mp4').absolute())
        folders.append(folder)
    return folders


if __name__ == '__main__':
    sys.exit(main())
