"""Lets others read a LeRobot data set that `wristworld augment` or `wristworld data convert` wrote: lerobot itself, frame by frame, and the
checkers lerobot-doctor and embodied-data. Run it by the Python of an environment that has lerobot; this package is not needed there.

    python -m venv /tmp/lerobot && /tmp/lerobot/bin/pip install 'lerobot[dataset]' lerobot-doctor
    /tmp/lerobot/bin/python scripts/check_with_lerobot.py DST --source SRC

Exit status: 0 when nobody objects, 1 when somebody does, 2 when nothing could check.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

CHECKERS = {
    'lerobot-doctor': ['lerobot-doctor', 'check', '--ci'],
    'embodied-data': ['embodied-data', 'validate'],
}


def main() -> int:
    """Check what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('path', type=Path, help='the data set')
    parser.add_argument('--source', type=Path, help='the set that it was made of: all that this has must be the same')
    parser.add_argument(
        '--tools', type=Path, nargs='*', default=[], help='folders with lerobot-doctor and embodied-data'
    )
    args = parser.parse_args()
    os.environ.setdefault('HF_HUB_OFFLINE', '1')
    found: list[bool] = []
    try:
        print(f'lerobot {version("lerobot")}: ', end='', flush=True)
    except PackageNotFoundError:
        print('lerobot is not installed here')
    else:
        fault = read_with_lerobot(args.path, args.source)
        print(fault or 'every frame is read' + (', and what the source has is the same' if args.source else ''))
        found.append(not fault)
    for name, command in CHECKERS.items():
        tool = _tool(command[0], args.tools)
        if tool is None:
            print(f'{name} is not installed here')
            continue
        done = subprocess.run([tool, *command[1:], str(args.path)], capture_output=True, text=True, check=False)
        print(f'{name} {_version_of(tool, name)}: {"passes" if done.returncode == 0 else "objects"}')
        if done.returncode:
            print((done.stdout + done.stderr).strip())
        found.append(done.returncode == 0)
    if not found:
        print('install lerobot, lerobot-doctor or embodied-data, and run this script by that Python')
        return 2
    return 0 if all(found) else 1


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
    try:
        from lerobot.datasets.lerobot_dataset import LeRobotDataset
    except ImportError:  # releases before 0.3
        from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
    return LeRobotDataset(f'local/{path.name}', root=path, video_backend='pyav')


def _has_stats(feature: dict) -> bool:
    return feature['dtype'] != 'string'


def _tool(name: str, folders: list[Path]) -> str | None:
    for folder in (*folders, Path(sys.executable).parent):
        if (folder / name).is_file():
            return str(folder / name)
    return shutil.which(name)


def _version_of(tool: str, name: str) -> str:
    """Of a package in the environment that a program lies in."""
    python = Path(tool).parent / 'python'
    program = f'from importlib.metadata import version; print(version({name!r}))'
    done = subprocess.run([python, '-c', program], capture_output=True, text=True, check=False)
    return done.stdout.strip()


if __name__ == '__main__':
    sys.exit(main())
