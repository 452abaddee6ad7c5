"""Fitting the head to the scene at hand before it is sharpened, on its most detailed windows."""

import copy
import logging
from dataclasses import dataclass, field

from crossdiff_cli.errors import TrainingError
from crossdiff_cli.estimate.survey import SceneEstimates
from crossdiff_cli.io.pair import ScenePair
from crossdiff_cli.model.crossdiff import CrossDiff
from crossdiff_cli.training.adapt import LossWeights, adapt
from crossdiff_cli.training.loop import Plan
from crossdiff_cli.training.patches import Sampler, fitting_patch
from crossdiff_cli.training.selection import BestHead, gain, split
from crossdiff_cli.training.training_scene import salient

_log = logging.getLogger(__name__)

_WINDOW_MS_PX = 160
"""Side of a window: so large that one ratio down a whole patch fits into it."""
_CANDIDATES = 36
_CHOSEN = 12
_HELD_OUT = 3
"""Of the chosen windows every third is judged, not trained on."""
_PATCH = 96
"""Side of the patches where they fit, in PAN pixels."""
_CHECKS = 5
"""How often on the way the held-out windows are judged."""


@dataclass(frozen=True, slots=True)
class ZeroShot:
    """`sharpen --adapt-steps`: a head for one scene, never worse on its held-out windows than the one it began with."""

    steps: int
    losses: LossWeights = field(default_factory=LossWeights)
    rate: float = 3e-4
    seed: int = 0

    def __call__(self, pair: ScenePair, found: SceneEstimates, model: CrossDiff) -> CrossDiff:
        """A copy of `model` whose head is fitted to the scene; `model` itself where there is nothing to fit to."""
        parts = salient(pair, found, pair.pan.path, _WINDOW_MS_PX, _CANDIDATES, _CHOSEN)
        training, windows = split([part for _, part in parts], _HELD_OUT)
        patch = fitting_patch(training, _PATCH, reduced=True)
        if not windows or not patch:
            _log.warning("%s is too small to fit the head to it: the head is as it was", pair.pan.path)
            return model
        mine = copy.deepcopy(model)
        choice = BestHead(mine, windows)
        every = max(1, self.steps // _CHECKS)
        plan = Plan(self.steps, learning_rate=self.rate, ema_decay=0.95, seed=self.seed, checkpoint_every=every)
        try:
            adapt(mine, Sampler(training, patch, 4), plan, 2, self.losses, watch=choice.watch)
        except TrainingError as error:
            _log.warning("the head is not fitted to %s: %s", pair.pan.path, error)
            return model
        choice.settle()
        mine.eval()
        _log.info("fitted to the scene in %d steps: %s", self.steps, gain(choice.start, choice.best, len(windows)))
        return mine

    def __str__(self) -> str:
        """What the tags of the result say."""
        return f"{self.steps} steps"
