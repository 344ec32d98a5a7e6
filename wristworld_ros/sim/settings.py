"""Settings of the simulator: what is recorded, and how widely a scene is varied."""

from __future__ import annotations

from dataclasses import dataclass

TASKS = ('stack', 'lift', 'place')


@dataclass(frozen=True)
class SimulatorSettings:
    """One record of a rendered set. Metres and degrees throughout.

    tasks: names out of stack, lift, place, each with its share: 'stack=0.5,lift=0.3,place=0.2'.
    clip_frames: stored frames an episode, a random window of the whole; 0 stores the whole episode.
    fps: stored frames a second; the policy is commanded at control_hz, a multiple of it.
    anchors: fixed cameras an episode. scatter: cameras placed anew at every stored frame.
    anchor_width .. wrist_size: pixels. The wrist image is square.
    anchor_depth, wrist_depth: store depth, millimetres.
    supersample: pictures are rendered this many times larger and averaged down, against jagged edges.
    msaa: samples of OpenGL's own smoothing (0 or 4).
    shadows: share of episodes with shadows. shadow_map: their resolution, texels.
    mesh_cell: robot meshes are thinned to one vertex in a cube of this edge; 0 leaves them. The hand is never thinned.
    wrist_fov: vertical. wrist_fov_jitter, wrist_jitter_m, wrist_jitter_deg: half widths of an episode's variation.
    anchor_fov_min .. anchor_elevation_max: the sector anchors and scatter cameras are drawn from; azimuth 0 is in front
        of the robot. anchor_separation: least azimuth between two fixed anchors.
    distractors: most objects beside those that the task needs.
    keep_failures: store episodes in which the task failed as well.
    """

    tasks: str = 'stack=0.4,lift=0.3,place=0.3'
    clip_frames: int = 0
    fps: int = 10
    control_hz: int = 20
    anchors: int = 2
    random_cameras: int = 2
    anchor_width: int = 224
    anchor_height: int = 168
    wrist_size: int = 128
    anchor_depth: bool = True
    wrist_depth: bool = True
    supersample: int = 2
    msaa: int = 0
    shadows: float = 0.5
    shadow_map: int = 1024
    mesh_cell: float = 0.01
    wrist_fov: float = 75.0
    wrist_fov_jitter: float = 1.5
    wrist_jitter_m: float = 0.003
    wrist_jitter_deg: float = 1.0
    anchor_fov_min: float = 40.0
    anchor_fov_max: float = 60.0
    anchor_framing_min: float = 0.30
    anchor_framing_max: float = 0.46
    anchor_azimuth: float = 60.0
    anchor_elevation_min: float = 18.0
    anchor_elevation_max: float = 60.0
    anchor_separation: float = 40.0
    anchor_roll: float = 5.0
    distractors: int = 5
    keep_failures: bool = False

    def task_shares(self) -> dict[str, float]:
        """Task names with their shares, summing to 1."""
        shares = {}
        for part in self.tasks.split(','):
            name, _, share = part.strip().partition('=')
            if name not in TASKS:
                raise ValueError(f"simulator tasks names '{name}'; known are {', '.join(TASKS)}.")
            shares[name] = float(share or 1.0)
        total = sum(shares.values())
        return {name: share / total for name, share in shares.items()}
