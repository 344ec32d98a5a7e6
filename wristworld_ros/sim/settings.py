"""Settings of the simulator: what is recorded, and how widely a scene is varied."""

from __future__ import annotations

from dataclasses import dataclass

from wristworld_ros.errors import UserError
from wristworld_ros.setting import check, setting

TASKS = ('stack', 'lift', 'place')
BREADTH = ('basic', 'wide')
MAX_CONTROL_HZ = 240


@dataclass(frozen=True)
class SimulatorSettings:
    """One record of a rendered set. Metres and degrees throughout."""

    tasks: str = setting(
        'stack=0.4,lift=0.3,place=0.3', 'Tasks with their shares, out of stack, lift and place: stack=1,lift=1.'
    )
    clip_frames: int | None = setting(
        None, 'Stored frames per episode, a random window of the whole; all stores the whole episode.',
        low=1, high=100_000, none='all',
    )  # fmt: skip
    fps: int = setting(10, 'Stored frames per second; a divisor of control-hz.', low=1, high=240)
    control_hz: int = setting(20, 'Commands of the policy per second.', low=5, high=MAX_CONTROL_HZ)
    anchors: int = setting(2, 'Anchor cameras, fixed during an episode.', low=1, high=16)
    random_cameras: int = setting(2, 'Cameras placed elsewhere at every stored frame.', low=0, high=16)
    anchor_width: int = setting(224, 'Width of anchor and random cameras, pixels.', low=16, high=2048)
    anchor_height: int = setting(168, 'Height of anchor and random cameras, pixels.', low=16, high=2048)
    wrist_size: int = setting(128, 'Width and height of the wrist camera, pixels.', low=16, high=2048)
    anchor_depth: bool = setting(True, 'Store depth of anchor and random cameras, in millimetres.')
    wrist_depth: bool = setting(True, 'Store depth of the wrist camera, in millimetres.')
    wrist_objects: bool = setting(True, 'Store which object each pixel of the wrist camera shows.')
    supersample: int = setting(
        2, 'Images are rendered this many times larger and averaged down, against jagged edges.', low=1, high=4
    )
    msaa: int = setting(0, "Samples of OpenGL's own anti-aliasing.", low=0, high=16)
    shadows: float = setting(0.5, 'Share of episodes with shadows, 0 to 1.', low=0.0, high=1.0)
    shadow_map: int = setting(1024, 'Resolution of the shadows, texels.', low=64, high=8192)
    mesh_cell: float | None = setting(
        0.01, 'Robot meshes are thinned to one vertex in a cube of this edge, metres, except the hand; never keeps them whole.',
        low=0.001, high=0.1, none='never',
    )  # fmt: skip
    wrist_fov: float = setting(75.0, 'Vertical field of view of the wrist camera, degrees.', low=10.0, high=140.0)
    wrist_fov_jitter: float = setting(
        1.5, 'Its variation between episodes, plus or minus, degrees.', low=0.0, high=30.0
    )
    wrist_jitter_m: float = setting(
        0.003, "Variation of the wrist camera's position on the hand, plus or minus, metres.", low=0.0, high=0.1
    )
    wrist_jitter_deg: float = setting(
        1.0, 'Variation of its orientation, plus or minus about each axis, degrees.', low=0.0, high=20.0
    )
    anchor_fov_min: float = setting(40.0, 'Least vertical field of view of an anchor, degrees.', low=5.0, high=140.0)
    anchor_fov_max: float = setting(60.0, 'Largest vertical field of view of an anchor, degrees.', low=5.0, high=140.0)
    anchor_framing_min: float = setting(
        0.30, 'Least half height of what an anchor shows at the workspace, metres.', low=0.1, high=3.0
    )
    anchor_framing_max: float = setting(0.46, 'Largest half height of it, metres.', low=0.1, high=3.0)
    anchor_azimuth: float = setting(
        60.0, 'Largest azimuth of an anchor to either side, degrees; 0 faces the robot.', low=0.0, high=180.0
    )
    random_azimuth: float | None = setting(
        None, 'The same of random cameras; auto takes that of anchors.', low=0.0, high=180.0, none='auto'
    )
    random_fov_max: float | None = setting(
        None, 'Largest vertical field of view of a random camera, degrees; auto takes that of anchors.',
        low=5.0, high=140.0, none='auto',
    )  # fmt: skip
    anchor_elevation_min: float = setting(18.0, 'Least elevation of an anchor, degrees.', low=0.0, high=85.0)
    anchor_elevation_max: float = setting(60.0, 'Largest elevation of an anchor, degrees.', low=0.0, high=85.0)
    anchor_separation: float = setting(
        40.0, 'Least difference of azimuth between two anchors, where it can be had, degrees.', low=0.0, high=180.0
    )
    anchor_roll: float = setting(5.0, 'Roll of an anchor, plus or minus, degrees.', low=0.0, high=180.0)
    objects: str = setting(
        'basic', 'Objects: basic (boxes, cylinders, balls, four groceries), or wide (dishes, bottles, fruit, tools, toys and more too).',
        choices=BREADTH,
    )  # fmt: skip
    surroundings: str = setting(
        'basic',
        'Surroundings: basic, or wide (height and size of the table, a mat on it, furniture, colours of the robot, more kinds of light too).',
        choices=BREADTH,
    )  # fmt: skip
    rig: str = setting(
        'free', "Robot and cameras: free (as the other settings say), or droid (DROID's: a Robotiq 2F-85 straight on the flange, a ZED mini "
        'beside it, and ZED 2 left and right of the robot).',
        choices=('free', 'droid'),
    )  # fmt: skip
    replay: str | None = setting(
        None, 'Folder of recorded episodes, of any format, whose joint angles and gripper are replayed in place of tasks; none does tasks.',
        none='none',
    )  # fmt: skip
    gripper: str = setting(
        'franka', "Gripper: franka (Franka's hand), robotiq (Robotiq 2F-85), or any, one of them in each episode.",
        choices=('franka', 'robotiq', 'any'),
    )  # fmt: skip
    anchor_rigs: str = setting(
        'free',
        'Fields of view and distances of anchors and random cameras: free (anchor-fov and anchor-framing), or real (of cameras that stand '
        'beside robots: RealSense D435, ZED 2, ZED mini, webcams).',
        choices=('free', 'real'),
    )  # fmt: skip
    wrist_mounts: str = setting(
        'hand', 'Where the wrist camera is mounted: hand (before the fingers, wrist-fov), or any (around the hand, at any roll, with '
        'fields of view of real cameras).',
        choices=('hand', 'any'),
    )  # fmt: skip
    distractors: int = setting(5, 'Most objects beside those that the task needs.', low=0, high=9)
    keep_failures: bool = setting(False, 'Store episodes in which the task failed too.')

    @property
    def control_steps(self) -> int:
        """Control periods per stored frame."""
        return self.control_hz // self.fps

    def stamp_ns(self, frame: int) -> int:
        """Time of a frame after the first one, nanoseconds: exactly its number of control periods."""
        return round(frame * self.control_steps * 1_000_000_000 / self.control_hz)

    def task_shares(self) -> dict[str, float]:
        """Task names with their shares, summing to 1.

        Raises:
            UserError: A task is unknown, or a share is not a positive number.
        """
        shares = {}
        for part in self.tasks.split(','):
            name, _, share = part.strip().partition('=')
            if name not in TASKS:
                raise UserError(f"Setting tasks names '{name}'; known are {', '.join(TASKS)}", 'name those only')
            try:
                shares[name] = float(share or 1.0)
            except ValueError:
                shares[name] = -1.0
            if not 0 < shares[name] < float('inf'):
                raise UserError(f"Setting tasks gives {name} the share '{share}'", 'give a number above 0')
        total = sum(shares.values())
        return {name: share / total for name, share in shares.items()}


def check_simulator(settings: SimulatorSettings) -> None:
    """Raise UserError for the first value that is not allowed, by itself or beside the others."""
    check(settings)
    settings.task_shares()
    if settings.control_hz % settings.fps:
        allowed = [n for n in range(1, settings.control_hz + 1) if settings.control_hz % n == 0]
        raise UserError(
            f'Setting fps is {settings.fps}, which does not divide control_hz, {settings.control_hz}',
            f'give fps as one of {", ".join(map(str, allowed))}{_other_control_rate(settings)}',
        )
    if settings.rig != 'free':
        for name in ('gripper', 'anchor_rigs', 'wrist_mounts'):
            given, own = getattr(settings, name), SimulatorSettings.__dataclass_fields__[name].default
            if given != own:
                raise UserError(
                    f'Setting {name} is {given} and rig {settings.rig}, which has its own', f'leave {name} at {own}'
                )
    for name in ('anchor_fov', 'anchor_framing', 'anchor_elevation'):
        low, high = (getattr(settings, f'{name}_{end}') for end in ('min', 'max'))
        if low > high:
            raise UserError(
                f'Setting {name}_min is {low:g} and {name}_max {high:g}', 'give a maximum that is not smaller'
            )


def check_stored(settings: SimulatorSettings) -> None:
    """The same for episodes that are stored as video.

    Raises:
        UserError: A value is not allowed, or a size is odd.
    """
    check_simulator(settings)
    for name in ('anchor_width', 'anchor_height', 'wrist_size'):
        if getattr(settings, name) % 2:
            raise UserError(
                f'Setting {name} is {getattr(settings, name)}, and H.264 takes even numbers', 'give an even number'
            )


def _other_control_rate(settings: SimulatorSettings) -> str:
    """The control rate nearest above that the fps divides, as an advice; '' where there is none that is allowed."""
    rate = -(-settings.control_hz // settings.fps) * settings.fps
    return f', or another control_hz, e.g. {rate}' if rate <= MAX_CONTROL_HZ else ''
