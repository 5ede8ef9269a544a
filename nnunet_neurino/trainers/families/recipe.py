"""What trainers of all networks can be told, the words of their names that mean the same for all, shared presets."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

from nnunet_neurino.errors import NeurinoError

PLANS_KEY = "neurino_settings"
"""Key of a plans file under which settings given on the command line are kept (the changed ones only)."""

R = TypeVar("R", bound="Recipe")


@dataclass(frozen=True)
class Recipe:
    """What every trainer can be told: of the data, of the optimisation (AdamW), of the loss."""

    # voxels (z, y, x), or None: nnU-Net's patch, made smaller until ``memory`` suffices
    patch_size: tuple[int, int, int] | None = None
    # patches a step over all GPUs, or None: nnU-Net's, made smaller until ``memory`` suffices
    batch_size: int | None = None
    memory: float = 12.0  # GPU memory to plan for, GiB (with mixed precision)
    oversample_foreground: float = 0.33  # share of the patches that must contain foreground
    mirroring: bool = True  # mirror patches in training and, with ``tta``, average over mirrored images in prediction
    tta: bool = True  # do that averaging (eight times the time of prediction and validation)

    epochs: int = 250  # number of epochs
    iterations: int = 250  # training steps in an epoch
    val_iterations: int = 50  # validation batches in an epoch (for the curve only)
    lr: float = 1e-3  # peak learning rate
    weight_decay: float = 1e-2  # AdamW's decoupled weight decay; norms and biases are exempt unless ``decay_all``
    decay_all: bool = False  # decay norms and biases, too (published)
    eps: float = 1e-8  # AdamW's epsilon
    warmup_epochs: float = 5.0  # linear rise of the learning rate, at most a tenth of the epochs
    poly_power: float = 0.9  # exponent of the polynomial decay that follows
    stepwise: bool = True  # change the rate at every step; False: at every epoch (published)
    clip: float = 12.0  # largest norm of the gradient
    # decay of the moving average of the weights that is validated, saved and used for prediction; 0 for none. The
    # average starts quickly: step n uses ``min(ema, (1 + n) / (10 + n))``
    ema: float = 0.0
    full_precision: bool = False  # train without mixed precision on CUDA (the released code does)

    # topology-aware skeleton loss: ``"localised"``, ``"published"`` or None
    tasl: Literal["localised", "published"] | None = "localised"
    tasl_weight: float = 1.0  # weight of the localised form, beta of the published
    tasl_lambdas: tuple[float, float, float] = (1.0, 0.5, 0.5)  # weights of its node, edge and path terms
    tasl_warmup_epochs: float = 10.0  # epochs over which the localised form comes in, at most a tenth of the epochs

    fixed: ClassVar[tuple[str, ...]] = ("patch_size",)
    """Settings that a trained network depends on: they cannot be changed when a training is resumed."""

    of_the_optimiser: ClassVar[tuple[str, ...]] = ("frozen_epochs", "decay_all", "layer_decay")
    """Settings by which parameters are grouped: what an optimiser has saved fits no other groups."""

    choices: ClassVar[dict[str, tuple[Any, ...]]] = {"tasl": ("localised", "published", None)}
    """Values of the settings that take no others."""

    # What the trainer asks of every recipe, for recipes that have no such setting: no annotation, so no field.
    pretrained = False
    frozen_epochs = 0
    layer_decay = 1.0
    bottleneck_loss = False

    def __post_init__(self) -> None:
        for name, known in self.choices.items():
            if getattr(self, name) not in known:
                listing = ", ".join(map(str, known))
                raise NeurinoError(f"setting {name} is {getattr(self, name)!r}; choose one of {listing}")
        for name in ("epochs", "iterations", "val_iterations", "batch_size", "lr", "memory", "clip", "eps"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise NeurinoError(f"setting {name} is {value}; it must be greater than 0, and finite")
        for name in ("weight_decay", "warmup_epochs", "poly_power", "tasl_weight", "tasl_warmup_epochs"):
            if not 0 <= getattr(self, name) < math.inf:
                raise NeurinoError(f"setting {name} is {getattr(self, name)}; it must be 0 or greater, and finite")
        for name, least in (("patch_size", 1), ("tasl_lambdas", 0)):
            value = getattr(self, name)
            if value is not None and (len(value) != 3 or not all(least <= number < math.inf for number in value)):
                raise NeurinoError(f"setting {name} is {value}; 3 numbers of at least {least} are needed")
        for name in ("layer_decay", "ema", "oversample_foreground"):
            if not 0 <= getattr(self, name) <= 1:
                raise NeurinoError(f"setting {name} is {getattr(self, name)}; it must lie in 0 to 1")

    def replaced(self: R, changes: dict[str, Any]) -> R:
        """These settings with ``changes``, which may come from a JSON file (lists for tuples, 1 for 1.0)."""
        found = typing.get_type_hints(type(self))
        hints = {field.name: found[field.name] for field in dataclasses.fields(self)}
        unknown = sorted(set(changes) - set(hints))
        if unknown:
            raise NeurinoError(f"unknown setting {unknown[0]!r}; known are {', '.join(sorted(hints))}")
        typed = {name: _converted(name, value, hints[name]) for name, value in changes.items()}
        return dataclasses.replace(self, **typed)

    def restored(self: R, record: dict[str, Any]) -> R:
        """As ``replaced``, from a checkpoint: names of an earlier version that are no settings now are passed over."""
        return self.replaced({name: value for name, value in record.items() if name in self.as_json()})

    def as_json(self) -> dict[str, Any]:
        """All settings as JSON-able values."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(self).items()}

    def named(self, *names: str) -> dict[str, Any]:
        """Some settings as JSON-able values: arguments that a network calls as its recipe does."""
        values = self.as_json()
        return {name: values[name] for name in names}


@dataclass(frozen=True)
class TransferRecipe(Recipe):
    """What a trainer can be told whose encoder starts from 2D weights and is trained on; they are read once."""

    pretrained: bool = True  # start from 2D weights when there are any; False never looks
    inflation: str = "center"  # how 3D kernels are made of 2D ones
    rgb: str = "sum"  # from three input channels to the data's: ``"sum"``, ``"mean"`` or ``"repeat"``
    frozen_epochs: int = 0  # epochs during which the pretrained encoder is not trained; -1 for good
    # factor on the learning rate for each block of the pretrained encoder away from the decoder; 1 for one rate
    # everywhere. It is not applied to an encoder that starts from nothing
    layer_decay: float = 1.0

    choices: ClassVar[dict[str, tuple[Any, ...]]] = {**Recipe.choices, "rgb": ("sum", "mean", "repeat")}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frozen_epochs < -1:
            raise NeurinoError(f"setting frozen_epochs is {self.frozen_epochs}; give epochs, or -1 for good")


Words = dict[str, tuple[str, dict[str, Any]]]
"""Words of a trainer's name of which it may have one: what they mean, and the settings they change."""

START: Words = {
    "scratch": ("no 2D weights, none looked for", {"pretrained": False}),
    "frozen": ("the pretrained encoder is never trained", {"frozen_epochs": -1}),
    "frozen10": ("the pretrained encoder is not trained for the first 10 epochs", {"frozen_epochs": 10}),
}
WITH_TASL: Words = {"TASL": ("with the topology-aware loss", {"tasl": "localised"})}
WITHOUT_TASL: Words = {"noTASL": ("without the topology-aware loss", {"tasl": None})}
EMA: Words = {"EMA": ("a moving average of the weights is validated and saved", {"ema": 0.999})}
NO_MIRRORING: Words = {"NoMirroring": ("no mirroring in training and prediction", {"mirroring": False})}

RELEASED_OPTIMISER: dict[str, Any] = {
    "weight_decay": 3e-5,
    "decay_all": True,
    "eps": 1e-4,
    "warmup_epochs": 0.0,
    "stepwise": False,
}
"""Of the released code of both NeurINO and MedNeXt."""

BRIEF: dict[str, Any] = {
    "batch_size": 2,
    "epochs": 8,
    "iterations": 25,
    "val_iterations": 2,
    "lr": 2e-3,
    "warmup_epochs": 1.0,
    "ema": 0.98,
    "tta": False,
}
"""What the demo trainers of all networks have in common: minutes on a CPU."""


def _converted(name: str, value: Any, hint: Any) -> Any:
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if value is None and type(None) in options:
        return None
    option = options[0]
    if typing.get_origin(option) is tuple and isinstance(value, (list, tuple)):
        inner = typing.get_args(option)[0]
        return tuple(_converted(name, item, inner) for item in value)
    if option is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if typing.get_origin(option) is Literal or (isinstance(option, type) and type(value) is option):
        return value
    wanted = getattr(option, "__name__", str(option))
    raise NeurinoError(f"setting {name} is {value!r}; {wanted} is needed")
