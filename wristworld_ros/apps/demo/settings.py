"""What the demonstration runs on, and for how long."""

from __future__ import annotations

from dataclasses import dataclass

from wristworld_ros.settings import setting

# Far from the seeds that training sets are made with.
DEMO_SEED = 900_000


@dataclass(frozen=True)
class DemoSettings:
    """What the demonstration runs on, and for how long."""

    seconds: float = setting(60.0, 'How long is recorded, seconds.', low=1.0, high=86400.0)
    rate: float = setting(10.0, 'Frames a second of the cameras; 0 takes that of the first video.', low=0.0, high=120.0)
    demo_seed: int = setting(DEMO_SEED, 'With the simulator: which episodes are played.', low=0, high=2**31 - 1)
    view: bool = setting(False, 'Show it live in the browser (rerun).')
    patience: float = setting(240.0, 'How long the first wrist frame may take, seconds.', low=1.0, high=3600.0)
