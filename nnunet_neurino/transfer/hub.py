"""Weights on the Hugging Face hub: names, the local cache, and what to tell a user who has neither."""

from __future__ import annotations

import os
import re
from pathlib import Path

from nnunet_neurino.errors import NeurinoError

FILE_NAMES = ("model.safetensors", "pytorch_model.bin")
"""Weight files of a model page or folder, preferred one first."""

DINOV3 = {size: f"convnext_{size}.dinov3_lvd1689m" for size in ("tiny", "small", "base", "large")}
"""timm's names of DINOv3's ConvNeXts, by size."""

DINOV3_META = {size: f"facebook/dinov3-convnext-{size}-pretrain-lvd1689m" for size in DINOV3}
"""Meta's own pages of the same weights."""


def page_of(name: str) -> str:
    """The page (``owner/name``) of a timm model name or of a page's name."""
    name = re.sub(r"^hf[-_]hub:", "", name)
    return name if "/" in name else f"timm/{name}"


def cached(name: str) -> Path | None:
    """The weight file of a model in the local cache, if it is there; nothing is downloaded."""
    from huggingface_hub import try_to_load_from_cache

    for file_name in FILE_NAMES:
        found = try_to_load_from_cache(page_of(name), file_name)
        if isinstance(found, str):
            return Path(found)
    return None


def cached_size(size: str) -> Path | None:
    """DINOv3's ConvNeXt of a size in the local cache, from timm's page or from Meta's own, if it is there."""
    return cached(DINOV3[size]) or cached(DINOV3_META[size])


def fetch(name: str, source: str | None = None) -> Path:
    """The weight file of a timm model or page: from the cache, else downloaded into it.

    Raises:
        NeurinoError: neither is possible; says how to get the file.
    """
    page = page_of(name)
    if not _is_page(page):
        raise NeurinoError(
            f"'{source or name}' is neither a file, a folder, nor the name of a model; see neurino weights"
        )
    found = cached(page)
    if found is not None:
        return found
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    if constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise _missing(page, "HF_HUB_OFFLINE is set")
    reason = f"the page has none of {', '.join(FILE_NAMES)}"
    for file_name in FILE_NAMES:
        try:
            return Path(hf_hub_download(page, file_name))
        except (LocalEntryNotFoundError, OfflineModeIsEnabled):
            raise _missing(page, "the hub cannot be reached") from None
        except EntryNotFoundError:
            continue
        except GatedRepoError:
            raise _missing(page, "its licence has not been accepted with your account") from None
        except RepositoryNotFoundError:
            reason = "there is no such page, or your account may not see it"
        except (HfHubHTTPError, OSError) as error:
            reason = f"the hub answered: {str(error).strip().splitlines()[0][:120]}"
        break
    raise _missing(page, reason)


def _is_page(page: str) -> bool:
    """Whether the hub could have a page of this name."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(page)
    except HFValidationError:
        return False
    return "/" in page


def _missing(page: str, reason: str) -> NeurinoError:
    return NeurinoError(
        f"the weights of {page} are not in the cache and {reason}. Remedy: where there is a network, accept the "
        "licence on the model's page if it asks (DINOv3's is a click-through), run `hf auth login` and "
        f"`hf download {page}`, and copy the folder here; or give a downloaded .pth or .safetensors; or 'none' for "
        "training from scratch"
    )
