"""What `wristworld augment` needs to know beyond the stream."""

from __future__ import annotations

from dataclasses import dataclass

from wristworld_ros.errors import UserError
from wristworld_ros.setting import setting

# Settings of the stream that matter here: chunks are of one latent frame, as for a live camera.
STREAM = (
    'model', 'device', 'precision', 'decoder', 'threads', 'steps', 'guidance', 'history', 'near', 'wrist_fov', 'min_coverage',
    'min_confidence', 'min_agreement', 'place_anchors', 'refine_calibration', 'seed',
)  # fmt: skip
_POSE = r'\s*([-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?(\s+|$)){7}'


@dataclass(frozen=True)
class AugmentSettings:
    """What is read and written."""

    anchors: str | None = setting(
        None, 'Keys of the anchor cameras, separated by commas; the first one is the reference frame.',
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
        'Pose of the wrist camera (optical: z forward, x right, y down) in the link whose pose the set has: x y z qx qy qz qw, metres and a unit quaternion.',
        none='unknown', pattern=_POSE, described='seven numbers x y z qx qy qz qw',
    )  # fmt: skip
    urdf: str | None = setting(
        None, 'Robot description by which the joints of the set tell where the hand and the surface of the robot are; none takes the pose that the set has.',
        none='none',
    )  # fmt: skip
    hand_link: str | None = setting(
        None, 'Link of the robot description that carries the wrist camera; auto is the one whose pose the set has.', none='auto'
    )  # fmt: skip
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
        """Raise UserError where the size cannot be coded, or links are named without a description."""
        if self.urdf is None and (self.hand_link or self.base_link):
            raise UserError('hand_link or base_link is given without a robot description', 'give --urdf as well')
        if self.urdf is None and self.places == 'checked':
            raise UserError("places is 'checked', and there is no robot description", 'give --urdf as well')
        if self.image_hw and any(side < 16 or side % 2 for side in self.image_hw):
            raise UserError(f'Setting size is {self.size!r}', 'give WIDTHxHEIGHT, both even and at least 16')
