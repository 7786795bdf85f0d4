"""Eight numbers at a time, inside numba: a vector type and the few operations that the kernels on images need.

numba leaves sums of floating-point numbers and loops with few turns as they are, one number after the other. Here the
LLVM code is written out in vectors, which LLVM turns into what the processor has: AVX-512 compares, masks and
compressions, two or four shorter vectors, or single numbers. Results are the same on every processor but for the
rounding of sums, which depends on the order written here alone.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import types
from numba.core import cgutils
from numba.core.extending import intrinsic, models, overload, register_model

#: Numbers in a `Lanes` value, pixels compared by one call of `append_at_least`.
LANES, PIXELS = 8, 32

_I1, _I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
_F32, _F64 = ir.FloatType(), ir.DoubleType()
_DOUBLES, _FLAGS = ir.VectorType(_F64, LANES), ir.VectorType(_I1, LANES)
_FLOATS, _NUMBERS, _BYTES, _CHOSEN = (ir.VectorType(kind, PIXELS) for kind in (_F32, _I16, _I8, _I1))


#: Whether the processor has an instruction that stores chosen elements of a vector side by side.
_COMPRESSES = get_host_cpu_features().get("avx512vbmi2", False)


def code(function: Any) -> Any:
    """Register a function that writes LLVM code; for whom it calls it has no types."""
    return intrinsic(function)


class LanesType(types.Type):  # type: ignore[misc]
    """Eight float64."""

    def __init__(self) -> None:
        super().__init__(name="Lanes")


class FlagsType(types.Type):  # type: ignore[misc]
    """Eight answers of a comparison."""

    def __init__(self) -> None:
        super().__init__(name="Flags")


LANES_TYPE, FLAGS_TYPE = LanesType(), FlagsType()


@register_model(LanesType)
class _LanesModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _DOUBLES)


@register_model(FlagsType)
class _FlagsModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _FLAGS)


def address_of(context: Any, builder: Any, kind: Any, array: Any, index: Any, vector: Any) -> Any:
    """Return where ``array[index]`` is, as the address of a vector.

    Parameters
    ----------
    context, builder : numba's and LLVM's
        What numba gives to code generators.
    kind : numba.types.Array
        Type of the array.
    array, index : LLVM value
        The array and the number of an element.
    vector : llvmlite.ir.VectorType
        What the address is of.
    """
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


def spread_over(builder: Any, value: Any, vector: ir.VectorType) -> Any:
    """Return a vector of one value only.

    Parameters
    ----------
    builder : llvmlite.ir.IRBuilder
    value : LLVM value
    vector : llvmlite.ir.VectorType
        Type of the result.
    """
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_I32, vector.count), [0] * vector.count))


def call_of(builder: Any, name: str, result: ir.Type, arguments: list[Any]) -> Any:
    """Write the call of one of LLVM's own functions, and return its value.

    Parameters
    ----------
    builder : llvmlite.ir.IRBuilder
    name : str
        Such as ``llvm.copysign.v8f64``.
    result : llvmlite.ir.Type
    arguments : list of LLVM values
    """
    function = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), arguments)


@code
def lanes(typing: Any, array: Any, index: Any) -> Any:
    """Return ``array[index : index + 8]`` of a contiguous float64 array; it must be that long."""

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(address_of(context, builder, signature.args[0], args[0], args[1], _DOUBLES), align=8)

    return LANES_TYPE(array, types.intp), write


@code
def put_lanes(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Set ``array[index : index + 8]`` of a contiguous float64 array; it must be that long."""

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], address_of(context, builder, signature.args[0], args[0], args[1], _DOUBLES), align=8)
        return context.get_dummy_value()

    return types.void(array, types.intp, LANES_TYPE), write


@code
def spread(typing: Any, value: Any) -> Any:
    """Return eight times the same number."""

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return spread_over(builder, args[0], _DOUBLES)

    return LANES_TYPE(types.float64), write


@code
def total(typing: Any, value: Any) -> Any:
    """Return the sum of the eight."""

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        parts = args[0]
        for width in (4, 2, 1):
            halves = [_part(builder, parts, start, width) for start in (0, width)]
            parts = builder.fadd(*halves)
        return builder.extract_element(parts, ir.Constant(_I32, 0))

    return types.float64(LANES_TYPE), write


def _part(builder: Any, vector: Any, start: int, width: int) -> Any:
    places = ir.Constant(ir.VectorType(_I32, width), list(range(start, start + width)))
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), places)


@code
def two_largest(typing: Any, first: Any, second: Any) -> Any:
    """Return the largest and second largest number of lanes that hold the two largest of their own."""

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        high, low = args
        for width in (4, 2, 1):
            left, right = (_part(builder, high, start, width) for start in (0, width))
            lows = _larger(builder, *(_part(builder, low, start, width) for start in (0, width)))
            high, low = _larger(builder, left, right), _larger(builder, _smaller(builder, left, right), lows)
        zero = ir.Constant(_I32, 0)
        pair = [builder.extract_element(vector, zero) for vector in (high, low)]
        return context.make_tuple(builder, signature.return_type, pair)

    return types.UniTuple(types.float64, 2)(LANES_TYPE, LANES_TYPE), write


def _larger(builder: Any, left: Any, right: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", left, right), left, right)


def _smaller(builder: Any, left: Any, right: Any) -> Any:
    return builder.select(builder.fcmp_ordered("<", left, right), left, right)


@code
def larger(typing: Any, left: Any, right: Any) -> Any:
    """Return the larger one in each lane, the right one where one is NaN."""

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _larger(builder, *args)

    return LANES_TYPE(LANES_TYPE, LANES_TYPE), write


@code
def smaller(typing: Any, left: Any, right: Any) -> Any:
    """Return the smaller one in each lane, the right one where one is NaN."""

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _smaller(builder, *args)

    return LANES_TYPE(LANES_TYPE, LANES_TYPE), write


@code
def choose(typing: Any, flags: Any, yes: Any, no: Any) -> Any:
    """Return `yes` in lanes whose flag is set, `no` in the others."""

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(*args)

    return LANES_TYPE(FLAGS_TYPE, LANES_TYPE, LANES_TYPE), write


@code
def root(typing: Any, value: Any) -> Any:
    """Return the square roots."""

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return call_of(builder, "llvm.sqrt.v8f64", _DOUBLES, [args[0]])

    return LANES_TYPE(LANES_TYPE), write


@code
def magnitude(typing: Any, value: Any) -> Any:
    """Return the absolute values."""

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return call_of(builder, "llvm.fabs.v8f64", _DOUBLES, [args[0]])

    return LANES_TYPE(LANES_TYPE), write


@code
def signed(typing: Any, value: Any, sign: Any) -> Any:
    """Return the values with the signs of others."""

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return call_of(builder, "llvm.copysign.v8f64", _DOUBLES, list(args))

    return LANES_TYPE(LANES_TYPE, LANES_TYPE), write


def _arithmetic(operation: Any, instruction: str) -> None:
    @code
    def apply(typing: Any, left: Any, right: Any) -> Any:
        def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return getattr(builder, instruction)(*args, flags=("contract",))

        return LANES_TYPE(LANES_TYPE, LANES_TYPE), write

    @overload(operation, strict=False)
    def typed(left: Any, right: Any) -> Any:
        if left is LANES_TYPE and right is LANES_TYPE:
            return lambda left, right: apply(left, right)
        if left is LANES_TYPE and isinstance(right, (types.Float, types.Integer)):
            return lambda left, right: apply(left, spread(right))
        if right is LANES_TYPE and isinstance(left, (types.Float, types.Integer)):
            return lambda left, right: apply(spread(left), right)
        return None


for _operation, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _arithmetic(_operation, _instruction)


def _comparison(operation: Any, sign: str) -> None:
    @code
    def apply(typing: Any, left: Any, right: Any) -> Any:
        def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.fcmp_ordered(sign, *args)

        return FLAGS_TYPE(LANES_TYPE, LANES_TYPE), write

    @overload(operation, strict=False)
    def typed(left: Any, right: Any) -> Any:
        if left is LANES_TYPE and right is LANES_TYPE:
            return lambda left, right: apply(left, right)
        if left is LANES_TYPE and isinstance(right, (types.Float, types.Integer)):
            return lambda left, right: apply(left, spread(right))
        return None


for _operation, _sign in ((operator.gt, ">"), (operator.le, "<=")):
    _comparison(_operation, _sign)


@code
def append_at_least(
    typing: Any, image: Any, start: Any, valid: Any, thresholds: Any, level: Any, number: Any, out: Any, count: Any
) -> Any:
    """Compare 32 pixels with thresholds and append the numbers of those at or above; return how many these are.

    Pixels are ``image[start : start + valid]``, float32, at most 32, their thresholds ``thresholds[level : level +
    valid]`` and their numbers `number` and following; `out` (uint16) needs room for 32 from `count` on: those not
    needed may be overwritten. A comparison with NaN is false.
    """

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        there = _first(builder, args[2])
        pixels = _some(builder, address_of(context, builder, kinds[0], args[0], args[1], _FLOATS), there, 4)
        levels = _some(builder, address_of(context, builder, kinds[3], args[3], args[4], _FLOATS), there, 4)
        reached = builder.and_(there, builder.fcmp_ordered(">=", pixels, levels))
        return _append(builder, reached, args[5], address_of(context, builder, kinds[6], args[6], args[7], _NUMBERS))

    return types.intp(image, types.intp, types.intp, thresholds, types.intp, types.intp, out, types.intp), write


@code
def append_positive(
    typing: Any, image: Any, start: Any, valid: Any, mask: Any, place: Any, number: Any, out: Any, count: Any
) -> Any:
    """Append the numbers of those of 32 pixels that a mask keeps and whose amplitude is above 0 and finite.

    As `append_at_least`, with ``mask[place : place + valid]`` of booleans.
    """

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        there = _first(builder, args[2])
        pixels = _some(builder, address_of(context, builder, kinds[0], args[0], args[1], _FLOATS), there, 4)
        keep = _some(builder, address_of(context, builder, kinds[3], args[3], args[4], _BYTES), there, 1)
        flags = builder.icmp_unsigned("!=", keep, ir.Constant(_BYTES, [0] * PIXELS))
        above = builder.fcmp_ordered(">", pixels, ir.Constant(_FLOATS, [0.0] * PIXELS))
        finite = builder.fcmp_ordered("<", pixels, ir.Constant(_FLOATS, [float("inf")] * PIXELS))
        lit = builder.and_(flags, builder.and_(above, finite))
        return _append(builder, lit, args[5], address_of(context, builder, kinds[6], args[6], args[7], _NUMBERS))

    return types.intp(image, types.intp, types.intp, mask, types.intp, types.intp, out, types.intp), write


def _first(builder: Any, count: Any) -> Any:
    """Return flags of which the first `count` are set."""
    limit = spread_over(builder, builder.trunc(count, _I16), _NUMBERS)
    return builder.icmp_unsigned("<", ir.Constant(_NUMBERS, list(range(PIXELS))), limit)


def _some(builder: Any, address: Any, which: Any, align: int) -> Any:
    """Load some elements of a vector, 0 for the others, which need not be memory."""
    vector = address.type.pointee
    kind = {_FLOATS: "f32", _BYTES: "i8"}[vector]
    zero = ir.Constant(vector, [0] * PIXELS)
    arguments = [address, ir.Constant(_I32, align), which, zero]
    return call_of(builder, f"llvm.masked.load.v{PIXELS}{kind}.p0", vector, arguments)


def _append(builder: Any, flags: Any, number: Any, address: Any) -> Any:
    """Store the numbers of the chosen pixels side by side; return how many they are."""
    bits = builder.bitcast(flags, ir.IntType(PIXELS))
    (_append_at_once if _COMPRESSES else _append_each)(builder, flags, bits, number, address)
    return builder.zext(builder.ctpop(bits), _I64)


def _append_at_once(builder: Any, flags: Any, bits: Any, number: Any, address: Any) -> None:
    first = spread_over(builder, builder.trunc(number, _I16), _NUMBERS)
    numbers = builder.add(first, ir.Constant(_NUMBERS, list(range(PIXELS))))
    zero = ir.Constant(_NUMBERS, [0] * PIXELS)
    name = f"llvm.experimental.vector.compress.v{PIXELS}i16"
    builder.store(call_of(builder, name, _NUMBERS, [numbers, flags, zero]), address, align=2)


def _append_each(builder: Any, flags: Any, bits: Any, number: Any, address: Any) -> None:
    """Walk over the bits that are set: without an instruction that compresses, LLVM would store all 32, one by one."""
    first = builder.bitcast(address, _I16.as_pointer())
    rest, place = (cgutils.alloca_once_value(builder, value) for value in (bits, first))
    more, one, after = (builder.append_basic_block(name) for name in ("more", "one", "after"))
    builder.branch(more)
    builder.position_at_end(more)
    left = builder.load(rest)
    builder.cbranch(builder.icmp_unsigned("!=", left, ir.Constant(left.type, 0)), one, after)
    builder.position_at_end(one)
    at = builder.load(place)
    lowest = builder.trunc(builder.cttz(left, ir.Constant(_I1, 1)), _I16)
    builder.store(builder.add(lowest, builder.trunc(number, _I16)), at, align=2)
    builder.store(builder.gep(at, [ir.Constant(_I64, 1)]), place)
    builder.store(builder.and_(left, builder.sub(left, ir.Constant(left.type, 1))), rest)
    builder.branch(more)
    builder.position_at_end(after)


@code
def to_line(typing: Any, array: Any, index: Any) -> Any:
    """Return how many bytes it is from ``array[index]`` to where a line of the cache begins, 0 to 63."""

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = builder.ptrtoint(address_of(context, builder, signature.args[0], args[0], args[1], _I8), _I64)
        return builder.and_(builder.neg(address), ir.Constant(_I64, 63))

    return types.intp(array, types.intp), write


@code
def write_past_cache(typing: Any, array: Any, index: Any, source: Any, start: Any) -> Any:
    """Set 64 bytes, a whole line, from ``array[index]`` on to ``source[start : start + 64]``, without reading them.

    A line that is written as usual is read from memory before, which here would be half of the traffic.
    """

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        line = ir.VectorType(_I8, 64)
        value = builder.load(address_of(context, builder, signature.args[2], args[2], args[3], line), align=1)
        store = builder.store(value, address_of(context, builder, signature.args[0], args[0], args[1], line), align=64)
        store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(_I32, 1)]))
        return context.get_dummy_value()

    return types.void(array, types.intp, source, types.intp), write


@code
def one_by_one(typing: Any) -> Any:
    """Keep LLVM from making vectors of the loop in which this stands; it costs nothing.

    Vectors of numbers that lie here and there are gathered, which is slower than one number after the other.
    """

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.asm(ir.FunctionType(ir.VoidType(), []), "", "", [], side_effect=True)
        return context.get_dummy_value()

    return types.void(), write


@code
def lowest_bit(typing: Any, bits: Any) -> Any:
    """Return the place of the lowest bit that is set; there must be one."""

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(_I1, 1))

    return types.uint64(types.uint64), write
