"""`wristworld calibrate`: where the cameras are, with a board or by the arm itself."""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path
from typing import NoReturn

from wristworld_ros.input_files import check_folder
from wristworld_ros.settings import FRAME, NAME

FILE, LAUNCH, PAGE = 'calibration.yaml', 'calibration.launch.py', 'calibration_{}.html'
_RECORD = """Saves what a camera sees, joint positions and the hand's pose whenever the arm has moved and rests, into a folder that board and
robot read. Depth and colour must be registered to each other."""
_BOARD = """A folder with camera_info.yaml, images, and poses.csv (image,x,y,z,qx,qy,qz,qw: the hand in the base at each image), or in ViSP's
layout."""
_ROBOT = """A folder with camera_info.yaml, joints.csv (depth,color,<joint>,...), the depth images and pictures that it names, and robot.urdf; no
board is needed. Without depth (color,<joint>,...) the pictures are those of a camera that stands still, some in a second while the arm
moves, and no guess is needed."""
_POSE = ('X', 'Y', 'Z', 'QX', 'QY', 'QZ', 'QW')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    ways = parser.add_subparsers(dest='way', metavar='record|board|robot', required=True)
    record = ways.add_parser('record', help='save arm poses from ROS topics into a folder', description=_RECORD)
    board = ways.add_parser('board', help='with a chessboard, a ChArUco board or tags', description=_BOARD)
    robot = ways.add_parser('robot', help='by the arm that a camera sees', description=_ROBOT)
    for way in (record, board, robot):
        way.add_argument('folder', type=Path, help='Folder of images and arm poses.')
        way.add_argument('--name', type=_name, default='left', help='Anchor, as in the setting anchors. Default: left.')
        way.add_argument(
            '--base-frame',
            type=_frame,
            default='fr3_link0',
            help="TF frame and link of the robot's base. Default: fr3_link0.",
        )
    for way in (record, board):
        way.add_argument(
            '--hand-frame', type=_frame, default='fr3_hand', help='TF frame of the hand. Default: fr3_hand.'
        )
    for way in (board, robot):
        way.add_argument(
            '--frame',
            type=_frame,
            help='TF frame of the camera, for the launch file. Default: anchor_<name>_optical_frame.',
        )
        way.add_argument(
            '--out', type=Path, default=Path('calibration'),
            help=f'Folder of {FILE}, {LAUNCH} and the report; other cameras in a {FILE} that is there stay. Default: calibration.',
        )  # fmt: skip
    record.add_argument('--count', type=int, default=10, metavar='N', help='Poses. Default: 10.')
    record.add_argument(
        '--remap',
        nargs='+',
        default=[],
        metavar='FROM:=TO',
        help='Topic remappings, as in anchor_left/image_raw:=/camera/color/image_raw.',
    )
    _add_board(board)
    _add_robot(robot)


def run(args: argparse.Namespace) -> int:
    """Calibrate, print the poses, and write the three files."""
    if args.way == 'record':
        _record(args)
    from wristworld_ros.apps.calibrate.report import require_report_packages, write_page
    from wristworld_ros.robot.calibration_file import launch_text, merged, read_calibration, write_calibration
    from wristworld_ros.runtime.files import write_text

    folder = check_folder(args.out)
    require_report_packages()
    old = read_calibration(folder / FILE) if (folder / FILE).exists() else None
    if args.way == 'board':
        from wristworld_ros.apps.calibrate.board import calibrate_board

        outcome = calibrate_board(args)
    else:
        from wristworld_ros.apps.calibrate.robot import calibrate_robot

        outcome = calibrate_robot(args)
    calibration = merged(old, outcome.calibration)
    page = folder / PAGE.format('wrist' if outcome.calibration.wrist else args.name)
    write_calibration(folder / FILE, calibration)
    write_text(folder / LAUNCH, launch_text(calibration))
    write_page(outcome, page)
    print(f'{outcome.text()}\n\n{outcome.verdict[1]}.\n{folder / FILE}\n{folder / LAUNCH}\n{page}')
    return 0


def _record(args: argparse.Namespace) -> NoReturn:
    """Become the recorder: it takes this process over, so that Ctrl-C reaches it."""
    check_folder(args.folder, 'folder')
    options = ['--out', str(args.folder), '--anchor', args.name, '--count', str(args.count)]
    options += ['--base-frame', args.base_frame, '--hand-frame', args.hand_frame]
    if args.remap:
        options += ['--ros-args', *(word for rule in args.remap for word in ('-r', rule))]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, '-m', 'wristworld_ros.ros.pose_recorder_node', *options])


def _add_board(board: argparse.ArgumentParser) -> None:
    board.add_argument(
        '--mount', required=True, choices=('hand', 'table'),
        help='Where the board is fixed: on the hand, which places an anchor, or on the table, which places the wrist camera.',
    )  # fmt: skip
    board.add_argument(
        '--board', default='chessboard', choices=('chessboard', 'charuco', 'tags'), help='Default: chessboard.'
    )
    board.add_argument(
        '--columns', type=int, required=True, help='Inner corners of a chessboard, squares of a ChArUco board, or tags.'
    )
    board.add_argument('--rows', type=int, required=True, help='The same.')
    board.add_argument(
        '--square', type=float, required=True, metavar='M', help='Edge of a square, or of a tag, metres.'
    )
    board.add_argument(
        '--marker',
        type=float,
        default=0.0,
        metavar='M',
        help='Edge of the markers of a ChArUco board, or gap between tags, metres.',
    )
    board.add_argument(
        '--dictionary', default='APRILTAG_36h11', help="OpenCV's, without DICT_. Default: APRILTAG_36h11."
    )
    board.add_argument('--first-id', type=int, default=0, metavar='N', help='Number of the first tag. Default: 0.')


def _add_robot(robot: argparse.ArgumentParser) -> None:
    robot.add_argument('--urdf', type=Path, help='Robot description. Default: robot.urdf in the folder.')
    robot.add_argument(
        '--position',
        type=float,
        nargs=3,
        metavar=_POSE[:3],
        help='Where the camera is in the base, about; it is level. Metres.',
    )
    robot.add_argument(
        '--looks-at',
        type=float,
        nargs=3,
        metavar=_POSE[:3],
        help='Beside --position: the point in the middle of its image.',
    )
    robot.add_argument(
        '--guess', type=float, nargs=7, metavar=_POSE,
        help='In place of both: its optical frame (z forward, x right, y down) in the base, within 10 cm and 10 degrees.',
    )  # fmt: skip
    robot.add_argument(
        '--focal-error',
        type=float,
        default=0.0,
        metavar='PERCENT',
        help='Without depth: how far the focal length of camera_info.yaml may be off; it is found too. Default: 0.',
    )
    robot.add_argument(
        '--simulate', type=int, metavar='SEED', help='Fill the folder from the simulator first, to try it.'
    )
    robot.add_argument('--poses', type=int, default=5, metavar='N', help='Arm poses of --simulate. Default: 5.')


def _name(text: str) -> str:
    if not re.fullmatch(NAME['pattern'], text):
        raise argparse.ArgumentTypeError(f'{text!r} is not allowed; give letters, digits and underscores')
    return text


def _frame(text: str) -> str:
    if not re.fullmatch(FRAME['pattern'], text):
        raise argparse.ArgumentTypeError(f'{text!r} is not allowed; give {FRAME["described"]}')
    return text
