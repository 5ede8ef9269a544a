"""Counting, on the meta device, the memory that the same operations take on a GPU.

Tensors on the meta device have a shape, a type and a storage of a certain size, but no values: a training step on them
runs through PyTorch's own autograd in a fraction of a second, whatever the size of the network.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map


class LiveBytes(TorchDispatchMode):
    """While it is active, ``timeline`` gets the bytes of all live storages, each counted once, after every operation.

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
        kwargs = kwargs or {}
        result = self._shaped(func, args, kwargs)
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, Tensor):
                self._add(tensor)
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

    def _shaped(self, func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        """The operation's result. Blocks repeat, so that most results are known but for their storage: 4 times faster."""
        schema = func._schema
        if any(part.alias_info for part in (*schema.arguments, *schema.returns)):
            return func(*args, **kwargs)
        key = func, _described(args), _described(tuple(kwargs.items()))
        if key not in self._results:
            result = func(*args, **kwargs)
            if not all(tensor.is_meta for tensor in tree_leaves(result) if isinstance(tensor, Tensor)):
                return result
            self._results[key] = tree_map(_description, result)
            return result
        return tree_map(_made, self._results[key], is_leaf=lambda part: isinstance(part, _Description))


class _Description(tuple):
    """Shape, stride and type of a tensor."""

    __slots__ = ()


def _description(value: Any) -> Any:
    return _Description((value.shape, value.stride(), value.dtype)) if isinstance(value, Tensor) else value


def _made(value: Any) -> Any:
    if not isinstance(value, _Description):
        return value
    shape, stride, dtype = value
    return torch.empty_strided(shape, stride, dtype=dtype, device="meta")


def _described(value: Any) -> Any:
    """Arguments as a key: hashable, tensors by their description."""
    if isinstance(value, (tuple, list)):
        return tuple(_described(part) for part in value)
    return _description(value)


_HALF = frozenset(
    ["conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "linear", "matmul", "__matmul__", "mm", "bmm", "addmm", "baddbmm", "einsum", "prelu", "scaled_dot_product_attention"]
)
_SINGLE = frozenset(
    ["layer_norm", "group_norm", "rms_norm", "norm", "softmax", "log_softmax", "sum", "prod", "cumsum", "exp", "expm1", "log", "log1p", "pow", "__pow__", "rsqrt", "reciprocal", "softplus", "logsumexp", "cross_entropy", "nll_loss", "mse_loss", "l1_loss", "binary_cross_entropy_with_logits", "interpolate"]
)
_WIDEST = frozenset(["addcmul", "addcdiv", "dot", "grid_sample", "index_put", "scatter_add", "tensordot"])


class CudaOperations(TorchFunctionMode):
    """Makes operations on the meta device keep what they keep on CUDA.

    Attention is the fused kind, which never writes its weights down. With mixed precision, arguments are cast as
    ``torch.autocast("cuda")`` casts them, by PyTorch's list of operations; parameters once only.

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
        if self.mixed and kwargs.get("dtype") is None:
            cast = self._cast(name, (args, kwargs))
            if cast is not None:
                args, kwargs = tree_map(cast, (args, kwargs))
        if name == "scaled_dot_product_attention":
            return _fused_attention(*args[:3])
        return func(*args, **kwargs)

    def forget_casts(self) -> None:
        """As leaving autocast does: parameters' casts go, but for those that the backward pass needs."""
        self._halves.clear()

    def _cast(self, name: str, arguments: Any) -> Callable[[Any], Any] | None:
        if name in _HALF:
            return self._halved
        types = (
            {value.dtype for value in tree_leaves(arguments) if isinstance(value, Tensor)} if name in _WIDEST else ()
        )
        return _single if name in _SINGLE or torch.float32 in types else None

    def _halved(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dtype != torch.float32:
            return value
        if not isinstance(value, nn.Parameter):
            return value.half()
        if value not in self._halves:
            self._halves[value] = value.half()
        return self._halves[value]


def _single(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype == torch.float16 else value


def _fused_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    if query.dtype == torch.float16:
        return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]
    return torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, None, True)[0]
