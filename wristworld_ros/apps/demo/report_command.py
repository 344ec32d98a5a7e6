"""`wristworld report`: the page of an earlier demo made anew from its recording."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument('recording', type=Path, help='Folder of a recording: the recording/ of a report.')
    parser.add_argument('--out', type=Path, help="Folder of the report. Default: the recording's parent.")
    parser.add_argument(
        '--model', default='sim_tiny', help='Model whose mean wrist image is a row of the table. Default: sim_tiny.'
    )


def run(args: argparse.Namespace) -> int:
    """Render; the last line printed is the report's folder."""
    from wristworld_ros.apps.demo.report import render_report
    from wristworld_ros.evaluation.baselines import MEAN_WRIST, mean_wrist

    shipped = Path(__file__).parents[2] / 'pretrained' / args.model
    model = shipped if shipped.is_dir() else Path(args.model)
    image = mean_wrist(model, (128, 128)) if (model / MEAN_WRIST).is_file() else None
    folder = args.out or args.recording.parent
    render_report(args.recording, folder, image)
    print(folder)
    return 0
