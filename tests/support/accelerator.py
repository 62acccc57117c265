"""A device of its own for tests: its tensors lie in this process, but whoever reads them from outside is counted."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

# A type of device that torch knows by name and has no code for.
DEVICE = torch.device("lazy")
aten = torch.ops.aten


class Far(Tensor):
    """A tensor on the device; `near` holds its numbers."""

    near: Tensor

    @staticmethod
    def __new__(cls, near: Tensor) -> "Far":
        made: Far = torch.Tensor._make_wrapper_subclass(
            cls,
            near.size(),
            strides=near.stride(),
            storage_offset=near.storage_offset(),
            dtype=near.dtype,
            device=DEVICE,
        )
        made.near = near
        return made

    @property
    def data(self) -> Tensor:
        return Tensor.data.__get__(self)

    @data.setter
    def data(self, value: "Far") -> None:
        Tensor.data.__set__(self, value)
        self.near = value.near

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} on the device outside of `Accelerator`")


class Accelerator(TorchDispatchMode):
    """Runs what is asked of the device, and counts `down` (the host waits for a number), `up` and `launches`.

    `largest`: most bytes that came down at once. As on a GPU, no operation takes tensors from both sides, scalars of
    the host apart.
    """

    def __init__(self) -> None:
        super().__init__()
        self.down = self.up = self.launches = self.largest = 0

    def _came_down(self, near: Tensor) -> None:
        self.down += 1
        self.largest = max(self.largest, near.nbytes)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        leaves, tree = tree_flatten((args, kwargs))
        far = [leaf for leaf in leaves if isinstance(leaf, Far)]
        near = [leaf for leaf in leaves if isinstance(leaf, Tensor) and not isinstance(leaf, Far)]
        target = kwargs.pop("device", None)
        moves = func in (aten._to_copy.default, aten.copy_.default)
        goes_up = target == DEVICE or (func is aten.copy_.default and isinstance(args[0], Far))
        if not far and not goes_up:
            return func(*args, **kwargs) if target is None else func(*args, **kwargs, device=target)
        if not moves and any(leaf.ndim for leaf in near):
            raise RuntimeError(f"{func} takes tensors of the device and of the host")
        own_args, own_kwargs = tree_unflatten([leaf.near if isinstance(leaf, Far) else leaf for leaf in leaves], tree)
        own_kwargs.pop("device", None)
        result = func(*own_args, **own_kwargs)
        comes_down = func is aten._local_scalar_dense.default or (
            moves and far and ((target is not None and target != DEVICE) or not isinstance(args[0], Far))
        )
        if comes_down:
            self._came_down(far[-1].near)
            return result
        if moves and near:
            self.up += 1
        else:
            self.launches += 1
        if func is aten.copy_.default or "out" in kwargs:
            return args[0] if func is aten.copy_.default else kwargs["out"]
        wrapped = {id(leaf.near): leaf for leaf in far}
        return tree_map_only(Tensor, lambda each: wrapped[id(each)] if id(each) in wrapped else Far(each), result)
