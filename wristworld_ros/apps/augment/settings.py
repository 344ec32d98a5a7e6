"""What `wristworld augment` needs to know beyond the stream."""

from __future__ import annotations

from dataclasses import dataclass

from wristworld_ros.errors import UserError
from wristworld_ros.setting import setting

# Settings of the stream that matter here: chunks are of one latent frame, as for a live camera.
STREAM = (
    'model', 'device', 'precision', 'decoder', 'threads', 'steps', 'guidance', 'history', 'near', 'wrist_fov', 'min_coverage',
    'min_confidence', 'min_agreement', 'place_anchors', 'refine_calibration', 'filter_depth', 'seed',
)  # fmt: skip
_POSE = r'\s*([-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?(\s+|$)){7}'


@dataclass(frozen=True)
class AugmentSettings:
    """What is read and written."""

    anchors: str | None = setting(
        None, 'Keys of the anchor cameras, separated by commas; the first one is the reference frame. All are those that are not on the wrist.',
        none='all', pattern=r'[^,\s]+(,[^,\s]+)*', described='keys separated by commas',
    )  # fmt: skip
    out_key: str = setting(
        'observation.images.wrist_virtual', 'Key of the new camera.',
        pattern=r'observation\.images\.[A-Za-z0-9_-]+', described='observation.images. and a name of letters, digits, _ and -',
    )  # fmt: skip
    size: str | None = setting(
        None, "Size of the new camera's images, WIDTHxHEIGHT in even numbers of pixels; auto is the model's own.",
        none='auto', pattern=r'\d{1,4}x\d{1,4}', described='WIDTHxHEIGHT',
    )  # fmt: skip
    codec: str = setting('h264', 'Codec of the new video.', choices=('h264', 'av1'))
    crf: int | None = setting(None, 'Quality of coded images, 0 is best.', low=0, high=63, none='auto')
    knowledge: str = setting(
        'auto', 'What the model is told: auto, all that the set says (intrinsics, poses, depth); or images alone.',
        choices=('auto', 'images'),
    )  # fmt: skip
    wrist_mount: str | None = setting(
        None,
        'Pose of the wrist camera (optical: z forward, x right, y down) in wrist_mount_link: x y z qx qy qz qw, metres and a unit quaternion.',
        none='unknown', pattern=_POSE, described='seven numbers x y z qx qy qz qw',
    )  # fmt: skip
    urdf: str | None = setting(
        None, 'Robot description by which the joints of the set tell where the hand and the surface of the robot are; none takes the pose that the set has.',
        none='none',
    )  # fmt: skip
    wrist_mount_link: str | None = setting(
        None, 'Link in which wrist_mount is given, as panda_hand or panda_link8; auto is the one whose pose the set has.', none='auto'
    )  # fmt: skip
    gripper_link: str | None = setting(
        None,
        "Link that is the gripper's own frame, z to the fingertips and y along their opening: panda_hand for Franka's hand, panda_link8 for a gripper straight on the flange. auto is what the set says (DROID's do), else the mount's link if it is a hand, else the one hand of the robot description.",
        none='auto',
    )
    base_link: str | None = setting(
        None, "Link of the robot description that is the robot's base, the world of all poses; auto is its root.", none='auto'
    )  # fmt: skip
    places: str = setting(
        'given', 'Which places of anchors are used: given, those that the set has, as they are; or checked, those that the arm in the images confirms (needs urdf), then also those that a set only claims, as DROID does.',
        choices=('given', 'checked'),
    )  # fmt: skip
    depth: bool = setting(
        False, "Also write the new camera's depth: what the anchors show of its view, metres as far as the model knows them, 0 where nothing is seen."
    )  # fmt: skip
    workers: int = setting(
        1, 'Processes, each with a model of its own; the result does not depend on it.', low=1, high=256
    )
    batch: int = setting(
        1,
        'Episodes that a worker makes side by side, whose networks then run as batches: faster, most of all on a GPU. Another number changes the last bits of the result.',
        low=1, high=64,
    )  # fmt: skip
    engine: str = setting(
        'local', 'Where workers are: local, processes of this machine; ray, actors of a Ray cluster.', choices=('local', 'ray')
    )  # fmt: skip
    address: str | None = setting(
        None,
        'Of a running Ray cluster: HOST:PORT, ray://HOST:PORT, or auto for the one that this machine belongs to; start starts one here for the run.',
        none='start', pattern=r'\S+', described='an address as ray.init takes it',
    )  # fmt: skip
    gpus: float | None = setting(
        None,
        'Share of a GPU that Ray keeps for each worker; auto is 1 where --device is a GPU, else 0.',
        low=0.0, high=1.0, none='auto',
    )  # fmt: skip
    page: bool = setting(True, 'Write an HTML page beside the manifest that shows what came of it.')
    force: bool = setting(False, 'Replace an older data set in the place of the new one.')

    @property
    def image_hw(self) -> tuple[int, int] | None:
        """Height and width of the images; None for the model's own."""
        if self.size is None:
            return None
        width, height = map(int, self.size.split('x'))
        return height, width

    def check_together(self) -> None:
        """Raise UserError where the size cannot be coded, or options lack the one that they need."""
        for name in ('address', 'gpus') if self.engine != 'ray' else ():
            if getattr(self, name) is not None:
                raise UserError(f'Setting {name} is given, and engine is {self.engine}', 'add --engine ray')
        if self.urdf is None and self.base_link:
            raise UserError('base_link is given without a robot description', 'give --urdf as well')
        for name in ('wrist_mount_link', 'gripper_link') if self.wrist_mount is None else ():
            if getattr(self, name) is not None:
                raise UserError(f'Setting {name} is given, and wrist_mount is not', 'give --wrist-mount as well')
        if self.urdf is None and self.places == 'checked':
            raise UserError("places is 'checked', and there is no robot description", 'give --urdf as well')
        if self.image_hw and any(side < 16 or side % 2 for side in self.image_hw):
            raise UserError(f'Setting size is {self.size!r}', 'give WIDTHxHEIGHT, both even and at least 16')


@dataclass(frozen=True)
class PlanSettings:
    """What a plan assumes beyond what was measured."""

    plan: int | None = setting(
        None,
        'Make nothing: print what so many episodes would take, from what the finished set TARGET measured.',
        low=1, high=10**9, none='off',
    )  # fmt: skip
    plan_frames: float | None = setting(
        None, 'Frames of an episode, mean; auto is that of the finished set.', low=1.0, high=1e6, none='auto'
    )
    plan_ms: float | None = setting(
        None,
        'Milliseconds of one worker for a frame on the hardware of the plan; auto is what the finished set took on its own.',
        low=0.001, high=1e6, none='auto',
    )  # fmt: skip
    plan_workers: int = setting(1, 'Workers that share a GPU of the plan without slowing each other.', low=1, high=64)
    plan_price: float = setting(2.5, 'Price of a GPU (or of what a worker runs on) per hour.', low=0.0, high=1e6)
