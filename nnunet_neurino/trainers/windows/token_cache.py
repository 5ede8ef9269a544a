"""Tokens of a frozen encoder, computed once and kept on disk.

Every copy of every case has a file, with a key: a hash of everything that its tokens depend on. A file whose key is
another one is not used but made anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn
from tqdm import tqdm

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.networks import DINOWindow
from nnunet_neurino.networks.geometry import Triple
from nnunet_neurino.networks.vit import PATCH
from nnunet_neurino.trainers.windows.copies import CopyRecipe, VolumeCopy
from nnunet_neurino.trainers.windows.token_file import TokenFile, what_is_noted

TOKENS_VERSION = 2
"""To be raised when the same network and data give other tokens than before."""

_SPARE = 256 * 2**20, 0.05
"""Bytes that are left free on the disk; and as a share of what is written."""
_NAME = re.compile(r"(?P<case>.+)__copy(?P<number>\d+)\.(npy|json)")
_IMAGES = (".b2nd", ".npz", ".npy")
"""Endings of nnU-Net's preprocessed images."""
_REMEDIES = (
    "make fewer copies (--set copies=1), keep the ViT's last layer only (--set layers=last), compute tokens while "
    "training (--set tokens=computed), or move nnUNet_preprocessed to a larger disk"
)


class TokenCache:
    """The tokens of the copies of a data set's cases, for one network.

    Args:
        folder: under which the cache has a folder of its own.
        network: whose encoder is used, on the device it is on.
        copies: of each case.
        patch: voxels (z, y, x) that a volume has at the least.
        source: nnU-Net's data set of preprocessed cases.
        identity: JSON-able, what else decides about the data: the plans' identifier, ``configuration``, normalisation.
    """

    def __init__(
        self,
        folder: Path,
        network: DINOWindow,
        copies: CopyRecipe,
        patch: Triple,
        source: Any,
        identity: dict[str, Any],
    ) -> None:
        self.recipe = copies
        self._network = network
        self._patch = patch
        self._source = source
        kinds = asdict(copies)
        del kinds["copies"]  # more of them leave those there are as they are
        self._settings = {
            "version": TOKENS_VERSION,
            "vit": network.vit,
            "layers": list(network.encoder.layers),
            "magnify": network.encoder.magnify,
            "channels": network.in_channels,
            "window": list(network.window),
            "patch": list(patch),
            "copies": kinds,
            "identity": identity,
        }
        configuration = re.sub(r"\W+", "_", str(identity.get("configuration", "tokens")))
        self.folder = Path(folder) / f"{configuration}_{network.vit}_{_hash(self._settings)[:12]}"
        self._weights: str | None = None
        self._sources: dict[str, Triple] = {}
        self._arrays: dict[tuple[str, int], np.memmap] = {}

    def prepare(self, case_names: Iterable[str], say: Callable[[str], object], plain: Iterable[str] = ()) -> None:
        """Compute what is missing, damaged, or of other data or weights; remove what is of no use any more.

        Any number of processes may call this at the same time, for the same cases or others: one works, the others wait
        for it. What is found finished after an interruption is kept.

        Args:
            case_names: cases of which all copies are wanted.
            say: is given a line with the size before anything is written.
            plain: cases of which only copy 0 is wanted, for validation.
        """
        self._arrays.clear()
        self._sources.clear()
        self._weights = None
        cases = list(dict.fromkeys(case_names))
        single = [case for case in dict.fromkeys(plain) if case not in set(cases)]
        wanted = [self._volume(case, number) for case in cases for number in range(self.recipe.distinct)]
        wanted += [self._volume(case, 0) for case in single]
        plan = self._plan(wanted)
        if not plan.missing and not plan.obsolete:
            return
        self._check_disk(plan)
        with self._alone(say):
            plan = self._plan(wanted)
            free = self._check_disk(plan)
            for path in plan.obsolete:
                path.unlink(missing_ok=True)
            if not plan.missing:
                return
            there = len(wanted) - len(plan.missing)
            say(
                f"Tokens of {len(cases)} volumes x {self.recipe.distinct} copies"
                + (f" and of {len(single)} volumes as they are" if single else "")
                + (f", of which {there} of {len(wanted)} files are there already" if there else "")
                + f": {_size(plan.size)} ({plan.size} bytes) will be written to {self.folder}, where "
                f"{_size(free)} are free{self._others()}"
            )
            self._fill(plan.missing)

    def open(self, case: str, copy: int) -> np.memmap:
        """Tokens (windows, channels of a token, d, y', x') float16 of a copy, mapped from the disk; read-only."""
        if (case, copy) not in self._arrays:
            file = self._file(self._volume(case, copy))
            if not file.is_whole():
                raise NeurinoError(
                    f"{file.path}: not there, damaged, or of other data, weights or settings than this training's; "
                    "start the training again, and it is made anew"
                )
            # It stays open: were it replaced by another training's, this training would keep its own.
            self._arrays[case, copy] = file.open()
        return self._arrays[case, copy]

    # ---- what is there and what is not ------------------------------------------------------------------------------

    def _volume(self, case: str, number: int) -> VolumeCopy:
        if case not in self._sources:
            self._image_file(case)
            z, y, x = self._source.load_case(case)[0].shape[1:]
            self._sources[case] = (int(z), int(y), int(x))
        return VolumeCopy.of(case, number, self.recipe, self._sources[case], self._patch, self._network.window)

    def _file(self, volume: VolumeCopy) -> TokenFile:
        depth, height, width = self._network.window
        cell = PATCH // self._network.encoder.magnify
        numbers = self._network.in_channels * self._network.encoder.width
        shape = len(self._network.grid(volume.shape)), numbers, depth, height // cell, width // cell
        path = self.folder / f"{volume.case}__copy{volume.number:02d}.npy"
        return TokenFile(path, self._key(volume.case, volume.number), shape)

    def _key(self, case: str, number: int) -> str:
        if self._weights is None:
            self._weights = weights_hash(self._network.encoder)
        image = self._image_file(case)
        state = image.stat()
        return _hash(
            self._settings
            | {"weights": self._weights, "case": case, "copy": number}
            | {"file": [image.name, state.st_size, state.st_mtime_ns]}
        )

    def _image_file(self, case: str) -> Path:
        for ending in _IMAGES:
            path = Path(self._source.source_folder, case + ending)
            if path.is_file():
                return path
        raise NeurinoError(
            f"{self._source.source_folder}: no preprocessed image of case {case}; preprocess the data set again"
        )

    def _plan(self, wanted: list[VolumeCopy]) -> _Plan:
        files = {volume: self._file(volume) for volume in wanted}
        missing = [volume for volume, file in files.items() if not file.is_whole()]
        replaced = {(volume.case, volume.number) for volume in missing}
        obsolete = []
        for path in sorted(self.folder.glob("*")):
            name = _NAME.fullmatch(path.name)
            if path.name.startswith(".unfinished-"):
                obsolete.append(path)
            elif name is not None:
                case, number = name["case"], int(name["number"])
                if (case, number) in replaced or not self._is_of_use(path, case, number):
                    obsolete.append(path)
        return _Plan(missing, obsolete, sum(files[volume].size for volume in missing))

    def _is_of_use(self, path: Path, case: str, number: int) -> bool:
        """Whether a file is, to this training or to one of another fold of the same data and network."""
        if number >= self.recipe.distinct:
            return False
        try:
            return bool(what_is_noted(path).get("key") == self._key(case, number))
        except NeurinoError:
            return False

    def _check_disk(self, plan: _Plan) -> int:
        """Bytes that are free once what is obsolete is removed; an error if they do not suffice."""
        place = self.folder
        while not place.exists():
            place = place.parent
        free = shutil.disk_usage(place).free + sum(path.stat().st_size for path in plan.obsolete if path.exists())
        if plan.missing and plan.size + max(_SPARE[0], _SPARE[1] * plan.size) > free:
            raise NeurinoError(
                f"{self.folder}: {_size(plan.size)} of tokens are to be written, but only "
                f"{_size(free)} are free there; {_REMEDIES}{self._others()}"
            )
        return free

    def _others(self) -> str:
        """What can be said of tokens of other settings: nobody else removes them."""
        size = sum(path.stat().st_size for path in self.folder.parent.glob("*/*.npy") if path.parent != self.folder)
        where = f"other folders in {self.folder.parent} hold {_size(size)} of tokens for other settings"
        return f"; {where}: remove those that you no longer need" if size else ""

    # ---- filling it -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _alone(self, say: Callable[[str], object]) -> Iterator[None]:
        """While no other process writes to the folder."""
        lock = FileLock(self.folder / ".lock")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            say(f"Another process is writing tokens to {self.folder}; waiting for it")
            lock.acquire()
        except OSError as error:
            raise NeurinoError(
                f"{self.folder}: tokens cannot be kept there ({error.strerror}); make nnUNet_preprocessed a folder "
                "that you may write to, or compute tokens while training (--set tokens=computed)"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def _fill(self, volumes: list[VolumeCopy]) -> None:
        files = [self._file(volume) for volume in volumes]
        with tqdm(total=sum(file.shape[0] for file in files), desc="tokens", unit="window", disable=None) as progress:
            for volume, file in zip(volumes, files, strict=True):
                image = volume.image(self._source.load_case(volume.case)[0])
                try:
                    file.write(self._tokens(volume, torch.from_numpy(image)[None], progress))
                except OSError as error:
                    raise NeurinoError(
                        f"{file.path} could not be written ({error.strerror}); what is finished is kept; {_REMEDIES}"
                    ) from error

    def _tokens(self, volume: VolumeCopy, image: Tensor, progress: Any) -> Iterator[Tensor]:
        """Of one window after the other; in memory are the volume and the tokens of one window."""
        channels = self._network.in_channels
        if image.shape[1] != channels:
            raise NeurinoError(f"case {volume.case} has {image.shape[1]} channels: the network was made for {channels}")
        device = next(self._network.encoder.parameters()).device
        grid = self._network.grid(volume.shape)
        for number, corner in enumerate(grid.corners):
            tokens = self._network.tokens(grid.cut(image, number).to(device))[0]
            if not bool(tokens.isfinite().all()):
                raise NeurinoError(
                    f"case {volume.case}: tokens of the window at {corner} (z, y, x) are not finite numbers; look for "
                    "NaN or infinity in the preprocessed image and in the encoder's weights"
                )
            yield tokens
            progress.update()


@dataclass(frozen=True)
class _Plan:
    """What is to be computed, what is to be removed, and the bytes of the former."""

    missing: list[VolumeCopy]
    obsolete: list[Path]
    size: int


def _size(size: int) -> str:
    return f"{size / 2**30:.3g} GiB" if size > 0.1 * 2**30 else f"{size / 2**20:.3g} MiB"


def weights_hash(module: nn.Module) -> str:
    """Of all parameters and buffers of a module, whatever device they are on."""
    found = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
