"""`wristworld report`: the report of an earlier demo, rendered again from its recording."""

from __future__ import annotations

import argparse
from pathlib import Path

from wristworld_ros.input_files import check_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument('recording', type=Path, help='Folder of a recording: the recording/ of a report.')
    parser.add_argument('--out', type=Path, help="Folder of the report. Default: the recording's parent.")
    parser.add_argument(
        '--model', default='sim_tiny', help='Model whose mean wrist image is a row of the table. Default: sim_tiny.'
    )


def run(args: argparse.Namespace) -> int:
    """Render; the last line printed is the report's folder."""
    from wristworld_ros.apps.demo.measures import mean_wrist_of
    from wristworld_ros.apps.demo.report import render_report

    folder = check_folder(args.out or args.recording.parent)
    render_report(args.recording, folder, mean_wrist_of(args.model))
    print(folder)
    return 0
