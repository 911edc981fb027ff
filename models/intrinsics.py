"""The few machine operations that Numba has no words for, as portable LLVM vector code.

LLVM turns them into one gather and one compare where the processor has them, and into scalar loads
elsewhere; there is no C compiler and no processor-specific code in this project.
"""

# ruff: noqa: ARG001 - the signatures are Numba's
from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from models.layout import SPLITS

_I1, _I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
_F32, _F64 = ir.FloatType(), ir.DoubleType()
_MASK = ir.VectorType(_I1, SPLITS)


def _pointer(builder, address, type_):
    return builder.inttoptr(address, type_.as_pointer())


def _load(builder, address, type_, align):
    load = builder.load(_pointer(builder, address, type_))
    load.align = align
    return load


def _row_values(builder, line, row):
    """Gather the row's values of the eight features that a line names.

    One by one: as fast as the processor's own gather where it has one, and it needs none.
    """
    values = ir.Constant(ir.VectorType(_F32, SPLITS), ir.Undefined)
    for lane in range(SPLITS):
        feature = _load(builder, builder.add(line, _I64(32 + 2 * lane)), _I16, 2)
        address = builder.add(row, builder.shl(builder.zext(feature, _I64), _I64(2)))
        values = builder.insert_element(values, _load(builder, address, _F32, 4), _I32(lane))
    return values


def _to_u64(builder, mask):
    return builder.zext(builder.bitcast(mask, _I8), _I64)


@intrinsic
def right_mask(typingctx, line, row):
    """(line address, row address) -> bits of the splits where the row goes right; NaN goes left."""

    def codegen(context, builder, signature, args):
        line, row = args
        values = _row_values(builder, line, row)
        thresholds = _load(builder, line, ir.VectorType(_F32, SPLITS), 64)
        return _to_u64(builder, builder.fcmp_ordered(">", values, thresholds))

    return types.uint64(types.uint64, types.uint64), codegen


@intrinsic
def exits_left(typingctx, shape, mask):
    """(address of a shape, bits of the splits where the row goes right) -> bits of the exits left."""

    def codegen(context, builder, signature, args):
        shape, mask = args
        right = builder.bitcast(builder.trunc(mask, _I8), _MASK)
        words = ir.VectorType(_I16, SPLITS)
        every = ir.Constant(words, [-1] * SPLITS)
        left = builder.select(right, _load(builder, shape, words, 2), every)
        kind = ir.FunctionType(_I16, [words])
        reduce = builder.module.declare_intrinsic("llvm.vector.reduce.and.v8i16", (), kind)
        own = _load(builder, builder.add(shape, _I64(2 * SPLITS)), _I16, 2)
        return builder.zext(builder.and_(own, builder.call(reduce, [left])), _I64)

    return types.uint64(types.uint64, types.uint64), codegen


@intrinsic
def missing_mask(typingctx, line, row):
    """(line address, row address) -> bits of the splits whose feature is NaN in this row."""

    def codegen(context, builder, signature, args):
        line, row = args
        values = _row_values(builder, line, row)
        return _to_u64(builder, builder.fcmp_unordered("uno", values, values))

    return types.uint64(types.uint64, types.uint64), codegen


@intrinsic
def prefetch(typingctx, address):
    """Ask for the cache line at an address; harmless wherever it points."""

    def codegen(context, builder, signature, args):
        pointer = _pointer(builder, args[0], _I8)
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, _I32, _I32, _I32])
        function = builder.module.declare_intrinsic("llvm.prefetch", [pointer.type], kind)
        builder.call(function, [pointer, _I32(0), _I32(3), _I32(1)])
        return context.get_dummy_value()

    return types.void(types.uint64), codegen


@intrinsic
def popcount(typingctx, word):
    """Count the bits that are set."""

    def codegen(context, builder, signature, args):
        return builder.ctpop(args[0])

    return types.uint64(types.uint64), codegen


@intrinsic
def trailing_zeros(typingctx, word):
    """Count the bits below the lowest one that is set."""

    def codegen(context, builder, signature, args):
        return builder.cttz(args[0], _I1(0))

    return types.uint64(types.uint64), codegen


@intrinsic
def leading_zeros(typingctx, word):
    """Count the bits above the highest one that is set."""

    def codegen(context, builder, signature, args):
        return builder.ctlz(args[0], _I1(0))

    return types.uint64(types.uint64), codegen


def _loader(llvm_type, align):
    def codegen(context, builder, signature, args):
        value = _load(builder, args[0], llvm_type, align)
        return builder.zext(value, _I64) if llvm_type in (_I8, _I16, _I32) else value

    return codegen


@intrinsic
def load_u8(typingctx, address):
    """Read a byte."""
    return types.uint64(types.uint64), _loader(_I8, 1)


@intrinsic
def load_u16(typingctx, address):
    """Read two bytes, aligned."""
    return types.uint64(types.uint64), _loader(_I16, 2)


@intrinsic
def load_u32(typingctx, address):
    """Read four bytes, aligned."""
    return types.uint64(types.uint64), _loader(_I32, 4)


@intrinsic
def load_f32(typingctx, address):
    """Read a float32, aligned."""
    return types.float32(types.uint64), _loader(_F32, 4)


@intrinsic
def load_f64(typingctx, address):
    """Read a float64, aligned."""
    return types.float64(types.uint64), _loader(_F64, 8)


@intrinsic
def store_u32(typingctx, address, value):
    """Write four bytes, aligned."""

    def codegen(context, builder, signature, args):
        address, value = args
        builder.store(builder.trunc(value, _I32), _pointer(builder, address, _I32), align=4)
        return context.get_dummy_value()

    return types.void(types.uint64, types.uint64), codegen


@intrinsic
def as_f64(typingctx, word):
    """Read a word's bits as a float64."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], _F64)

    return types.float64(types.uint64), codegen
