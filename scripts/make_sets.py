"""Renders the sets that `sim_tiny` is trained on, chosen by and measured on. `python scripts/make_sets.py runs`

Seeds are fixed, so the sets are the same everywhere; a run that was stopped goes on. Test sets are looked at once, for the card. The
wide ones have all that the simulator can vary: objects, surroundings, both grippers, cameras as they stand beside real robots,
wrist mounts; three anchors each, of which any may be taken. `training_droid` is DROID's rig, which replays recorded clips (`--clips`).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

from wristworld_ros.sim.settings import SimulatorSettings
from wristworld_ros.sim.simulate import simulate


@dataclass(frozen=True)
class SimulatedSet:
    """One set. episodes: how many. seed: of the set. settings: of its episodes. replays: whether it replays recorded clips."""

    episodes: int
    seed: int
    settings: SimulatorSettings
    replays: bool = False


RECORDED = SimulatorSettings(clip_frames=24, random_cameras=0)
WIDE = SimulatorSettings(
    clip_frames=24, random_cameras=0, anchors=3, anchor_azimuth=120.0, anchor_elevation_min=10.0, anchor_elevation_max=70.0,
    anchor_rigs='real', objects='wide', surroundings='wide', gripper='any', wrist_mounts='any', distractors=8,
)  # fmt: skip
DROID = SimulatorSettings(
    clip_frames=12, fps=5, rig='droid', anchor_width=224, anchor_height=126, objects='wide', surroundings='wide', distractors=8,
)  # fmt: skip
SETS = {
    'training': SimulatedSet(
        370, 2026, SimulatorSettings(clip_frames=12, fps=4, random_azimuth=110.0, random_fov_max=70.0)
    ),
    'validation': SimulatedSet(12, 920000, RECORDED),
    'test': SimulatedSet(24, 930000, RECORDED),
    'training_wide': SimulatedSet(240, 2126, replace(WIDE, clip_frames=12, fps=4, random_cameras=1)),
    'training_droid': SimulatedSet(120, 2226, DROID, replays=True),
    'validation_wide': SimulatedSet(12, 940000, WIDE),
    'test_wide': SimulatedSet(24, 950000, WIDE),
}


def main() -> None:
    """Render what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', type=Path, help='Each set gets a folder of its name in it.')
    parser.add_argument('--only', choices=tuple(SETS), help='One of them; all otherwise.')
    parser.add_argument('--workers', type=int, help='Processes; one per core otherwise.')
    parser.add_argument(
        '--clips', help='Folder of recorded episodes for sets that replay them; without it they are left out.'
    )
    args = parser.parse_args()
    if args.only and SETS[args.only].replays and not args.clips:
        parser.error(f'{args.only} replays recorded clips; give their folder as --clips')
    names = [args.only] if args.only else [name for name in SETS if args.clips or not SETS[name].replays]
    for name in names:
        wanted = SETS[name]
        settings = replace(wanted.settings, replay=args.clips) if wanted.replays else wanted.settings
        report = simulate(args.folder / name, wanted.episodes, wanted.seed, args.workers, settings)
        print(f'{args.folder / name}: {report.rendered} episodes rendered, {report.skipped} were there.')


if __name__ == '__main__':
    main()
