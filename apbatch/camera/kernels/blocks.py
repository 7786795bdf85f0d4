"""Sixteen images at a time: the two pieces of vector code that a compiler does not find by itself.

A sparse map applied to one image jumps about in it. Applied to sixteen images whose amplitudes of one pixel lie side
by side, every jump serves sixteen. What remains is to turn images into that order and grids back, 16 x 16 amplitudes
at a time by shuffles in registers. The instructions are generic; the compiler fits them to the processor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

#: Images in a block.
BLOCK = 16

_FLOAT, _INDEX = ir.FloatType(), ir.IntType(32)
_VECTOR = ir.VectorType(_FLOAT, BLOCK)


def _mask(places: list[int]) -> Any:
    return ir.Constant(ir.VectorType(_INDEX, BLOCK), [ir.Constant(_INDEX, place) for place in places])


def _array(context: Any, builder: Any, kind: Any, array: Any) -> tuple[Any, Any]:
    """Return where a contiguous 2-D (or 1-D) array begins, and the length of its rows."""
    view = context.make_array(kind)(context, builder, array)
    return view.data, builder.extract_value(view.shape, kind.ndim - 1)


def _vector_at(builder: Any, data: Any, index: Any) -> Any:
    return builder.bitcast(builder.gep(data, [index]), _VECTOR.as_pointer())


def _transpose(
    typing_context: Any, source: Any, from_row: Any, from_col: Any, target: Any, to_row: Any, to_col: Any
) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def rows_at(which: int) -> list[Any]:
            data, stride = _array(context, builder, signature.args[which], arguments[which])
            place = builder.add(builder.mul(arguments[which + 1], stride), arguments[which + 2])
            places = []
            for _ in range(BLOCK):
                places.append(_vector_at(builder, data, place))
                place = builder.add(place, stride)
            return places

        rows = [builder.load(place, align=4) for place in rows_at(0)]
        step = BLOCK // 2
        while step:  # exchange the off-diagonal blocks of 8 x 8, then of 4 x 4, 2 x 2, 1 x 1
            low = _mask([k if not k & step else BLOCK + k - step for k in range(BLOCK)])
            high = _mask([k + step if not k & step else BLOCK + k for k in range(BLOCK)])
            for k in range(BLOCK):
                if not k & step:
                    one, other = rows[k], rows[k + step]
                    rows[k] = builder.shuffle_vector(one, other, low)
                    rows[k + step] = builder.shuffle_vector(one, other, high)
            step //= 2
        for row, place in zip(rows, rows_at(3), strict=True):
            builder.store(row, place, align=4)
        return context.get_dummy_value()

    return types.void(source, types.intp, types.intp, target, types.intp, types.intp), generate


def _weighted_sum(
    typing_context: Any, blocks: Any, pixel: Any, weight: Any, begin: Any, end: Any, target: Any, row: Any
) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        read, which, factor, write = (
            _array(context, builder, signature.args[k], arguments[k])[0] for k in (0, 1, 2, 5)
        )
        width = context.get_constant(types.intp, BLOCK)
        undefined = ir.Constant(_VECTOR, ir.Undefined)
        total = cgutils.alloca_once_value(builder, ir.Constant(_VECTOR, [ir.Constant(_FLOAT, 0.0)] * BLOCK))
        with cgutils.for_range_slice(builder, arguments[3], arguments[4], context.get_constant(types.intp, 1)) as (
            k,
            _,
        ):
            place = builder.mul(builder.load(builder.gep(which, [k])), width)
            value = builder.load(_vector_at(builder, read, place), align=4)
            one = builder.insert_element(undefined, builder.load(builder.gep(factor, [k])), ir.Constant(_INDEX, 0))
            every = builder.shuffle_vector(one, undefined, _mask([0] * BLOCK))
            builder.store(builder.fadd(builder.load(total), builder.fmul(every, value)), total)
        builder.store(builder.load(total), _vector_at(builder, write, builder.mul(arguments[6], width)), align=4)
        return context.get_dummy_value()

    kinds = (blocks, pixel, weight, types.intp, types.intp, target, types.intp)
    return types.void(*kinds), generate


#: ``transpose(source, from_row, from_col, target, to_row, to_col)``: the 16 x 16 elements of `source` from there on,
#: transposed, become those of `target` from there on. Contiguous float32 arrays of two dimensions. For use in kernels;
#: nothing is checked.
transpose = cast(Callable[..., None], intrinsic(_transpose))
#: ``weighted_sum(blocks, pixel, weight, begin, end, target, row)``: row `row` of `target` (float32, n x 16) becomes the
#: sum over k of ``weight[k]`` (float32) times row ``pixel[k]`` (int64) of `blocks` (float32, n x 16), for k from
#: `begin` up to `end`. For use in kernels; nothing is checked.
weighted_sum = cast(Callable[..., None], intrinsic(_weighted_sum))
