"""The paper's ablations (arXiv 2510.07313, table 4) on simulated episodes: `python scripts/ablations.py runs/train runs/test runs/ablations`.

For each seed both stages are trained whole and without one part (condition map, SPC, anchor tokens), all of them for the same
time or, on a machine that others use too, the same number of steps, packaged, and evaluated on the same held-out frames beside the
baselines. The last table has means over seeds, and what each part is worth: its row less the whole model's, paired by seed, with the
standard error of that difference. An order is outside the noise where it is larger than twice its error. What was finished is kept,
and a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wristworld_ros.evaluation.table import markdown
from wristworld_ros.training.checkpoint import weights_file

MEASURES = {
    'psnr': ('PSNR dB', 2),
    'ssim': ('SSIM', 3),
    'lpips': ('LPIPS', 3),
    'fvd': ('FVD', 0),
    'sim_fvd': ('sim-FVD', 2),
}
Figures = dict[str, dict[str, float]]  # of one seed: row -> measure -> mean over episodes


@dataclass(frozen=True)
class Variant:
    """A model of the table. title: of its row. stage1, stage2: options of its trainings."""

    title: str
    stage1: tuple[str, ...] = ()
    stage2: tuple[str, ...] = ()


WHOLE = 'whole'
VARIANTS = {
    WHOLE: Variant('whole'),
    'no_condition': Variant('no condition map', stage2=('--no-condition',)),
    'no_spc': Variant('no SPC', stage1=('--no-spc',)),
    'no_tokens': Variant('no anchor tokens', stage2=('--no-anchor-tokens',)),
}


def train_variant(args: argparse.Namespace, seed: int, name: str) -> Path:
    """Train and package one variant of one seed, except for what is there; returns its model directory."""
    variant, folder = VARIANTS[name], args.out / f'seed{seed}'
    # Variants that differ in stage 2 alone share stage 1.
    stage1 = folder / ('no_spc' if variant.stage1 else WHOLE) / 'stage1'
    stage2, model = folder / name / 'stage2', folder / name / 'model'
    length = ('--minutes', args.minutes) if args.steps is None else ('--minutes', 'none', '--steps', args.steps)
    common = (*length, '--seed', seed, '--processes', args.processes, '--device', args.device)
    if not weights_file(stage1).exists():
        start = ('--start', str(args.start)) if args.start else ()
        wristworld('train', 'stage1', args.train, '--out', stage1, *common, *start, *variant.stage1)
    if not weights_file(stage2).exists():
        wristworld('train', 'stage2', args.train, '--stage1', stage1, '--out', stage2, *common, *variant.stage2)
    if not (model / 'config.json').exists():
        wristworld('train', 'package', '--stage1', stage1, '--stage2', stage2, '--out', model, '--name', name)
    return model


def evaluate_seed(args: argparse.Namespace, seed: int, models: dict[str, Path]) -> Figures:
    """Evaluate a seed's models on the same frames; returns the table's means."""
    out = args.out / f'seed{seed}' / 'evaluation'
    if not (out / 'table.json').exists():
        ablations = [x for n, m in models.items() if n != WHOLE for x in ('--ablation', f'{VARIANTS[n].title}={m}')]
        weights = [x for key in ('lpips', 'fvd', 'sim_fvd') if getattr(args, key)
                   for x in (f'--{key.replace("_", "-")}', getattr(args, key))]  # fmt: skip
        wristworld(
            'evaluate', args.test, '--model', models[WHOLE], '--knowledge', 'rgb', '--row-steps', '1', '--seed', seed, '--out', out,
            *ablations, *weights,
        )  # fmt: skip
    summary = json.loads((out / 'table.json').read_text())['summary']
    return {
        row: {key: m['mean'] for key, m in figures.items() if m['mean'] is not None} for row, figures in summary.items()
    }


def wristworld(*arguments: object) -> None:
    """Run a command; its error ends this program."""
    command = [sys.executable, '-m', 'wristworld_ros.cli', *map(str, arguments)]
    print('wristworld', *map(str, arguments), flush=True)
    if (status := subprocess.run(command).returncode) != 0:
        sys.exit(status)


def tables(seeds: Sequence[Figures], whole: str) -> list[str]:
    """Markdown: means ± standard errors over seeds, and each row less the row `whole`, paired by seed."""
    measures = [key for key in MEASURES if all(key in figures[whole] for figures in seeds)]
    rows = [row for row in seeds[0] if all(row in figures for figures in seeds)]

    def cells(row: str, less: str | None) -> list[str]:
        found = []
        for key in measures:
            values = [f[row].get(key, np.nan) - (f[less][key] if less else 0) for f in seeds]
            found.append(_spread(values, MEASURES[key][1], '+' if less else ''))
        return [row, *found]

    heads = ['row', *(MEASURES[key][0] for key in measures)]
    means = [cells(row, None) for row in rows]
    return [markdown(heads, means), markdown(heads, [cells(row, whole) for row in rows if row != whole])]


def _spread(values: Sequence[float], digits: int, sign: str) -> str:
    if not np.isfinite(values).all():
        return '-'
    error = f' ± {np.std(values, ddof=1) / len(values) ** 0.5:.{digits}f}' if len(values) > 1 else ''
    return f'{np.mean(values):{sign}.{digits}f}{error}'


def main(argv: list[str] | None = None) -> None:
    """Train, evaluate and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('train', type=Path, help='Folder of simulated episodes to train on.')
    parser.add_argument('test', type=Path, help='Folder of held-out ones.')
    parser.add_argument('out', type=Path, help='Folder of the runs.')
    parser.add_argument('--seeds', type=int, nargs='*', default=[0, 1, 2])
    parser.add_argument('--minutes', type=float, default=30.0, help='Of each stage of each variant.')
    parser.add_argument('--steps', type=int, help='Of each stage of each variant, in place of minutes.')
    parser.add_argument(
        '--start', type=Path, help="Weights that every seed's stage 1 starts from, or the folder of their run."
    )
    parser.add_argument('--processes', type=int, default=1)
    parser.add_argument('--device', default='auto')
    parser.add_argument('--lpips', help='As `wristworld evaluate` takes it.')
    parser.add_argument('--fvd', help='Likewise.')
    parser.add_argument('--sim-fvd', help='Likewise.')
    args = parser.parse_args(argv)
    seeds = []
    for seed in args.seeds:
        models = {name: train_variant(args, seed, name) for name in VARIANTS}
        seeds.append(evaluate_seed(args, seed, models))
    whole = next(row for row in seeds[0] if 'generated' in row)
    text = '\n\n'.join(tables(seeds, whole))
    (args.out / 'ablations.md').write_text(text + '\n')
    print(f'\n{text}\n\n{args.out / "ablations.md"}')


if __name__ == '__main__':
    main()
