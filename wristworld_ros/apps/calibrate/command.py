"""`wristworld calibrate`: where the cameras are, with a board or by the arm itself."""

from __future__ import annotations

import argparse
from pathlib import Path

from wristworld_ros.input_files import check_folder, check_name

FILE, LAUNCH, PAGE = 'calibration.yaml', 'calibration.launch.py', 'calibration.html'
_BOARD = """A folder with camera_info.yaml, images, and poses.csv (image,x,y,z,qx,qy,qz,qw: the hand in the base at each image), or in ViSP's
layout."""
_ROBOT = """A folder with camera_info.yaml, joints.csv (depth,color,<joint>,...), the depth images and pictures that it names, and robot.urdf; no
board is needed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    ways = parser.add_subparsers(dest='way', metavar='board|robot', required=True)
    board = ways.add_parser('board', help='with a chessboard, a ChArUco board or tags', description=_BOARD)
    board.add_argument('folder', type=Path, help='Folder of images and poses.')
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
    board.add_argument(
        '--hand-frame', default='fr3_hand', help='TF frame of the hand whose poses are given. Default: fr3_hand.'
    )
    robot = ways.add_parser('robot', help='by the arm that a depth camera sees', description=_ROBOT)
    robot.add_argument('folder', type=Path, help='Folder of depth images and joint positions.')
    robot.add_argument('--urdf', type=Path, help='Robot description. Default: robot.urdf in the folder.')
    pose = ('X', 'Y', 'Z', 'QX', 'QY', 'QZ', 'QW')
    robot.add_argument(
        '--guess', type=float, nargs=7, metavar=pose,
        help='About where the camera is in the base: its optical frame (z forward, x right, y down), within 10 cm and 10 degrees.',
    )  # fmt: skip
    robot.add_argument(
        '--position',
        type=float,
        nargs=3,
        metavar=pose[:3],
        help='In place of --guess: where a level camera is, metres.',
    )
    robot.add_argument(
        '--looks-at',
        type=float,
        nargs=3,
        metavar=pose[:3],
        help='Beside --position: the point in the middle of its image.',
    )
    robot.add_argument(
        '--simulate', type=int, metavar='SEED', help='Fill the folder from the simulator first, to try it.'
    )
    robot.add_argument('--poses', type=int, default=5, metavar='N', help='Arm poses of --simulate. Default: 5.')
    for way in (board, robot):
        way.add_argument('--name', default='left', help='Anchor, as in the setting anchors. Default: left.')
        way.add_argument(
            '--frame', help='TF frame of the camera, for the launch file. Default: anchor_<name>_optical_frame.'
        )
        way.add_argument(
            '--base-frame', default='fr3_link0', help="TF frame and link of the robot's base. Default: fr3_link0."
        )
        way.add_argument(
            '--out', type=Path, default=Path('calibration'),
            help=f'Folder of {FILE}, {LAUNCH} and the report; other cameras in a {FILE} that is there stay. Default: calibration.',
        )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Calibrate, print the poses, and write the three files."""
    from wristworld_ros.apps.calibrate.report import require_report_packages, write_page
    from wristworld_ros.robot.calibration_file import launch_text, merged, read_calibration, write_calibration
    from wristworld_ros.runtime.files import write_text

    folder = check_folder(args.out)
    check_name(args.name, '--name')
    require_report_packages()
    old = read_calibration(folder / FILE) if (folder / FILE).exists() else None
    if args.way == 'board':
        from wristworld_ros.apps.calibrate.board import calibrate_board

        outcome = calibrate_board(args)
    else:
        from wristworld_ros.apps.calibrate.robot import calibrate_robot

        outcome = calibrate_robot(args)
    calibration = merged(old, outcome.calibration)
    camera = 'wrist' if outcome.calibration.wrist else args.name
    page = folder / PAGE.replace('calibration', f'calibration_{camera}')
    write_calibration(folder / FILE, calibration)
    write_text(folder / LAUNCH, launch_text(calibration))
    write_page(outcome, page)
    print(f'{outcome.text()}\n\n{outcome.verdict[1]}.\n{folder / FILE}\n{folder / LAUNCH}\n{page}')
    return 0
