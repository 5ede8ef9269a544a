"""Counting, on the meta device, the memory that the same operations take on a GPU.

Tensors on the meta device have a shape, a type and a storage of a certain size, but no values: a training step on them
runs through PyTorch's own autograd in a fraction of a second, whatever the size of the network.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map


class LiveBytes(TorchDispatchMode):
    """While active, adds to ``timeline``, after each operation, the bytes of all live storages, each counted once.

    Args:
        there: tensors that exist from the start (parameters, buffers).
    """

    def __init__(self, there: Iterable[Tensor]) -> None:
        super().__init__()
        self.timeline: list[int] = []
        self._now = 0
        self._alive: dict[int, weakref.ref] = {}
        self._results: dict[Any, Any] = {}
        for tensor in there:
            self._add(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = self._result(func, args, kwargs or {})
        for value in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(value, Tensor) and value.is_meta:
                self._add(value)
        self.timeline.append(self._now)
        return result

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._alive:
            self._now += size
            self._alive[key] = weakref.ref(storage, lambda _: self._remove(key, size))

    def _remove(self, key: int, size: int) -> None:
        del self._alive[key]
        self._now -= size

    def _result(self, func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        """Blocks repeat: what an operation gives for such arguments is mostly known, which is four times faster."""
        if any(part.alias_info for part in (*func._schema.arguments, *func._schema.returns)):
            return func(*args, **kwargs)
        key = func, _described(args), _described(tuple(kwargs.items()))
        if key in self._results:
            return _made(self._results[key])
        result = func(*args, **kwargs)
        if all(value.is_meta for value in tree_leaves(result) if isinstance(value, Tensor)):
            self._results[key] = _described(result)
        return result


class _Description(NamedTuple):
    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype


def _described(value: Any) -> Any:
    """The value, hashable, with descriptions for tensors."""
    if isinstance(value, (tuple, list)):
        return tuple(_described(part) for part in value)
    return _Description(value.shape, value.stride(), value.dtype) if isinstance(value, Tensor) else value


def _made(described: Any) -> Any:
    if isinstance(described, _Description):
        return torch.empty_strided(described.shape, described.stride, dtype=described.dtype, device="meta")
    return tuple(_made(part) for part in described) if isinstance(described, tuple) else described


# The operations, by name, that torch.autocast("cuda") runs in float16, in float32, and in the widest type given.
_HALF = """conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d linear matmul __matmul__ mm bmm addmm
    baddbmm einsum prelu scaled_dot_product_attention"""
_SINGLE = """layer_norm group_norm rms_norm norm softmax log_softmax sum prod cumsum exp log pow __pow__ rsqrt
    reciprocal logsumexp cross_entropy nll_loss mse_loss l1_loss binary_cross_entropy_with_logits interpolate"""
_WIDEST = "addcmul addcdiv dot grid_sample index_put scatter_add tensordot"
_CAST = {
    name: dtype
    for names, dtype in ((_HALF, torch.float16), (_SINGLE, torch.float32), (_WIDEST, None))
    for name in names.split()
}


class CudaOperations(TorchFunctionMode):
    """Makes operations on the meta device keep what they keep on CUDA.

    Attention is the fused kind, which never writes its weights down. With mixed precision, arguments are cast as
    ``torch.autocast("cuda")`` casts them, parameters once only.

    Args:
        mixed: with mixed precision (float16).
    """

    def __init__(self, mixed: bool) -> None:
        super().__init__()
        self.mixed = mixed
        self._halves: dict[nn.Parameter, Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if self.mixed and name in _CAST and kwargs.get("dtype") is None:
            found = {value.dtype for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)}
            dtype = _CAST[name] or (torch.float32 if torch.float32 in found else torch.float16)
            args, kwargs = tree_map(lambda value: self._cast(value, dtype), (args, kwargs))
        if name == "scaled_dot_product_attention":
            return _fused_attention(*args[:3])
        return func(*args, **kwargs)

    def forget_casts(self) -> None:
        """As leaving autocast does: parameters' casts go, but for those that the backward pass needs."""
        self._halves.clear()

    def _cast(self, value: Any, dtype: torch.dtype) -> Any:
        if not isinstance(value, Tensor) or value.dtype not in (torch.float16, torch.float32) or value.dtype == dtype:
            return value
        if not isinstance(value, nn.Parameter):
            return value.to(dtype)
        if value not in self._halves:
            self._halves[value] = value.half()
        return self._halves[value]


def _fused_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    if query.dtype == torch.float16:
        return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]
    return torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, None, True)[0]
