"""`wristworld evaluate`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from wristworld_ros.errors import UserError
from wristworld_ros.evaluation.settings import EvaluationSettings
from wristworld_ros.input_files import check_folder
from wristworld_ros.options import add_options, from_options
from wristworld_ros.setting import check
from wristworld_ros.settings import StreamSettings

_STREAM = (
    'model', 'device', 'precision', 'decoder', 'threads', 'chunk', 'history', 'reanchor', 'near', 'wrist_fov', 'seed',
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command; those of the stream come from `StreamSettings`."""
    parser.add_argument(
        'episodes', type=Path, nargs='?',
        help='Held-out episodes, a data set of any format that docs/datasets.md lists (`wristworld simulate` records some).',
    )  # fmt: skip
    parser.add_argument('--data', type=Path, dest='data', metavar='EPISODES', help='The same, as an option.')
    parser.add_argument(
        '--real',
        type=Path,
        metavar='FOLDER',
        help="Real clips of DROID's kind in place of episodes, in a table of their own.",
    )
    parser.add_argument(
        '--calibrations',
        type=Path,
        metavar='FOLDER',
        help='Beside --real: <clip>/calibration.yaml, for rows CALIBRATED.',
    )
    parser.add_argument(
        '--out', type=Path, help='Folder for table.{txt,md,csv,json} and episodes/. Default: runs/evaluation-<time>.'
    )
    parser.add_argument(
        '--ablation', action='append', default=[], metavar='NAME=MODEL',
        help='A further row: its name and a model directory, as in "no SPC=runs/no_spc". May be given several times.',
    )  # fmt: skip
    add_options(parser.add_argument_group('what is evaluated'), EvaluationSettings)
    stream = parser.add_argument_group('the stream')
    add_options(stream, StreamSettings, only=_STREAM)


def run(args: argparse.Namespace) -> int:
    """Evaluate, print the table, and write it into the folder."""
    from wristworld_ros.data.sets import open_data_set
    from wristworld_ros.evaluation.evaluate import evaluate
    from wristworld_ros.evaluation.page import PAGE
    from wristworld_ros.pipeline import load_model

    ablations = {}
    for given in args.ablation:
        name, equals, model = given.partition('=')
        if not (name and equals and model):
            raise UserError(f'--ablation is {given!r}', 'give NAME=MODEL, as in "no SPC=runs/no_spc"')
        if name in ablations:
            raise UserError(f'--ablation names two rows {name!r}', 'give each a name of its own')
        ablations[name] = model
    folder = args.out or Path('runs') / f'evaluation-{time.strftime("%Y%m%d-%H%M%S")}'
    settings, evaluation = from_options(StreamSettings, args), from_options(EvaluationSettings, args)
    check_folder(folder)
    for record in (settings, evaluation):
        check(record)
    if sum(given is not None for given in (args.real, args.episodes, args.data)) != 1:
        raise UserError('Of episodes, --data and --real none is given, or more than one', 'give one of them')
    episodes = args.episodes or args.data
    if args.calibrations is not None and args.real is None:
        raise UserError('--calibrations is given without --real', 'give both')
    if args.real is not None:
        return _evaluate_real(args, settings, evaluation, folder)
    open_data_set(episodes)
    model = load_model(settings.model, settings.device, settings.precision, settings.decoder)
    model.configure_process(settings.threads)
    table = evaluate(model, episodes, settings, evaluation, ablations, folder)
    table.write(folder)
    print(f'\n{table.text()}\n\n{folder}')
    if evaluation.page:
        print(folder / PAGE)
    return 0


def _evaluate_real(
    args: argparse.Namespace, settings: StreamSettings, evaluation: EvaluationSettings, folder: Path
) -> int:
    from wristworld_ros.data.real_clips import list_clips
    from wristworld_ros.evaluation.real import SHEET, evaluate_real
    from wristworld_ros.pipeline import load_model

    list_clips(args.real)
    model = load_model(settings.model, settings.device, settings.precision, settings.decoder)
    model.configure_process(settings.threads)
    table = evaluate_real(model, args.real, settings, args.calibrations, evaluation.limit, evaluation.frames, folder)
    table.write(folder)
    print(f'\n{table.text()}\n\n{folder}\n{folder / SHEET}')
    return 0
