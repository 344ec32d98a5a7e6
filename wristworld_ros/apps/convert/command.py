"""`wristworld convert`."""

from __future__ import annotations

import argparse
from pathlib import Path

from wristworld_ros.apps.convert.settings import ConvertSettings
from wristworld_ros.options import add_options, from_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument(
        'folders', type=Path, nargs='+', metavar='FOLDER',
        help='Folders of the published files: WristWorld (VGGT/, VideoModel/, BaseModel/), VGGT-1B, Wan2.1-T2V-1.3B.',
    )  # fmt: skip
    add_options(parser, ConvertSettings)


def run(args: argparse.Namespace) -> int:
    """Convert, and print where the model is and under which licences."""
    from wristworld_ros.apps.convert.convert import convert_release
    from wristworld_ros.models.config import ModelConfig

    out = convert_release(args.folders, from_options(ConvertSettings, args))
    config = ModelConfig.read(out / 'config.json')
    print(f'\n{out}\nlicences: {config.licence}')
    if config.untrained:
        print(f'not a wrist camera yet; these parts are not trained: {", ".join(config.untrained)}')
    return 0
