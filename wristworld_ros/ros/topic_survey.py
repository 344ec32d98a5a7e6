"""What a listener saw of the anchors' topics: the contract between `ros/topic_survey_node.py`, which needs ROS, and the checks."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Publisher:
    """node: full name. kind: the topic's type. reliability: reliable or best effort."""

    node: str
    kind: str
    reliability: str


@dataclass(frozen=True)
class Calibration:
    """received: a camera_info came. calibrated: its K is not zero. distorted: it has distortion."""

    topic: str
    received: bool = False
    calibrated: bool = False
    distorted: bool = False
    width: int = 0
    height: int = 0


@dataclass(frozen=True)
class Anchor:
    """One anchor camera. topic: of its images, resolved. rate: images a second. width, height: pixels. size: bytes of a
    message. age: seconds from stamp to arrival by the listener's clock, median. apart: seconds between a stamp and the
    nearest one of the first anchor, median. bad: why its last image cannot be used, '' when it can.
    """

    name: str
    topic: str
    wanted: str
    publishers: tuple[Publisher, ...]
    calibration: Calibration
    images: int = 0
    rate: float = 0.0
    width: int = 0
    height: int = 0
    encoding: str = ''
    size: int = 0
    age: float = 0.0
    apart: float = 0.0
    bad: str = ''


@dataclass(frozen=True)
class TopicSurvey:
    """seconds: how long was listened. sets: anchor sets that the node would have made. others: image topics on the graph
    that are no anchor's. profile: file with Fast DDS's profile that the node would take, '' for none."""

    anchors: tuple[Anchor, ...]
    seconds: float
    sets: int
    others: tuple[str, ...] = ()
    profile: str = ''

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> TopicSurvey:
        """Of `to_json`."""
        raw = json.loads(text)
        anchors = []
        for a in raw.pop('anchors'):
            publishers = tuple(Publisher(**p) for p in a.pop('publishers'))
            anchors.append(Anchor(**a | {'publishers': publishers, 'calibration': Calibration(**a['calibration'])}))
        return cls(tuple(anchors), **raw | {'others': tuple(raw['others'])})
