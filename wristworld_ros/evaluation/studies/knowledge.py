"""What each thing that a desk knows is worth. `python -m wristworld_ros.evaluation.studies.knowledge EPISODES`.

Simulated episodes, from images alone to everything; depth and anchors' poses with the errors of a real desk and without; the
robot's own surface, the correction of the anchors' poses by it, and scene memory each with and without. Objects have columns of
their own.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from wristworld_ros.evaluation.evaluate import evaluate
from wristworld_ros.evaluation.knowledge import LEVELS, KnowledgeLevel
from wristworld_ros.evaluation.settings import EvaluationSettings
from wristworld_ros.settings import StreamSettings


def levels() -> list[KnowledgeLevel]:
    """The rows."""
    rgbd, exact = (
        replace(LEVELS[name], title=f'{LEVELS[name].title} + robot', robot=True) for name in ('rgbd', 'exact')
    )
    return [
        *LEVELS.values(),
        replace(LEVELS['calibrated'], title=f'{LEVELS["calibrated"].title} + robot', robot=True),
        rgbd,
        replace(rgbd, title=f'{rgbd.title} + memory', memory=True),
        replace(rgbd, title=f'{rgbd.title}, no refinement', refine=False),
        exact,
    ]


def main() -> None:
    """Print the table and write it into a folder."""
    parser = argparse.ArgumentParser(prog='python -m wristworld_ros.evaluation.studies.knowledge', description=__doc__)
    parser.add_argument('episodes', type=Path, help='Folder of simulated episodes with depth and object masks.')
    parser.add_argument('--model', default='sim_tiny')
    parser.add_argument('--limit', type=int, help='Episodes at most.')
    parser.add_argument('--out', type=Path, default=Path('runs/knowledge'))
    args = parser.parse_args()
    settings = EvaluationSettings(row_steps='1', limit=args.limit)
    table = evaluate(
        args.model, args.episodes, StreamSettings(model=args.model), settings, folder=args.out, levels=levels()
    )
    table.write(args.out)
    print(table.text())


if __name__ == '__main__':
    main()
