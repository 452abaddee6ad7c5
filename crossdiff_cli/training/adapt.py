"""Stage 2: freeze both encoders and fit the fusion head."""

import math
from collections.abc import Mapping
from dataclasses import astuple

import torch
from torch import Generator, Tensor

from crossdiff_cli.errors import TrainingError
from crossdiff_cli.imaging.back_projection import ITERATIONS
from crossdiff_cli.imaging.injection import prepare
from crossdiff_cli.imaging.sensor_model import to_ms
from crossdiff_cli.model.crossdiff import CrossDiff
from crossdiff_cli.options import LossWeights
from crossdiff_cli.training.loop import OnCheckpoint, Plan, fit
from crossdiff_cli.training.losses import qnr_loss, spectral_loss, structural_loss
from crossdiff_cli.training.patches import Example, PatchSampler

_INNER = (slice(None), slice(None), slice(8, -8), slice(8, -8))
"""Pixels that count: at the very border of a window the network sees its padding, which no tile's core does."""


def adapt(
    model: CrossDiff,
    sampler: PatchSampler,
    plan: Plan,
    groups: int,
    weights: LossWeights,
    iterations: int = ITERATIONS,
    *,
    dtype: torch.dtype = torch.float32,
    on_checkpoint: OnCheckpoint | None = None,
    selector_state: Mapping[str, Tensor] | None = None,
) -> None:
    """Fit the head at full resolution without a reference, and where there is one with `weights.supervised`.

    Args:
        model: its head is trained in place, its encoders are frozen.
        sampler: source of batches.
        plan: steps and rates.
        groups: scenes per step.
        weights: of the loss terms.
        iterations: back-projections after the head, as in sharpening.
        dtype: precision of the convolutions.
        on_checkpoint: called at every checkpoint.
        selector_state: what it remembers, in the checkpoints too.

    Raises:
        TrainingError: as `loop.fit`, or no loss term has a weight.
    """
    if not any(astuple(weights)):
        raise TrainingError("every loss term has weight 0")
    model.requires_grad_(False)
    model.head.requires_grad_(True)
    if model.p2m is not None and model.m2p is not None:
        model.p2m.eval()
        model.m2p.eval()

    device = next(model.head.parameters()).device

    supervised = _supervised(weights, groups)

    def draw(generator: Generator) -> list[Example]:
        return [sampler.draw(generator, reduced=g in supervised) for g in range(groups)]

    def step(examples: list[Example], _generator: Generator) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = {}

        def add(name: str, weight: float, value: Tensor) -> None:
            losses[name] = losses.get(name, value.new_zeros(())) + value * (weight / groups)

        for group, drawn in enumerate(examples):
            example = drawn.to(device)
            hrms = model.fuse(example.pan, example.ms, example.sensor_model, example.spectrum, iterations, dtype)
            if example.reference is not None and weights.supervised:
                add("supervised", weights.supervised, (hrms - example.reference)[_INNER].abs().mean())
            if group not in supervised:
                for name, term in _without_reference(hrms, example, weights).items():
                    add(name, getattr(weights, name), term)
        return losses

    fit(model.head, draw, step, plan, on_checkpoint=on_checkpoint, selector_state=selector_state)


def _supervised(weights: LossWeights, groups: int) -> range:
    """Which groups of a step are Wald pairs: three quarters, or all where no term is for full resolution."""
    if not weights.supervised:
        return range(0)
    unsupervised = bool(weights.spectral or weights.structural or weights.qnr)
    return range(max(1, groups - unsupervised * math.ceil(groups / 4)))


def _without_reference(hrms: Tensor, example: Example, weights: LossWeights) -> dict[str, Tensor]:
    """The terms, not weighted, that need no reference; those of weight 0 are left out."""
    terms, pan, ms, sensor_model = {}, example.pan, example.ms, example.sensor_model
    if weights.spectral:
        terms["spectral"] = spectral_loss(hrms, ms, sensor_model)
    if weights.structural:
        pan_low, ms_up, _ = prepare(pan, ms, sensor_model)
        terms["structural"] = structural_loss(
            hrms[_INNER], pan[_INNER], pan_low[_INNER], ms_up[_INNER], example.spectrum.ratio
        )
    if weights.qnr:
        pan_ms = to_ms(pan.expand_as(hrms), (ms.shape[2], ms.shape[3]), sensor_model)
        terms["qnr"] = qnr_loss(hrms, pan, ms, pan_ms)
    return terms
