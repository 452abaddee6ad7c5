"""What the encoders are worth: one fusion head, trained alike on different frozen features and judged on windows.

    python benchmarks/encoders.py index.json -o out -a none -a random -a both=pretrain/encoders.safetensors

An arm is `none` (no encoders), `random` (untrained ones), or NAME=FILE with changes after commas: `only=p2m` or
`only=m2p`, `p2m=T` or `m2p=T` (another feature timestep), `noisy` (noise added as at that timestep), `pyramids`
(without the light decoders), `without=SENSOR`
(its scenes are kept from the head; FILE should not have seen them either), `scene=NAME` (the head sees no other),
`ungated` (no sigmoid on the features), `residual` (MS_up plus a residual, without the PAN detail), `iterations=N`
(back-projections), and `spectral=W`, `structural=W`, `supervised=W` (weights of the loss terms). All arms of a run see
the same batches.
Figures are of one window per validation scene and scale, on the registered grid: compare them within a table only.
"""

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from encoders_table import markdown
from torch import Generator, Tensor, nn

from crossdiff_cli.imaging.back_projection import ITERATIONS
from crossdiff_cli.model.crossdiff import Architecture, CrossDiff
from crossdiff_cli.model.device import tune_allocator
from crossdiff_cli.model.fusion import EncoderOutputs, Gate
from crossdiff_cli.model.spectral import Spectrum
from crossdiff_cli.model.weights import load
from crossdiff_cli.options import LossWeights
from crossdiff_cli.system.weight_files import bundled_weights
from crossdiff_cli.training.adapt import adapt
from crossdiff_cli.training.loop import Plan
from crossdiff_cli.training.manifest import read_manifest
from crossdiff_cli.training.patches import PatchSampler, windows_of
from crossdiff_cli.training.resimulate import resimulate, sharpen_scene
from crossdiff_cli.training.selection import JudgedWindow
from crossdiff_cli.training.training_scene import TrainingScene, load_scene
from crossdiff_cli.training.wald import wald_pair

SIZES = range(480, 63, -32)
"""Sides of the windows that are tried, in PAN pixels, multiples of the network's stride."""
TRAINED = 0.75
"""Share of the trained head in the one that is judged, as in the shipped one; the rest is the one it began as."""
STRUCTURAL = 0.3
"""Weight of the structural term where an arm says none."""
FIGURES = ("q2n", "ergas", "sam", "scc", "hqnr", "d_rho", "r_ergas")


@dataclass(frozen=True, slots=True)
class Arm:
    """One kind of features."""

    name: str
    file: Path | None = None
    random: bool = False
    only: str | None = None
    p2m: int | None = None
    m2p: int | None = None
    noisy: bool = False
    pyramids: bool = False
    without: str | None = None
    scene: str | None = None
    ungated: bool = False
    residual: bool = False
    iterations: int = ITERATIONS
    losses: LossWeights = field(default_factory=partial(LossWeights, structural=STRUCTURAL))

    @classmethod
    def parse(cls, text: str) -> "Arm":
        """From the command line."""
        head, *rest = text.split(",")
        name, _, file = head.partition("=")
        changes = {key: value for key, _, value in (change.partition("=") for change in rest)}
        weights = {key: float(changes.pop(key)) for key in list(changes) if key in LossWeights.__slots__}
        known = {"only", "p2m", "m2p", "noisy", "pyramids", "without", "scene", "ungated", "residual", "iterations"}
        unknown = set(changes) - known
        if unknown or not (file or name in {"none", "random"}):
            raise SystemExit(f"arm {text!r}: write none, random or NAME=FILE[,change...]; see --help")
        return cls(
            name,
            Path(file) if file else None,
            random=name == "random",
            only=changes.get("only"),
            p2m=int(changes["p2m"]) if "p2m" in changes else None,
            m2p=int(changes["m2p"]) if "m2p" in changes else None,
            noisy="noisy" in changes,
            pyramids="pyramids" in changes,
            without=changes.get("without"),
            scene=changes.get("scene"),
            ungated="ungated" in changes,
            residual="residual" in changes,
            iterations=int(changes.get("iterations", ITERATIONS)),
            losses=LossWeights(**{"structural": STRUCTURAL, **weights}),
        )


class Controlled(CrossDiff):
    """CrossDiff whose features can be noisy, or of one encoder alone."""

    arm = Arm("none")

    def features(
        self, pan: Tensor, ms_up: Tensor, spectrum: Spectrum, dtype: torch.dtype = torch.float32
    ) -> EncoderOutputs | None:
        """As in CrossDiff, changed as the arm says."""
        if self.p2m is None or self.m2p is None:
            return None
        if self.arm.noisy:
            a, schedule, generator = self.architecture, self.architecture.schedule(), Generator().manual_seed(0)
            noise = [torch.randn(x.shape, generator=generator) for x in (ms_up, pan)]
            noisy_ms = ms_up + schedule.sigma[a.p2m_timestep] * noise[0]
            noisy_pan = pan + schedule.sigma[a.m2p_timestep] * noise[1]
            t = torch.ones(pan.shape[0])
            p2m = self.p2m.encode(noisy_ms, t * (a.p2m_timestep / a.timesteps), pan, spectrum)
            m2p = self.m2p.encode(noisy_pan, t * (a.m2p_timestep / a.timesteps), ms_up, spectrum)
        else:
            found = super().features(pan, ms_up, spectrum, dtype)
            assert found is not None
            p2m, m2p = found.p2m, found.m2p
        if self.arm.only == "p2m":
            m2p = [torch.zeros_like(x) for x in m2p]
        if self.arm.only == "m2p":
            p2m = [torch.zeros_like(x) for x in p2m]
        features = self.decoded(p2m, m2p, spectrum)
        if self.arm.only == "m2p" or self.arm.pyramids:
            features = replace(features, prediction=torch.zeros_like(features.prediction))
        return replace(features, decoded=torch.zeros_like(features.decoded)) if self.arm.pyramids else features


def build(arm: Arm, seed: int) -> Controlled:
    """The arm's encoders with an untrained head; `seed` sets the head and the random encoders."""
    source = load(arm.file)[0] if arm.file else None
    architecture = source.architecture if source else Architecture()
    architecture = replace(
        architecture,
        m2p_features=True,  # zeros where an arm has none, so that all heads of a seed begin alike
        p2m_timestep=architecture.p2m_timestep if arm.p2m is None else arm.p2m,
        m2p_timestep=architecture.m2p_timestep if arm.m2p is None else arm.m2p,
    )
    torch.manual_seed(seed)
    model = Controlled(architecture, encoders=source is not None or arm.random)
    model.arm = arm
    if source is not None:
        for mine, theirs in ((model.p2m, source.p2m), (model.m2p, source.m2p)):
            assert isinstance(mine, nn.Module) and isinstance(theirs, nn.Module)
            mine.load_state_dict(theirs.state_dict())
    torch.manual_seed(seed)
    model.head = model.untrained_head()
    if arm.ungated and model.head.gates is not None:
        for gate in model.head.gates:
            gate.forward = partial(_ungated, gate)  # type: ignore[method-assign]
    if arm.residual:
        model.head.out.forward = partial(_residual, model.head.out.forward)  # type: ignore[method-assign]
    model.channels_last()
    return model


def _ungated(gate: Gate, p2m: Tensor, m2p: Tensor, onto: Tensor | None = None) -> Tensor:
    value = (gate.p2m(p2m) + gate.m2p(m2p)).chunk(2, dim=1)[0]
    return value if onto is None else onto + value


def _residual(maps: Callable[[Tensor, Spectrum], Tensor], h: Tensor, spectrum: Spectrum) -> Tensor:
    """Gains that take the PAN detail and P2M's out of the sum, and the residual as found."""
    residual = maps(h, spectrum)[:, 3]
    return torch.stack(
        [-torch.ones_like(residual), torch.zeros_like(residual), -torch.ones_like(residual), residual], 1
    )


@dataclass(frozen=True, slots=True)
class Judge:
    """One window of a validation scene at one of two scales."""

    window: JudgedWindow
    scale: str

    def figures(self, model: CrossDiff, iterations: int = ITERATIONS) -> dict[str, float]:
        """What counts at this scale."""
        report = self.window.report(model, iterations)
        keys = ("q2n", "ergas", "sam", "scc") if self.scale == "reduced" else ("hqnr", "d_rho", "r_ergas")
        return {key: float(getattr(report, key)) for key in keys}


def judges(manifest: Path, aside: Sequence[str]) -> list[Judge]:
    """The central window of every validation scene not set aside, at both scales where it is large enough."""
    found = []
    for entry in read_manifest(manifest, "validation"):
        if entry.name in aside:
            continue
        scene = load_scene(entry)
        for scale, pair in (("full", replace(scene, reference=None)), ("reduced", _with_reference(scene))):
            examples = next(filter(None, (windows_of(pair, size, 1) for size in SIZES)), [])
            found += [Judge(JudgedWindow(scene.name, scene.sensor, e, scene.normalisation), scale) for e in examples]
    return found


def _with_reference(scene: TrainingScene) -> TrainingScene:
    if scene.reference is not None:
        return scene
    return wald_pair(scene, scene.spectrum.ratio, (-0.5, -0.5))


def scenes(manifest: Path, extra: Path | None) -> list[TrainingScene]:
    """Training scenes of two files, and real ones re-imaged: sharpened by `all`, as for every figure of encoders.md."""
    real = [load_scene(entry) for entry in read_manifest(manifest, "train")]
    simulated = [load_scene(entry) for entry in read_manifest(extra, "train")] if extra else []
    generator, shipped = Generator().manual_seed(7), load(bundled_weights("all"))[0].channels_last()
    return [*real, *simulated, *(resimulate(s, sharpen_scene(shipped, s), generator) for s in real)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for encoders.json and .md")
    parser.add_argument("-a", "--arm", action="append", default=[], help="what to compare, see above")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--steps", default="250", help="budgets of the head, each a training of its own")
    parser.add_argument("--simulated", type=Path, help="a manifest of simulated scenes, for training")
    parser.add_argument("--aside", default="", help="validation scenes to leave out, comma-separated")
    parser.add_argument("--cache", type=Path, help="file that keeps the prepared scenes")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    tune_allocator()
    options.output.mkdir(parents=True, exist_ok=True)
    record = options.output / "encoders.json"
    rows: list[dict[str, Any]] = json.loads(record.read_text())["rows"] if record.exists() else []
    if options.arm:
        training, windows = _prepared(options)
        for seed in (int(s) for s in options.seeds.split(",")):
            for steps in (int(s) for s in options.steps.split(",")):
                for arm in (Arm.parse(text) for text in options.arm):
                    if any((r["arm"], r["seed"], r["steps"]) == (arm.name, seed, steps) for r in rows):
                        continue
                    rows += trial(arm, seed, steps, training, windows)
                    record.write_text(json.dumps({"rows": rows}, indent=1), encoding="utf-8")
                    (options.output / "encoders.md").write_text(markdown(rows), encoding="utf-8")
    print(markdown(rows))


def _prepared(options: argparse.Namespace) -> tuple[list[TrainingScene], list[Judge]]:
    if options.cache and options.cache.exists():
        kept: tuple[list[TrainingScene], list[Judge]] = torch.load(options.cache, weights_only=False)
        return kept
    prepared = scenes(options.manifest, options.simulated), judges(options.manifest, options.aside.split(","))
    if options.cache:
        torch.save(prepared, options.cache)
    return prepared


def trial(
    arm: Arm, seed: int, steps: int, training: Sequence[TrainingScene], windows: Sequence[Judge]
) -> list[dict[str, Any]]:
    """Train the head of one arm and judge it: one row per window."""
    chosen = [s for s in training if s.sensor != arm.without and (arm.scene is None or s.name.startswith(arm.scene))]
    if not chosen:
        raise SystemExit(f"no training scene is left for arm {arm.name!r}")
    model, started = build(arm, seed), time.monotonic()
    if steps:
        plan = Plan(steps=steps, learning_rate=1e-3, seed=seed)
        first = {name: value.clone() for name, value in model.head.state_dict().items()}
        adapt(model, PatchSampler(chosen, 128, 2), plan, groups=2, weights=arm.losses, iterations=arm.iterations)
        last = model.head.state_dict()
        model.head.load_state_dict({name: TRAINED * last[name] + (1 - TRAINED) * first[name] for name in first})
    trained = time.monotonic() - started
    model.eval()
    head = {"arm": arm.name, "seed": seed, "steps": steps}
    rows = [
        {
            **head,
            "scene": w.window.scene,
            "sensor": w.window.sensor,
            "scale": w.scale,
            **w.figures(model, arm.iterations),
        }
        for w in windows
    ]
    print(f"{arm.name} seed {seed}: {steps} steps in {trained:.0f} s, judged in "
          f"{time.monotonic() - started - trained:.0f} s", file=sys.stderr, flush=True)  # fmt: skip
    return rows


if __name__ == "__main__":
    main()
