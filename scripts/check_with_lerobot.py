"""Lets others read a LeRobot data set that `wristworld augment` or `wristworld data convert` wrote: lerobot itself, frame by frame, and the
checkers lerobot-doctor and embodied-data. They live in environments of their own; this package is not needed there.

    python3.12 -m venv /tmp/lerobot && /tmp/lerobot/bin/pip install 'lerobot[dataset]' lerobot-doctor embodied-data     # reads v3.0
    python3.11 -m venv /tmp/lerobot21 && /tmp/lerobot21/bin/pip install lerobot==0.3.3                                  # reads v2.1
    python scripts/check_with_lerobot.py DST --source SRC --environments /tmp/lerobot /tmp/lerobot21

Without --environments that of the running Python is taken. Of several lerobots the first that reads the set's version does.
Exit status: 0 when nobody objects, 1 when somebody does, 2 when nothing could check.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

# Their commands, and the versions of sets that they know.
CHECKERS = {
    'lerobot-doctor': (['lerobot-doctor', 'check', '--ci'], ('v2.0', 'v2.1', 'v3.0')),
    'embodied-data': (['embodied-data', 'validate'], ('v3.0',)),
}
# What a lerobot tells of itself: its version, and that of the sets that it reads.
_ABOUT = """
from importlib.metadata import version
from lerobot.datasets import lerobot_dataset
print(version('lerobot'), lerobot_dataset.CODEBASE_VERSION)
"""


def main() -> int:
    """Check what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('path', type=Path, help='the data set')
    parser.add_argument('--source', type=Path, help='the set that it was made of: all that this has must be the same')
    parser.add_argument(
        '--environments', type=Path, nargs='+', default=[Path(sys.prefix)], metavar='FOLDER',
        help='virtual environments with lerobot, lerobot-doctor or embodied-data; default: that of this Python',
    )  # fmt: skip
    parser.add_argument('--read', action='store_true', help=argparse.SUPPRESS)  # by the Python of lerobot's environment
    args = parser.parse_args()
    for name in ('HF_HUB_OFFLINE', 'HF_DATASETS_DISABLE_PROGRESS_BARS'):
        os.environ.setdefault(name, '1')
    if args.read:
        fault = read_with_lerobot(args.path, args.source)
        print(fault or 'every frame is read' + (', and what the source has is the same' if args.source else ''))
        return 1 if fault else 0
    version = json.loads((args.path / 'meta/info.json').read_text())['codebase_version']
    found = [_lerobot(args.path, args.source, version, args.environments)]
    for name, (command, known) in CHECKERS.items():
        if version in known:
            found.append(_checker(name, command, args.path, args.environments))
        else:
            print(f'{name} knows no sets of {version}')
    told = [verdict for verdict in found if verdict is not None]
    if not told:
        print('nothing could check it: install what the help names')
        return 2
    return 0 if all(told) else 1


def _lerobot(path: Path, source: Path | None, wanted: str, environments: list[Path]) -> bool | None:
    """Whether the first lerobot that reads the set's version finds nothing wrong; None where there is none."""
    others = []
    for environment in environments:
        python = environment / 'bin/python'
        about = subprocess.run([python, '-c', _ABOUT], capture_output=True, text=True, check=False)
        if about.returncode:
            continue
        version, reads = about.stdout.split()[-2:]
        if reads != wanted:
            others.append(f'lerobot {version} reads {reads}')
            continue
        print(f'lerobot {version}, {wanted}: ', end='', flush=True)
        command = [
            python,
            '-W',
            'ignore',
            __file__,
            str(path),
            '--read',
            *(['--source', str(source)] if source else []),
        ]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        print(done.stdout.strip() or f'it ended with status {done.returncode}')
        return done.returncode == 0
    print(f'no lerobot here reads {wanted}' + (f' ({", ".join(others)})' if others else ''))
    return None


def _checker(name: str, command: list[str], path: Path, environments: list[Path]) -> bool | None:
    """Whether a checker passes the set; None where it is not installed."""
    tool = next((str(at) for e in environments if (at := e / 'bin' / command[0]).is_file()), shutil.which(command[0]))
    if tool is None:
        print(f'{name} is not installed here')
        return None
    done = subprocess.run([tool, *command[1:], str(path)], capture_output=True, text=True, check=False)
    print(f'{name} {_version_of(tool, name)}: {"passes" if done.returncode == 0 else "objects"}')
    if done.returncode:
        print((done.stdout + done.stderr).strip())
    return done.returncode == 0


def read_with_lerobot(path: Path, source: Path | None) -> str:
    """Read every frame; a sentence about the first fault, or ''."""
    import torch

    try:
        data = _opened(path)
        other = _opened(source) if source else None
    except Exception as error:  # whatever lerobot raises is what is to be told
        return f'it cannot be opened ({type(error).__name__}: {str(error).splitlines()[0]})'
    info = json.loads((path / 'meta/info.json').read_text())
    if len(data) != info['total_frames']:
        return f'it has {len(data)} frames, and meta/info.json says {info["total_frames"]}'
    if other is not None and len(other) != len(data):
        return f'it has {len(data)} frames, and its source {len(other)}'
    for number in range(len(data)):
        try:
            frame = data[number]
        except Exception as error:  # whatever lerobot raises is what is to be told
            return f'frame {number} cannot be read ({type(error).__name__}: {error})'
        for key, feature in info['features'].items():
            if key not in frame:
                return f'frame {number} lacks {key}'
            if feature['dtype'] in ('video', 'image'):
                height, width, channels = feature['shape']
                if tuple(frame[key].shape) != (channels, height, width):
                    return f'frame {number} has {key} of {list(frame[key].shape)}, and {feature["shape"]} is said'
                if not torch.isfinite(frame[key].float()).all():
                    return f'frame {number} has {key} that is not finite'
        if other is not None:
            for key, value in other[number].items():
                same = torch.equal(frame[key], value) if isinstance(value, torch.Tensor) else frame[key] == value
                if not same:
                    return f'frame {number} has another {key} than the source'
    missing = [key for key in info['features'] if key not in data.meta.stats and _has_stats(info['features'][key])]
    return f'there are no statistics of {", ".join(missing)}' if missing else ''


def _opened(path: Path):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    return LeRobotDataset(f'local/{path.name}', root=path, video_backend='pyav')


def _has_stats(feature: dict) -> bool:
    return feature['dtype'] != 'string'


def _version_of(tool: str, name: str) -> str:
    """Of a package in the environment that a program lies in."""
    python = Path(tool).parent / 'python'
    program = f'from importlib.metadata import version; print(version({name!r}))'
    done = subprocess.run([python, '-c', program], capture_output=True, text=True, check=False)
    return done.stdout.strip()


if __name__ == '__main__':
    sys.exit(main())
