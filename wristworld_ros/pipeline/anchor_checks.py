"""What is wrong with the anchors: nothing to see, one camera twice, a frozen camera, or clouds that disagree.

All but the last is told from the images, before any network. They are compared as uint8 and to the bit, and as cheaply
as that allows: two images that differ nearly always do so in a few rows, and whether an image is uniform is told from
a few thousand of its pixels.
"""

from __future__ import annotations

from collections import deque
from itertools import combinations

import numpy as np

from wristworld_ros.types import AnchorSet, FrameStatus, Verdict

# An image is uniform when this share of its pixels lies within so many grey levels of its median colour: a covered lens
# shows noise of a few levels and some hot pixels.
UNIFORM_SHARE = 0.995
UNIFORM_LEVELS = 8
_SAMPLES = 4096  # pixels that are looked at for it


class AnchorChecks:
    """Judges the anchor sets of one stream, in order of their stamps.

    A real camera never sends the same image twice: noise changes the last bits of its pixels. A simulated one does
    whenever its scene stands still, and its image is right then. So an anchor counts as frozen when its image stays the
    same to the bit for `frozen_after` while another anchor's goes on changing; where all stand still, or there is only
    one, nothing tells a frozen camera from a simulated scene at rest, and it counts only after the longer `still_after`.
    """

    def __init__(self):
        self.reset()

    def reset(self) -> None:
        """Start a new stream: what came before is forgotten."""
        self._last: np.ndarray | None = None
        # Of each anchor, nanoseconds: the stamp of its first image that equals its latest one, and the stamp at which
        # another anchor changed first since then.
        self._since: list[int] = []
        self._others_since: list[int | None] = []

    def judge(self, anchors: AnchorSet, frozen_after: float | None, still_after: float | None) -> Verdict:
        """What is wrong with the newest set.

        Args:
            anchors: Of the cameras and sizes of the set before, unless `reset` was called between.
            frozen_after: See `StreamSettings`, seconds between stamps; None for never.
            still_after: Likewise.

        Returns:
            A verdict whose reason names the anchor and the figure; valid where nothing is wrong.
        """
        self._remember(anchors)
        found = _uniform(anchors) or _identical(anchors) or self._frozen(anchors, frozen_after)
        return found or self._still(anchors, still_after) or Verdict()

    def _remember(self, anchors: AnchorSet) -> None:
        now, last, self._last = anchors.stamp_ns, self._last, anchors.images
        if last is None:
            self._since = [now] * len(anchors.images)
            self._others_since = [None] * len(anchors.images)
            return
        changed = [not _same(old, new) for old, new in zip(last, anchors.images, strict=True)]
        for view, has_changed in enumerate(changed):
            if has_changed:
                self._since[view], self._others_since[view] = now, None
            elif any(changed) and self._others_since[view] is None:
                self._others_since[view] = now

    def _frozen(self, anchors: AnchorSet, frozen_after: float | None) -> Verdict | None:
        """An anchor that stands still beside one that changes."""
        now = anchors.stamp_ns
        if frozen_after is None or (now - max(self._since)) * 1e-9 >= frozen_after:
            return None
        for name, since, others in zip(anchors.names, self._since, self._others_since, strict=True):
            if others is not None and (now - others) * 1e-9 >= frozen_after:
                return Verdict(
                    FrameStatus.FROZEN_ANCHOR,
                    f'Anchor {name} has sent the same image for {(now - since) * 1e-9:.1f} s while another changed; '
                    f'frozen_after is {frozen_after:g} s.',
                )
        return None

    def _still(self, anchors: AnchorSet, still_after: float | None) -> Verdict | None:
        """All anchors stand still."""
        seconds = (anchors.stamp_ns - max(self._since)) * 1e-9
        if still_after is None or seconds < still_after:
            return None
        who = f'Anchor {anchors.names[0]} has' if len(anchors.names) == 1 else 'All anchors have'
        return Verdict(
            FrameStatus.FROZEN_ANCHOR,
            f'{who} sent the same image for {seconds:.1f} s, as no real camera does; still_after is {still_after:g} s '
            '(never, for a simulator whose scene may rest).',
        )


class RegistrationCheck:
    """Judges how far each anchor sees the robot from where joint states and calibration put it, over the last few sets.

    One set alone proves little: the arm is hidden, or moves while clocks differ. A camera that was bumped stays wrong. What is
    accepted at all is a setting, for calibrations are more or less true; what is usual for an anchor it learns by itself, so that
    a bump is noticed that leaves it within the setting.
    """

    SETS = 10

    def __init__(self):
        self.reset()

    def reset(self) -> None:
        """Start a new stream."""
        self._recent: deque[np.ndarray] = deque(maxlen=self.SETS)
        self._usual: dict[str, _UsualResidual] = {}

    def judge(self, stamp_ns: int, names: tuple[str, ...], residuals: np.ndarray, most: float | None) -> Verdict:
        """Whether an anchor has moved.

        Args:
            stamp_ns: Of the set.
            names: Of V anchors.
            residuals: [V], metres, NaN where unknown, or empty; see `WristFrame`.
            most: The most that is accepted, metres; None for anything.
        """
        if most is None or not len(residuals):
            return Verdict()
        self._recent.append(residuals)
        verdict = Verdict()
        for view, name in enumerate(names):
            known = np.array([sets[view] for sets in self._recent if np.isfinite(sets[view])])
            found = float(np.median(known)) if len(known) >= self.SETS // 2 else 0.0
            usual = self._usual.setdefault(name, _UsualResidual())
            risen = usual.has_risen(stamp_ns, float(residuals[view]))
            if verdict.status is not FrameStatus.VALID or not (risen or found > most):
                continue
            limit = f'and max_residual is {most * 1e3:.0f} mm' if found > most else f'{usual.value * 1e3:.0f} mm before'
            verdict = Verdict(
                FrameStatus.ANCHOR_MOVED,
                f'Anchor {name} sees the robot {found * 1e3:.0f} mm from where joint states and TF put it, {limit}: '
                'the camera was moved, or its calibration or the robot description is wrong; calibrate it again '
                '(wristworld calibrate robot).',
            )
        return verdict


class _UsualResidual:
    """The residuals of one anchor that are usual, and whether they have risen for good.

    A residual counts as risen above half as much again as nine tenths of the usual ones, and 4 mm. Where it falls back within
    `LASTING_S`, as it does when a fast motion ends, the risen ones were usual too.
    """

    LEAST, MOST = 20, 300  # residuals, for a judgement, and kept
    MARGIN_M = 0.004
    LASTING_S = 2.5

    def __init__(self):
        self._usual: deque[float] = deque(maxlen=self.MOST)
        self._above: deque[float] = deque(maxlen=self.MOST)
        self._since: int | None = None

    @property
    def value(self) -> float:
        """What is usual, metres: nine tenths of the residuals are at most that."""
        return float(np.quantile(self._usual, 0.9)) if self._usual else 0.0

    def has_risen(self, stamp_ns: int, residual: float) -> bool:
        """Take in the next one, NaN where it is not known; whether all have been above what is usual for long."""
        if np.isfinite(residual):
            if len(self._usual) < self.LEAST or residual <= 1.5 * self.value + self.MARGIN_M:
                self._usual.extend([*self._above, residual])
                self._above.clear()
                self._since = None
            else:
                self._above.append(residual)
                self._since = stamp_ns if self._since is None else self._since
        return self._since is not None and (stamp_ns - self._since) * 1e-9 >= self.LASTING_S


def judge_confidence(found: float, least: float) -> Verdict:
    """Whether a reconstruction is confident enough; both 0 to 1."""
    if found >= least:
        return Verdict()
    reason = f'The confidence of the reconstruction is {found:.2f}; min_confidence is {least:.2f}.'
    return Verdict(FrameStatus.LOW_CONFIDENCE, reason)


def judge_agreement(names: tuple[str, ...], agreements: np.ndarray, least: float | None) -> Verdict:
    """Whether the anchors' clouds agree.

    Args:
        names: Of V anchors.
        agreements: [V], 0 to 1, NaN where there is nothing to compare; see `geometry.agreement`.
        least: The threshold; None accepts everything.
    """
    known = np.isfinite(agreements)
    if least is None or not known.any() or agreements[known].min() >= least:
        return Verdict()
    worst = int(np.nanargmin(agreements))
    who = 'The anchors agree' if len(names) == 2 else f'Anchor {names[worst]} agrees with the others'
    return Verdict(
        FrameStatus.ANCHORS_DISAGREE,
        f'{who} only to {agreements[worst]:.2f} in the colours of the wrist view; min_agreement is {least:.2f}.',
    )


def _uniform(anchors: AnchorSet) -> Verdict | None:
    for name, image in zip(anchors.names, anchors.images, strict=True):
        pixels = image.reshape(-1, 3)
        pixels = pixels[:: max(1, len(pixels) // _SAMPLES)].astype(np.int16)
        median = np.median(pixels, axis=0)
        share = float((np.abs(pixels - median).max(1) <= UNIFORM_LEVELS).mean())
        if share >= UNIFORM_SHARE:
            what = 'black' if median.max() <= 2 * UNIFORM_LEVELS else 'of one colour'
            return Verdict(
                FrameStatus.UNIFORM_ANCHOR,
                f'Anchor {name} is {what}: {share:.1%} of its pixels differ from RGB '
                f'{", ".join(str(round(float(c))) for c in median)} by at most {UNIFORM_LEVELS} levels.',
            )
    return None


def _identical(anchors: AnchorSet) -> Verdict | None:
    for one, two in combinations(range(len(anchors.images)), 2):
        if _same(anchors.images[one], anchors.images[two]):
            return Verdict(
                FrameStatus.IDENTICAL_ANCHORS,
                f'Anchors {anchors.names[one]} and {anchors.names[two]} show the same image, equal in 100% of its '
                'pixels: one camera under two names.',
            )
    return None


def _same(one: np.ndarray, two: np.ndarray) -> bool:
    """Whether two images are equal to the bit; a few rows settle most that are not."""
    rows = slice(None, None, max(1, len(one) // 8))
    return np.array_equal(one[rows], two[rows]) and np.array_equal(one, two)
