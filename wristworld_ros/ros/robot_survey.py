"""What a listener heard of the robot beside the anchors' images: the contract between `robot_listener`, which needs ROS, and the
doctor. It is part of `topic_survey.TopicSurvey`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Frame:
    """A TF frame that the node looks up in its base frame.

    use: what for, as in 'the hand'. parents: all that were heard, those on /tf_static first. static: whether every edge up to
    the base is. age: seconds from stamp to arrival of the newest transforms on the way, by the listener's clock, the most of
    its edges; below 0 where stamps lie in the future. wait: seconds that images have to wait for a transform of their time.
    bad, fix: why its pose is not known at the time of images, and what to do, both without a full stop; '' where it is.
    """

    name: str
    use: str
    parents: tuple[str, ...] = ()
    static: bool = False
    age: float = 0.0
    wait: float = 0.0
    bad: str = ''
    fix: str = ''

    @property
    def known(self) -> bool:
        """Whether its pose in the base frame could be told."""
        return not self.bad


@dataclass(frozen=True)
class Depth:
    """The depth topic of one anchor.

    publishers: how many. images: how many came. width, height, encoding, frame: of the last one. apart: seconds that its
    stamps are behind those of the nearest colour images, median; below 0 where they are ahead. valid: share of pixels with
    depth in the last one. near, far: tenth and ninetieth percentile of those, metres. bad, fix: why the node would not use
    it, and what to do, both without a full stop; '' where it would.
    """

    name: str
    topic: str
    publishers: int = 0
    images: int = 0
    width: int = 0
    height: int = 0
    encoding: str = ''
    frame: str = ''
    apart: float = 0.0
    valid: float = 0.0
    near: float = 0.0
    far: float = 0.0
    bad: str = ''
    fix: str = ''


@dataclass(frozen=True)
class Joints:
    """Joint states. rate: of /joint_states, messages per second. names: of the joints that it has. age: seconds from stamp to
    arrival, median."""

    publishers: int = 0
    rate: float = 0.0
    names: tuple[str, ...] = ()
    age: float = 0.0


@dataclass(frozen=True)
class Description:
    """The robot description.

    received: whether one came. root: its first link. joints, links: their names. missing: meshes that are not there or cannot
    be read. bad, fix: why the robot's surface is not known at the time of images, and what to do, both without a full stop; ''
    where it is.
    """

    publishers: int = 0
    received: bool = False
    root: str = ''
    joints: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    bad: str = ''
    fix: str = ''


@dataclass(frozen=True)
class RunningWrist:
    """The last status of a virtual wrist that runs.

    topic: of its status. active: whether it makes frames. geometry: RGB, CALIBRATED or RGBD. anchors, residuals: names, and
    metres between the robot as each sees it and as TF has it, None where that is unknown. lacks: sentences on what is
    missing for a better geometry. reason: why its last frame was invalid, '' where it was not.
    """

    topic: str
    active: bool
    geometry: str
    anchors: tuple[str, ...] = ()
    residuals: tuple[float | None, ...] = ()
    lacks: tuple[str, ...] = ()
    reason: str = ''


@dataclass(frozen=True)
class RobotSurvey:
    """All of it. tf: transforms that came on /tf and /tf_static altogether. base: whether the base frame was among them. roots:
    frames that have no parent. depth_topics: those that belong to no anchor."""

    tf: int = 0
    base: bool = False
    roots: tuple[str, ...] = ()
    frames: tuple[Frame, ...] = ()
    depth: tuple[Depth, ...] = ()
    depth_topics: tuple[str, ...] = ()
    joints: Joints = Joints()
    description: Description = Description()
    wrists: tuple[RunningWrist, ...] = ()
