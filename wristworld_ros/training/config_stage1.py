"""Configurations of stage 1: on recordings as published, and from scratch on simulated episodes."""

from __future__ import annotations

from dataclasses import dataclass

from wristworld_ros.errors import UserError
from wristworld_ros.setting import setting
from wristworld_ros.training.config import Schedule


@dataclass(frozen=True)
class ReconstructionModel:
    """Which network learns the geometry and the wrist pose, and where it begins."""

    network: str = setting('vggt_1b', 'Sizes of the network.', choices=('vggt_1b', 'sim_base', 'sim_tiny', 'miniature'))
    weights: str | None = setting(
        None,
        'Weights to begin with: a directory that `wristworld convert` made, a run of this stage, or a file; none begins at random.',
        none='none',
    )
    train: list = setting(
        ['wrist'],
        'Heads that are trained; everything else is frozen. all trains the whole network.',
        choices=('all', 'camera', 'wrist', 'depth', 'points', 'track'),
    )
    wrist_rate: float | None = setting(None, 'Learning rate of the wrist head.', low=0.0, none='learning_rate')
    camera_rate: float | None = setting(None, 'Learning rate of the camera head.', low=0.0, none='learning_rate')


@dataclass(frozen=True)
class ReconstructionData:
    """How samples are taken from episodes."""

    width: int = setting(518, 'Width that images are resized to, pixels; the height follows in whole patches.', low=28)
    anchors: int | None = setting(
        None, 'Anchor cameras of a sample; all takes those that the episode has.', low=1, none='all'
    )
    frame_step: int = setting(1, 'Every so many-th frame of an episode is a sample.', low=1)
    wrist_fov: float | None = setting(
        None,
        'Horizontal field of view of the wrist camera, degrees, for recordings without its intrinsics.',
        low=1.0,
        high=179.0,
        none='recorded',
    )


@dataclass(frozen=True)
class SpcLosses:
    """What the wrist pose learns from (arXiv 2510.07313)."""

    pose: str = setting(
        'spc',
        'spc: Spatial Projection Consistency. direct: L1 on the encoded wrist pose, the paper\'s "w/o SPC". direct_nearest: the same, with '
        'the sign of the true quaternion that is nearer to the predicted one, for both are one rotation. both: spc and direct_nearest.',
        choices=('spc', 'direct', 'direct_nearest', 'both'),
    )
    matches: str = setting(
        'track',
        "Where pairs of wrist and anchor pixels come from: the model's own track head without gradient, kornia's LoFTR, or the simulator's depth.",
        choices=('track', 'loftr', 'truth'),
    )
    matcher_weights: str | None = setting(None, "loftr: file of the matcher's weights on this machine.", none='none')
    grid: int = setting(32, 'Query points along each axis of the wrist image.', low=2)
    margin: float = setting(32.0, 'Distance of the outermost ones from the border, pixels.', low=0.0)
    match_visibility: float = setting(
        0.5, 'A pair counts where its visibility exceeds this in both views.', low=0.0, high=1.0
    )
    match_confidence: float = setting(
        0.2, 'A pair counts where its confidence exceeds this in both views.', low=0.0, high=1.0
    )
    front: float = setting(
        30.0, 'Weight of pairs in front of the wrist camera: squared pixels over squared diagonal.', low=0.0
    )
    behind: float = setting(1.0, 'Weight of pairs behind it, per metre.', low=0.0)
    wrist_fov: float = setting(10.0, 'Weight of the L1 on the wrist field of view.', low=0.0)
    cameras: float = setting(5.0, 'Weight of the L1 on the anchor cameras; 0 where they are not known.', low=0.0)
    direct: float = setting(5.0, 'Weight of the L1 on the wrist pose where pose is not spc.', low=0.0)


@dataclass(frozen=True)
class ReconstructionConfig:
    """Stage 1 on recordings, as published: the wrist head learns from pixels that show the same point."""

    model: ReconstructionModel
    data: ReconstructionData
    losses: SpcLosses
    schedule: Schedule

    def check_together(self) -> None:
        """Raise UserError where sections contradict each other."""
        if self.losses.matches == 'loftr' and self.losses.matcher_weights is None:
            raise UserError(
                'losses.matches is loftr, and losses.matcher_weights is none', "give the file of the matcher's weights"
            )
        if self.losses.cameras and 'camera' not in self.model.train and 'all' not in self.model.train:
            raise UserError(
                f'losses.cameras is {self.losses.cameras:g}, and model.train has no camera head',
                'add camera, or set it to 0',
            )
        if 'wrist' not in self.model.train and 'all' not in self.model.train:
            raise UserError(f'model.train is {self.model.train}, without the wrist head', 'add wrist')


@dataclass(frozen=True)
class GeometryData:
    """How samples are taken from simulated episodes."""

    width: int = setting(128, 'Width of the anchor images, pixels.', low=16)
    height: int = setting(96, 'Height of the anchor images, pixels.', low=16)
    azimuth: float = setting(
        100.0,
        "Views farther round the workspace than this from the robot's front are left out, degrees.",
        low=0.0,
        high=180.0,
    )
    zoom_low: float = setting(0.9, 'Smallest zoom of the augmentation.', low=0.1)
    zoom_high: float = setting(1.25, 'Largest zoom of the augmentation.', low=0.1)
    roll: float = setting(4.0, 'Largest roll of the augmentation, degrees.', low=0.0, high=45.0)
    color: float = setting(1.0, 'Strength of recoloring; 0 is none.', low=0.0)


@dataclass(frozen=True)
class GeometryLosses:
    """Weights of what a network learns from scratch, from the simulator's geometry."""

    depth: float = setting(4.0, 'L1 of the log depth.', low=0.0)
    points: float = setting(2.0, "L1 of the model's own points, metres.", low=0.0)
    radius: float = setting(
        0.6,
        'Metres from the wrist camera within which geometry counts in full; farther away it counts down to a tenth.',
        low=0.01,
    )
    confidence: float = setting(0.3, "VGGT's confidence term.", low=0.0)
    rotation: float = setting(0.7, "L1 of the anchors' rotation matrices.", low=0.0)
    translation: float = setting(1.2, "L1 of the anchors' translations, metres.", low=0.0)
    fov: float = setting(0.5, 'L1 of log fields of view.', low=0.0)
    wrist_rotation: float = setting(1.0, "L1 of the wrist's rotation matrix.", low=0.0)
    wrist_translation: float = setting(1.5, "L1 of the wrist's translation, metres.", low=0.0)
    spc: float = setting(
        0.3, 'Spatial Projection Consistency with a logarithm over its pixels; 0 is the ablation.', low=0.0
    )
    tokens: float = setting(2.0, 'L1 of the scene coordinates of patches, metres.', low=0.0)


@dataclass(frozen=True)
class GeometryConfig:
    """Stage 1 from scratch on simulated episodes, whose depth and cameras stand in for VGGT's pretraining."""

    model: ReconstructionModel
    data: GeometryData
    losses: GeometryLosses
    schedule: Schedule

    def check_together(self) -> None:
        """Raise UserError where sections contradict each other."""
        if self.model.network not in ('sim_tiny', 'sim_base'):
            raise UserError(
                f'model.network is {self.model.network}, which is not trained from scratch', 'give sim_tiny or sim_base'
            )
        if self.data.zoom_low > self.data.zoom_high:
            raise UserError(f'data.zoom_low is {self.data.zoom_low:g}, above zoom_high', 'give the smaller one first')
