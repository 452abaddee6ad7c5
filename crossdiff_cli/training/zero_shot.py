"""Fine-tune the fusion head on the scene at hand before it is sharpened, on its most detailed windows."""

import copy
import logging

from crossdiff_cli.errors import TrainingError
from crossdiff_cli.estimate.survey import SceneEstimates
from crossdiff_cli.io.pair import ScenePair
from crossdiff_cli.model.crossdiff import CrossDiff
from crossdiff_cli.model.device import network_dtype
from crossdiff_cli.options import LossWeights
from crossdiff_cli.training.adapt import adapt
from crossdiff_cli.training.loop import Plan
from crossdiff_cli.training.patches import PatchSampler, fitting_pairs
from crossdiff_cli.training.selection import CheckpointSelector, gain, split
from crossdiff_cli.training.training_scene import most_detailed_windows

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


def fine_tune(
    pair: ScenePair,
    found: SceneEstimates,
    model: CrossDiff,
    steps: int,
    *,
    losses: LossWeights | None = None,
    rate: float = 3e-4,
    seed: int = 0,
) -> CrossDiff:
    """Fit the head of a copy of `model` to a scene; never worse on held-out windows than the head it began with.

    Args:
        pair: the scene.
        found: estimates on it.
        model: left as it is.
        steps: of the optimiser.
        losses: weights of the loss terms.
        rate: learning rate.
        seed: of the draws.

    Returns:
        The copy, or `model` itself where there is nothing to fit to.
    """
    parts = most_detailed_windows(pair, found, pair.pan.path, _WINDOW_MS_PX, _CANDIDATES, _CHOSEN)
    training, windows = split([part for _, part in parts], _HELD_OUT)
    patch, own_ratio = fitting_pairs(training, _PATCH, one_sensor=True)
    if not windows or not patch:
        _log.warning("%s is too small to fit the head to it: the head is unchanged", pair.pan.path)
        return model
    mine = copy.deepcopy(model)
    choice = CheckpointSelector(mine, windows)
    plan = Plan(steps, learning_rate=rate, ema_decay=0.95, seed=seed, checkpoint_every=max(1, steps // _CHECKS))
    try:
        sampler = PatchSampler(training, patch, 4, one_sensor=own_ratio)
        dtype = network_dtype(next(mine.head.parameters()).device, "auto")
        adapt(mine, sampler, plan, 2, losses or LossWeights(), dtype=dtype, on_checkpoint=choice.on_checkpoint)
    except TrainingError as error:
        _log.warning("the head is not fitted to %s: %s", pair.pan.path, error)
        return model
    choice.settle()
    mine.eval()
    _log.info("fine-tuned on the scene in %d steps: %s", steps, gain(choice.start, choice.best, len(windows)))
    return mine
