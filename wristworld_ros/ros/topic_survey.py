"""What a listener received on the anchors' topics: the contract between `topic_survey_node`, which needs ROS, and the doctor."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from wristworld_ros.input_files import decode_json, json_text
from wristworld_ros.ros.robot_survey import RobotSurvey


@dataclass(frozen=True)
class Publisher:
    """Who publishes on a topic. node: full name. kind: type of the topic. reliability: reliable or best effort."""

    node: str
    kind: str
    reliability: str


@dataclass(frozen=True)
class Calibration:
    """The camera_info of one anchor.

    received: whether one came. calibrated: whether its K is not zero. displaced: how far its distortion moves a pixel at most,
    pixels; 0 for images that come rectified. width, height: of the images it was made for, pixels; 0 where it does not say.
    bad: why it describes no camera; '' where it does. lens: why its distortion cannot be told; '' where it can.
    """

    topic: str
    received: bool = False
    calibrated: bool = False
    displaced: float = 0.0
    width: int = 0
    height: int = 0
    bad: str = ''
    lens: str = ''


@dataclass(frozen=True)
class Anchor:
    """The images of one anchor camera.

    topic: resolved. wanted: type that the topic should have. images: how many came. sent: how many were sent between the
    first and the last of them, see `images_sent`. stamps: how many different ones they had. sizes: all that they had, as
    '640x480'. rate: images per second. width, height: of the last, pixels. size: bytes of a message. age: seconds from
    stamp to arrival by the listener's clock, median. apart: seconds between a stamp and the nearest one of the first anchor,
    median. lag: seconds that its stamps are behind those of the first anchor when they arrive. bad, fix: why its last image
    cannot be used, and what to do, both without a full stop; '' when it can.
    """

    name: str
    topic: str
    wanted: str
    publishers: tuple[Publisher, ...]
    calibration: Calibration
    images: int = 0
    sent: int = 0
    stamps: int = 0
    sizes: tuple[str, ...] = ()
    rate: float = 0.0
    width: int = 0
    height: int = 0
    encoding: str = ''
    size: int = 0
    age: float = 0.0
    apart: float = 0.0
    lag: float = 0.0
    bad: str = ''
    fix: str = ''


@dataclass(frozen=True)
class TopicSurvey:
    """All anchors over one period.

    seconds: how long it was. sets: anchor sets that the node would have made. others: image topics on the graph that
    belong to no anchor. profile: file with the Fast DDS profile that the node would use, '' for none. robot: what else was heard.
    """

    anchors: tuple[Anchor, ...]
    seconds: float
    sets: int
    others: tuple[str, ...] = ()
    profile: str = ''
    robot: RobotSurvey = RobotSurvey()

    def to_json(self) -> str:
        """One line."""
        return json_text(asdict(self), indent=None).rstrip()

    @classmethod
    def from_json(cls, text: str) -> TopicSurvey:
        """The opposite of `to_json`."""
        return decode_json(text, cls, 'The survey of the topics')
