"""Eight words of 64 bits at a time, inside numba: sets of pixels of eight images side by side.

As `apbatch.camera.kernels.vector` for numbers: LLVM code in vectors, which becomes what the processor has.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.extending import models, overload, register_model

from apbatch.camera.kernels.vector import LANES, address_of, call_of, code, spread_over

_WORD = ir.IntType(64)
_WORDS = ir.VectorType(_WORD, LANES)
_BYTES = ir.VectorType(ir.IntType(8), 64)


class WordsType(types.Type):  # type: ignore[misc]
    """Eight uint64."""

    def __init__(self) -> None:
        super().__init__(name="Words")


WORDS_TYPE = WordsType()


@register_model(WordsType)
class _WordsModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _WORDS)


@code
def words(typing: Any, array: Any, index: Any) -> Any:
    """Return ``array[index : index + 8]`` of a contiguous uint64 array; it must be that long."""

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(address_of(context, builder, signature.args[0], args[0], args[1], _WORDS), align=8)

    return WORDS_TYPE(array, types.intp), write


@code
def put_words(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Set ``array[index : index + 8]`` of a contiguous uint64 array; it must be that long."""

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], address_of(context, builder, signature.args[0], args[0], args[1], _WORDS), align=8)
        return context.get_dummy_value()

    return types.void(array, types.intp, WORDS_TYPE), write


@code
def spread_word(typing: Any, value: Any) -> Any:
    """Return eight times the same word."""

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return spread_over(builder, args[0], _WORDS)

    return WORDS_TYPE(types.uint64), write


@code
def ones(typing: Any, value: Any) -> Any:
    """Return how many bits of each word are set."""

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return call_of(builder, "llvm.ctpop.v8i64", _WORDS, [args[0]])

    return WORDS_TYPE(WORDS_TYPE), write


def _operation(operation: Any, instruction: str) -> None:
    @code
    def apply(typing: Any, left: Any, right: Any) -> Any:
        def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return getattr(builder, instruction)(*args)

        return WORDS_TYPE(WORDS_TYPE, WORDS_TYPE), write

    @overload(operation, strict=False)
    def typed(left: Any, right: Any) -> Any:
        if left is WORDS_TYPE and right is WORDS_TYPE:
            return lambda left, right: apply(left, right)
        if left is WORDS_TYPE and isinstance(right, types.Integer):
            return lambda left, right: apply(left, spread_word(right))
        return None


for _name, _instruction in (
    (operator.and_, "and_"),
    (operator.or_, "or_"),
    (operator.xor, "xor"),
    (operator.lshift, "shl"),
    (operator.rshift, "lshr"),
    (operator.add, "add"),
):
    _operation(_name, _instruction)


@code
def bits_of(typing: Any, array: Any, index: Any, which: Any) -> Any:
    """Return a word whose k-th bit tells whether ``array[index + k] & which`` is not 0, of 64 elements of uint8."""

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = address_of(context, builder, signature.args[0], args[0], args[1], _BYTES)
        mask = spread_over(builder, builder.trunc(args[2], _BYTES.element), _BYTES)
        common = builder.and_(builder.load(place, align=1), mask)
        return builder.bitcast(builder.icmp_unsigned("!=", common, ir.Constant(_BYTES, [0] * 64)), _WORD)

    return types.uint64(array, types.intp, types.intp), write


@code
def clear_bytes(typing: Any, array: Any, index: Any) -> Any:
    """Set ``array[index : index + 64]`` of uint8 to 0."""

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = address_of(context, builder, signature.args[0], args[0], args[1], _BYTES)
        builder.store(ir.Constant(_BYTES, [0] * 64), place, align=1)
        return context.get_dummy_value()

    return types.void(array, types.intp), write
